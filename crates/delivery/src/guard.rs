//! Which addresses the server may be made to call.
//!
//! The same guard stands at both doors. When a run is accepted, it refuses only what it knows to be
//! wrong. Before every connection it resolves the name again, judges every answer, and hands out
//! exactly the addresses it judged: what a name meant a moment ago counts for nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use queue::id::InboxId;
use queue::port::{AddressRefused, Admitted, Inboxes};
use queue::run::EndpointUrl;
use tokio::time::{Instant, timeout, timeout_at};

use crate::failure::{Failure, Phase};
use crate::resolve::{Resolve, ResolveError};
use crate::rules::{Address, Rules, Target, is_localhost};

/// How long an acceptance waits for a name.
const LOOK_UP_LIMIT_AT_ACCEPT: Duration = Duration::from_millis(200);
/// How long an attempt waits for a name.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(2);
/// Addresses remembered as read; beyond it they are all read again.
const READ_MAX: usize = 1_024;

pub(crate) struct Guard {
    rules: Rules,
    read: ReadAddresses,
    resolver: Arc<dyn Resolve>,
    inboxes: Arc<dyn Inboxes>,
}

impl Guard {
    pub(crate) fn new(rules: Rules, resolver: Arc<dyn Resolve>, inboxes: Arc<dyn Inboxes>) -> Self {
        Self { rules, read: ReadAddresses::default(), resolver, inboxes }
    }

    fn read(&self, text: &str) -> Result<Arc<Address>, AddressRefused> {
        self.read.get_or(text, || self.rules.read(text))
    }

    /// The check at accept: only a positive finding refuses.
    pub(crate) async fn admit(&self, text: &str) -> Result<Admitted, AddressRefused> {
        let address = self.read(text)?;
        let warning = match &address.target {
            Target::Ip(_) => None,
            Target::OwnInbox(id) => {
                self.own_inbox(id).await?;
                None
            }
            Target::Name { host, port, unless_private } => {
                let look_up = self.look_up(host, *port, unless_private.as_ref());
                match timeout(LOOK_UP_LIMIT_AT_ACCEPT, look_up).await {
                    Ok(Ok(_)) => None,
                    Ok(Err(LookUpError::Refused(refused))) => return Err(refused),
                    Ok(Err(LookUpError::Unresolved | LookUpError::Shortage)) => Some(format!(
                        "the webhook's host `{host}` does not resolve at the moment; delivery will be tried anyway"
                    )),
                    Err(_) => Some(format!(
                        "the webhook's host `{host}` could not be looked up in time; delivery will be tried anyway"
                    )),
                }
            }
        };
        Ok(Admitted { url: EndpointUrl::checked(address.url.as_str()), warning })
    }

    /// Reads a stored address again: rules may have become stricter, inboxes may be gone.
    pub(crate) async fn readmit(&self, url: &EndpointUrl) -> Result<Arc<Address>, Failure> {
        let address = self.read(url.as_str()).map_err(|_| Failure::AddressNotAllowed)?;
        if let Target::OwnInbox(id) = &address.target {
            self.own_inbox(id).await.map_err(|_| Failure::AddressNotAllowed)?;
        }
        Ok(address)
    }

    /// The addresses to connect to, each of them judged just now.
    pub(crate) async fn locate(
        &self,
        address: &Address,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, Failure> {
        match &address.target {
            Target::Ip(at) => Ok(vec![*at]),
            Target::OwnInbox(_) => {
                let own = self.rules.own.as_ref().expect("only a server that knows itself has own inboxes");
                Ok(vec![own.local_address()])
            }
            Target::Name { host, port, .. } if crate::mutant::shows("guard-at-accept-only") => {
                let answers = self.resolver.resolve(host).await.map_err(|_| Failure::Dns)?;
                Ok(answers.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect())
            }
            Target::Name { host, port, unless_private } => {
                let look_up = self.look_up(host, *port, unless_private.as_ref());
                match timeout_at(deadline.min(Instant::now() + LOOK_UP_LIMIT), look_up).await {
                    Ok(Ok(addresses)) => Ok(addresses),
                    Ok(Err(LookUpError::Refused(_))) => Err(Failure::AddressNotAllowed),
                    Ok(Err(LookUpError::Unresolved)) => Err(Failure::Dns),
                    Ok(Err(LookUpError::Shortage)) => Err(Failure::Shortage),
                    Err(_) => Err(Failure::Timeout(Phase::Dns)),
                }
            }
        }
    }

    async fn look_up(
        &self,
        host: &str,
        port: u16,
        unless_private: Option<&AddressRefused>,
    ) -> Result<Vec<SocketAddr>, LookUpError> {
        if is_localhost(host) {
            let open = self.rules.open_loopbacks(port);
            return match unless_private {
                Some(refused) if open.is_empty() => Err(LookUpError::Refused(refused.clone())),
                _ => Ok(open),
            };
        }
        let answers = self.resolver.resolve(host).await?;
        let answers = answers.into_iter().map(|ip| SocketAddr::new(ip, port));
        match self.rules.judge(host, answers, unless_private) {
            Ok(addresses) if addresses.is_empty() => Err(LookUpError::Unresolved),
            judged => judged.map_err(LookUpError::Refused),
        }
    }

    /// A store that cannot be asked is no finding.
    async fn own_inbox(&self, id: &InboxId) -> Result<(), AddressRefused> {
        match self.inboxes.inbox(id).await {
            Ok(None) => Err(AddressRefused {
                rule: "no_such_inbox",
                message: "this server has no such inbox; `postback inbox create` makes one".into(),
            }),
            Ok(Some(_)) | Err(_) => Ok(()),
        }
    }
}

/// What [`Rules::read`] made of addresses that it let pass. The rules do not change while the server runs, and
/// the same few addresses come with every run.
#[derive(Default)]
struct ReadAddresses(Mutex<HashMap<Box<str>, Arc<Address>>>);

impl ReadAddresses {
    fn get_or<E>(&self, text: &str, read: impl FnOnce() -> Result<Address, E>) -> Result<Arc<Address>, E> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(text) {
            return Ok(Arc::clone(known));
        }
        let address = Arc::new(read()?);
        let mut known = lock();
        if known.len() >= READ_MAX {
            known.clear();
        }
        known.insert(text.into(), Arc::clone(&address));
        Ok(address)
    }
}

enum LookUpError {
    Unresolved,
    Refused(AddressRefused),
    /// This server has nothing left to ask with.
    Shortage,
}

impl From<ResolveError> for LookUpError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Unresolved(_) => Self::Unresolved,
            ResolveError::Shortage(_) => Self::Shortage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_once_and_no_more_are_remembered_than_fit() {
        let (known, rules) = (ReadAddresses::default(), Rules::default());
        let text = |number: usize| format!("https://example.com/hook?n={number}");
        let first = known.get_or(&text(0), || rules.read(&text(0))).unwrap();
        let again = known.get_or(&text(0), || -> Result<Address, ()> { panic!("it is known") }).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        for number in 1..3 * READ_MAX {
            known.get_or(&text(number), || rules.read(&text(number))).unwrap();
            assert!(known.0.lock().unwrap().len() <= READ_MAX);
        }
        assert!(known.get_or("no address", || rules.read("no address")).is_err());
        assert!(known.0.lock().unwrap().get("no address").is_none());
    }
}
