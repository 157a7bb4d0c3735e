//! Faults put into a running server from outside: syscalls that kill or fail, disks that are full or
//! lose their power. After each, the one checker decides.
//!
//! Some need strace or mounts. Where they are missing a test prints `SKIP` and the reason.

#[cfg(target_os = "linux")]
mod cached_disk;
mod clock;
mod crash_points;
mod disk;
mod full_disk;
mod identity;
mod io_errors;
#[cfg(target_os = "linux")]
mod power_cuts;
mod slow_disk;
mod strace;

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use queue::Timestamp;
use testkit::checker::{Crash, Known, Victim};
use testkit::wall_clock;

use crate::load::Load;
use crate::support::Stage;

/// From a request to its webhook, or to the end of the server.
const FAULT_PATIENCE: Duration = Duration::from_secs(30);
/// Requests until a fault must have struck.
const REQUESTS_MAX: u64 = 40;

/// Says why a test proves nothing here.
fn skip(reason: &str) {
    println!("SKIP: {reason}");
}

/// A server whose requests are all sent by one thread, so that the Nth syscall is the Nth of them all.
fn one_thread(home: testkit::server::Home) -> Stage {
    let stage = Stage::on(home.with_env("TOKIO_WORKER_THREADS", "1"));
    stage.deploy(&crate::support::app_folder("basic"), &["basic"]);
    stage
}

/// Makes one request after the other, each once the webhook of the one before has arrived, until the
/// server has ended by itself. Returns its status and how many requests were acknowledged, with the
/// time each of them was sent.
///
/// # Panics
/// When the server outlives all of it.
async fn load_until_it_ends(
    stage: &mut Stage,
    load: &Load,
    next: &mut u64,
    ballast: usize,
) -> (ExitStatus, Vec<Timestamp>) {
    let mut acked = Vec::new();
    for _ in 0..REQUESTS_MAX {
        let sent_at = wall_clock();
        let arrived = load.arrived();
        let known = load.send(*next, ballast).await;
        if known.is_some() {
            *next += 1;
        }
        if matches!(known, Some(Known::Acked(_))) {
            acked.push(sent_at);
        }
        let began = Instant::now();
        let server = stage.server.as_mut().expect("it was started");
        // An acknowledged request ends with its webhook, any other with the server.
        while !(matches!(known, Some(Known::Acked(_))) && load.arrived() > arrived) {
            if let Some(status) = server.ended() {
                stage.server = None;
                stage.crashes.push(Crash { victim: Victim::Server, from: sent_at, to: wall_clock() });
                return (status, acked);
            }
            assert!(
                began.elapsed() < FAULT_PATIENCE,
                "neither webhook nor end after request {}: {known:?}",
                *next - 1
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    panic!("the fault never struck in {REQUESTS_MAX} requests");
}
