//! What would become of a connection or datagram, by the running daemon or by a file.
//!
//! The code that decides is asked beside the control thread: a file may have many rules.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result};
use thiserror::Error;
use tokio::{sync::oneshot, task::spawn_blocking};

use super::{
    daemon::{Daemon, KnownTargets},
    reload::{Compiler, Snapshots},
    resources,
};
use crate::{
    admin::Answer,
    config::model::{Config, EbpfMode, Listener, Transport},
    explain::{Explanation, NoListener, Question, listener},
    limit::{Bans, DrainedListeners},
    log::AccessLog,
    metrics::Metrics,
    offload::Off,
    resolve::Resolver,
    tcp, udp,
};

/// Nothing can be said.
#[derive(Debug, Error)]
pub(crate) enum Unexplained {
    /// There is no such listener.
    #[error(transparent)]
    Listener(#[from] NoListener),
    /// It has no socket, although the configuration says so.
    #[error("listener {0} has no socket now")]
    NoSocket(Arc<str>),
}

impl Unexplained {
    /// A way out.
    #[must_use]
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::Listener(error) => error.remedy(),
            Self::NoSocket(_) => "look at the daemon's log".to_owned(),
        }
    }
}

/// What answers depend on.
struct Ground {
    config: Arc<Config>,
    targets: Arc<KnownTargets>,
    resolver: Resolver,
    bans: Arc<Bans>,
    tcp: Arc<tcp::Shared>,
    tcp_snapshot: Arc<tcp::Snapshot>,
    udp_snapshot: Arc<udp::Snapshot>,
    drained: DrainedListeners,
    not_steered: Option<&'static str>,
    /// The kernel may take TCP connections over.
    splices: bool,
    started: Instant,
    answered_by: &'static str,
}

impl Ground {
    fn explain(&self, question: &Question) -> Result<Explanation, Unexplained> {
        let listener: &Listener = listener(&self.config, question)?;
        let explanation = match question.transport {
            Transport::Tcp => {
                let (by, drained) = (self.answered_by, self.drained.contains(&listener.name));
                tcp::explain(&self.tcp, &self.tcp_snapshot, listener, question, (by, drained, self.splices))
            }
            Transport::Udp => {
                let state = udp::State {
                    snapshot: &self.udp_snapshot,
                    bans: &self.bans,
                    targets: &self.targets.udp,
                    resolver: &self.resolver,
                    drained: self.drained.contains(&listener.name),
                    not_steered: self.not_steered,
                    now: self.started.elapsed(),
                };
                udp::explain(state, listener, question, self.answered_by)
            }
        };
        explanation.ok_or_else(|| Unexplained::NoSocket(Arc::clone(&listener.name)))
    }
}

impl Daemon {
    /// Explains what would become of what is asked about.
    pub(super) fn explain(&self, question: Question, answer: oneshot::Sender<Answer>) {
        let ground = Ground {
            config: Arc::clone(&self.config),
            targets: Arc::clone(&self.targets),
            resolver: self.resolver.clone(),
            bans: Arc::clone(&self.bans),
            tcp: Arc::clone(&self.tcp),
            tcp_snapshot: self.tcp.snapshot.load_full(),
            udp_snapshot: Arc::clone(&self.udp_snapshot),
            drained: self.drained_listeners.clone(),
            not_steered: self.kernel.is_none().then(|| not_steered(&self.config)),
            splices: self.kernel.is_some() && self.config.ebpf.tcp,
            started: self.started,
            answered_by: "daemon",
        };
        spawn_blocking(move || {
            let done = match ground.explain(&question) {
                Ok(explanation) => Answer::one(&explanation),
                Err(error) => Answer::refused(error.to_string(), error.remedy()),
            };
            // The client may have left.
            drop(answer.send(done));
        });
    }
}

/// Explains by a file alone, as a daemon that has just started with it would: without load, with all targets up, and
/// names without addresses.
///
/// # Errors
///
/// There is no such listener, or an interface that the file names is not there.
pub(crate) fn from_file(mut config: Config, question: &Question) -> Result<Explanation> {
    resources::fill_in(&mut config);
    // Nobody drives it: no name is looked up.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot make a runtime")?;
    let (metrics, started) = (Metrics::new(), Instant::now());
    let resolver = Resolver::new(runtime.handle().clone(), config.dns, Arc::clone(&metrics));
    let bans = Arc::new(Bans::default());
    bans.set_configured(&config.ebpf.ban);
    let (access, log) = (AccessLog::nowhere(), AccessLog::nowhere());
    let tcp = Arc::new(tcp::Shared::new(Arc::clone(&bans), Arc::clone(&metrics), access, started));
    let lifetime = config.quic_affinity_lifetime;
    let udp = udp::Shared::new(lifetime, Arc::clone(&bans), Arc::new(Off), Arc::clone(&metrics), log, started);
    let targets = Arc::new(KnownTargets::new(&metrics));
    let compiler = Compiler {
        targets: Arc::clone(&targets),
        resolver: resolver.clone(),
        tcp: Arc::clone(&tcp),
        udp: Arc::new(udp),
    };
    let Snapshots { tcp: tcp_snapshot, udp: udp_snapshot, .. } = compiler.compile(&config)?;
    let ground = Ground {
        targets,
        resolver,
        bans,
        tcp,
        tcp_snapshot: Arc::new(tcp_snapshot),
        udp_snapshot: Arc::new(udp_snapshot),
        drained: DrainedListeners::default(),
        not_steered: (config.ebpf.mode == EbpfMode::Off).then(|| not_steered(&config)),
        splices: config.ebpf.mode != EbpfMode::Off && config.ebpf.tcp,
        started,
        answered_by: "file",
        config: Arc::new(config),
    };
    ground.explain(question).map_err(|error| anyhow::anyhow!("{error} ({})", error.remedy()))
}

/// Why there is no kernel plane.
fn not_steered(config: &Config) -> &'static str {
    if config.ebpf.mode == EbpfMode::Off {
        "there is no kernel plane: ebpf.mode is \"off\" (off)"
    } else {
        "the kernel plane could not be started: see the log (off)"
    }
}
