//! Maintenance by command: targets and listeners that get nothing new until the operator says so.
//!
//! What is drained stays so across reloads, and as long as the daemon runs.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use super::{daemon::Daemon, sockets::Sockets};
use crate::{
    admin::{Answer, TargetArgs},
    config::model::Transport,
    overview::{Drained, DrainedTarget},
    route::Health,
    udp::Control,
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

    /// Lets no new connection or session in.
    pub(super) fn drain_listeners(&mut self) -> Answer {
        if self.listeners_drained.is_none() {
            self.listeners_drained = Some(self.started.elapsed());
            // What waits in the queues of the sockets is still accepted.
            self.listeners.drain();
            self.listeners.tell_udp(|| Control::Drain(true));
            self.tell_metrics();
            tracing::info!("listeners drained by command: no new connections and sessions until `up --listeners`");
        }
        self.listeners_line(true)
    }

    /// Lets new connections and sessions in again.
    pub(super) async fn up_listeners(&mut self) -> Answer {
        if self.listeners_drained.is_none() {
            return Answer::refused("the listeners are not drained", "`rpxy-l4 status` says when they are");
        }
        let opened = match Sockets::new(&self.config) {
            Ok(wanted) => self.listeners.undrain(wanted).await,
            Err(error) => Err(error),
        };
        if let Err(error) = opened {
            return Answer::refused(format!("{error:#}"), "the listeners stay drained; try again");
        }
        self.listeners_drained = None;
        self.listeners.tell_udp(|| Control::Drain(false));
        self.tell_metrics();
        tracing::info!("listeners up by command: {}", self.summary());
        self.listeners_line(false)
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
        Drained { listeners_s: self.listeners_drained.map(since), targets: targets.collect() }
    }

    /// Says after a reload what is still drained.
    pub(super) fn say_drained(&self) {
        let targets = self.drained_targets.all();
        let mut drained: Vec<_> =
            targets.map(|(transport, target, _)| format!("{target} ({})", transport.name())).collect();
        if self.listeners_drained.is_some() {
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

    fn listeners_line(&self, drained: bool) -> Answer {
        let connections = self.tcp.active.count();
        Answer::one(&ListenersMaintained { listeners_drained: drained, connections, sessions: self.sessions() })
    }
}

fn unknown(TargetArgs { target, transport }: &TargetArgs) -> Answer {
    let of = transport.map_or(String::new(), |transport| format!(" of {}", transport.name()));
    Answer::refused(format!("no rule{of} has the target {target}"), "`rpxy-l4 targets` lists them as they are written")
}
