//! Callers that listen: values come as they are yielded, and nobody works for those who went away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use queue::outcome::{Code, Outcome};
use queue::port::{Call, Dispatch as _, Heard, Listener};

use crate::house::{House, text};

const CODE: &str = r#"
import time

def words(n):
    for index in range(n):
        yield f"word {index}"

def endless():
    while True:
        time.sleep(0.001)
        yield "more"

def plain():
    return "whole"
"#;

/// Hears so many values and no more.
#[derive(Debug)]
struct Ear {
    heard: Mutex<Vec<String>>,
    most: usize,
    then: Heard,
}

async fn listen(
    house: &House,
    function: &str,
    input: &str,
    most: usize,
    then: Heard,
) -> (Outcome, Vec<String>) {
    let ear = Arc::new(Ear { heard: Mutex::default(), most, then });
    let call = house.new_call(function, input, Duration::from_secs(20));
    let outcome = house.handle.call(Call { listener: Some(ear.clone()), ..call }).await.unwrap();
    let heard = ear.heard.lock().unwrap().clone();
    (outcome, heard)
}

impl Listener for Ear {
    fn tell(&self, value: Bytes) -> Heard {
        let mut heard = self.heard.lock().unwrap();
        if heard.len() == self.most {
            return self.then;
        }
        heard.push(String::from_utf8(value.to_vec()).unwrap());
        Heard::Yes
    }
}

#[tokio::test]
async fn a_listener_hears_each_value_and_the_result_is_null() {
    let house = House::of(CODE).await;
    let (outcome, heard) = listen(&house, "words", r#"{"n":3}"#, 100, Heard::Gone).await;
    assert_eq!(heard, ["", "word 0", "word 1", "word 2"]);
    assert_eq!(text(&outcome), "null");
    let (outcome, heard) = listen(&house, "plain", "{}", 100, Heard::Gone).await;
    assert_eq!((text(&outcome).as_str(), heard.len()), (r#""whole""#, 0));
}

#[tokio::test]
async fn a_generator_without_end_is_cancelled_when_nobody_takes_what_it_yields() {
    let house = House::of(CODE).await;
    for (then, why) in [(Heard::Gone, "went away"), (Heard::Behind, "behind")] {
        let (outcome, heard) = listen(&house, "endless", "{}", 5, then).await;
        let error = outcome.error.unwrap();
        assert_eq!((error.code, heard.len()), (Code::Cancelled, 5));
        assert!(error.message.contains(why), "{}", error.message);
    }
    // The replica let go of them.
    assert_eq!(listen(&house, "words", r#"{"n":1}"#, 100, Heard::Gone).await.1.len(), 2);
    assert_eq!(house.replicas(), 1);
}
