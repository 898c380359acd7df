//! A DNS server with a table that a test can change while it runs (RFC 1035 wire format, A and AAAA over UDP, and over TCP
//! what does not fit 512 bytes).

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{OrFail as _, topology::Host, wait};

/// The server's reaction to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    /// Answers from the table; other names do not exist.
    #[default]
    Answer,
    /// Says SERVFAIL.
    Fail,
    /// Says nothing.
    Silent,
    /// Answers from the table, but says nothing to questions for IPv6.
    SilentOnV6,
}

/// The server; dropping it stops it.
#[derive(Debug)]
pub struct DnsServer {
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
}

#[derive(Debug, Default)]
struct Shared {
    zone: Mutex<Zone>,
    questions: AtomicUsize,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Zone {
    mood: Mood,
    names: HashMap<String, (u32, Vec<IpAddr>)>,
}

impl DnsServer {
    /// Serves `address`, port 53, on `host`.
    ///
    /// # Panics
    ///
    /// When the port cannot be bound.
    #[track_caller]
    pub fn start(host: &Host, address: Ipv4Addr) -> Self {
        let bind = || std::io::Result::Ok((UdpSocket::bind((address, 53))?, TcpListener::bind((address, 53))?));
        let (socket, listener) = host.run(bind).or_fail("bind the DNS server");
        // Short, so that a dropped server stops soon.
        socket.set_read_timeout(Some(Duration::from_millis(100))).or_fail("DNS timeout");
        let shared = Arc::new(Shared::default());
        let listener = Arc::new(listener);
        let server = Self { shared: Arc::clone(&shared), listener: Arc::clone(&listener) };
        let streams = Arc::clone(&shared);
        thread::spawn(move || serve_streams(&listener, &streams));
        thread::spawn(move || serve(&socket, &shared));
        server
    }

    /// Sets the addresses of `name` (lower case, no trailing dot) and how many seconds they may be kept.
    pub fn set(&self, name: &str, ttl: u32, addresses: &[IpAddr]) {
        self.zone().names.insert(name.to_owned(), (ttl, addresses.to_vec()));
    }

    /// Changes what happens to questions from now on.
    pub fn set_mood(&self, mood: Mood) {
        self.zone().mood = mood;
    }

    /// Questions so far.
    pub fn questions(&self) -> usize {
        self.shared.questions.load(Ordering::SeqCst)
    }

    /// Waits until `more` further questions have come.
    ///
    /// # Panics
    ///
    /// When they do not.
    #[track_caller]
    pub fn wait_for_questions(&self, more: usize) {
        let wanted = self.questions() + more;
        wait::until(&format!("{more} more questions reach the DNS server"), || {
            (self.questions() >= wanted).then_some(())
        });
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.shared.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Linux wakes a blocked accept(2) when the listener is shut down.
        let _done = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
    }
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0; 1500];
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok((count, from)) = socket.recv_from(&mut buffer) else { continue };
        let Some(question) = buffer.get(..count) else { continue };
        let reply = shared.answer(question).map(fit_datagram);
        reply_to(socket, from, reply.as_deref());
        // Counted last: who waits for the count may rely on the answer being out.
        shared.questions.fetch_add(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        answer(question, &self.zone.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An answer without its records and marked as truncated, if it is longer than 512 bytes (RFC 1035 section 4.2.1).
fn fit_datagram(mut reply: Vec<u8>) -> Vec<u8> {
    if reply.len() > 512 {
        let question = reply.get(12..).and_then(|rest| rest.iter().position(|byte| *byte == 0)).unwrap_or(0);
        reply.truncate(12 + question + 5);
        if let Some([_, _, flags, _, _, _, count @ ..]) = reply.first_chunk_mut::<8>() {
            *flags |= 2;
            *count = [0, 0];
        }
    }
    reply
}

fn serve_streams(listener: &TcpListener, shared: &Arc<Shared>) {
    // The loop ends when `Drop` shuts the listener down.
    while let Ok((stream, _)) = listener.accept() {
        let shared = Arc::clone(shared);
        thread::spawn(move || serve_stream(stream, &shared));
    }
}

/// Questions and answers behind their lengths (RFC 1035 section 4.2.2), until the client closes.
fn serve_stream(mut stream: TcpStream, shared: &Shared) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut question).is_err() {
            return;
        }
        let Some(reply) = shared.answer(&question) else { continue };
        let length = u16::try_from(reply.len()).unwrap_or(u16::MAX).to_be_bytes();
        if stream.write_all(&[&length[..], &reply].concat()).is_err() {
            return;
        }
        shared.questions.fetch_add(1, Ordering::SeqCst);
    }
}

fn reply_to(socket: &UdpSocket, to: SocketAddr, reply: Option<&[u8]>) {
    if let Some(reply) = reply {
        let _lost = socket.send_to(reply, to);
    }
}

/// Builds the answer; `None` for junk and for [`Mood::Silent`].
fn answer(question: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    const TYPE_A: u16 = 1;
    const TYPE_AAAA: u16 = 28;
    const NO_ERROR: u8 = 0;
    const SERVFAIL: u8 = 2;
    const NXDOMAIN: u8 = 3;

    let mut name = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(question.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
    let question_end = at + 4;

    let known = zone.names.get(&name.join("."));
    let code = match (zone.mood, known) {
        (Mood::Silent, _) => return None,
        (Mood::SilentOnV6, _) if kind == TYPE_AAAA => return None,
        (Mood::Fail, _) => SERVFAIL,
        (Mood::Answer | Mood::SilentOnV6, None) => NXDOMAIN,
        (Mood::Answer | Mood::SilentOnV6, Some(_)) => NO_ERROR,
    };
    let (ttl, addresses) = match known {
        Some((ttl, addresses)) if code == NO_ERROR => (*ttl, addresses.as_slice()),
        Some(_) | None => (0, [].as_slice()),
    };
    let mut records = Vec::new();
    let mut count: u16 = 0;
    for address in addresses {
        let data = match (address, kind) {
            (IpAddr::V4(v4), TYPE_A) => v4.octets().to_vec(),
            (IpAddr::V6(v6), TYPE_AAAA) => v6.octets().to_vec(),
            (IpAddr::V4(_) | IpAddr::V6(_), _) => continue,
        };
        records.extend([0xc0, 12]); // the name, as a pointer to the question
        records.extend(kind.to_be_bytes());
        records.extend(1_u16.to_be_bytes());
        records.extend(ttl.to_be_bytes());
        records.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        records.extend(data);
        count += 1;
    }

    let mut reply = question.get(..2)?.to_vec();
    reply.extend([0x85, 0x80 | code]); // response, authoritative, recursion desired and available
    reply.extend([0, 1]);
    reply.extend(count.to_be_bytes());
    reply.extend([0, 0, 0, 0]);
    reply.extend(question.get(HEADER..question_end)?);
    reply.extend(records);
    Some(reply)
}
