//! The wire between worker and runner, as `protocol/README.md` specifies it.
//!
//! [`Outgoing`] gathers frames and writes many of them with one system call; [`Incoming`] reads as
//! much as there is and takes the frames out of it. Neither copies a large body. Every length is
//! checked before anything is allocated for it: a peer that breaks the protocol costs one
//! [`Broken`], never memory.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use queue::RunId;
use queue::app::Function;
use queue::log::Stream;
use queue::outcome::Code;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::net::UnixStream;

/// The version of the protocol.
pub const PROTOCOL: u32 = 1;
/// Largest frame: kind, call and payload.
pub const LENGTH_MAX: usize = 128 << 20;

const LENGTH_BYTES: usize = 4;
/// Kind and call.
const HEAD_BYTES: usize = 5;
const READ_BYTES: usize = 64 << 10;
/// Room is made for so many times what has come of a frame.
const AHEAD: usize = 16;
/// Up to here a body is cheaper to copy than to carry as a buffer of its own.
const COPIED_BYTES_MAX: usize = 4 << 10;
/// Chunks that one system call takes along.
const CHUNKS_PER_WRITE: usize = 64;

const START: u8 = 1;
const CALL: u8 = 2;
const CANCEL: u8 = 3;
const STOP: u8 = 4;
const STREAM: u8 = 5;
const LIVE: u8 = 6;
const READY: u8 = 16;
const FAILED: u8 = 17;
const RESULT: u8 = 18;
const ERROR: u8 = 19;
const LOG: u8 = 20;
const OUTPUT: u8 = 21;
const CHUNK: u8 = 22;

/// Why the runner's frames cannot be trusted any longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub(crate) String);

impl Broken {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// The payload of `start`: everything a runner must know before it imports the app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The app's folder, absolute.
    pub folder: String,
    /// The file to import, relative to the folder.
    pub entry: String,
    /// Calls the runner will get at once, at most.
    pub concurrency: u32,
    /// The same for an app with a function of the contract of 2023, while nobody knows whether it
    /// has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_concurrency: Option<u32>,
    /// Goes into `os.environ` before the import.
    pub environment: BTreeMap<String, String>,
    /// Goes there too, and is never shown.
    pub secrets: BTreeMap<String, String>,
}

/// One call on its way to the runner.
#[derive(Clone, Debug)]
pub struct CallFrame<'a> {
    /// Its number on this connection, from 1.
    pub call: u32,
    /// The function's index in `ready`.
    pub function: u16,
    /// Which attempt of the run this is, from 1.
    pub attempt: u16,
    /// The run.
    pub run: RunId,
    /// The raw JSON body; empty means `{}`.
    pub body: &'a Bytes,
    /// What becomes of what a generator yields.
    pub values: Values,
}

/// What becomes of what a generator yields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Values {
    /// They are gathered in a list, which is the result.
    #[default]
    Gathered,
    /// That, and each is told as it comes.
    Told,
    /// Each is told as it comes, and kept nowhere.
    Live,
}

/// Frames on their way to the runner.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Ready to be written, in order.
    sealed: VecDeque<Bytes>,
    /// Takes heads and small bodies, until a large body or a write seals it.
    open: BytesMut,
}

impl Outgoing {
    /// Adds a `start`.
    pub fn start(&mut self, start: &Start) {
        let json = serde_json::to_vec(start).expect("text and numbers always serialise");
        self.head(START, 0, json.len());
        self.open.put_slice(&json);
    }

    /// Adds a `call`, a `stream` or a `live`.
    pub fn call(&mut self, frame: &CallFrame<'_>) {
        let mut id = [0; 36];
        let id = frame.run.encode(&mut id);
        let kind = match frame.values {
            Values::Gathered => CALL,
            Values::Told => STREAM,
            Values::Live => LIVE,
        };
        self.head(kind, frame.call, 4 + id.len() + frame.body.len());
        self.open.put_u16(frame.function);
        self.open.put_u16(frame.attempt);
        self.open.put_slice(id.as_bytes());
        if frame.body.len() <= COPIED_BYTES_MAX {
            self.open.put_slice(frame.body);
        } else {
            self.seal();
            self.sealed.push_back(frame.body.clone());
        }
    }

    /// Adds a `cancel`.
    pub fn cancel(&mut self, call: u32) {
        self.head(CANCEL, call, 0);
    }

    /// Adds a `stop`.
    pub fn stop(&mut self) {
        self.head(STOP, 0, 0);
    }

    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.open.is_empty()
    }

    /// How much is not written yet.
    pub fn bytes(&self) -> usize {
        self.sealed.iter().map(Bytes::len).sum::<usize>() + self.open.len()
    }

    /// Writes as much as the socket takes now.
    ///
    /// # Errors
    /// When the socket is broken; a full one is no error.
    pub fn write_to(&mut self, socket: &UnixStream) -> io::Result<()> {
        self.write_with(|chunks| socket.try_write_vectored(chunks))
    }

    fn write_with(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<()> {
        loop {
            self.seal();
            if self.sealed.is_empty() {
                return Ok(());
            }
            let mut chunks = [IoSlice::new(&[]); CHUNKS_PER_WRITE];
            let count = chunks.iter_mut().zip(&self.sealed).map(|(slot, chunk)| *slot = IoSlice::new(chunk));
            let count = count.count();
            match write(&chunks[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(chunk) = self.sealed.front_mut() {
            if written < chunk.len() {
                chunk.advance(written);
                return;
            }
            written -= chunk.len();
            self.sealed.pop_front();
        }
    }

    fn head(&mut self, kind: u8, call: u32, payload: usize) {
        let length = u32::try_from(HEAD_BYTES + payload).expect("bodies are bounded far below 4 GiB");
        self.open.reserve(LENGTH_BYTES + HEAD_BYTES + payload.min(COPIED_BYTES_MAX) + 40);
        self.open.put_u32(length);
        self.open.put_u8(kind);
        self.open.put_u32(call);
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.sealed.push_back(self.open.split().freeze());
        }
    }
}

/// The payload of `ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The runner's version of the protocol.
    pub protocol: u32,
    /// The interpreter's version.
    pub python: String,
    /// What can be called; a `call` names one by its index.
    pub functions: Vec<Function>,
}

/// The payload of `failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The exception's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its text.
    pub message: String,
    /// Its traceback.
    pub traceback: Option<String>,
}

/// The JSON of `error`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallError {
    /// `user_error`, `result_invalid`, `result_too_large` or `cancelled`.
    pub code: Code,
    /// The exception's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its text.
    pub message: String,
    /// Its traceback.
    pub traceback: Option<String>,
    /// HTTP status of the answer, where that of the code will not do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// A frame from the runner.
#[derive(Clone, Debug, PartialEq)]
pub enum FromRunner {
    /// The import is done.
    Ready(Ready),
    /// The import raised.
    Failed(Failed),
    /// A call returned.
    Result {
        /// Which call.
        call: u32,
        /// HTTP status of the answer.
        status: u16,
        /// Time inside the function.
        milliseconds: f64,
        /// The result, compact JSON.
        json: Bytes,
    },
    /// A call did not return.
    Error {
        /// Which call.
        call: u32,
        /// Time inside the function.
        milliseconds: f64,
        /// Why.
        error: CallError,
    },
    /// A line was printed.
    Log {
        /// Inside which call; 0 for none.
        call: u32,
        /// On which output.
        stream: Stream,
        /// When, in microseconds since the Unix epoch.
        microseconds: u64,
        /// The line.
        line: String,
    },
    /// A generator yielded.
    Output {
        /// Inside which call.
        call: u32,
        /// The value, compact JSON; `None` when it is too long to be told.
        json: Option<Bytes>,
    },
    /// A generator yielded, for a caller that listens.
    Chunk {
        /// Inside which call.
        call: u32,
        /// The value as text; the first is empty and says that values come.
        text: Bytes,
    },
}

/// Bytes from the runner that are not frames yet.
#[derive(Debug, Default)]
pub struct Incoming {
    buffer: BytesMut,
}

impl Incoming {
    /// Reads what there is, once; the number of bytes, 0 at the end of the stream.
    ///
    /// # Errors
    /// When nothing is there (`WouldBlock`) or the socket is broken.
    pub fn read_from(&mut self, socket: &UnixStream) -> io::Result<usize> {
        // Room for a long frame is made as its bytes arrive, not at once for what its head claims. Pages that nothing
        // was written to take no memory, so a large step costs nothing and saves moving what is there.
        let missing =
            self.length().map_or(0, |length| (LENGTH_BYTES + length).saturating_sub(self.buffer.len()));
        self.buffer.reserve(missing.min(AHEAD * self.buffer.len()).max(READ_BYTES));
        socket.try_read_buf(&mut self.buffer)
    }

    /// Adds bytes that were read elsewhere.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether bytes of an unfinished frame are left.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    fn length(&self) -> Option<usize> {
        let length = self.buffer.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))?;
        usize::try_from(length).ok()
    }

    /// Takes out the next frame; `None` when it has not arrived in full.
    ///
    /// # Errors
    /// When the runner broke the protocol; nothing read after that means anything.
    pub fn next_frame(&mut self) -> Result<Option<FromRunner>, Broken> {
        let Some(length) = self.length() else { return Ok(None) };
        if !(HEAD_BYTES..=LENGTH_MAX).contains(&length) {
            return Err(Broken::new(format!("it announced a frame of {length} bytes")));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let kind = self.buffer.get_u8();
        let call = self.buffer.get_u32();
        let payload = length - HEAD_BYTES;
        if payload <= COPIED_BYTES_MAX {
            // A copy of a few bytes, so that a small result does not hold the whole read buffer.
            let frame = decode(kind, call, &self.buffer[..payload], Bytes::copy_from_slice);
            self.buffer.advance(payload);
            frame.map(Some)
        } else {
            let payload = self.buffer.split_to(payload).freeze();
            decode(kind, call, &payload, |part| payload.slice_ref(part)).map(Some)
        }
    }
}

fn decode(kind: u8, call: u32, payload: &[u8], keep: impl Fn(&[u8]) -> Bytes) -> Result<FromRunner, Broken> {
    let about_replica = matches!(kind, READY | FAILED);
    if (about_replica && call != 0) || (matches!(kind, RESULT | ERROR | OUTPUT | CHUNK) && call == 0) {
        return Err(Broken::new(format!("it sent a frame of kind {kind} about call {call}")));
    }
    let mut rest = payload;
    match kind {
        READY => json(READY, payload).map(FromRunner::Ready),
        FAILED => json(FAILED, payload).map(FromRunner::Failed),
        RESULT => {
            let status = rest.try_get_u16().map_err(|_| too_short(kind))?;
            let milliseconds = rest.try_get_f64().map_err(|_| too_short(kind))?;
            if !(200..=599).contains(&status) {
                return Err(Broken::new(format!("it sent a result with status {status}")));
            }
            json::<&RawValue>(kind, rest)?;
            Ok(FromRunner::Result { call, status, milliseconds: duration(milliseconds)?, json: keep(rest) })
        }
        ERROR => {
            let milliseconds = rest.try_get_f64().map_err(|_| too_short(kind))?;
            let error: CallError = json(kind, rest)?;
            let allowed = [Code::UserError, Code::ResultInvalid, Code::ResultTooLarge, Code::Cancelled];
            if !allowed.contains(&error.code) {
                return Err(Broken::new(format!("it sent an error with code `{}`", error.code.as_str())));
            }
            if let Some(status) = error.status
                && !(400..=599).contains(&status)
            {
                return Err(Broken::new(format!("it sent an error with status {status}")));
            }
            Ok(FromRunner::Error { call, milliseconds: duration(milliseconds)?, error })
        }
        LOG => {
            let stream = match rest.try_get_u8().map_err(|_| too_short(kind))? {
                1 => Stream::Stdout,
                2 => Stream::Stderr,
                other => return Err(Broken::new(format!("it sent a line of stream {other}"))),
            };
            let microseconds = rest.try_get_u64().map_err(|_| too_short(kind))?;
            if rest.len() > queue::limits::LOG_LINE_BYTES_MAX {
                return Err(Broken::new(format!("it sent a line of {} bytes", rest.len())));
            }
            let line =
                std::str::from_utf8(rest).map_err(|_| Broken::new("it sent a line that is not UTF-8"))?;
            Ok(FromRunner::Log { call, stream, microseconds, line: line.to_owned() })
        }
        OUTPUT if rest.is_empty() => Ok(FromRunner::Output { call, json: None }),
        OUTPUT => {
            if rest.len() > queue::limits::PROGRESS_BODY_BYTES_MAX {
                return Err(Broken::new(format!("it sent an output of {} bytes", rest.len())));
            }
            json::<&RawValue>(kind, rest)?;
            Ok(FromRunner::Output { call, json: Some(keep(rest)) })
        }
        CHUNK => {
            std::str::from_utf8(rest).map_err(|_| Broken::new("it sent a chunk that is not UTF-8"))?;
            Ok(FromRunner::Chunk { call, text: keep(rest) })
        }
        _ => Err(Broken::new(format!("it sent a frame of unknown kind {kind}"))),
    }
}

fn too_short(kind: u8) -> Broken {
    Broken::new(format!("it sent a frame of kind {kind} that is too short"))
}

fn json<'a, T: Deserialize<'a>>(kind: u8, bytes: &'a [u8]) -> Result<T, Broken> {
    serde_json::from_slice(bytes)
        .map_err(|error| Broken::new(format!("the JSON of its frame of kind {kind} is wrong: {error}")))
}

fn duration(milliseconds: f64) -> Result<f64, Broken> {
    if milliseconds.is_finite() && milliseconds >= 0.0 {
        Ok(milliseconds)
    } else {
        Err(Broken::new(format!("it sent a duration of {milliseconds} ms")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, call: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEAD_BYTES + payload.len()).unwrap().to_be_bytes().to_vec();
        bytes.push(kind);
        bytes.extend(call.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn result(call: u32, json: &[u8]) -> Vec<u8> {
        let mut payload = 200_u16.to_be_bytes().to_vec();
        payload.extend(1.5_f64.to_be_bytes());
        payload.extend(json);
        frame(RESULT, call, &payload)
    }

    #[test]
    fn frames_come_out_whole_however_their_bytes_arrive() {
        let large = format!("\"{}\"", "x".repeat(3 * COPIED_BYTES_MAX));
        let stream: Vec<u8> = [result(1, b"{}"), result(2, large.as_bytes()), result(3, b"null")].concat();
        for step in [1, 7, 4096, stream.len()] {
            let mut incoming = Incoming::default();
            let mut results = Vec::new();
            for part in stream.chunks(step) {
                incoming.extend(part);
                while let Some(FromRunner::Result { call, json, .. }) = incoming.next_frame().unwrap() {
                    results.push((call, json));
                }
            }
            assert_eq!(results.len(), 3, "in steps of {step}");
            assert_eq!(results[1], (2, Bytes::from(large.clone())));
            assert!(incoming.is_empty());
        }
    }

    #[test]
    fn a_result_must_be_json_and_its_numbers_possible() {
        let refused = |bytes: &[u8]| {
            let mut incoming = Incoming::default();
            incoming.extend(bytes);
            incoming.next_frame().unwrap_err().to_string()
        };
        assert!(refused(&result(1, b"{")).contains("JSON"));
        assert!(refused(&result(1, b"")).contains("JSON"));
        assert!(refused(&result(0, b"{}")).contains("about call 0"));
        let mut odd = result(1, b"{}");
        odd[9..11].copy_from_slice(&99_u16.to_be_bytes());
        assert!(refused(&odd).contains("status 99"));
        let mut never = result(1, b"{}");
        never[11..19].copy_from_slice(&f64::NAN.to_be_bytes());
        assert!(refused(&never).contains("duration"));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut incoming = Incoming::default();
        incoming.extend(&frame(RESULT, 1, &[])[4..]);
        incoming.buffer.clear();
        incoming.extend(&u32::try_from(LENGTH_MAX).unwrap().to_be_bytes());
        assert_eq!(incoming.next_frame(), Ok(None));
        assert!(incoming.buffer.capacity() < 1 << 20);
    }

    #[test]
    fn many_frames_leave_in_one_write_and_in_order_however_little_is_taken() {
        let large = Bytes::from(vec![b'7'; 2 * COPIED_BYTES_MAX]);
        let mut outgoing = Outgoing::default();
        let (run, small) = (RunId::from_bytes([1; 16]), Bytes::from_static(b"{}"));
        let send = |outgoing: &mut Outgoing| {
            for (call, body) in [(1, &small), (2, &small), (3, &small), (4, &large)] {
                let values = Values::Gathered;
                outgoing.call(&CallFrame { call, function: 0, attempt: 1, run, body, values });
            }
            outgoing.cancel(4);
        };
        send(&mut outgoing);
        let mut calls = 0;
        let mut taken: Vec<u8> = Vec::new();
        outgoing
            .write_with(|chunks| {
                calls += 1;
                taken.extend(chunks.iter().flat_map(|chunk| chunk.iter().copied()));
                Ok(chunks.iter().map(|chunk| chunk.len()).sum())
            })
            .unwrap();
        assert_eq!(calls, 1);

        let mut dripped: Vec<u8> = Vec::new();
        send(&mut outgoing);
        outgoing
            .write_with(|chunks| {
                dripped.extend(&chunks[0][..1]);
                Ok(1)
            })
            .unwrap();
        assert_eq!(dripped, taken);
        assert!(outgoing.is_empty());
    }
}
