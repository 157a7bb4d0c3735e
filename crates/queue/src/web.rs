//! Apps that are web servers of their own: how one is started, and how requests and answers pass between the
//! rooms. Bodies pass as streams and are held by nobody; a connection that changes its protocol is two of them.

use std::fmt;
use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::text;

/// The port that a web server listens on when nobody says another.
pub const PORT_DEFAULT: u16 = 8000;
/// The variable of a replica's environment with the port that it is to listen on.
pub const PORT_VARIABLE: &str = "PORT";
/// Longest path that is told of a run or call as its function.
const FUNCTION_BYTES_MAX: usize = 255;

/// A web server in place of functions: `[cerebrium.runtime.custom]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomRuntime {
    /// What starts it.
    pub entrypoint: Entrypoint,
    /// The port that it listens on as it is written. Replicas get free ports of their own.
    #[serde(default = "port_default")]
    pub port: u16,
    /// Answers 2xx while the server is well; without it, taking connections is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck_endpoint: Option<String>,
    /// Answers 2xx while the server may be given requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readycheck_endpoint: Option<String>,
}

fn port_default() -> u16 {
    PORT_DEFAULT
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entrypoint {
    /// A line for the shell.
    Line(String),
    /// A program and its arguments.
    Words(Vec<String>),
}

impl Entrypoint {
    /// Whether there is nothing to start.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Line(line) => line.trim().is_empty(),
            Self::Words(words) => words.first().is_none_or(|program| program.trim().is_empty()),
        }
    }
}

impl fmt::Display for Entrypoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => f.write_str(line),
            Self::Words(words) => f.write_str(&words.join(" ")),
        }
    }
}

/// A body on its way.
pub type Body = BoxStream<'static, io::Result<Bytes>>;

/// Headers in their order; a name may stand there more than once.
pub type Headers = Vec<(String, Bytes)>;

/// What a request says before its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The method.
    pub method: String,
    /// Path and query, as the web server is to see them.
    pub target: String,
    /// The headers that the web server is to see.
    pub headers: Headers,
}

/// A request on its way to a web server.
pub struct Request {
    /// What it says.
    pub head: Head,
    /// Its body, if it has one; the bytes of the new protocol if it asks for one.
    pub body: Option<Body>,
    /// It asks for another protocol on its connection, such as WebSocket.
    pub upgrade: bool,
}

/// An answer on its way back.
pub struct Answer {
    /// Its status; 101 when the connection speaks another protocol from now on.
    pub status: u16,
    /// Its headers.
    pub headers: Headers,
    /// Bytes of its body, where that is known beforehand. Who has them all need not ask for more.
    pub length: Option<u64>,
    /// Its body, or the bytes of the new protocol.
    pub body: Body,
}

/// Sees the end of a body that is passed on: whoever takes one of known length may drop it without having been
/// told that it is over.
#[derive(Clone, Copy, Debug)]
pub struct Countdown(Option<u64>);

impl Countdown {
    /// For a body of this length.
    pub fn new(length: Option<u64>) -> Self {
        Self(length)
    }

    /// Notes that bytes have passed.
    pub fn pass(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.0 = self.0.map(|left| left.saturating_sub(bytes));
    }

    /// Whether nothing is left.
    pub fn is_over(self) -> bool {
        self.0 == Some(0)
    }
}

/// Somebody who waits for the answer of a web server.
pub trait Visitor: fmt::Debug + Send + Sync {
    /// The request; `None` for whoever asks a second time.
    fn request(&self) -> Option<Request>;

    /// The answer has begun.
    fn answer(&self, answer: Answer);
}

impl Head {
    /// What is told as the function of a run or call: the path, without what is asked of it.
    pub fn function(target: &str) -> &str {
        text::cut(target.split('?').next().unwrap_or_default(), FUNCTION_BYTES_MAX)
    }

    /// The whole request as one message (RFC 9112), which is how the input of a run keeps it.
    pub fn with_body(&self, body: &[u8]) -> Bytes {
        let size: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let mut message =
            BytesMut::with_capacity(self.method.len() + self.target.len() + size + body.len() + 16);
        for text in [&self.method, " ", &self.target, " HTTP/1.1\r\n"] {
            message.put_slice(text.as_bytes());
        }
        for (name, value) in &self.headers {
            message.put_slice(name.as_bytes());
            message.put_slice(b": ");
            message.put_slice(value);
            message.put_slice(b"\r\n");
        }
        message.put_slice(b"\r\n");
        message.put_slice(body);
        message.freeze()
    }

    /// Takes such a message apart. `None` for anything else, such as the JSON that functions are called with.
    pub fn and_body(message: &Bytes) -> Option<(Self, Bytes)> {
        let (line, mut rest) = line_of(message, 0)?;
        let mut words = line.split(|byte| *byte == b' ');
        let mut word = || std::str::from_utf8(words.next()?).ok().map(str::to_owned);
        let (method, target, version) = (word()?, word()?, word()?);
        if version != "HTTP/1.1" || !target.starts_with('/') {
            return None;
        }
        let mut headers = Headers::new();
        loop {
            let (line, next) = line_of(message, rest)?;
            rest = next;
            if line.is_empty() {
                break;
            }
            let colon = line.windows(2).position(|pair| pair == b": ")?;
            let name = std::str::from_utf8(&line[..colon]).ok()?;
            headers.push((name.to_owned(), message.slice_ref(&line[colon + 2..])));
        }
        Some((Self { method, target, headers }, message.slice(rest..)))
    }
}

fn line_of(message: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = message.get(at..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&rest[..end], at + end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_out_of_its_message_as_it_went_in() {
        let head = Head {
            method: "PUT".into(),
            target: "/a%20b/c?x=1&y=:%20".into(),
            headers: vec![
                ("content-type".into(), Bytes::from_static(b"multipart/form-data; boundary=\"a: b\"")),
                ("x-twice".into(), Bytes::from_static(b"1")),
                ("x-twice".into(), Bytes::from_static(b"")),
                ("x-latin".into(), Bytes::from_static(b"\xe4")),
            ],
        };
        for body in [&b""[..], b"{}", b"\r\n\r\nPOST / HTTP/1.1\r\n", b"\0\xff"] {
            let message = head.with_body(body);
            assert_eq!(Head::and_body(&message), Some((head.clone(), Bytes::copy_from_slice(body))));
        }
    }

    #[test]
    fn what_functions_are_called_with_is_no_message() {
        for other in [
            "{}",
            "",
            " ",
            "{\"a\": \"b HTTP/1.1\r\n\r\n\"}",
            "\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(Head::and_body(&Bytes::from_static(other.as_bytes())), None, "{other:?}");
        }
    }

    #[test]
    fn the_function_is_the_path_and_bounded() {
        assert_eq!(Head::function("/a/b?c=/d"), "/a/b");
        assert_eq!(Head::function(&format!("/{}", "x".repeat(300))).len(), FUNCTION_BYTES_MAX);
    }
}
