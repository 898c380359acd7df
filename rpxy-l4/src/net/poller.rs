//! Which of very many sockets have something to read.
//!
//! A worker's UDP sockets stand in an epoll instance of their own, and only that one in the runtime's: a socket then
//! costs the process no memory beyond its descriptor, and one wake-up serves all that are ready.
#![expect(unsafe_code, reason = "AsyncFd takes a promise about the descriptor")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::event::{Timespec, epoll};
use tokio::io::{Interest, unix::AsyncFd};

/// Sockets told of in one go.
const MOST: usize = 256;

/// The sockets of a worker. A closed socket leaves by itself.
#[derive(Debug)]
pub struct Poller {
    instance: AsyncFd<OwnedFd>,
}

/// Tokens of sockets that have something to read, or an error.
pub struct Ready {
    events: Box<[epoll::Event]>,
    count: usize,
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Default for Ready {
    fn default() -> Self {
        Self::new()
    }
}

impl Ready {
    /// Room for one look.
    #[must_use]
    pub fn new() -> Self {
        let none = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        Self { events: vec![none; MOST].into_boxed_slice(), count: 0 }
    }

    /// Holds nothing, in place of one that is being looked through.
    #[must_use]
    pub fn none() -> Self {
        Self { events: Box::default(), count: 0 }
    }

    /// The tokens.
    pub fn tokens(&self) -> impl Iterator<Item = u64> + '_ {
        self.events.iter().take(self.count).map(|event| event.data.u64())
    }

    /// Whether there may be more than fitted.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count == self.events.len()
    }
}

impl Poller {
    /// No sockets yet. To be called within a runtime.
    pub fn new() -> io::Result<Self> {
        let instance = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // SAFETY: an OwnedFd is open until it is dropped and always tells the same descriptor, and nothing here takes it
        // out of the AsyncFd.
        let registered = unsafe { AsyncFd::register_with_interest(instance, Interest::READABLE) };
        Ok(Self { instance: registered? })
    }

    /// Adds a socket, which `token` stands for from now on. It is told of as long as it has something to read.
    pub fn add(&self, socket: &impl AsFd, token: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN;
        Ok(epoll::add(self.fd(), socket, epoll::EventData::new_u64(token), flags)?)
    }

    /// Waits until some socket is ready.
    pub async fn ready(&self) -> io::Result<()> {
        drop(self.instance.readable().await?);
        Ok(())
    }

    /// Fills in which sockets are ready at this moment.
    pub fn look(&self, ready: &mut Ready) -> io::Result<()> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        ready.count = epoll::wait(self.fd(), &mut *ready.events, Some(&at_once))?;
        Ok(())
    }

    /// To be called when every socket that was told of has been read empty: [`Poller::ready`] then waits for something
    /// new. What arrives meanwhile is an event that the runtime has not seen yet, and is not lost.
    pub fn drained(&self) {
        let no_more = |_: &OwnedFd| Err::<(), _>(io::ErrorKind::WouldBlock.into());
        drop(self.instance.try_io(Interest::READABLE, no_more));
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.instance.get_ref().as_fd()
    }
}
