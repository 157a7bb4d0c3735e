//! Opens connections to addresses chosen by users, and to nothing else than what the guard judged.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use queue::delivery::Timings;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use url::Host;

use crate::failure::{Failure, Phase};
use crate::guard::Guard;
use crate::rules::{Address, Target};

/// A connection, plain or encrypted.
pub(crate) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Addresses of one name that are tried, each a moment after the one before (RFC 8305).
const ADDRESSES_TRIED_MAX: usize = 6;
const STAGGER: Duration = Duration::from_millis(250);

pub(crate) struct Connector {
    guard: Arc<Guard>,
    tls: OnceCell<TlsConnector>,
    limit: Duration,
}

impl Connector {
    /// `tls` replaces the machine's own roots of trust; `limit` bounds connect and TLS together.
    pub(crate) fn new(guard: Arc<Guard>, tls: Option<Arc<ClientConfig>>, limit: Duration) -> Self {
        Self { guard, tls: OnceCell::new_with(tls.map(|tls| connector((*tls).clone()))), limit }
    }

    /// Opens a connection, and notes how long each step of it took.
    pub(crate) async fn connect(
        &self,
        address: &Address,
        deadline: Instant,
        timings: &mut Timings,
    ) -> Result<Stream, Failure> {
        let began = Instant::now();
        let addresses = self.guard.locate(address, deadline).await?;
        let located = Instant::now();
        timings.dns = matches!(address.target, Target::Name { .. }).then(|| located - began);
        let deadline = deadline.min(located + self.limit);
        let (stream, at) = match timeout_at(deadline, open(&addresses)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(Failure::of_connect(&error)),
            Err(_) => return Err(Failure::Timeout(Phase::Connect)),
        };
        if stream.peer_addr().map_err(|error| Failure::of_connect(&error))? != at {
            return Err(Failure::AddressNotAllowed);
        }
        let connected = Instant::now();
        timings.connect = Some(connected - located);
        // A failure costs latency alone.
        let _ = stream.set_nodelay(true);
        // Own inboxes are reached behind whatever terminates TLS in front of this server.
        let encrypted = address.url.scheme() == "https" && !matches!(address.target, Target::OwnInbox(_));
        if !encrypted {
            return Ok(Either::Left(stream));
        }
        let name = server_name(address).ok_or(Failure::Tls("wrong_host"))?;
        let handshake = async { self.tls().await?.connect(name, stream).await };
        match timeout_at(deadline, handshake).await {
            Ok(Ok(stream)) => {
                timings.tls = Some(connected.elapsed());
                Ok(Either::Right(Box::new(stream)))
            }
            Ok(Err(error)) => Err(Failure::of_tls(&error)),
            Err(_) => Err(Failure::Timeout(Phase::Tls)),
        }
    }

    /// Reading the machine's certificates takes tens of milliseconds and some memory, so it waits
    /// for the first https receiver.
    async fn tls(&self) -> io::Result<&TlsConnector> {
        self.tls
            .get_or_try_init(|| async {
                let config = tokio::task::spawn_blocking(system_tls).await.map_err(io::Error::other)?;
                config.map(connector).map_err(|error| {
                    tracing::error!(%error, "the machine's certificates cannot be read; no https receiver can be reached");
                    io::Error::other(error)
                })
            })
            .await
    }
}

fn system_tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth())
}

/// Says beforehand what will be spoken: HTTP/1.1, which every receiver understands. One that insists on something
/// else says so in the handshake, before it gets a byte.
fn connector(mut config: ClientConfig) -> TlsConnector {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn server_name(address: &Address) -> Option<ServerName<'static>> {
    match address.url.host()? {
        Host::Domain(name) => ServerName::try_from(name.strip_suffix('.').unwrap_or(name).to_owned()).ok(),
        Host::Ipv4(ip) => Some(ServerName::IpAddress(std::net::IpAddr::from(ip).into())),
        Host::Ipv6(ip) => Some(ServerName::IpAddress(std::net::IpAddr::from(ip).into())),
    }
}

/// Connects to the first of `addresses` that takes it.
async fn open(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    let attempt = |at: SocketAddr| async move { Ok((TcpStream::connect(at).await?, at)) };
    if let [only] = addresses {
        return attempt(*only).await;
    }
    let mut untried = addresses.iter().take(ADDRESSES_TRIED_MAX);
    let mut trying = FuturesUnordered::new();
    let mut last: io::Result<_> = Err(io::ErrorKind::AddrNotAvailable.into());
    loop {
        match untried.next() {
            Some(at) => trying.push(attempt(*at)),
            None if trying.is_empty() => return last,
            None => {}
        }
        tokio::select! {
            Some(opened) = trying.next() => match opened {
                Ok(opened) => return Ok(opened),
                error => last = error,
            },
            () = sleep(STAGGER), if untried.len() > 0 => {}
        }
    }
}
