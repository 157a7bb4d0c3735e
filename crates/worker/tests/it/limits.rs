//! The limit of a run: told to the runner first, then enforced on the whole process tree.

use std::time::{Duration, Instant};

use queue::lease::Release;
use queue::outcome::{Code, Ending};
use queue::port::Dispatch as _;

use crate::functions::HOLDING;
use crate::house::{House, Plan, is_alive, text, until};

/// Long enough for a function to begin on a busy machine.
const LIMIT: Duration = Duration::from_secs(1);

/// Beside [`HOLDING`].
const CODE: &str = r#"
import re, signal

def native():
    note("native")
    re.match(r"(a+)+$", "a" * 60 + "b")  # holds the interpreter's lock for ever

def stopped():
    note("stopped")
    os.kill(os.getpid(), signal.SIGSTOP)

def flood():
    import socket, stat, struct
    note("flood")

    def is_socket(descriptor):
        try:
            return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        except OSError:
            return False

    worker = socket.socket(fileno=os.dup(next(filter(is_socket, range(3, 256)))))
    worker.setblocking(True)
    line = b"x" * 1000
    lines = (struct.pack(">IBIBQ", 14 + len(line), 20, 1, 1, 0) + line) * 500
    while True:
        try:
            while True:
                worker.sendall(lines)
        except Exception:
            os._exit(1)

def beside():
    note("beside")
    while not os.path.exists(os.path.join(HERE, "go")):
        time.sleep(0.01)
    return "done"
"#;

async fn house(plan: Plan) -> House {
    House::with(&[HOLDING, CODE].concat(), plan).await
}

#[tokio::test]
async fn a_call_at_its_limit_is_cancelled_and_the_replica_lives_on() {
    let house = house(Plan::patient()).await;
    let before = text(&house.call("who", "{}").await);
    let begin = Instant::now();
    let outcome = house.handle.call(house.new_call("sleepy", "{}", LIMIT)).await.unwrap();
    assert!(begin.elapsed() >= LIMIT, "{:?}", begin.elapsed());
    assert_eq!((outcome.error.unwrap().code, outcome.status_code), (Code::Timeout, 504));
    // Had the runner not let go of the call, this one would wait until the replica is killed, and meet another.
    assert_eq!(text(&house.call("who", "{}").await), before);
}

/// What does not let go ends by its limit, and by nothing else: it never would.
async fn ends_at_its_limit(function: &str) {
    let house = house(Plan::at_once(1)).await;
    let mut run = house.run(function, "{}");
    run.limit = LIMIT;
    let begin = Instant::now();
    let id = house.submit(run);
    let outcome = house.outcome(id).await;
    assert!(begin.elapsed() >= LIMIT, "{:?}", begin.elapsed());
    let error = outcome.error.unwrap();
    assert_eq!((outcome.ending, error.code), (Ending::Failed, Code::Timeout));
    assert!(error.message.contains("within 1 s"), "{}", error.message);
    let pid: i32 = house.written(function).await.trim().parse().unwrap();
    until("the replica is killed", || (!is_alive(pid)).then_some(())).await;
    assert_eq!(house.memory.releases(), [], "a timeout is the run's end, not an attempt's");
    assert_ne!(text(&house.call("who", "{}").await), pid.to_string());
}

#[tokio::test]
async fn a_function_that_swallows_the_cancel_ends_at_its_limit() {
    ends_at_its_limit("stubborn").await;
}

#[tokio::test]
async fn native_code_that_holds_the_interpreter_ends_at_its_limit() {
    ends_at_its_limit("native").await;
}

#[tokio::test]
async fn a_replica_that_never_stops_talking_ends_at_its_limit() {
    ends_at_its_limit("flood").await;
}

#[tokio::test]
async fn a_stopped_process_ends_at_its_limit() {
    ends_at_its_limit("stopped").await;
}

#[tokio::test]
async fn calls_beside_one_that_hangs_run_again_uncharged_and_callers_hear_503() {
    let house = house(Plan::at_once(4)).await;
    let began = async |calls: usize| {
        let begun = async || house.written("beside").await.lines().count();
        while begun().await < calls {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let beside = house.submit(house.run("beside", "{}"));
    let caller = house.call("beside", "{}");
    let hang = async {
        began(2).await;
        let mut hanging = house.run("stubborn", "{}");
        hanging.limit = LIMIT;
        house.submit(hanging)
    };
    let (caller, hanging) = tokio::join!(caller, hang);

    let error = caller.error.unwrap();
    assert_eq!((error.code, caller.status_code), (Code::Interrupted, 503));
    assert_eq!(house.outcome(hanging).await.error.unwrap().code, Code::Timeout);
    std::fs::write(house.folder.path().join("go"), "").unwrap();
    assert_eq!(house.result(beside).await, "\"done\"");
    assert_eq!(house.memory.releases(), [(beside, Release::CutShort)]);
}
