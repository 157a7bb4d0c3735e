//! Lives on which store and model once disagreed.

use super::steps::{Held, How, NewCall, Step};

const CALL: NewCall = NewCall {
    app: 0,
    function: 0,
    now: true,
    key: None,
    start_in: None,
    delay: None,
    priority: 0,
    webhooks: Vec::new(),
    bytes: 2,
    secret: false,
    events: 0,
};

/// Each with what it is about.
pub(super) fn lives() -> Vec<(&'static str, Vec<Step>)> {
    vec![("deliveries are begun that were due before a redelivery made them due anew", begun_too_early())]
}

/// The delivery is due before the redelivery and after it, but not at the moment that the beginning asks
/// about: that is a millisecond before the redelivery.
fn begun_too_early() -> Vec<Step> {
    let finish = Step::Finish {
        lease: Held { current: true, pick: 0 },
        ending: How::Succeeded { large: false },
        first_attempts: Vec::new(),
    };
    vec![
        Step::Accept(NewCall { webhooks: vec![0], ..CALL }),
        finish,
        Step::Together(vec![
            Step::Redeliver { delivery: 0, own: true },
            Step::Begin { total: 1, per_receiver: 1, receivers: Vec::new() },
            // A new run takes a millisecond.
            Step::Accept(CALL),
        ]),
    ]
}
