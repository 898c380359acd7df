//! The backend: echoes and endless sources, all in one thread.
//!
//! Each candidate of a benchmark has ports of each kind to itself, so that the connections of one in
//! TIME_WAIT are never in the way of the next one's.

use std::{
    fs::File,
    io::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd as _,
};

use anyhow::Context as _;
use rustix::{
    event::epoll::EventFlags,
    fd::OwnedFd,
    fs::{MemfdFlags, memfd_create},
    io::{Errno, read, write},
    net::{RecvFlags, SocketFlags, recv, sockopt},
};

use super::MESSAGE;

use super::poller::{Poller, listen};

/// First of the echo ports: what comes in goes out again.
pub const ECHO_PORT: u16 = 7000;
/// First of the echo ports for connections on hosts that keep the system's settings: those in TIME_WAIT there must not
/// meet those of other loads.
pub const UNTUNED_PORT: u16 = 7050;
/// First of the source ports: the first bytes in start a stream that ends only with the connection.
pub const SOURCE_PORT: u16 = 7100;

/// First of the ports where a message asks for as many bytes as it says, see [`sized`], after which the connection ends.
pub const SIZED_PORT: u16 = 7400;
/// First of the ports that take whatever comes.
pub const SINK_PORT: u16 = 7450;

/// Size of the file that sources send again and again, in bytes.
const SOURCE_FILE: u64 = 4 << 20;
/// Bytes offered to one call of sendfile(2).
const SOURCE_CHUNK: usize = 1 << 20;
/// Bytes read at once by an echo.
const ECHO_BUFFER: usize = 64 << 10;

/// What stands in [`MESSAGE`] where a size can be.
const PLACE: &str = "0123456789abcdef";

const READ: EventFlags = EventFlags::IN.union(EventFlags::RDHUP);

/// Serves `count` ports of each kind on `address` for ever.
///
/// # Errors
///
/// When a port cannot be listened on, or the machine is out of descriptors.
pub fn serve(address: Ipv4Addr, count: u16) -> anyhow::Result<()> {
    Backend::new(address, count)?.run()
}

struct Backend {
    poller: Poller,
    /// Tokens below `listeners.len()` belong to listeners.
    listeners: Vec<(OwnedFd, Role)>,
    /// Indexed by file descriptor number; its token is that number after the listeners.
    connections: Vec<Option<Connection>>,
    file: File,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Role {
    Echo,
    Source,
    Sized,
    Sink,
}

struct Connection {
    socket: OwnedFd,
    state: State,
}

enum State {
    Echo,
    /// A source that has not been asked yet.
    Asleep,
    /// A source that sends, next from this offset of the file.
    Sending(u64),
    /// One that is to be told how much to send.
    Asked,
    /// One that has so much left to send.
    Left(u64),
    /// Takes what comes.
    Sink,
}

impl Backend {
    fn new(address: Ipv4Addr, count: u16) -> anyhow::Result<Self> {
        let poller = Poller::new()?;
        let mut listeners = Vec::new();
        for index in 0..count {
            for (role, port) in [
                (Role::Echo, ECHO_PORT),
                (Role::Echo, UNTUNED_PORT),
                (Role::Source, SOURCE_PORT),
                (Role::Sized, SIZED_PORT),
                (Role::Sink, SINK_PORT),
            ] {
                let socket = listen(SocketAddrV4::new(address, port + index))?;
                poller.add(&socket, u64::try_from(listeners.len())?, EventFlags::IN)?;
                listeners.push((socket, role));
            }
        }
        let mut file = File::from(memfd_create("source", MemfdFlags::CLOEXEC).context("memfd_create")?);
        let pattern: Vec<u8> = (0..=u8::MAX).cycle().take(usize::try_from(SOURCE_FILE)?).collect();
        file.write_all(&pattern)?;
        Ok(Self { poller, listeners, connections: Vec::new(), file, buffer: vec![0; ECHO_BUFFER] })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.poller.wait(&mut ready)?;
            for &(token, flags) in &ready {
                let token = usize::try_from(token)?;
                if let Some((_, role)) = self.listeners.get(token) {
                    self.accept(token, *role)?;
                } else {
                    self.serve_connection(token - self.listeners.len(), flags)?;
                }
            }
        }
    }

    fn accept(&mut self, listener: usize, role: Role) -> anyhow::Result<()> {
        loop {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = match rustix::net::accept_with(&self.listeners[listener].0, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                // The client is gone before it was looked at.
                Err(Errno::CONNABORTED) => continue,
                Err(error) => return Err(error).context("accept"),
            };
            sockopt::set_tcp_nodelay(&socket, true)?;
            let index = usize::try_from(socket.as_raw_fd())?;
            self.poller.add(&socket, u64::try_from(index + self.listeners.len())?, READ)?;
            let state = match role {
                Role::Echo => State::Echo,
                Role::Source => State::Asleep,
                Role::Sized => State::Asked,
                Role::Sink => State::Sink,
            };
            if self.connections.len() <= index {
                self.connections.resize_with(index + 1, || None);
            }
            self.connections[index] = Some(Connection { socket, state });
        }
    }

    fn serve_connection(&mut self, index: usize, flags: EventFlags) -> anyhow::Result<()> {
        // An event of a connection that an earlier event of the same batch has closed.
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else { return Ok(()) };
        let token = u64::try_from(index + self.listeners.len())?;
        let alive = match &mut connection.state {
            State::Echo => echo(&connection.socket, &mut self.buffer),
            State::Asleep => match read(&connection.socket, &mut self.buffer[..]) {
                Ok(0) | Err(_) => false,
                Ok(_) => {
                    self.poller.modify(&connection.socket, token, READ | EventFlags::OUT)?;
                    connection.state = State::Sending(0);
                    true
                }
            },
            State::Asked => match read(&connection.socket, &mut self.buffer[..]) {
                Ok(0) | Err(_) => false,
                Ok(count) => {
                    self.poller.modify(&connection.socket, token, READ | EventFlags::OUT)?;
                    connection.state = State::Left(size_asked_for(&self.buffer[..count]));
                    true
                }
            },
            State::Left(_) if flags.intersects(READ | EventFlags::ERR | EventFlags::HUP) => false,
            State::Left(left) => send_part(&connection.socket, &self.file, left),
            State::Sink => match recv(&connection.socket, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, 0)) => false,
                Ok(_) | Err(Errno::AGAIN) => true,
                Err(_) => false,
            },
            State::Sending(_) if flags.intersects(READ | EventFlags::ERR | EventFlags::HUP) => false,
            State::Sending(offset) => send_file(&connection.socket, &self.file, offset),
        };
        if !alive {
            self.connections[index] = None;
        }
        Ok(())
    }
}

/// Returns whether the connection goes on.
fn echo(socket: &OwnedFd, buffer: &mut [u8]) -> bool {
    match read(socket, &mut *buffer) {
        // No workload sends more than fits a send buffer, so a short write means that the client is gone.
        Ok(count) => count > 0 && write(socket, &buffer[..count]) == Ok(count),
        Err(Errno::AGAIN) => true,
        Err(_) => false,
    }
}

/// The message that asks for `bytes`: as long as [`MESSAGE`], with the number in its last field.
pub fn sized(bytes: u64) -> Vec<u8> {
    let text = String::from_utf8_lossy(MESSAGE).replace(PLACE, &format!("{bytes:016x}"));
    text.into_bytes()
}

/// The number in a message; what a plain [`MESSAGE`] has in its place is 0 for its size.
fn size_asked_for(message: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(message);
    let number = text.split("X-Pad: ").nth(1).and_then(|rest| rest.get(..PLACE.len()));
    match number {
        Some(PLACE) | None => 1,
        Some(number) => u64::from_str_radix(number, 16).unwrap_or(1),
    }
}

/// Returns whether the connection goes on: until all is sent.
fn send_part(socket: &OwnedFd, file: &File, left: &mut u64) -> bool {
    while *left > 0 {
        let mut offset = 0;
        let count = usize::try_from(*left).unwrap_or(SOURCE_CHUNK).min(SOURCE_CHUNK);
        match rustix::fs::sendfile(socket, file, Some(&mut offset), count) {
            Ok(sent) => *left -= sent as u64,
            Err(Errno::AGAIN) => return true,
            Err(_) => return false,
        }
    }
    false
}

/// Returns whether the connection goes on.
fn send_file(socket: &OwnedFd, file: &File, offset: &mut u64) -> bool {
    if *offset >= SOURCE_FILE {
        *offset = 0;
    }
    match rustix::fs::sendfile(socket, file, Some(offset), SOURCE_CHUNK) {
        Ok(_) | Err(Errno::AGAIN) => true,
        Err(_) => false,
    }
}
