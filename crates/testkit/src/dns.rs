//! A name server of a test's own: it says of a name what the test wants, a new thing each time if need
//! be, over UDP and (for answers that are too long for that) over TCP.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Longest answer over UDP; beyond it the client is sent to TCP.
const UDP_BYTES_MAX: usize = 1_232;
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const NOTHING_OF_THIS_NAME: u8 = 3;

/// What is asked: a name without the dot at its end, in small letters; a kind; how often before.
#[derive(Clone, Debug)]
pub struct Question {
    /// The name.
    pub name: String,
    /// Asked for an IPv6 address, else for an IPv4 one.
    pub v6: bool,
    /// How often the same was asked before.
    pub before: usize,
}

/// What the server says to a question.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These records, good for this many seconds; addresses of the other family are left out.
    Records(u32, Vec<Record>),
    /// There is no such name.
    NoSuchName,
    /// Nothing at all.
    Silence,
    /// Bytes that are no answer.
    Garbage,
}

/// One record of an answer.
#[derive(Clone, Debug)]
pub enum Record {
    /// The name has this address, or what the last alias leads to has it.
    Address(IpAddr),
    /// The name is another name for this one; records that follow are about that.
    Alias(String),
}

impl Reply {
    /// Addresses that must be asked for again each time.
    pub fn addresses(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::Records(0, addresses.into_iter().map(Record::Address).collect())
    }
}

type Zone = Arc<dyn Fn(&Question) -> Reply + Send + Sync>;

/// A running name server; ends when it is dropped.
pub struct NameServer {
    asked: Arc<AtomicUsize>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

struct Shared {
    zone: Zone,
    asked: Arc<AtomicUsize>,
    before: Mutex<HashMap<(String, bool), usize>>,
}

impl NameServer {
    /// Begins to answer at `address` as `zone` says.
    ///
    /// # Errors
    /// When somebody else listens there.
    pub async fn start(
        address: SocketAddr,
        zone: impl Fn(&Question) -> Reply + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (udp, tcp) = (UdpSocket::bind(address).await?, TcpListener::bind(address).await?);
        let asked = Arc::new(AtomicUsize::new(0));
        let shared =
            Arc::new(Shared { zone: Arc::new(zone), asked: Arc::clone(&asked), before: Mutex::default() });
        let tasks = [tokio::spawn(over_udp(udp, Arc::clone(&shared))), tokio::spawn(over_tcp(tcp, shared))];
        Ok(Self { asked, tasks })
    }

    /// How many questions came.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn over_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let mut query = [0; 512];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut query).await else { continue };
        let Some(mut answer) = shared.answer(&query[..length], true) else { continue };
        if answer.len() > UDP_BYTES_MAX {
            // Header and question only, with the bit that says so.
            let question = read_question(&query[..length]).map_or(12, |(_, _, end)| end);
            answer.truncate(question);
            answer[2] |= 0b10;
            answer[6..8].fill(0);
        }
        let _ = socket.send_to(&answer, peer).await;
    }
}

async fn over_tcp(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // A client that goes away has what it wanted.
            let _ = converse(stream, &shared).await;
        });
    }
}

async fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let mut query = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut query).await?;
        let Some(answer) = shared.answer(&query, false) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).await?;
    }
}

impl Shared {
    /// The answer's bytes; `None` for silence. Over TCP a question is the repetition of one over UDP.
    fn answer(&self, query: &[u8], is_first: bool) -> Option<Vec<u8>> {
        let (name, kind, end) = read_question(query)?;
        self.asked.fetch_add(1, Ordering::SeqCst);
        let v6 = kind == AAAA;
        let before = {
            let mut counts = self.before.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry((name.clone(), v6)).or_default();
            *count += usize::from(is_first);
            count.saturating_sub(1)
        };
        let reply = match kind {
            A | AAAA => (self.zone)(&Question { name: name.clone(), v6, before }),
            _ => Reply::Records(0, Vec::new()),
        };
        let mut answer = query[..end].to_vec();
        // An answer, by the authority, to a client that may recurse; of the sections only the question.
        answer[2] = 0x84 | (query[2] & 1);
        answer[3] = 0x80;
        answer[6..12].fill(0);
        match reply {
            Reply::Silence => return None,
            Reply::Garbage => {
                answer.truncate(3);
                answer.extend([0xff; 40]);
            }
            Reply::NoSuchName => answer[3] |= NOTHING_OF_THIS_NAME,
            Reply::Records(seconds, records) => {
                let mut owner = name;
                let mut count = 0_u16;
                for record in records {
                    let (kind, data) = match &record {
                        Record::Address(IpAddr::V4(ip)) if !v6 => (A, ip.octets().to_vec()),
                        Record::Address(IpAddr::V6(ip)) if v6 => (AAAA, ip.octets().to_vec()),
                        Record::Address(_) => continue,
                        Record::Alias(name) => (CNAME, encode(name)),
                    };
                    answer.extend(encode(&owner));
                    answer.extend(kind.to_be_bytes());
                    answer.extend([0, 1]);
                    answer.extend(seconds.to_be_bytes());
                    answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
                    answer.extend(data);
                    count += 1;
                    if let Record::Alias(name) = record {
                        owner = name;
                    }
                }
                answer[6..8].copy_from_slice(&count.to_be_bytes());
            }
        }
        Some(answer)
    }
}

/// Name, kind and the end of the first question.
fn read_question(query: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    query.get(..at + 4)?;
    Some((labels.join("."), kind, at + 4))
}

fn encode(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> =
        labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}
