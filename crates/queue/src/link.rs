//! Links to results: good for one run, until a time, for whoever has the link.
//!
//! A receiver that does not take a large body gets a link to the result instead. The link carries its own
//! proof, so that it can be followed without a key; nobody can make one, or make one last longer, without
//! the server's own. It is a function of the run and of the time, so that every attempt of a delivery
//! carries the same.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::clock::Timestamp;
use crate::id::{ProjectId, RunId};
use crate::limits::{RESULT_LINK_LIFE, RESULT_RETENTION};

/// The query parameter with the end of a link's life, in Unix seconds.
pub const EXPIRES: &str = "expires";
/// The query parameter with a link's proof.
pub const SIGNATURE: &str = "signature";

/// Makes and checks links to results, each good for as long as results are kept, at least.
#[derive(Clone)]
pub struct ResultLinks {
    base: Arc<str>,
    key: [u8; 32],
}

impl ResultLinks {
    /// Links below `base`, the address under which receivers reach this server, without a slash at its end.
    pub fn new(base: &str, key: [u8; 32]) -> Self {
        Self { base: base.into(), key }
    }

    /// The link to the result of a run that ended at `ended_at`, for an attempt made at `now`. It stays the
    /// same for weeks; once an attempt is so late that it would be of little use, it begins a new life.
    pub fn link(&self, project: &ProjectId, run: RunId, ended_at: Timestamp, now: Timestamp) -> String {
        let mut expires = ended_at.plus(RESULT_LINK_LIFE);
        while expires.since(now) < RESULT_RETENTION {
            expires = expires.plus(RESULT_LINK_LIFE);
        }
        let expires = expires.as_secs();
        let signature = URL_SAFE_NO_PAD.encode(self.mac(project, run, expires).finalize().into_bytes());
        format!(
            "{}/v2/projects/{project}/runs/{run}/result?{EXPIRES}={expires}&{SIGNATURE}={signature}",
            self.base
        )
    }

    /// Whether this server made the link, in time that does not depend on how wrong it is.
    pub fn is_ours(&self, project: &ProjectId, run: RunId, expires: i64, signature: &str) -> bool {
        URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|given| self.mac(project, run, expires).verify_slice(&given).is_ok())
    }

    fn mac(&self, project: &ProjectId, run: RunId, expires: i64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(format!("result\n{project}\n{run}\n{expires}").as_bytes());
        mac
    }
}

impl fmt::Debug for ResultLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultLinks").field("base", &self.base).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RUN: RunId = RunId::from_bytes([1; 16]);
    const DAY: Duration = Duration::from_secs(86_400);

    fn project(name: &str) -> ProjectId {
        name.parse().unwrap()
    }

    fn parts(link: &str) -> (i64, String) {
        let url = url::Url::parse(link).unwrap();
        let query: std::collections::HashMap<_, _> = url.query_pairs().into_owned().collect();
        (query[EXPIRES].parse().unwrap(), query[SIGNATURE].clone())
    }

    #[test]
    fn a_link_opens_its_own_run_until_its_own_time_and_nothing_else() {
        let links = ResultLinks::new("https://models.example.com", [7; 32]);
        let (ended, mine) = (Timestamp::from_millis(1_769_860_800_000), project("p-1"));
        let link = links.link(&mine, RUN, ended, ended);
        let path = format!("https://models.example.com/v2/projects/p-1/runs/{RUN}/result?");
        assert!(link.starts_with(&path), "{link}");
        let (expires, signature) = parts(&link);
        assert!(links.is_ours(&mine, RUN, expires, &signature));
        assert!(!links.is_ours(&mine, RUN, expires + 1, &signature));
        assert!(!links.is_ours(&project("p-2"), RUN, expires, &signature));
        assert!(!links.is_ours(&mine, RunId::from_bytes([2; 16]), expires, &signature));
        assert!(
            !ResultLinks::new("https://models.example.com", [8; 32]).is_ours(&mine, RUN, expires, &signature)
        );
        for forged in ["", "=", "AAAA", &signature[1..], &format!("{signature}A")] {
            assert!(!links.is_ours(&mine, RUN, expires, forged), "{forged}");
        }
        assert!(!format!("{links:?}").contains('7'), "{links:?}");
    }

    #[test]
    fn a_link_is_the_same_on_every_attempt_and_good_for_a_week_however_late_it_is() {
        let links = ResultLinks::new("http://127.0.0.1:4100", [7; 32]);
        let ended = Timestamp::from_millis(1_769_860_800_000);
        let at = |days| links.link(&project("p-1"), RUN, ended, ended.plus(DAY * days));
        for days in 0..=20 {
            assert_eq!(at(days), at(0), "day {days}");
        }
        for days in 0..200 {
            let (expires, _) = parts(&at(days));
            assert!(expires >= ended.plus(DAY * days + RESULT_RETENTION).as_secs(), "day {days}");
        }
    }
}
