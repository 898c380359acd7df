//! Readiness of very many sockets, and waking of the thread that waits for it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

/// Sockets told of in one go.
const MOST: usize = 256;
/// Stands for the alarm; no socket may have it.
const ALARM: u64 = u64::MAX;

/// An epoll instance. Sockets are told of as long as they have something to read; a closed one leaves by itself.
#[derive(Debug)]
pub(crate) struct Poller {
    instance: OwnedFd,
    alarm: Arc<OwnedFd>,
}

/// Wakes a thread that waits on a [`Poller`], from any other.
#[derive(Debug, Clone)]
pub(crate) struct Alarm(Arc<OwnedFd>);

/// Sockets that have something to read, or an error.
pub(crate) struct Ready {
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
    pub(crate) fn new() -> Self {
        let none = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        Self { events: vec![none; MOST].into_boxed_slice(), count: 0 }
    }

    /// Tokens of the sockets.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = u64> + '_ {
        self.events.iter().take(self.count).map(|event| event.data.u64()).filter(|token| *token != ALARM)
    }
}

impl Poller {
    /// No sockets yet.
    pub(crate) fn new() -> io::Result<Self> {
        let instance = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let alarm = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered: it need not be read, since every write is an event of its own.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&instance, &alarm, epoll::EventData::new_u64(ALARM), flags)?;
        Ok(Self { instance, alarm: Arc::new(alarm) })
    }

    /// The alarm that wakes [`Poller::wait`].
    #[must_use]
    pub(crate) fn alarm(&self) -> Alarm {
        Alarm(Arc::clone(&self.alarm))
    }

    /// Adds a socket, which `token` stands for from now on.
    pub(crate) fn add(&self, socket: &impl AsFd, token: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN;
        Ok(epoll::add(&self.instance, socket, epoll::EventData::new_u64(token), flags)?)
    }

    /// Takes out a socket that stays open.
    pub(crate) fn remove(&self, socket: &impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.instance, socket)?)
    }

    /// Waits until a socket is ready, the alarm has rung or `timeout` is over, and fills in which sockets are ready.
    pub(crate) fn wait(&self, ready: &mut Ready, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        ready.count = 0;
        match epoll::wait(&self.instance, &mut *ready.events, timeout.as_ref()) {
            Ok(count) => {
                ready.count = count;
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Alarm {
    /// Wakes the thread.
    pub(crate) fn ring(&self) {
        // It fails only when 2^64 - 2 rings went unheard (eventfd(2)).
        let _heard = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use super::*;

    #[test]
    fn sockets_are_told_of_while_they_have_something_and_the_alarm_once_a_ring() {
        let poller = Poller::new().unwrap();
        let mut ready = Ready::new();
        let sockets = [(); 3].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        for (token, socket) in (0..).zip(&sockets) {
            poller.add(socket, token).unwrap();
        }
        let told = |ready: &mut Ready| {
            poller.wait(ready, Some(Duration::ZERO)).unwrap();
            ready.tokens().collect::<Vec<_>>()
        };
        assert!(told(&mut ready).is_empty());
        sockets[0].send_to(b"x", sockets[2].local_addr().unwrap()).unwrap();
        poller.wait(&mut ready, None).unwrap();
        assert_eq!(ready.tokens().collect::<Vec<_>>(), [2]);
        assert_eq!(told(&mut ready), [2], "it was not read");
        sockets[2].recv(&mut [0; 8]).unwrap();
        assert!(told(&mut ready).is_empty());

        let alarm = poller.alarm();
        let ringing = std::thread::spawn(move || alarm.ring());
        poller.wait(&mut ready, None).unwrap();
        assert_eq!(ready.tokens().count(), 0, "the alarm is no socket");
        ringing.join().unwrap();
    }
}
