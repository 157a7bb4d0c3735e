//! Bodies as large as they may be: whoever serves connections has no work with them.

use std::time::Duration;

use http::StatusCode;
use rustix::time::{ClockId, clock_gettime};

use crate::fake::{self, Memory};
use crate::{get, page, record, send, text};

/// What this thread, which serves all connections here, has worked.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("below a second"))
}

#[tokio::test]
async fn bodies_are_laid_out_compared_and_searched_beside_the_threads_that_serve() {
    let router = fake::room(&Memory::new(), "https://postback.example").router();
    let bodies: Vec<String> = (0..16)
        .map(|first| {
            let items: Vec<String> =
                (0..9_000).map(|item| format!("{{\"key\":\"{first} {item}\"}}")).collect();
            format!("[{}]", items.join(","))
        })
        .collect();
    assert!(bodies.iter().all(|body| body.len() < 256 << 10), "larger ones are not laid out");
    for body in &bodies {
        record(&router, body.clone()).await;
    }
    let began = worked();
    let laid_out = pages::pretty(&bodies[0], 512 << 10).unwrap();
    let one = worked() - began;
    assert!(laid_out.len() > bodies[0].len());
    for (path, said, bodies) in [
        (page(""), "15 8", 4),
        (format!("{}&q=7%208999%22", page("")), "7 8999", 4),
        (page("/requests/1"), "0 8999", 1),
        (format!("{}&old=1&new=2", page("/compare")), "0 3", 2),
    ] {
        let began = worked();
        let response = send(&router, get(&path)).await;
        let served = worked() - began;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert!(text(response).await.contains(said), "{path} does not say `{said}`");
        assert!(
            served < one * bodies / 2,
            "{path} took {served:?} here, and laying out one body takes {one:?}"
        );
    }
}
