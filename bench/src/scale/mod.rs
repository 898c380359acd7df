//! The suite `scale`: what large files cost. How long they take to check, to start with and to reload, what they hold in
//! memory, and what a connection costs with them.
//!
//! Everything happens in a network of its own. Times are of one run each; the processor time of a connection is that of the
//! daemon over all connections of a row.

mod file;

use std::{
    fmt::Write as _,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rpxy_l4_tests::{
    admin::Admin,
    hello::Hello,
    peers::server::Server,
    process::{PATIENCE, Process},
    topology::{BACKENDS_V4, GATEWAY_V4, Topology},
    wait::pause,
};
use rustix::process::Signal;
use serde_json::json;

use self::file::File;
use crate::procfs;

pub use self::file::Shape;

/// Pause between two questions to the admin socket while a reload runs.
const ASK_AGAIN: Duration = Duration::from_millis(2);

/// Time between SIGHUP and SIGTERM.
const MEANWHILE: Duration = Duration::from_millis(10);

/// Bans by command after which the time of one more is told.
const BANS: [u32; 4] = [1_000, 10_000, 30_000, 60_000];

/// The last bans whose median is told.
const LAST: usize = 200;

/// Plan of a run.
#[derive(Debug)]
pub struct Plan {
    /// The daemon to measure.
    pub daemon: PathBuf,
    /// Connections of each row that has rules.
    pub connections: u32,
    /// The rows; empty is all.
    pub only: Vec<Shape>,
}

/// What was measured of one file.
#[derive(Debug, Default)]
struct Row {
    check: Duration,
    start: Duration,
    reload: Duration,
    slowest_status: Duration,
    stop: Duration,
    /// Proportional set size after the start, and after the reload and the connections, in bytes.
    memory: [u64; 2],
    /// Of the daemon, for each connection.
    connection: Option<Duration>,
}

impl Plan {
    /// Measures each file, and bans by command; `progress` is told what is at work. Returns the report.
    ///
    /// # Errors
    ///
    /// When the daemon does not do what is measured.
    pub fn run(&self, progress: &impl Fn(&str)) -> anyhow::Result<String> {
        let net = Topology::new()?;
        let mut report = String::from(
            "Milliseconds; memory in MiB (proportional set size) after the start, and after reload and connections.\n\n\
             | | `--check` | start | reload | slowest `status` | SIGTERM | memory | later | processor time of a connection |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for shape in Shape::ALL.into_iter().filter(|shape| self.only.is_empty() || self.only.contains(shape)) {
            progress(shape.name());
            let row = self.measure(&net, shape).with_context(|| shape.name())?;
            let connection = row.connection.map_or_else(|| "-".to_owned(), |time| format!("{} µs", time.as_micros()));
            let [milliseconds @ .., stop] =
                [row.check, row.start, row.reload, row.slowest_status, row.stop].map(|time| time.as_millis());
            let cells = milliseconds.map(|value| value.to_string()).join(" | ");
            let [first, later] = row.memory.map(|bytes| bytes as f64 / f64::from(1 << 20));
            writeln!(report, "| {} | {cells} | {stop} | {first:.1} | {later:.1} | {connection} |", shape.name())?;
        }
        if self.only.is_empty() {
            progress("bans by command");
            report += &self.bans(&net)?;
        }
        Ok(report)
    }

    fn measure(&self, net: &Topology, shape: Shape) -> anyhow::Result<Row> {
        let _backend = Server::tagged(&net.backend, (BACKENDS_V4[0], shape.backend()), "x");
        let directory = tempfile::tempdir()?;
        let (config, socket) = (directory.path().join("config.toml"), directory.path().join("admin.sock"));
        let files = [1, 2].map(|version| File::new(shape, version, &socket));
        let [first, second] = &files;
        fs::write(&config, &first.text)?;
        let command = |more: &[&str]| {
            let mut command = net.gateway.command(&self.daemon);
            command.arg("--config").arg(&config).args(more);
            command
        };
        let begun = Instant::now();
        let checked = command(&["--check"]).output()?;
        let mut row = Row { check: begun.elapsed(), ..Row::default() };
        ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

        let begun = Instant::now();
        let mut daemon = Process::spawn("rpxy-l4", &mut command(&[]))?;
        daemon.wait_for(0, "ready", |line| line.contains("ready: "))?;
        row.start = begun.elapsed();
        row.memory[0] = procfs::memory(daemon.pid())?;

        fs::write(&config, &second.text)?;
        let mark = daemon.mark();
        let over = AtomicBool::new(false);
        (row.reload, row.slowest_status) = thread::scope(|scope| -> anyhow::Result<_> {
            let asking = scope.spawn(|| slowest_status(&socket, &over));
            let begun = Instant::now();
            daemon.signal(Signal::HUP)?;
            let reloaded = daemon.wait_for(mark, "reload", |line| line.contains("configuration reloaded"));
            let took = begun.elapsed();
            over.store(true, Ordering::Relaxed);
            let slowest = asking.join().unwrap_or_default();
            reloaded?;
            Ok((took, slowest))
        })?;

        if let Some((port, name)) = &second.living {
            let to = SocketAddr::from((GATEWAY_V4, *port));
            let hello = Hello::to(name).bytes();
            connect(net, to, &hello, self.connections / 10)?;
            let before = procfs::processor_time(daemon.pid())?;
            connect(net, to, &hello, self.connections)?;
            let spent = procfs::processor_time(daemon.pid())?.saturating_sub(before);
            row.connection = Some(spent / self.connections.max(1));
        }
        row.memory[1] = procfs::memory(daemon.pid())?;

        fs::write(&config, &first.text)?;
        daemon.signal(Signal::HUP)?;
        pause(MEANWHILE);
        let begun = Instant::now();
        daemon.signal(Signal::TERM)?;
        daemon.wait()?;
        row.stop = begun.elapsed();
        Ok(row)
    }

    /// The time of one more ban when there are many.
    fn bans(&self, net: &Topology) -> anyhow::Result<String> {
        let directory = tempfile::tempdir()?;
        let (config, socket) = (directory.path().join("config.toml"), directory.path().join("admin.sock"));
        fs::write(&config, File::new(Shape::Rules10, 1, &socket).text)?;
        let mut command = net.gateway.command(&self.daemon);
        let daemon = Process::spawn("rpxy-l4", command.arg("--config").arg(&config))?;
        daemon.wait_for(0, "ready", |line| line.contains("ready: "))?;
        let mut report = String::from("\n| bans that there are | time of one more |\n|---:|---:|\n");
        let mut admin = Admin::connect(&socket);
        let mut last = Vec::with_capacity(LAST);
        for number in 1..=BANS.iter().copied().max().unwrap_or(0) {
            let [_, a, b, c] = number.to_be_bytes();
            let begun = Instant::now();
            admin.ask(&json!({ "command": "ban", "network": format!("10.{a}.{b}.{c}") }));
            last.push(begun.elapsed());
            if BANS.contains(&number) {
                last.sort();
                writeln!(report, "| {number} | {} µs |", last[last.len() / 2].as_micros())?;
            }
            if last.len() >= LAST {
                last.clear();
            }
        }
        Ok(report)
    }
}

/// Asks for the status until it is `over`, and returns the slowest answer.
fn slowest_status(socket: &std::path::Path, over: &AtomicBool) -> Duration {
    let mut admin = Admin::connect(socket);
    let mut slowest = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        admin.ask(&json!({ "command": "status" }));
        slowest = slowest.max(begun.elapsed());
        pause(ASK_AGAIN);
    }
    slowest
}

/// Makes `count` connections, one after the other, each of which has to be answered.
fn connect(net: &Topology, to: SocketAddr, hello: &[u8], count: u32) -> anyhow::Result<()> {
    net.client.run(|| {
        for _ in 0..count {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.write_all(hello)?;
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line)?;
            if line != "x\n" {
                return Err(io::Error::other(format!("the backend's answer is {line:?}")));
            }
        }
        Ok(())
    })?;
    Ok(())
}
