//! The writer's rest while only notes wait: they gather without waking it, and whoever begins to wait does.
//!
//! A blocking receive would wake it for each of them, thousands of times a second, each time in place of a thread
//! that carries requests.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::{self, Thread};
use std::time::Instant;

/// Shared by the writer, which rests, and those who disturb it.
#[derive(Default)]
pub(crate) struct Rest {
    resting: AtomicBool,
    writer: OnceLock<Thread>,
}

impl Rest {
    /// Rests until `until`, or until [`Rest::disturb`]; what `look` finds, if anything. For one thread only.
    pub(crate) fn until<T>(&self, until: Instant, look: impl Fn() -> Option<T>) -> Option<T> {
        self.writer.get_or_init(thread::current);
        self.resting.store(true, Ordering::Relaxed);
        // With the fence of `disturb`: either this look finds what was sent, or the sender sees the rest.
        fence(Ordering::SeqCst);
        let mut found = look();
        while found.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
            found = look();
        }
        self.resting.store(false, Ordering::Relaxed);
        found
    }

    /// Ends a rest. To be called after something was sent that somebody waits for.
    pub(crate) fn disturb(&self) {
        fence(Ordering::SeqCst);
        if self.resting.load(Ordering::Relaxed)
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_sent_before_or_in_a_rest_ends_it_and_nothing_is_missed() {
        let rest = Arc::new(Rest::default());
        let (sender, receiver) = channel();
        let disturbing = {
            let rest = Arc::clone(&rest);
            thread::spawn(move || {
                for number in 0..20_000 {
                    sender.send(number).unwrap();
                    rest.disturb();
                }
            })
        };
        let began = Instant::now();
        for number in 0..20_000 {
            let found = rest.until(Instant::now() + LONG, || receiver.try_recv().ok());
            assert_eq!(found, Some(number));
        }
        assert!(began.elapsed() < LONG, "a rest was slept out although something was there");
        disturbing.join().unwrap();
    }

    #[test]
    fn a_rest_ends_by_itself() {
        let rest = Rest::default();
        assert_eq!(rest.until(Instant::now() + Duration::from_millis(1), || None::<()>), None);
    }
}
