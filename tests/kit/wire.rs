//! A wire in the link between client and gateway that delays frames, loses, doubles and reorders them.
//!
//! ```text
//! client eth0 --- c  bridge  x0 === (VXLAN) === thread === (VXLAN) === x1  bridge  g --- eth0 gateway
//! ```
//!
//! Client and gateway keep their ordinary veth devices. In between, on a host of its own, two bridges send every frame
//! as a datagram to a socket of this process, which passes it on when it is due: kernels without netem can do that, and
//! nobody needs packet sockets. Frames cross the wire one by one, without GSO.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt,
};

use crate::{
    host::{Host, ip_batch, run},
    owned,
    random::Random,
};

/// The wire's end of its link to the host of the sockets.
const TUNNEL_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 253);
/// Host of the sockets.
const SOCKETS_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
/// VXLAN ports of the two bridges: of the client's and of the gateway's.
const TUNNELS: [u16; 2] = [5001, 5002];
/// Ports of the sockets: for frames from the client and from the gateway.
const SOCKETS: [u16; 2] = [6001, 6002];
/// Receive buffers, in bytes: a long fat pipe must not lose what it is not told to lose.
const BUFFER: usize = 32 << 20;
/// Frames taken from a socket before those that are due are looked at again.
const BATCH: usize = 64;
/// Interval in which a thread looks for the signal to stop.
const TICK: Duration = Duration::from_millis(50);
/// The most that a late frame is late, in microseconds.
const LATE: u64 = 3000;
/// Bytes before the Ethernet header: the VXLAN header (RFC 7348 section 5).
const VXLAN: usize = 8;

/// What happens to frames, in each direction. Shares are in thousandths of the frames that hold TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// Time on the wire, of all frames.
    pub delay: Duration,
    /// Share that is lost.
    pub lost: u64,
    /// Share that arrives twice.
    pub doubled: u64,
    /// Share that arrives up to 3 ms late, behind others.
    pub late: u64,
}

/// A wire. Dropping it removes it.
#[derive(Debug)]
pub struct Wire {
    host: Host,
    sockets: Host,
    weather: Arc<Mutex<Weather>>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Wire {
    /// Makes the hosts of a wire, whose devices `c` and `g` are still to be connected.
    pub(crate) fn new(instance: u32, weather: Weather) -> anyhow::Result<Self> {
        let host = |letter| Host::new(owned::namespace(instance, letter));
        let mut wire = Self {
            host: host('w'),
            sockets: host('s'),
            weather: Arc::new(Mutex::new(weather)),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        wire.build()?;
        Ok(wire)
    }

    /// Name of the namespace that the links of client and gateway end in, as `c` and `g`.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Connects the devices `c` and `g`.
    pub(crate) fn connect(&self) -> anyhow::Result<()> {
        let lines = ["c", "g"].iter().zip(["b0", "b1"]).map(|(link, bridge)| {
            format!("link set {link} master {bridge}\nlink set {link} up\nlink set {bridge} up\n")
        });
        ip_batch(Some(&self.host), &lines.collect::<String>())
    }

    /// Changes what happens to frames that come from now on.
    pub fn set(&self, weather: Weather) {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    fn build(&mut self) -> anyhow::Result<()> {
        let (w, s) = (self.host.name(), self.sockets.name());
        ip_batch(
            None,
            &format!(
                "netns add {w}\n\
                 netns add {s}\n\
                 link add eth0 mtu 1600 netns {s} type veth peer name p mtu 1600 netns {w}\n"
            ),
        )?;
        // The wire itself has nothing to say.
        self.host.sysctl("ipv6/conf/all/disable_ipv6", "1")?;
        self.host.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        ip_batch(Some(&self.sockets), &format!("addr add {SOCKETS_V4}/24 dev eth0\nlink set eth0 up\n"))?;
        let mut lines = format!("addr add {TUNNEL_V4}/24 dev p\nlink set p up\n");
        for (n, port) in TUNNELS.iter().enumerate() {
            lines += &format!(
                "link add b{n} type bridge mcast_snooping 0\n\
                 link add x{n} mtu 1500 type vxlan id 1 dstport {port} nolearning\n\
                 link set x{n} master b{n}\n\
                 link set x{n} up\n"
            );
        }
        ip_batch(Some(&self.host), &lines)?;
        for (n, port) in SOCKETS.iter().enumerate() {
            let device = format!("x{n}");
            // Complete sums and single segments: nothing behind the sockets would complete or cut them.
            self.host.ethtool(&device, "tx off")?;
            let mut command = self.host.command("bridge");
            command.args(["fdb", "append", "00:00:00:00:00:00", "dev", &device, "dst", &SOCKETS_V4.to_string()]);
            run(command.args(["port", &port.to_string()]))?;
        }
        for (n, (from, to)) in SOCKETS.into_iter().zip(TUNNELS.into_iter().rev()).enumerate() {
            let socket = self.sockets.run(|| socket(from)).context("socket of the wire")?;
            let direction = Direction {
                socket,
                to: (TUNNEL_V4, to).into(),
                weather: Arc::clone(&self.weather),
                stop: Arc::clone(&self.stop),
                random: Random::new(n as u64),
                held: BinaryHeap::new(),
                count: 0,
            };
            self.threads.push(thread::spawn(move || direction.run()));
        }
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A panic there has been told, and the test has lost its frames.
            let _ended = thread.join();
        }
        owned::remove_namespace(self.sockets.name());
        owned::remove_namespace(self.host.name());
    }
}

fn socket(port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((SOCKETS_V4, port))?;
    socket.set_nonblocking(true)?;
    sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)?;
    sockopt::set_socket_send_buffer_size(&socket, BUFFER)?;
    Ok(socket)
}

/// A frame by the time when it is due, then by its number.
type Held = Reverse<(Instant, u64, Vec<u8>)>;

/// One direction of a wire.
struct Direction {
    socket: UdpSocket,
    to: SocketAddr,
    weather: Arc<Mutex<Weather>>,
    stop: Arc<AtomicBool>,
    random: Random,
    held: BinaryHeap<Held>,
    count: u64,
}

impl Direction {
    fn run(mut self) {
        let mut buffer = vec![0; 1 << 16];
        while !self.stop.load(Ordering::SeqCst) {
            let now = Instant::now();
            while self.held.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
                if let Some(Reverse((_, _, frame))) = self.held.pop() {
                    self.send(&frame);
                }
            }
            let left = self.held.peek().map_or(TICK, |Reverse((due, ..))| due.saturating_duration_since(now));
            let Ok(limit) = Timespec::try_from(left.min(TICK)) else { return };
            // Interrupted or not, the loop looks again.
            let _woken = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&limit));
            for _ in 0..BATCH {
                let Ok(length) = self.socket.recv(&mut buffer) else { break };
                self.take(buffer.get(..length).unwrap_or_default());
            }
        }
    }

    fn take(&mut self, frame: &[u8]) {
        let weather = *self.weather.lock().unwrap_or_else(PoisonError::into_inner);
        let mut delay = weather.delay;
        if is_tcp(frame.get(VXLAN..).unwrap_or_default()) {
            if self.random.chance(weather.lost) {
                return;
            }
            if self.random.chance(weather.doubled) {
                self.pass(frame, delay);
            }
            if self.random.chance(weather.late) {
                delay += Duration::from_micros(self.random.between(1, LATE));
            }
        }
        self.pass(frame, delay);
    }

    fn pass(&mut self, frame: &[u8], delay: Duration) {
        if delay.is_zero() {
            return self.send(frame);
        }
        self.count += 1;
        self.held.push(Reverse((Instant::now() + delay, self.count, frame.to_vec())));
    }

    fn send(&self, frame: &[u8]) {
        // A full buffer loses a frame, as on any wire.
        let _lost = self.socket.send_to(frame, self.to);
    }
}

/// Returns true for an Ethernet frame with TCP over IPv4 or IPv6, without VLAN tag or extension headers.
fn is_tcp(frame: &[u8]) -> bool {
    const TCP: u8 = 6;
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(14 + 9) == Some(&TCP),
        Some([0x86, 0xdd]) => frame.get(14 + 6) == Some(&TCP),
        Some(_) | None => false,
    }
}
