//! Worker threads for TCP: one current-thread runtime each, with its own listening sockets.

use std::{collections::HashMap, io, os::fd::OwnedFd, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::{
    confine::Enter,
    net::{Address, Bound},
    route::Selection,
    tcp::{self, ConnectionKey, ConnectionLine},
};

/// Keeps an early timer in every worker's wheel. A connection's timer that were the earliest would make tokio wake the
/// event loop that is running already: a write to an eventfd and an extra `epoll_wait` for each such connection.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A change of a worker's listening sockets, or something about its connections.
#[derive(Debug)]
pub(super) enum ListenCommand {
    /// Accept on this socket, which listens on this address.
    Listen(Address, Bound),
    /// Change the accept queue of that address.
    Backlog(Address, u32),
    /// Take what waits on that address, then close its sockets, then drop the sender.
    Close(Address, oneshot::Sender<()>),
    /// Describe so many connections at most, of those that are selected.
    Connections(oneshot::Sender<Vec<ConnectionLine>>, usize, Arc<Selection>),
    /// Return copies of the listening sockets, with their addresses.
    Share(oneshot::Sender<io::Result<Vec<(Address, OwnedFd)>>>),
    /// Answer, as a sign of life.
    Ping(oneshot::Sender<()>),
    /// Close a connection, and tell whether there was such a connection.
    CloseConnection(oneshot::Sender<bool>, ConnectionKey),
}

/// The supervisor's end of a worker. Dropping it ends the worker with all its connections.
#[derive(Debug)]
pub(super) struct Worker {
    commands: Option<mpsc::UnboundedSender<ListenCommand>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Sends a command; a worker that is gone has nothing left to do.
    pub(super) fn tell(&self, command: ListenCommand) {
        if let Some(commands) = &self.commands {
            drop(commands.send(command));
        }
    }

    /// Lets go of the worker, so that several end at the same time; dropping it then waits.
    pub(super) fn stop(&mut self) {
        self.commands = None;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Starts `count` workers, which begin with `enter`.
pub(super) fn start(count: usize, shared: &Arc<tcp::Shared>, enter: &Enter) -> io::Result<Vec<Worker>> {
    (0..count)
        .map(|index| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            // Unbounded: only the supervisor sends, a few messages per reload.
            let (commands, inbox) = mpsc::unbounded_channel();
            let (shared, enter) = (Arc::clone(shared), Arc::clone(enter));
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                enter();
                tcp::enter_worker(u32::try_from(index).unwrap_or(u32::MAX));
                runtime.block_on(work(inbox, shared));
            })?;
            Ok(Worker { commands: Some(commands), thread: Some(thread) })
        })
        .collect()
}

/// The listening sockets of a worker. Those that were passed on may be several of one address.
type Open = HashMap<Address, Vec<Accepting>>;

/// One listening socket and the task that accepts on it.
struct Accepting {
    socket: Arc<tcp::Socket>,
    /// Stops the task when dropped.
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

/// Runs until the supervisor lets go; then the runtime, and with it every connection's task, is dropped.
async fn work(mut inbox: mpsc::UnboundedReceiver<ListenCommand>, shared: Arc<tcp::Shared>) {
    let mut open = Open::new();
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                Some(command) => handle_command(command, &mut open, &shared),
                None => return,
            },
            _ = heartbeat.tick() => {}
        }
    }
}

fn handle_command(command: ListenCommand, open: &mut Open, shared: &Arc<tcp::Shared>) {
    match command {
        ListenCommand::Listen(address, socket) => match listen(socket, address.clone(), shared) {
            Ok(entry) => open.entry(address).or_default().push(entry),
            Err(error) => tracing::error!("cannot accept on {address}: {error}"),
        },
        ListenCommand::Backlog(address, backlog) => {
            for held in open.get(&address).into_iter().flatten() {
                if let Err(error) = held.socket.set_backlog(backlog) {
                    tracing::error!("cannot change the backlog of {address}: {error}");
                }
            }
        }
        ListenCommand::Close(address, closed) => {
            let held = open.remove(&address).unwrap_or_default();
            // All stop at once.
            let stop = |Accepting { socket, stop, task }: Accepting| {
                drop((socket, stop));
                task
            };
            let tasks: Vec<_> = held.into_iter().map(stop).collect();
            tokio::spawn(async move {
                for task in tasks {
                    drop(task.await);
                }
                drop(closed);
            });
        }
        ListenCommand::Connections(asker, limit, selection) => drop(asker.send(tcp::connections(limit, &selection))),
        ListenCommand::Share(asker) => {
            let all = open.iter().flat_map(|(address, held)| held.iter().map(move |held| (address, held)));
            let share = |(address, held): (&Address, &Accepting)| Ok((address.clone(), held.socket.share()?));
            drop(asker.send(all.map(share).collect()));
        }
        ListenCommand::Ping(asker) => drop(asker.send(())),
        ListenCommand::CloseConnection(asker, key) => drop(asker.send(tcp::close(key))),
    }
}

fn listen(bound: Bound, address: Address, shared: &Arc<tcp::Shared>) -> io::Result<Accepting> {
    let socket = Arc::new(tcp::Socket::new(bound)?);
    let (stop, stopped) = oneshot::channel();
    let accepting = tcp::accept(Arc::clone(&socket), address, Arc::clone(shared), async move { drop(stopped.await) });
    Ok(Accepting { socket, stop, task: tokio::spawn(accepting) })
}
