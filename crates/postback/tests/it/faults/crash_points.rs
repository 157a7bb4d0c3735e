//! The crash points of accept, run and deliver, one after the other: the server dies at its Nth sync,
//! its Nth send, its Nth receive and its Nth write to a file, and is started again.

use std::os::unix::process::ExitStatusExt as _;

use testkit::server::Home;

use super::strace::Strace;
use super::{load_until_it_ends, one_thread, skip};
use crate::load::Load;
use crate::support::binary;

const SIGKILL: i32 = 9;

/// Which calls of each kind. A run makes about five syncs (accept, begin and end of a delivery, ends),
/// three sends (answer, call, webhook), eight receives and fifty writes.
fn points() -> Vec<(&'static str, usize)> {
    let all = |call, numbers: std::ops::RangeInclusive<usize>, step| {
        numbers.step_by(step).map(move |number| (call, number))
    };
    let points = all("fdatasync", 1..=12, 1)
        .chain(all("writev", 1..=9, 1))
        .chain(all("recvfrom", 1..=12, 1))
        .chain(all("pwrite64", 1..=60, 7));
    points.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_at_any_syscall_of_the_path_loses_nothing() {
    let mut stage = one_thread(Home::new(binary()));
    let load = Load::new(&stage).await;
    let mut next = 0;
    let points = points();
    for (call, number) in &points {
        println!("dies at {call} {number}, from request {next}");
        let strace = match Strace::kill_at(&stage, call, *number) {
            Ok(strace) => strace,
            Err(reason) => return skip(&reason),
        };
        let (status, _) = load_until_it_ends(&mut stage, &load, &mut next, 0).await;
        assert_eq!(status.signal(), Some(SIGKILL), "it ended in another way: {status}");
        drop(strace);
        stage.restart().await;
    }
    let evidence = load.evidence(&mut stage).await;
    println!(
        "{} crash points, {} requests; {} executions and {} deliveries again",
        points.len(),
        evidence.history.len(),
        evidence.executions_again(),
        evidence.deliveries_again(),
    );
    evidence.assert_clean();
}
