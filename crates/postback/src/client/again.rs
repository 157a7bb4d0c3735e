//! Asking again: a server that is restarted is away for a moment, and what it has acknowledged is there afterwards.
//!
//! For requests that may be repeated only. Says once that it waits, and gives up after a while.

use std::time::Duration;

use indicatif::ProgressBar;
use queue::limits::SERVER_AWAY_MAX;
use reqwest::StatusCode;
use tokio::time::Instant;

use super::{Ask, Client, Lost};
use crate::print::{Printer, WithHint};

/// The first pause; each further one is twice as long …
const PAUSE: Duration = Duration::from_millis(100);
/// … up to this.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Asks one server until it answers.
pub(crate) struct Again<'a> {
    client: &'a Client,
    printer: Printer,
    spinner: Option<&'a ProgressBar>,
    /// It has answered before: that nobody listens is no mistake in its address.
    answered: bool,
    said: bool,
}

impl<'a> Again<'a> {
    /// For a server that may have `answered` the command before. What is said does not disturb the spinner.
    pub(crate) fn new(
        client: &'a Client,
        printer: Printer,
        spinner: Option<&'a ProgressBar>,
        answered: bool,
    ) -> Self {
        Self { client, printer, spinner, answered, said: false }
    }

    /// The answer, whatever its status. `on_end` is what to do when there is none for too long.
    ///
    /// # Errors
    /// When nobody listens and nobody ever did, or not for too long.
    pub(crate) async fn ask(
        &mut self,
        request: impl Fn(&'a Client) -> Ask<'a>,
        on_end: impl Fn() -> String,
    ) -> anyhow::Result<(StatusCode, String)> {
        let mut away = Away::default();
        loop {
            let lost = match request(self.client).once().await {
                Ok((status, _)) if self.answered && passes(status) => None,
                Ok(answer) => {
                    self.answered = true;
                    return Ok(answer);
                }
                Err(lost) if lost.nobody_listens && !self.answered => return Err(lost.why),
                Err(lost) => Some(lost),
            };
            // It was there, and is so no more.
            self.answered = true;
            let Some(pause) = away.pause(Instant::now()) else { return Err(self.given_up(lost, &on_end())) };
            self.say();
            tokio::time::sleep(pause).await;
        }
    }

    fn say(&mut self) {
        if !std::mem::replace(&mut self.said, true) {
            let minutes = SERVER_AWAY_MAX.as_secs() / 60;
            let url = &self.client.url;
            let note = format!(
                "the connection to {url} broke; asking again until it answers, for {minutes} min at most"
            );
            match self.spinner {
                Some(spinner) => spinner.suspend(|| self.printer.note(&note)),
                None => self.printer.note(&note),
            }
        }
    }

    fn given_up(&self, lost: Option<Lost>, hint: &str) -> anyhow::Error {
        let url = &self.client.url;
        let minutes = SERVER_AWAY_MAX.as_secs() / 60;
        let ended = WithHint::new(format!("the server at {url} has not answered for {minutes} min"), hint);
        match lost {
            Some(lost) => lost.why.context(ended),
            None => ended.into(),
        }
    }
}

/// Whether a status says that the server, or one before it, is not ready just now.
fn passes(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Since when a server is away, and how often it was asked.
#[derive(Default)]
struct Away {
    since: Option<Instant>,
    asked: u32,
}

impl Away {
    /// How long to wait before it is asked again; `None` when that is enough.
    fn pause(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        let pause = PAUSE.saturating_mul(1 << self.asked.min(16)).min(PAUSE_MAX);
        self.asked += 1;
        let left = SERVER_AWAY_MAX.checked_sub(now - since).filter(|left| !left.is_zero())?;
        Some(pause.min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let (mut away, mut now, mut pauses) = (Away::default(), Instant::now(), Vec::new());
        let began = now;
        while let Some(pause) = away.pause(now) {
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(pauses[..8], [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(now - began, SERVER_AWAY_MAX, "asked until the end, and no longer");
        assert!(pauses.len() < 100, "{}", pauses.len());
    }

    #[test]
    fn only_what_passes_is_asked_again() {
        for (status, again) in
            [(200, false), (404, false), (422, false), (429, false), (500, false), (502, true), (503, true)]
        {
            assert_eq!(passes(StatusCode::from_u16(status).unwrap()), again, "{status}");
        }
    }
}
