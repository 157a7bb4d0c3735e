//! What is printed: to whom it belongs, and how much of it is kept.

use queue::app::AppConfig;
use queue::limits::RUN_LOG_BYTES_MAX;
use queue::log::Stream;
use queue::outcome::{Code, Ending};

use crate::house::{House, Plan, is_alive, text, until};

const CODE: &str = r#"
import logging, os, subprocess, sys

def speak(name):
    print("hello", name)
    print("careful", name, file=sys.stderr)
    return name

def beside():
    # Neither Python's own streams nor the runner see this one.
    subprocess.run(["echo", "from a child"], check=True)
    import time; time.sleep(0.2)

def flood(lines):
    for n in range(lines):
        print("%0100d" % n)
    return lines

def endless():
    while True:
        print("x" * 1000)

def a_line_without_end():
    # Past Python, and never a line feed.
    os.write(2, b"%d\n" % os.getpid())
    while True:
        try:
            while True:
                os.write(1, b"y" * 10000)
        except BaseException:
            pass

def who():
    return os.getpid()
"#;

#[tokio::test]
async fn lines_belong_to_the_run_that_printed_them() {
    let house = House::of(CODE).await;
    let one = house.submit(house.run("speak", r#"{"name":"one"}"#));
    let two = house.submit(house.run("speak", r#"{"name":"two"}"#));
    house.outcome(one).await;
    house.outcome(two).await;
    let lines = until("all lines", || {
        let lines: Vec<_> = house.memory.lines().into_iter().filter(|line| line.run.is_some()).collect();
        (lines.len() == 4).then_some(lines)
    })
    .await;
    for (run, name) in [(one, "one"), (two, "two")] {
        let of_run: Vec<_> = lines
            .iter()
            .filter(|line| line.run == Some(run))
            .map(|line| (line.stream, line.text.as_str()))
            .collect();
        assert_eq!(
            of_run,
            [(Stream::Stdout, &*format!("hello {name}")), (Stream::Stderr, &*format!("careful {name}"))]
        );
    }
}

#[tokio::test]
async fn what_a_child_of_the_only_call_prints_belongs_to_the_run() {
    let house = House::of(CODE).await;
    let run = house.submit(house.run("beside", "{}"));
    house.outcome(run).await;
    let line =
        until("the line", || house.memory.lines().into_iter().find(|line| line.text == "from a child")).await;
    assert_eq!((line.run, line.stream), (Some(run), Stream::Stdout));
}

#[tokio::test]
async fn a_flood_keeps_head_and_tail_and_the_count_of_what_is_missing() {
    let house = House::of(CODE).await;
    let run = house.submit(house.run("flood", r#"{"lines":30000}"#));
    house.outcome(run).await;
    let lines: Vec<_> = until("the tail", || {
        let lines: Vec<_> = house.memory.lines().into_iter().filter(|line| line.run == Some(run)).collect();
        lines.last().is_some_and(|line| line.text.ends_with("29999")).then_some(lines)
    })
    .await;
    let kept = lines.iter().filter(|line| line.stream == Stream::Stdout).count();
    assert!(kept * 101 <= RUN_LOG_BYTES_MAX);
    assert!(lines[0].text.ends_with("00000"));
    let note = lines.iter().find(|line| line.stream == Stream::System).unwrap();
    assert_eq!(note.text, format!("{} bytes dropped", (30_000 - kept) * 101));
}

fn little_output() -> Plan {
    Plan {
        config: AppConfig { replica_concurrency: Some(1), max_replicas: Some(1), ..AppConfig::default() },
        adjust: Some(|options| options.output_max = 4 << 20),
        ..Plan::default()
    }
}

#[tokio::test]
async fn a_run_that_prints_without_end_ends_as_output_limit_and_its_replica_lives_on() {
    let house = House::with(CODE, little_output()).await;
    let before = text(&house.call("who", "{}").await);
    let run = house.submit(house.run("endless", "{}"));
    let outcome = house.outcome(run).await;
    let error = outcome.error.unwrap();
    assert_eq!((outcome.ending, error.code), (Ending::Failed, Code::OutputLimit));
    assert!(error.message.contains("more than 4194304 bytes"), "{}", error.message);
    assert_eq!(house.memory.releases(), [], "it is the run's end, not an attempt's");
    assert_eq!(text(&house.call("who", "{}").await), before);
    let call = house.call("endless", "{}").await;
    assert_eq!((call.error.unwrap().code, call.status_code), (Code::OutputLimit, 500));
}

#[tokio::test]
async fn a_line_without_end_counts_and_who_does_not_let_go_loses_its_process() {
    let house = House::with(CODE, little_output()).await;
    let run = house.submit(house.run("a_line_without_end", "{}"));
    assert_eq!(house.outcome(run).await.error.unwrap().code, Code::OutputLimit);
    let first =
        until("its log", || house.memory.lines().into_iter().find(|line| line.run == Some(run))).await;
    let pid = first.text.parse().unwrap();
    until("the process is gone", || (!is_alive(pid)).then_some(())).await;
    assert_ne!(text(&house.call("who", "{}").await), first.text);
}
