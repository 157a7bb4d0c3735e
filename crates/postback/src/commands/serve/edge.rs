//! The flags that bound connections and callers. Those who expect hostile callers make them smaller.

use std::num::NonZeroU32;
use std::time::Duration;

use gateway::RateLimits;
use gateway::listener::ListenerOptions;
use ipnet::IpNet;
use queue::limits;

/// What connections may cost, and how often one caller may ask.
#[derive(Debug, clap::Args)]
pub(crate) struct Edge {
    /// Connections open at once; the next one waits
    #[arg(
        long, env = "POSTBACK_MAX_CONNECTIONS", value_name = "COUNT",
        default_value_t = limits::CONNECTIONS_MAX as u32, value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    max_connections: u32,
    /// Of them from one address (proxies of `--trusted-proxy` aside); 0 for any number
    #[arg(
        long, env = "POSTBACK_MAX_CONNECTIONS_PER_ADDRESS", value_name = "COUNT",
        default_value_t = limits::CONNECTIONS_PER_ADDRESS_MAX as u32
    )]
    max_connections_per_address: u32,
    /// Seconds for a request's header
    #[arg(
        long, env = "POSTBACK_HEADER_TIMEOUT", value_name = "SECONDS",
        default_value_t = limits::HEADER_LIMIT.as_secs_f64(), value_parser = seconds
    )]
    header_timeout: f64,
    /// Seconds without a byte after which a connection between two requests is closed
    #[arg(
        long, env = "POSTBACK_IDLE_TIMEOUT", value_name = "SECONDS",
        default_value_t = limits::IDLE_LIMIT.as_secs_f64(), value_parser = seconds
    )]
    idle_timeout: f64,
    /// Seconds that a body may stall, or an answer wait to be taken
    #[arg(
        long, env = "POSTBACK_BODY_TIMEOUT", value_name = "SECONDS",
        default_value_t = limits::BODY_STALL_LIMIT.as_secs_f64(), value_parser = seconds
    )]
    body_timeout: f64,
    /// Requests a second of one address before it gets 429; no bound when not given
    #[arg(long, env = "POSTBACK_REQUESTS_PER_SECOND_PER_ADDRESS", value_name = "COUNT")]
    requests_per_second_per_address: Option<NonZeroU32>,
    /// Requests a second with one key before it gets 429; no bound when not given
    #[arg(long, env = "POSTBACK_REQUESTS_PER_SECOND_PER_KEY", value_name = "COUNT")]
    requests_per_second_per_key: Option<NonZeroU32>,
}

impl Edge {
    /// As the listener wants it.
    pub(super) fn listener(&self, trusted_proxies: Vec<IpNet>) -> ListenerOptions {
        ListenerOptions {
            connections_max: self.max_connections as usize,
            connections_per_address_max: self.max_connections_per_address as usize,
            trusted_proxies,
            header_limit: Duration::from_secs_f64(self.header_timeout),
            idle_limit: Duration::from_secs_f64(self.idle_timeout),
            body_stall_limit: Duration::from_secs_f64(self.body_timeout),
            ..ListenerOptions::default()
        }
    }

    /// As the gateway wants it.
    pub(super) fn rates(&self) -> RateLimits {
        RateLimits {
            per_address: self.requests_per_second_per_address,
            per_key: self.requests_per_second_per_key,
        }
    }
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            max_connections: limits::CONNECTIONS_MAX as u32,
            max_connections_per_address: limits::CONNECTIONS_PER_ADDRESS_MAX as u32,
            header_timeout: limits::HEADER_LIMIT.as_secs_f64(),
            idle_timeout: limits::IDLE_LIMIT.as_secs_f64(),
            body_timeout: limits::BODY_STALL_LIMIT.as_secs_f64(),
            requests_per_second_per_address: None,
            requests_per_second_per_key: None,
        }
    }
}

/// A time between a hundredth of a second and an hour.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0.01 to 3600 are meant, such as 10".to_owned()),
    }
}
