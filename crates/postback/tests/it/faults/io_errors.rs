//! An error of the disk at the Nth write or sync of the database: nothing is acknowledged after it,
//! the process ends with its own status, and the next start reads what is there.

use std::time::Duration;

use testkit::server::Home;

use super::strace::{Strace, time_of};
use super::{load_until_it_ends, one_thread, skip};
use crate::load::Load;
use crate::support::binary;

const EXIT_STORE_FAILED: i32 = 74;
/// From the error to the end of the process. A busy machine may be late now and then.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Syncs and writes of the first runs: 50 positions.
fn positions() -> Vec<(&'static str, usize)> {
    let syncs = (1..=15).map(|number| ("fdatasync", number));
    let writes = (0..35).map(|number| ("pwrite64", 1 + number * 3));
    syncs.chain(writes).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_disk_ends_the_server_before_it_acknowledges_anything_more() {
    let mut stage = one_thread(Home::new(binary()));
    let load = Load::new(&stage).await;
    let database = stage.home.data_dir().canonicalize().unwrap().join("postback.db");
    let mut next = 0;
    let mut ends = Vec::new();
    for (call, number) in positions() {
        println!("EIO at {call} {number}, from request {next}");
        let pid = stage.server.as_ref().unwrap().pid();
        let mut inject = vec!["-e".into(), format!("inject={call}:error=EIO:when={number}")];
        for file in [database.clone(), database.with_extension("db-wal")] {
            inject.extend(["-P".to_owned(), file.to_str().unwrap().to_owned()]);
        }
        let strace = match Strace::attach(pid, stage.home.scratch().join("strace"), &inject) {
            Ok(strace) => strace,
            Err(reason) => return skip(&reason),
        };
        let (status, acked) = load_until_it_ends(&mut stage, &load, &mut next, 0).await;
        assert_eq!(status.code(), Some(EXIT_STORE_FAILED), "it ended in another way: {status}");
        let log = strace.log();
        let failed = time_of(&log, "(INJECTED)").expect("the error was injected");
        let ended = time_of(&log, "exited with 74").expect("the end was traced");
        ends.push(ended.saturating_sub(failed));
        let late =
            acked.iter().find(|sent_at| u128::try_from(sent_at.as_millis()).unwrap() > failed.as_millis());
        assert_eq!(late, None, "acknowledged after the error, which was at {failed:?}");
        stage.restart().await;
    }
    ends.sort_unstable();
    let (median, slowest) = (ends[ends.len() / 2], ends[ends.len() - 1]);
    println!("from the error to the end: median {median:?}, slowest {slowest:?}");
    assert!(median < END_LIMIT, "it took {median:?} to end, half of the times longer");
    load.evidence(&mut stage).await.assert_clean();
}
