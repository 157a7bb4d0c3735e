//! Why an attempt failed, in the words that API, CLI, pages and logs share.

use std::borrow::Cow;
use std::fmt;
use std::io;

use queue::reason::{NO_SIGNING_KEY, OUTCOME_UNKNOWN, SERVER_EXHAUSTED};
use queue::shortage::is_shortage;

/// The step of an attempt that ran out of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Dns,
    Connect,
    Tls,
    /// From the request's first byte to the answer's last header.
    Headers,
    Body,
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The receiver answered, and not with 2xx.
    HttpStatus,
    /// The receiver answered 3xx; redirects are not followed.
    Redirect,
    Timeout(Phase),
    /// Nobody listens there, or the network will not carry it.
    Refused,
    /// The connection ended before the answer did.
    Reset,
    /// The name does not resolve.
    Dns,
    /// No trustworthy connection, with the kind of trouble.
    Tls(&'static str),
    /// The guard said no.
    AddressNotAllowed,
    /// The answer is not HTTP.
    BadResponse,
    /// The project's secret could not be read within the limit, so nothing was sent.
    NoSigningKey,
    /// This server has no file descriptors or memory left, so nothing was sent.
    Shortage,
    /// The attempt broke off by a bug of this server's; nobody knows what went out.
    OutcomeUnknown,
}

impl Failure {
    /// The stable word.
    pub(crate) fn reason(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::HttpStatus => "http_status",
            Self::Redirect => "redirect",
            Self::Timeout(Phase::Dns) => "timeout:dns",
            Self::Timeout(Phase::Connect) => "timeout:connect",
            Self::Timeout(Phase::Tls) => "timeout:tls",
            Self::Timeout(Phase::Headers) => "timeout:headers",
            Self::Timeout(Phase::Body) => "timeout:body",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Dns => "dns",
            Self::Tls(kind) => return Cow::Owned(format!("tls:{kind}")),
            Self::AddressNotAllowed => "address_not_allowed",
            Self::BadResponse => "bad_response",
            Self::NoSigningKey => NO_SIGNING_KEY,
            Self::Shortage => SERVER_EXHAUSTED,
            Self::OutcomeUnknown => OUTCOME_UNKNOWN,
        })
    }

    /// Whether it speaks against the receiver as a whole: the breaker counts these.
    pub(crate) const fn is_outage(self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Refused | Self::Dns | Self::Tls(_))
    }

    /// What an error while connecting means.
    pub(crate) fn of_connect(error: &io::Error) -> Self {
        match error.kind() {
            _ if is_shortage(error) => Self::Shortage,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Self::Reset,
            io::ErrorKind::TimedOut => Self::Timeout(Phase::Connect),
            _ => Self::Refused,
        }
    }

    /// What an error of the TLS handshake means.
    pub(crate) fn of_tls(error: &io::Error) -> Self {
        use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error};
        let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) else {
            return Self::Tls(match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "closed",
                _ => "handshake",
            });
        };
        Self::Tls(match cause {
            Error::InvalidCertificate(certificate) => match certificate {
                Certificate::Expired | Certificate::ExpiredContext { .. } => "expired",
                Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => "not_valid_yet",
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => "wrong_host",
                Certificate::UnknownIssuer => "unknown_issuer",
                Certificate::Revoked => "revoked",
                _ => "bad_certificate",
            },
            Error::PeerIncompatible(_) | Error::AlertReceived(Alert::ProtocolVersion) => "version",
            Error::AlertReceived(Alert::NoApplicationProtocol) => "no_http_1",
            Error::AlertReceived(_) => "alert",
            Error::InvalidMessage(_) => "not_tls",
            _ => "handshake",
        })
    }

    /// What an error of the HTTP exchange means.
    pub(crate) fn of_exchange(error: &hyper::Error) -> Self {
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                return match io.get_ref() {
                    Some(tls) if tls.is::<rustls::Error>() => Self::of_tls(io),
                    // hyper reports a body whose framing is broken as invalid input of the stream.
                    _ if matches!(io.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                        Self::BadResponse
                    }
                    _ => Self::Reset,
                };
            }
            cause = inner.source();
        }
        if error.is_parse() { Self::BadResponse } else { Self::Reset }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason())
    }
}

#[cfg(test)]
mod tests {
    use queue::reason;

    use super::*;

    #[test]
    fn every_failure_has_one_of_the_words_that_are_documented() {
        let failures = [
            Failure::HttpStatus,
            Failure::Redirect,
            Failure::Timeout(Phase::Dns),
            Failure::Refused,
            Failure::Reset,
            Failure::Dns,
            Failure::Tls("expired"),
            Failure::AddressNotAllowed,
            Failure::BadResponse,
            Failure::NoSigningKey,
            Failure::Shortage,
            Failure::OutcomeUnknown,
        ];
        for failure in failures {
            let said = failure.reason();
            let word = said.split(':').next().unwrap();
            assert!(reason::ALL.contains(&word), "{said}");
        }
    }
}
