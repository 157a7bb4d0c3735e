//! A slow disk: every sync takes half a second. Answers take longer, commits gather, nothing times out,
//! memory stays what it was, and nothing is lost.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use testkit::checker::Known;
use testkit::footprint::Footprint;
use testkit::server::Home;

use super::skip;
use super::strace::Strace;
use crate::load::Load;
use crate::support::{Stage, app_folder, binary};

const DELAY: Duration = Duration::from_millis(500);
const REQUESTS: u64 = 96;
const AT_ONCE: usize = 16;
/// Of one request: what waits for the disk waits with its body.
const BALLAST: usize = 100_000;
/// Beyond what the server took before, while the disk is slow.
const RESIDENT_MORE_MAX: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_makes_answers_late_and_loses_nothing() {
    let mut stage = Stage::on(Home::new(binary()));
    stage.deploy(&app_folder("basic"), &["basic"]);
    let load = Load::new(&stage).await;
    let (pid, data_dir) = (stage.server.as_ref().unwrap().pid(), stage.home.data_dir());
    let slow = ["-e".to_owned(), format!("inject=fsync,fdatasync:delay_exit={}", DELAY.as_micros())];
    let strace = match Strace::attach(pid, stage.home.scratch().join("strace"), &slow) {
        Ok(strace) => strace,
        Err(reason) => return skip(&reason),
    };
    let resident = || Footprint::of(pid, &data_dir).map_or(0, |footprint| footprint.resident);
    let before = resident();
    let began = Instant::now();
    let sent = futures_util::stream::iter(0..REQUESTS).map(|number| {
        let (load, resident) = (&load, &resident);
        async move {
            let began = Instant::now();
            (load.send(number, BALLAST).await, began.elapsed(), resident())
        }
    });
    let answers: Vec<_> = sent.buffer_unordered(AT_ONCE).collect().await;
    let took = began.elapsed();
    let mut times: Vec<_> = answers.iter().map(|(_, time, _)| *time).collect();
    times.sort_unstable();
    let most = answers.iter().map(|(_, _, resident)| *resident).max().unwrap();
    println!(
        "{REQUESTS} requests in {took:?}, {AT_ONCE} at once; p50 {:?}, slowest {:?}; {} KiB more memory",
        times[times.len() / 2],
        times[times.len() - 1],
        most.saturating_sub(before) >> 10,
    );
    for (known, ..) in &answers {
        // Late, or refused with a time to come back; never unknown.
        assert!(matches!(known, Some(Known::Acked(_) | Known::Refused(429 | 503))), "{known:?}");
    }
    assert!(times[0] >= DELAY, "no acknowledgement comes before its sync: {:?}", times[0]);
    // One sync for many: each alone would take twice as long at least.
    assert!(took < DELAY * u32::try_from(REQUESTS).unwrap(), "commits do not gather: {took:?}");
    assert!(most < before + RESIDENT_MORE_MAX, "{most} bytes, and {before} before");
    assert!(stage.server.as_mut().unwrap().ended().is_none(), "the server lives");
    drop(strace);
    let evidence = load.evidence(&mut stage).await;
    assert_eq!(evidence.executions_again(), 0, "no lease was lost to the disk");
    evidence.assert_clean();
}
