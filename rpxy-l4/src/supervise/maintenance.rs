//! Maintenance by command: targets and listeners that get nothing new until the operator says so.
//!
//! What is drained stays so across reloads, and as long as the daemon runs.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use super::{daemon::Daemon, sockets::Sockets};
use crate::{
    admin::{Answer, TargetArgs},
    config::model::Transport,
    limit::DrainedListeners,
    overview::{Drained, DrainedListener, DrainedTarget},
    route::Health,
};

/// One line of `drain` and `up`.
#[derive(Debug, Serialize)]
struct Maintained {
    transport: Transport,
    target: String,
    drained: bool,
    /// Connections or sessions that it has.
    active: u32,
}

/// The line of `drain --listeners` and `up --listeners`.
#[derive(Debug, Serialize)]
struct ListenersMaintained {
    listeners_drained: bool,
    /// TCP connections that go on.
    connections: u32,
    /// UDP sessions that go on.
    sessions: u32,
}

/// The line of `drain --listener` and `up --listener`.
#[derive(Debug, Serialize)]
struct ListenerMaintained<'a> {
    listener: &'a str,
    drained: bool,
}

impl Daemon {
    /// Lets nothing new go to a target, whatever its rules are.
    pub(super) fn drain_target(&mut self, args: &TargetArgs) -> Answer {
        let found = self.states_of(args);
        if found.is_empty() {
            return unknown(args);
        }
        let now = self.started.elapsed();
        let drained = found.into_iter().map(|(transport, health)| {
            if health.administrative().drain(now) {
                tracing::info!("drained by command: {} ({})", args.target, transport.name());
            }
            self.drained_targets.add(transport, &args.target, &health);
            Maintained { transport, target: args.target.clone(), drained: true, active: health.active() }
        });
        Answer::lines(drained.collect::<Vec<_>>())
    }

    /// Lets a target have connections and sessions again.
    pub(super) fn up_target(&mut self, args: &TargetArgs) -> Answer {
        let mut found = self.states_of(args);
        if found.is_empty() {
            return unknown(args);
        }
        found.retain(|(_, health)| health.administrative().drained_since().is_some());
        if found.is_empty() {
            return Answer::refused(format!("{} is not drained", args.target), "`rpxy-l4 targets` lists what is");
        }
        let up = found.into_iter().map(|(transport, health)| {
            if health.administrative().up() {
                tracing::info!("up by command: {} ({})", args.target, transport.name());
            }
            self.drained_targets.remove(&health);
            Maintained { transport, target: args.target.clone(), drained: false, active: health.active() }
        });
        Answer::lines(up.collect::<Vec<_>>())
    }

    /// Lets no new connection or session in, at one listener or at all.
    pub(super) fn drain_listeners(&mut self, name: Option<&str>) -> Answer {
        if let Some(name) = name.filter(|name| !self.config.listeners().any(|listener| *listener.name == **name)) {
            return Answer::refused(format!("there is no listener {name}"), "`rpxy-l4 status` lists them");
        }
        if self.drained_listeners.drain(name, self.started.elapsed()) {
            // What waits in the queues of the sockets is still accepted.
            self.listeners.drain(self.drained_listeners.clone());
            self.tell_metrics();
            match name {
                Some(name) => tracing::info!(
                    "listener {name} drained by command: no new connections and sessions until `up --listener {name}`"
                ),
                None => tracing::info!(
                    "listeners drained by command: no new connections and sessions until `up --listeners`"
                ),
            }
        }
        self.listeners_line(name, true)
    }

    /// Lets new connections and sessions in again, where they were drained by this name, or all.
    pub(super) async fn up_listeners(&mut self, name: Option<&str>) -> Answer {
        let mut drained = self.drained_listeners.clone();
        if !drained.up(name) {
            let what = name.map_or("the listeners are".to_owned(), |name| format!("the listener {name} is"));
            return Answer::refused(format!("{what} not drained"), "`rpxy-l4 status` says what is");
        }
        let opened = match Sockets::new(&self.config) {
            Ok(wanted) => self.listeners.undrain(wanted, drained.clone()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = opened {
            let stays = if name.is_some() { "the listener stays drained" } else { "the listeners stay drained" };
            return Answer::refused(format!("{error:#}"), format!("{stays}; try again"));
        }
        self.drained_listeners = drained;
        self.tell_metrics();
        match name {
            Some(name) => tracing::info!("listener {name} up by command: {}", self.summary()),
            None => tracing::info!("listeners up by command: {}", self.summary()),
        }
        self.listeners_line(name, false)
    }

    /// Returns whether anything is drained.
    pub(super) fn is_drained(&self) -> bool {
        self.drained_listeners != DrainedListeners::default() || self.drained_targets.all().next().is_some()
    }

    /// Returns whether no listener lets anything new in.
    pub(super) fn all_drained(&self) -> bool {
        self.config.listeners().all(|listener| self.drained_listeners.contains(&listener.name))
    }

    /// What is drained.
    pub(super) fn drained(&self) -> Drained {
        let now = self.started.elapsed();
        let since = |since: Duration| now.saturating_sub(since).as_secs();
        let targets = self.drained_targets.all().map(|(transport, target, health)| DrainedTarget {
            transport,
            target: target.to_owned(),
            active: health.active(),
            since_s: health.administrative().drained_since().map_or(0, since),
        });
        let listeners = self.drained_listeners.named();
        let listeners =
            listeners.map(|(listener, at)| DrainedListener { listener: Arc::clone(listener), since_s: since(at) });
        Drained {
            listeners_s: self.drained_listeners.all().map(since),
            listeners: listeners.collect(),
            targets: targets.collect(),
        }
    }

    /// Says after a reload what is still drained.
    pub(super) fn say_drained(&self) {
        let targets = self.drained_targets.all();
        let mut drained: Vec<_> =
            targets.map(|(transport, target, _)| format!("{target} ({})", transport.name())).collect();
        drained.extend(self.drained_listeners.named().map(|(name, _)| format!("listener {name}")));
        if self.drained_listeners.all().is_some() {
            drained.insert(0, "the listeners".to_owned());
        }
        if !drained.is_empty() {
            tracing::info!("still drained by command: {}", drained.join(", "));
        }
    }

    /// The states of a target of the configuration, or of one that was drained before a reload removed it.
    fn states_of(&self, TargetArgs { target: wanted, transport: of }: &TargetArgs) -> Vec<(Transport, Arc<Health>)> {
        let mut states: Vec<(Transport, Arc<Health>)> = Vec::new();
        let mut add = |transport, health: Arc<Health>| {
            let wanted = of.is_none_or(|of| of == transport);
            if wanted && !states.iter().any(|(_, known)| Arc::ptr_eq(known, &health)) {
                states.push((transport, health));
            }
        };
        for (transport, _, upstream) in self.config.upstreams() {
            for target in upstream.targets.iter().filter(|target| target.to_string() == *wanted) {
                add(transport, self.targets.of(transport).health(target));
            }
        }
        for (transport, _, health) in self.drained_targets.all().filter(|(_, target, _)| target == wanted) {
            add(transport, Arc::clone(health));
        }
        states
    }

    fn listeners_line(&self, name: Option<&str>, drained: bool) -> Answer {
        if let Some(listener) = name {
            return Answer::one(&ListenerMaintained { listener, drained });
        }
        let connections = self.tcp.active.count();
        Answer::one(&ListenersMaintained { listeners_drained: drained, connections, sessions: self.sessions() })
    }
}

fn unknown(TargetArgs { target, transport }: &TargetArgs) -> Answer {
    let of = transport.map_or(String::new(), |transport| format!(" of {}", transport.name()));
    Answer::refused(format!("no rule{of} has the target {target}"), "`rpxy-l4 targets` lists them as they are written")
}
