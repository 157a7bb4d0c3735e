//! The rules an address must keep, as far as they can be read off the address itself.
//!
//! An address is parsed once, by the `url` crate, and only the parsed form is used afterwards: it
//! turns `127.1`, `0x7f.1`, `2130706433` and circled digits into the IPv4 address that they mean.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use queue::id::InboxId;
use queue::limits::WEBHOOK_URL_BYTES_MAX;
use queue::port::AddressRefused;
use url::{Host, Url};

use crate::address::{self, Special};

/// What the operator decided about webhook addresses. The default is the strictest.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// `--allow-private-webhooks`: addresses in here may be called, over http, on any port, and by
    /// names such as `localhost`. Link-local and metadata addresses stay forbidden.
    pub allow_private: Vec<IpNet>,
    /// `--allow-http-webhooks`: http is as good as https.
    pub allow_http: bool,
    /// `--allow-webhook-ports`: ports beside 443 and 80.
    pub allow_ports: Vec<u16>,
    /// The server itself, whose inboxes may always be called and nothing else of it ever.
    pub own: Option<OwnServer>,
}

/// Where this server is found.
#[derive(Clone, Debug)]
pub struct OwnServer {
    /// The address it listens on, plain HTTP. Own inboxes are reached here, whatever the public
    /// address looks like from outside.
    pub listen: SocketAddr,
    /// The address by which others know it (`--public-url`).
    pub public_url: Option<Url>,
}

/// An address that breaks no rule of its own.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// The parsed form, without fragment.
    pub(crate) url: Url,
    /// Where it leads.
    pub(crate) target: Target,
}

/// Where an address leads.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// To an inbox of this server, if there is one of this id.
    OwnInbox(InboxId),
    /// To this very address, which has been judged.
    Ip(SocketAddr),
    /// To whatever the name resolves to, which must be judged.
    Name {
        host: String,
        port: u16,
        /// The rule it breaks unless every address of the name lies in `allow_private`.
        unless_private: Option<AddressRefused>,
    },
}

/// What may be done with an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Public: the general rules hold.
    Public,
    /// Opened by `allow_private`: the rules about scheme, port and name are lifted.
    Opened,
    /// Never to be called.
    Forbidden(Special),
    /// This server's own listener.
    OwnListener,
}

/// Longest host name, by DNS.
const HOST_BYTES_MAX: usize = 253;

impl Rules {
    /// Reads an address.
    ///
    /// # Errors
    /// When it breaks a rule whatever its name may resolve to.
    pub(crate) fn read(&self, text: &str) -> Result<Address, AddressRefused> {
        if text.len() > WEBHOOK_URL_BYTES_MAX {
            return refuse("length", format!("the address is longer than {WEBHOOK_URL_BYTES_MAX} bytes"));
        }
        if text.chars().any(char::is_control) {
            return refuse("control_character", "the address holds a control character; encode it as %XX");
        }
        let mut url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                return refuse(
                    "syntax",
                    format!("not a complete address such as https://example.com/hook: {error}"),
                );
            }
        };
        url.set_fragment(None);
        if !matches!(url.scheme(), "https" | "http") {
            return refuse("scheme", format!("`{}` addresses cannot be called; use https", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse(
                "userinfo",
                "the address carries a user name or password; deliveries prove themselves by their signature",
            );
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return refuse("syntax", "the address names no host");
        };
        if url.host_str().is_some_and(|host| host.len() > HOST_BYTES_MAX) {
            return refuse("host", format!("the host name is longer than {HOST_BYTES_MAX} bytes"));
        }
        if port == 0 {
            return refuse("port", "port 0 cannot be called");
        }
        let target = if self.own.as_ref().is_some_and(|own| own.is_origin_of(&url)) {
            own_target(&url)?
        } else {
            match host {
                Host::Ipv4(ip) => self.literal(&url, SocketAddr::new(ip.into(), port))?,
                Host::Ipv6(ip) => self.literal(&url, SocketAddr::new(ip.into(), port))?,
                Host::Domain(host) => self.name(&url, host, port)?,
            }
        };
        Ok(Address { url, target })
    }

    fn literal(&self, url: &Url, at: SocketAddr) -> Result<Target, AddressRefused> {
        match self.standing(at) {
            Standing::Opened => Ok(Target::Ip(at)),
            Standing::Public => self.general(url, at.port()).map_or(Ok(Target::Ip(at)), Err),
            Standing::OwnListener => Err(own_server()),
            Standing::Forbidden(Special { net, what, can_be_allowed }) => {
                let ip = at.ip();
                let way_out = if can_be_allowed {
                    format!("; start the server with --allow-private-webhooks {net} to allow it")
                } else {
                    " and is never called".to_owned()
                };
                refuse("address_not_allowed", format!("{ip} is {what}{way_out}"))
            }
        }
    }

    fn name(&self, url: &Url, host: &str, port: u16) -> Result<Target, AddressRefused> {
        let broken = private_name(host).or_else(|| self.general(url, port));
        match broken {
            Some(refused) if self.allow_private.is_empty() => Err(refused),
            unless_private => Ok(Target::Name { host: host.to_owned(), port, unless_private }),
        }
    }

    /// The rules for the public internet: https, and the usual ports.
    fn general(&self, url: &Url, port: u16) -> Option<AddressRefused> {
        if url.scheme() == "http" && !self.allow_http {
            return Some(refused(
                "scheme",
                "webhooks go out over https; start the server with --allow-http-webhooks to allow http",
            ));
        }
        if !matches!(port, 443 | 80) && !self.allow_ports.contains(&port) {
            let message = format!(
                "webhooks go to port 443 or 80; start the server with --allow-webhook-ports {port} to allow {port}"
            );
            return Some(refused("port", message));
        }
        None
    }

    /// What may be done with an IP address and port.
    pub(crate) fn standing(&self, at: SocketAddr) -> Standing {
        let ip = at.ip().to_canonical();
        if self.own.as_ref().is_some_and(|own| own.listens_on(ip, at.port())) {
            return Standing::OwnListener;
        }
        let opened = || self.allow_private.iter().any(|net| net.contains(&ip));
        match address::special(ip) {
            Some(special) if special.can_be_allowed && opened() => Standing::Opened,
            Some(special) => Standing::Forbidden(special),
            None if opened() => Standing::Opened,
            None if address::is_own(ip) => Standing::Forbidden(Special {
                net: ip.into(),
                what: "an address of this machine",
                can_be_allowed: true,
            }),
            None => Standing::Public,
        }
    }

    /// Judges every answer for a name: one that is forbidden spoils them all.
    ///
    /// # Errors
    /// Never says what the name resolved to.
    pub(crate) fn judge(
        &self,
        host: &str,
        answers: impl IntoIterator<Item = SocketAddr>,
        unless_private: Option<&AddressRefused>,
    ) -> Result<Vec<SocketAddr>, AddressRefused> {
        let mut addresses = Vec::new();
        for at in answers {
            match (self.standing(at), unless_private) {
                (Standing::Opened, _) | (Standing::Public, None) => addresses.push(at),
                (Standing::Public, Some(refused)) => return Err(refused.clone()),
                (Standing::Forbidden(_) | Standing::OwnListener, _) => {
                    return refuse(
                        "address_not_allowed",
                        format!(
                            "`{host}` leads to an address that webhooks may not go to; if that is meant, start the \
                             server with --allow-private-webhooks and its address range"
                        ),
                    );
                }
            }
        }
        Ok(addresses)
    }

    /// The addresses of `localhost`, which is never asked of the network: those that are open.
    pub(crate) fn open_loopbacks(&self, port: u16) -> Vec<SocketAddr> {
        [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]
            .into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .filter(|at| self.standing(*at) == Standing::Opened)
            .collect()
    }
}

impl OwnServer {
    fn is_origin_of(&self, url: &Url) -> bool {
        let is_public = self.public_url.as_ref().is_some_and(|public| public.origin() == url.origin());
        let listen = self.listen.ip();
        let is_listener = || match url.host() {
            Some(Host::Ipv4(ip)) => self.answers_to(ip.into()),
            Some(Host::Ipv6(ip)) => self.answers_to(ip.into()),
            Some(Host::Domain(name)) => {
                name == "localhost" && (listen.is_loopback() || listen.is_unspecified())
            }
            None => false,
        };
        is_public
            || (url.scheme() == "http"
                && url.port_or_known_default() == Some(self.listen.port())
                && is_listener())
    }

    fn answers_to(&self, ip: IpAddr) -> bool {
        let listen = self.listen.ip();
        ip == listen || (listen.is_unspecified() && (ip.is_loopback() || ip.is_unspecified()))
    }

    fn listens_on(&self, ip: IpAddr, port: u16) -> bool {
        port == self.listen.port()
            && (self.answers_to(ip) || (self.listen.ip().is_unspecified() && address::is_own(ip)))
    }

    /// The origins by which own inboxes are called.
    pub(crate) fn origins(&self) -> Vec<String> {
        let port = self.listen.port();
        let public = self.public_url.iter().map(|url| url.origin().ascii_serialization());
        let local = [self.listen, self.local_address()].map(|at| format!("http://{at}"));
        public.chain(local).chain([format!("http://localhost:{port}")]).collect()
    }

    /// Where it is reached from this machine, also when it listens on every address.
    pub fn local_address(&self) -> SocketAddr {
        let ip = match self.listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.listen.port())
    }
}

fn own_target(url: &Url) -> Result<Target, AddressRefused> {
    url.path()
        .strip_prefix("/inbox/")
        .and_then(|id| id.parse().ok())
        .map(Target::OwnInbox)
        .ok_or_else(own_server)
}

fn own_server() -> AddressRefused {
    refused(
        "own_server",
        "this address is the server itself, which delivers to its own inboxes only: `/inbox/<id>` (`postback inbox create` makes one)",
    )
}

/// Names that only mean something inside one machine or network.
fn private_name(host: &str) -> Option<AddressRefused> {
    const SUFFIXES: [&str; 4] = [".localhost", ".local", ".internal", ".home.arpa"];
    let name = host.strip_suffix('.').unwrap_or(host);
    let message = if is_localhost(host) {
        format!(
            "`{host}` is this machine; start the server with --allow-private-webhooks 127.0.0.0/8 to allow it"
        )
    } else if !name.contains('.')
        || SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
        || name == "home.arpa"
    {
        format!(
            "`{host}` is a name of a private network; start the server with --allow-private-webhooks and its \
             address range to allow it"
        )
    } else {
        return None;
    };
    Some(refused("name", message))
}

/// Whether the name is, by its meaning, this machine (RFC 6761).
pub(crate) fn is_localhost(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    name == "localhost" || name.ends_with(".localhost")
}

fn refused(rule: &'static str, message: impl Into<String>) -> AddressRefused {
    AddressRefused { rule, message: message.into() }
}

fn refuse<T>(rule: &'static str, message: impl Into<String>) -> Result<T, AddressRefused> {
    Err(refused(rule, message))
}
