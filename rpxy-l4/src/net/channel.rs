//! Messages with descriptors over a connected unix socket (`SCM_RIGHTS`, unix(7)).
//!
//! A message is its length (4 bytes, big-endian), whether a descriptor comes with it (1 byte), and its bytes. The kernel
//! keeps descriptors in the order in which they were sent, so that each message finds its own.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Longest message, in bytes.
const LONGEST: usize = 1 << 20;
/// Descriptors taken by one call; the kernel sends one a message, and never joins messages with different ones.
const TAKEN: usize = 8;
const HEAD: usize = 5;

/// One end of the conversation.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: UnixStream,
    bytes: VecDeque<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Channel {
    /// A conversation over `stream` in which neither end waits for longer than `limit` for the other one.
    pub(crate) fn new(stream: UnixStream, limit: Duration) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(limit))?;
        let channel = Self { stream, bytes: VecDeque::new(), descriptors: VecDeque::new() };
        channel.set_patience(limit)?;
        Ok(channel)
    }

    /// Waits for so long at most for the next message.
    pub(crate) fn set_patience(&self, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))
    }

    /// Sends a message, with a descriptor if there is one; the sender keeps its own.
    pub(crate) fn send(&mut self, message: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let len = u32::try_from(message.len()).ok().filter(|_| message.len() <= LONGEST);
        let len = len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
        let mut text = Vec::with_capacity(HEAD + message.len());
        text.extend_from_slice(&len.to_be_bytes());
        text.push(u8::from(descriptor.is_some()));
        text.extend_from_slice(message);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let sent = sendmsg(&self.stream, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL)?;
        // The descriptor has left with the first byte.
        self.stream.write_all(text.get(sent..).unwrap_or_default())
    }

    /// The next message, with its descriptor.
    ///
    /// # Errors
    ///
    /// The other end is gone ([`io::ErrorKind::UnexpectedEof`]), has said nothing for too long
    /// ([`io::ErrorKind::WouldBlock`]), or speaks something else.
    pub(crate) fn receive(&mut self) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
        self.fill(HEAD)?;
        let head: Vec<u8> = self.bytes.drain(..HEAD).collect();
        let (len, has_descriptor) = match head.as_slice() {
            [a, b, c, d, has @ (0 | 1)] => (u32::from_be_bytes([*a, *b, *c, *d]), *has == 1),
            _ => return Err(invalid("not a message")),
        };
        let len =
            usize::try_from(len).ok().filter(|len| *len <= LONGEST).ok_or_else(|| invalid("a message is too long"))?;
        self.fill(len)?;
        let message = self.bytes.drain(..len).collect();
        let descriptor = if has_descriptor {
            Some(
                self.descriptors
                    .pop_front()
                    .ok_or_else(|| invalid("a descriptor is missing (too many open files?)"))?,
            )
        } else {
            None
        };
        Ok((message, descriptor))
    }

    /// Reads until so many bytes are there.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        while self.bytes.len() < wanted {
            let mut buffer = [0; 16 << 10];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TAKEN))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let got = recvmsg(&self.stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.descriptors.extend(descriptors);
                }
            }
            if got.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.bytes.extend(buffer.iter().take(got.bytes));
        }
        Ok(())
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::fd::AsFd as _};

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        let limit = Duration::from_secs(10);
        (Channel::new(one, limit).unwrap(), Channel::new(other, limit).unwrap())
    }

    #[test]
    fn each_message_comes_with_its_own_descriptor() {
        let (mut here, mut there) = pair();
        let sending = std::thread::spawn(move || {
            for n in 0..1000_u32 {
                let message = vec![b'x'; usize::try_from(n).unwrap() * 7];
                let file = tempfile::tempfile().unwrap();
                (&file).write_all(&n.to_be_bytes()).unwrap();
                io::Seek::rewind(&mut &file).unwrap();
                here.send(&message, (n % 3 != 0).then_some(file.as_fd())).unwrap();
            }
        });
        for n in 0..1000_u32 {
            let (message, descriptor) = there.receive().unwrap();
            assert_eq!(message.len(), usize::try_from(n).unwrap() * 7);
            assert_eq!(descriptor.is_some(), n % 3 != 0, "{n}");
            if let Some(descriptor) = descriptor {
                let mut number = [0; 4];
                std::fs::File::from(descriptor).read_exact(&mut number).unwrap();
                assert_eq!(u32::from_be_bytes(number), n, "the descriptor of another message");
            }
        }
        sending.join().unwrap();
        assert_eq!(there.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_message_or_does_not_come_is_an_error() {
        let (here, mut there) = pair();
        (&here.stream).write_all(&[0xff, 0, 0, 0, 0, 1]).unwrap();
        assert_eq!(there.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (here, mut there) = pair();
        (&here.stream).write_all(&[0, 0, 0, 1, 1, b'x']).unwrap();
        assert_eq!(there.receive().unwrap_err().kind(), io::ErrorKind::InvalidData, "its descriptor is missing");
        let (mut here, there) = pair();
        assert_eq!(here.send(&vec![0; LONGEST + 1], None).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        there.set_patience(Duration::from_millis(1)).unwrap();
        let mut there = there;
        assert_eq!(there.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
