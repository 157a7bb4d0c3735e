//! What is printed: to whom it belongs, and how much of it is kept.

use queue::limits::RUN_LOG_BYTES_MAX;
use queue::log::Stream;

use crate::house::{House, until};

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
