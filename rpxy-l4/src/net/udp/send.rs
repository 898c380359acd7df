//! sendmmsg(2): datagrams to several peers in one system call, those of one peer as one buffer (UDP_SEGMENT).
#![expect(unsafe_code, reason = "sendmmsg(2) with ancillary data has no safe wrapper that reuses its buffers")]

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
};

use rustix::net::{SendFlags, send, sendto};

use super::{
    Local,
    address::Name,
    control::Control,
    header::{self, fit},
};

/// Datagrams in one buffer at most (`UDP_MAX_SEGMENTS` of the kernels since 4.18).
pub(super) const MAX_SEGMENTS: usize = 64;
/// Bytes in one buffer at most: a UDP payload over IPv4 is limited to 65,507 (`udp_sendmsg`).
const MAX_BYTES: usize = 65_000;

/// Datagrams that leave together: to one peer, of one length but the last, which may be shorter.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// The peer; `None` on a connected socket.
    pub to: Option<SocketAddr>,
    /// The address to send from; `None` leaves it to the socket.
    pub from: Option<Local>,
    /// Type of service (traffic class in IPv6): DSCP and ECN.
    pub tos: u8,
    /// Length of the datagrams.
    pub segment: usize,
    /// Their bytes. Each part holds whole datagrams.
    pub parts: Vec<IoSlice<'a>>,
    /// Number of datagrams.
    pub count: usize,
    bytes: usize,
}

impl<'a> Message<'a> {
    /// One buffer of datagrams.
    #[must_use]
    pub(crate) fn new(to: Option<SocketAddr>, from: Option<Local>, tos: u8, bytes: &'a [u8], segment: usize) -> Self {
        let count = bytes.len().div_ceil(segment.max(1)).max(1);
        Self { to, from, tos, segment, parts: vec![IoSlice::new(bytes)], count, bytes: bytes.len() }
    }

    /// Payload bytes.
    fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of a single datagram that needs no ancillary data.
    fn plain(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [bytes] if self.count == 1 && self.tos == 0 && self.from.is_none() => Some(bytes),
            _ => None,
        }
    }

    /// Returns whether the last datagram is as long as the others, so that more may follow.
    fn is_even(&self) -> bool {
        self.segment > 0 && self.bytes.is_multiple_of(self.segment)
    }

    /// Takes `other` behind its own datagrams, if they may share a buffer.
    fn join(&mut self, other: &mut Self) -> bool {
        let fits = self.to == other.to
            && self.from == other.from
            && self.tos == other.tos
            && self.bytes > 0
            && other.bytes > 0
            && self.is_even()
            && (other.segment == self.segment || (other.count == 1 && other.bytes < self.segment))
            && self.count + other.count <= MAX_SEGMENTS
            && self.bytes + other.bytes <= MAX_BYTES;
        if fits {
            self.parts.append(&mut other.parts);
            self.count += other.count;
            self.bytes += other.bytes;
        }
        fits
    }
}

/// Collects datagrams of one destination after the other into as few messages as may be.
#[derive(Debug, Default)]
pub(crate) struct Runs<'a>(Vec<Message<'a>>);

impl<'a> Runs<'a> {
    /// None yet.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds datagrams behind those added before, into the last message if they fit there.
    pub(crate) fn push(&mut self, mut message: Message<'a>) {
        let joined = self.0.last_mut().is_some_and(|last| last.join(&mut message));
        if !joined {
            self.0.push(message);
        }
    }

    /// The messages.
    #[must_use]
    pub(crate) fn messages(&self) -> &[Message<'a>] {
        &self.0
    }
}

/// Result of sending messages.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Datagrams handed to the kernel.
    pub datagrams: usize,
    /// Their payload bytes.
    pub bytes: usize,
    /// Datagrams that it refused.
    pub refused: usize,
    /// The last reason for that.
    pub error: Option<io::Error>,
    /// The way out cannot cut buffers into datagrams; they were sent one by one.
    pub no_segmentation: bool,
}

/// Headers for sending, reused from call to call.
pub(crate) struct Sender {
    names: Box<[Name]>,
    controls: Box<[Control]>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("messages", &self.names.len()).finish_non_exhaustive()
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

impl Sender {
    /// Messages in one system call at most.
    const BATCH: usize = 64;

    /// Room for one call's headers.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            names: vec![Name::EMPTY; Self::BATCH].into_boxed_slice(),
            controls: vec![Control::EMPTY; Self::BATCH].into_boxed_slice(),
        }
    }

    /// Sends `messages` in order. A message that the kernel refuses does not hold up those behind it, unless the
    /// socket's buffer is full: then the rest is dropped, as a router with a full queue does.
    pub(crate) fn send(&mut self, socket: &impl AsFd, v6: bool, messages: &[Message<'_>]) -> Sent {
        let mut result = Sent::default();
        let mut rest = messages;
        if let [only] = messages
            && let Some(bytes) = only.plain()
        {
            match send_plain(socket, only.to, bytes) {
                Ok(_all) => (result.datagrams, result.bytes) = (1, bytes.len()),
                Err(error) => {
                    result.refused = 1;
                    result.error = Some(error);
                }
            }
            rest = &[];
        }
        while let Some((first, behind)) = rest.split_first() {
            match self.call(socket, v6, rest) {
                Ok(sent) => {
                    let (done, left) = rest.split_at_checked(sent.max(1)).unwrap_or((rest, &[]));
                    result.datagrams += done.iter().map(|message| message.count).sum::<usize>();
                    result.bytes += done.iter().map(Message::bytes).sum::<usize>();
                    rest = left;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    result.refused += rest.iter().map(|message| message.count).sum::<usize>();
                    result.error = Some(error);
                    return result;
                }
                Err(error) if first.count > 1 && is_about_segmentation(&error) => {
                    result.no_segmentation |= error.raw_os_error() == Some(libc::EIO);
                    self.send_singly(socket, v6, first, &mut result);
                    rest = behind;
                }
                Err(error) => {
                    result.refused += first.count;
                    result.error = Some(error);
                    rest = behind;
                }
            }
        }
        result
    }

    fn send_singly(&mut self, socket: &impl AsFd, v6: bool, message: &Message<'_>, result: &mut Sent) {
        let datagrams = message.parts.iter().flat_map(|part| part.chunks(message.segment.max(1)));
        for bytes in datagrams {
            let single = Message::new(message.to, message.from, message.tos, bytes, bytes.len());
            match self.call(socket, v6, &[single]) {
                Ok(_one) => {
                    result.datagrams += 1;
                    result.bytes += bytes.len();
                }
                Err(error) => {
                    result.refused += 1;
                    result.error = Some(error);
                }
            }
        }
    }

    /// One system call for the first messages; returns how many left.
    fn call(&mut self, socket: &impl AsFd, v6: bool, messages: &[Message<'_>]) -> io::Result<usize> {
        let mut headers = Vec::with_capacity(messages.len().min(Self::BATCH));
        for ((message, name), control) in messages.iter().zip(&mut self.names).zip(&mut self.controls) {
            let name_len = message.to.map_or(0, |to| name.set(to));
            let segment = if message.count > 1 { u16::try_from(message.segment).ok() } else { None };
            let control_len = control.write(v6, message.from, message.tos, segment);
            let mut header = header::empty();
            if name_len > 0 {
                header.msg_hdr.msg_name = name.0.as_mut_ptr().cast();
                header.msg_hdr.msg_namelen = fit(name_len);
            }
            // IoSlice is an iovec (its documentation); the kernel only reads.
            header.msg_hdr.msg_iov = message.parts.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_iovlen = fit(message.parts.len());
            if control_len > 0 {
                header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = fit(control_len);
            }
            headers.push(header);
        }
        let count = u32::try_from(headers.len()).unwrap_or(u32::MAX);
        let flags = fit(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
        // SAFETY: the headers point to names, ancillary data and parts of the stated lengths, all of which outlive this
        // call; the kernel writes to `msg_len` of the headers alone.
        let sent = unsafe { libc::sendmmsg(socket.as_fd().as_raw_fd(), headers.as_mut_ptr(), count, flags) };
        usize::try_from(sent).map_err(|_negative| io::Error::last_os_error())
    }
}

/// The shortest way for what is most frequent in quiet flows.
fn send_plain(socket: &impl AsFd, to: Option<SocketAddr>, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        let sent = match to {
            Some(to) => sendto(socket, bytes, flags, &to),
            None => send(socket, bytes, flags),
        };
        match sent {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// EIO: the device has no checksum offload. EINVAL, EMSGSIZE: a datagram is larger than the path (`udp_send_skb`).
fn is_about_segmentation(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}
