//! Names to addresses, by a resolver of our own: asynchronous, with a timeout, and behind a trait so
//! that tests say what a name means.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;

/// A name that leads nowhere at the moment.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the name does not resolve: {0}")]
pub struct ResolveError(pub String);

/// Looks up names.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// Every address of `name`, in the order to try them; never an empty list.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError>;
}

/// The machine's own configuration (`/etc/resolv.conf`, `/etc/hosts`), read at the first look-up.
///
/// Names are taken as complete: search domains are not tried, so that `a.example` never turns into
/// `a.example.corp.internal`.
#[derive(Default)]
pub struct SystemResolver {
    resolver: OnceLock<Result<TokioResolver, ResolveError>>,
}

/// One question to one name server.
const QUESTION_LIMIT: Duration = Duration::from_millis(900);

impl SystemResolver {
    fn build() -> Result<TokioResolver, ResolveError> {
        let mut builder = TokioResolver::builder_tokio().map_err(failed)?;
        let options = builder.options_mut();
        options.timeout = QUESTION_LIMIT;
        options.attempts = 2;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        builder.build().map_err(failed)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn failed(error: NetError) -> ResolveError {
    ResolveError(error.to_string())
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let resolver = self.resolver.get_or_init(Self::build).as_ref().map_err(Clone::clone)?;
        let complete = if name.ends_with('.') { name.to_owned() } else { format!("{name}.") };
        let answer = resolver.lookup_ip(complete).await.map_err(failed)?;
        let addresses: Vec<_> = answer.iter().collect();
        if addresses.is_empty() { Err(ResolveError("no addresses".into())) } else { Ok(addresses) }
    }
}
