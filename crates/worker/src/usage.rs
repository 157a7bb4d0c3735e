//! What a replica's tree of processes uses of CPU and memory, for apps that are scaled by it.
//!
//! Counted is what belongs to the processes alone, as for the limit of memory. Where there is no `/proc`, nothing is.

use std::fs;
use std::sync::LazyLock;

use queue::app::AppConfig;
use queue::scaling::Metric;
use tokio::time::Instant;

/// Processes counted at most.
const PROCESSES_MAX: usize = 1_024;
/// The kernel tells ticks of a hundredth, whatever its own are.
const TICKS_PER_SECOND: f64 = 100.0;

/// The use of one replica between two looks.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// CPU seconds so far, and when.
    before: Option<(f64, Instant)>,
}

impl Usage {
    /// In percent of what the app says a replica has, or of the machine; `None` for other metrics, and for CPU at the
    /// first look.
    pub(crate) fn look(&mut self, root: u32, config: &AppConfig, now: Instant) -> Option<f64> {
        match config.metric() {
            Metric::CpuUtilization => {
                let seconds = tree(root).into_iter().map(cpu_seconds).sum::<f64>();
                let (before, at) = self.before.replace((seconds, now))?;
                let elapsed = now.duration_since(at).as_secs_f64();
                let cores = config.cpu.unwrap_or_else(|| f64::from(*MACHINE_CORES));
                // A process that has ended takes its time with it until its parent has looked.
                (elapsed > 0.0).then(|| (seconds - before).max(0.0) / elapsed / cores * 100.0)
            }
            Metric::MemoryUtilization => {
                let bytes = tree(root).into_iter().map(memory).sum::<f64>();
                let all = config.memory.map_or(*MACHINE_MEMORY, |gigabytes| gigabytes * f64::from(1 << 30));
                (all > 0.0).then(|| bytes / all * 100.0)
            }
            Metric::ConcurrencyUtilization | Metric::RequestsPerSecond => None,
        }
    }
}

static MACHINE_CORES: LazyLock<u32> = LazyLock::new(|| {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
});

static MACHINE_MEMORY: LazyLock<f64> =
    LazyLock::new(|| kilobytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), &["MemTotal:"]));

/// What a process and all that descends from it hold, in bytes; `None` where the system does not tell.
pub(crate) fn held(root: u32) -> Option<u64> {
    let bytes = tree(root).into_iter().map(memory).sum::<f64>();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
    (bytes > 0.0).then_some(bytes as u64)
}

/// A process and all that descends from it.
fn tree(root: u32) -> Vec<u32> {
    let (mut found, mut next) = (vec![root], 0);
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let room = PROCESSES_MAX.saturating_sub(found.len());
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()).take(room));
        }
    }
    found
}

/// Of the process, and of its children that have ended.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name is in parentheses and may contain anything; what follows are the fields from the third on.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

/// In bytes.
fn memory(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kilobytes(&status, &["RssAnon:", "RssShmem:"])
}

/// The sum of these lines, in bytes.
fn kilobytes(text: &str, names: &[&str]) -> f64 {
    let lines = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum::<f64>() * 1024.0
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_memory_of_a_process_is_told_in_percent_of_what_it_may_hold() {
        let ballast = vec![1_u8; 64 << 20];
        let config = AppConfig {
            memory: Some(0.125),
            scaling_metric: Some(Metric::MemoryUtilization),
            ..AppConfig::default()
        };
        let percent = Usage::default().look(std::process::id(), &config, Instant::now()).unwrap();
        assert!((50.0..=200.0).contains(&percent), "{percent} %");
        assert_eq!(ballast.len(), 64 << 20);
    }

    #[test]
    fn the_time_of_processes_and_their_children_is_counted() {
        let config = AppConfig {
            cpu: Some(1.0),
            scaling_metric: Some(Metric::CpuUtilization),
            ..AppConfig::default()
        };
        let (mut usage, own, began) = (Usage::default(), std::process::id(), Instant::now());
        assert_eq!(usage.look(own, &config, began), None);
        // It computes for a while and is gone when somebody looks: its parent has its time.
        let used = cpu_seconds(own);
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        assert!(std::process::Command::new("sh").args(["-c", busy]).status().unwrap().success());
        assert!(cpu_seconds(own) > used);
        // As if a second had passed.
        let percent = usage.look(own, &config, began + Duration::from_secs(1)).unwrap();
        assert!(percent > 0.0, "{percent} %");
    }
}
