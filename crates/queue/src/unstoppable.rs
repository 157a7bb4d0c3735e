//! Work that ends although its caller went away.
//!
//! A handler's future is dropped when its client hangs up. Between a write and what must follow it that
//! must not stop anything: an accepted run would be leased to nobody, a deleted app would keep its
//! replicas, a cancelled run would go on.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// A future that, dropped half-way, goes on as a task. Costs no task otherwise.
pub struct Unstoppable<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    begun: bool,
}

impl<T: Send + 'static> fmt::Debug for Unstoppable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unstoppable").field("begun", &self.begun).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Unstoppable<T> {
    /// The work; it begins when it is first waited for.
    pub fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work)), begun: false }
    }
}

impl<T: Send + 'static> Future for Unstoppable<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.begun = true;
        // Taken out while it is polled: work that panics is not tried again.
        let mut work = self.work.take().expect("nobody polls a future again after its end");
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Unstoppable<T> {
    fn drop(&mut self) {
        if self.begun
            && let Some(work) = self.work.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_has_begun_ends_although_nobody_waits() {
        let (go, gone) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let mut work = Box::pin(Unstoppable::new(async move {
            gone.await.unwrap();
            done.send(()).unwrap();
        }));
        assert!(futures_util::poll!(work.as_mut()).is_pending());
        drop(work);
        go.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), is_done).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_never_began_never_happens() {
        let (done, is_done) = oneshot::channel::<()>();
        drop(Unstoppable::new(async move { done.send(()).unwrap() }));
        assert!(is_done.await.is_err());
    }
}
