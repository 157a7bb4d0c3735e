//! Why a run or an attempt ended as it did, in words for whoever must do something about it.

use queue::outcome::{Code, RunError};

/// What the code means, and what to do next.
pub(crate) fn cause(error: &RunError) -> &'static str {
    match error.code {
        Code::UserError => "The model's own code raised an error. Its traceback says where.",
        Code::Timeout => {
            "It took longer than it may. Raise `response_grace_period`, or make the work smaller."
        }
        Code::WorkerCrashed => {
            "The process that ran it died: a crash in native code, or the system took its memory."
        }
        Code::WorkerExited => "The model's code ended its own process. Look for `sys.exit` or `os._exit`.",
        Code::OutOfMemory => {
            "It needed more memory than its app may have. Raise `memory`, or give it less at once."
        }
        Code::OutputLimit => "It printed more than a run may. Print less, or write to a file.",
        Code::ResultTooLarge => {
            "Its result is larger than a result may be. Store it elsewhere and return its address."
        }
        Code::ResultInvalid => {
            "What it returned cannot be written as JSON. The message names what and where."
        }
        Code::ProtocolError => {
            "Its process said something that makes no sense. User code may have written into the wrong file descriptor."
        }
        Code::FailedToStart => "No replica of the app could be started. The app's log says why.",
        Code::CrashLoop => {
            "Every replica that worked on it died. It is not tried again, so that others can go on."
        }
        Code::Interrupted => {
            "The server went away under it more often than it may. Nothing is wrong with the run itself."
        }
        Code::Cancelled => "Somebody asked for its end.",
        Code::Expired => "It did not start in time (`max_queue_time`): the replicas were busy with others.",
    }
}

/// Why an attempt of a delivery failed.
pub(crate) fn reason(word: &str) -> &'static str {
    match word.split(':').next().unwrap_or(word) {
        "http_status" => "the receiver answered with an error",
        "redirect" => "the receiver answered with a redirect, which is not followed",
        "timeout" => "the receiver did not answer in time",
        "refused" => "nobody listens at the receiver's address",
        "reset" => "the receiver closed the connection before it answered",
        "dns" => "the receiver's name does not resolve",
        "tls" => "the receiver's certificate was not accepted",
        "address_not_allowed" => "the address is one that this server does not call",
        "bad_response" => "what the receiver answered is not HTTP",
        "outcome_unknown" => "the server stopped while it was under way; nobody knows whether it arrived",
        "body_unreadable" => "what was to be sent could not be read",
        "no_signing_key" => "what was to sign it could not be read",
        "server_exhausted" => "this server had no file descriptors or memory left",
        _ => "it failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_words() {
        let states = ["exhausted", queue::reason::ENDPOINT_DISABLED];
        for word in queue::reason::ALL.into_iter().filter(|word| !states.contains(word)) {
            assert_ne!(reason(word), "it failed", "{word}");
        }
        assert_eq!(reason("timeout:connect"), reason("timeout"));
    }
}
