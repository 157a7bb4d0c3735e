//! Names to addresses, by a resolver of our own: asynchronous, with a timeout, and behind a trait so
//! that tests say what a name means.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;
use queue::shortage::is_shortage;
use tokio::time::Instant;

/// Why a name leads nowhere at the moment.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResolveError {
    /// Nobody knows its addresses, or those who do are not reached.
    #[error("the name does not resolve: {0}")]
    Unresolved(String),
    /// This server has no file descriptors or memory left to ask with.
    #[error("the name could not be looked up: {0}")]
    Shortage(String),
}

impl From<NetError> for ResolveError {
    fn from(error: NetError) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            let io = inner.downcast_ref::<io::Error>().or_else(|| match inner.downcast_ref() {
                Some(NetError::Io(io)) => Some(&**io),
                _ => None,
            });
            if io.is_some_and(is_shortage) {
                return Self::Shortage(error.to_string());
            }
            cause = inner.source();
        }
        Self::Unresolved(error.to_string())
    }
}

/// Looks up names.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// Every address of `name`, in the order to try them; never an empty list.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError>;
}

/// The machine's own configuration (`/etc/resolv.conf`, `/etc/hosts`), read at the first look-up, and
/// again after a failure, since machines move between networks.
///
/// Names are taken as complete: search domains are not tried, so that `a.example` never turns into
/// `a.example.corp.internal`.
#[derive(Default)]
pub struct SystemResolver {
    current: Mutex<Option<Current>>,
}

#[derive(Clone)]
struct Current {
    resolver: Arc<TokioResolver>,
    read_at: Instant,
}

/// One question to one name server; two of them fit into the time a look-up has.
const QUESTION_LIMIT: Duration = Duration::from_millis(900);
/// The configuration is not read more often than this.
const SETTLED: Duration = Duration::from_secs(10);

impl SystemResolver {
    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Result<Current, NetError> {
        let mut current = self.lock();
        if let Some(current) = &*current {
            return Ok(current.clone());
        }
        let mut builder = TokioResolver::builder_tokio()?;
        let options = builder.options_mut();
        options.timeout = QUESTION_LIMIT;
        options.attempts = 2;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let fresh = Current { resolver: Arc::new(builder.build()?), read_at: Instant::now() };
        Ok(current.insert(fresh).clone())
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        let Current { resolver, read_at } = self.current()?;
        let complete = if name.ends_with('.') { name.to_owned() } else { format!("{name}.") };
        let answer = resolver.lookup_ip(complete).await;
        if answer.is_err() && read_at.elapsed() > SETTLED {
            self.lock().take_if(|current| current.read_at == read_at);
        }
        Ok(answer?.iter().collect())
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        match self.look_up(name).await {
            Ok(addresses) if addresses.is_empty() => Err(ResolveError::Unresolved("no addresses".into())),
            Ok(addresses) => Ok(addresses),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_machines_hosts_file_is_honoured() {
        let Ok(hosts) = std::fs::read_to_string("/etc/hosts") else { return };
        let resolver = SystemResolver::default();
        let lines =
            hosts.lines().filter_map(|line| line.split('#').next()?.trim().split_once(char::is_whitespace));
        for (ip, names) in lines {
            let Some(ip) = ip.parse::<IpAddr>().ok().filter(IpAddr::is_loopback) else { continue };
            for name in names.split_whitespace() {
                let answers = resolver.resolve(name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(answers.contains(&ip), "{name} is {ip}, not {answers:?}");
            }
        }
    }
}
