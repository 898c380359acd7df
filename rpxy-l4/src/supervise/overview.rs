//! Gathers what operators look at: the whole overview, and the parts of it that `status` and `targets` tell.
//!
//! On the control thread, which waits for nobody here: workers are not asked, their counters are read.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use super::daemon::{Daemon, LastReload};
use crate::{
    config::model::{self, Transport},
    metrics::Accounts,
    overview::{Ban, Bans, Bounded, Configuration, KernelPlane, Listener, LoadedFile, Overview, Reload, Rule, Target},
    route::ShareOf,
};

/// Bans that an overview has.
const MOST_BANS: usize = 100;

impl From<&LastReload> for Reload {
    fn from(LastReload { result, when, problems }: &LastReload) -> Self {
        Self {
            result: result.name().into(),
            time: rfc3339(*when),
            age_s: when.elapsed().unwrap_or_default().as_secs(),
            problems: problems.iter().map(|(_, text)| text.clone()).collect(),
        }
    }
}

impl Daemon {
    /// The daemon at this moment.
    pub(super) fn overview(&self) -> Overview {
        let mut overview = Overview {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            time: rfc3339(SystemTime::now()),
            config: self.configuration(),
            workers: self.listeners.workers(),
            listeners: self.listener_lines(),
            rules: self.rule_lines(),
            targets: self.target_lines(),
            refused: self.access.latest_refused(),
            kernel_plane: self.kernel_plane(),
            drained: self.drained(),
            bans: self.ban_lines(),
            ..Overview::default()
        };
        self.metrics.fill_in(&mut overview);
        overview.tcp.active = self.tcp.active.count();
        overview.tcp.max = self.config.tcp_connections();
        overview.tcp.room = self.tcp.descriptors.room();
        overview.udp.active = self.sessions();
        overview.udp.max = self.config.udp_sessions();
        overview
    }

    /// The addresses that are served, of all listeners or of the one called `of`.
    pub(super) fn addresses(&self, transport: Transport, of: Option<&str>) -> Vec<String> {
        let sockets = self.listeners.addresses(transport).filter(|(_, name)| of.is_none_or(|of| of == *name));
        sockets.map(|(address, _)| address.to_string()).collect()
    }

    /// UDP sessions that exist now.
    pub(super) fn sessions(&self) -> u32 {
        self.udp.active.all().iter().map(|limit| limit.count()).sum()
    }

    /// The listeners of the file, the top of it first.
    pub(super) fn listener_lines(&self) -> Vec<Listener> {
        self.config.listeners().map(|listener| self.listener_line(listener)).collect()
    }

    fn listener_line(&self, listener: &model::Listener) -> Listener {
        let bounded = |transport, active, max, shared| {
            let mut bounded = Bounded { started: 0, active, max, shared };
            self.metrics.fill_in_listener(&listener.name, transport, &mut bounded);
            listener.serves(transport).then_some(bounded)
        };
        let (tcp, udp) = (&listener.tcp, &listener.udp);
        let (connections, sessions) = (&tcp.max_connections_of, &udp.max_connections_of);
        let active = self.udp.active.find(sessions).map_or(0, |limit| limit.count());
        let most = udp.max_connections.map_or(0, std::num::NonZeroU32::get);
        Listener {
            name: Arc::clone(&listener.name),
            tcp: self.addresses(Transport::Tcp, Some(&listener.name)),
            udp: self.addresses(Transport::Udp, Some(&listener.name)),
            rules: listener.rules.len(),
            connections: bounded(
                Transport::Tcp,
                self.tcp.active_of(connections),
                tcp.max_connections.get(),
                connections.is_none(),
            ),
            sessions: bounded(Transport::Udp, active, most, sessions.is_none()),
        }
    }

    /// Each target of each rule, in the order of the file, then those that are drained and no longer in it. A rule comes once,
    /// and again for listeners on which it is another one, as with another check.
    pub(super) fn target_lines(&self) -> Vec<Target> {
        let now = self.started.elapsed();
        let mut lines = Vec::new();
        for (transport, rule, listeners, upstream) in self.config.placed_upstreams() {
            let known = self.targets.of(transport);
            for target in &upstream.targets {
                let check = upstream.check.as_ref().map(|check| (&check.name, known.checked(target, check)));
                let check = check.as_ref().map(|(name, checked)| (*name, &**checked));
                let mut line = Target::new(transport, target.to_string());
                (line.rule, line.backup, line.weight) = (rule.cloned(), target.backup, target.weight.get());
                line.listeners = listeners.iter().map(|name| Arc::clone(name)).collect();
                line.max = target.max_connections.map(Into::into);
                known.health(target).report(target.down, check, now).fill_in(&mut line);
                lines.push(line);
            }
        }
        lines.extend(self.drained_targets.removed(&self.config).map(|(transport, target, health)| {
            let mut line = Target::new(transport, target.to_owned());
            health.report(false, None, now).fill_in(&mut line);
            line
        }));
        for line in &mut lines {
            if let Some(account) = self.accounts(line.transport).find_target(&line.target) {
                account.fill_in(line);
            }
        }
        lines
    }

    fn rule_lines(&self) -> Vec<Rule> {
        let mut lines: Vec<Rule> = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::new();
        for listener in self.config.listeners() {
            for rule in &listener.rules {
                let index = *known.entry(&rule.name).or_insert_with(|| {
                    lines.push(self.rule_line(rule));
                    lines.len() - 1
                });
                if let Some(line) = lines.get_mut(index) {
                    line.listeners.push(Arc::clone(&listener.name));
                }
            }
        }
        for listener in self.config.listeners() {
            let defaults = [
                (Transport::Tcp, "tcp_target", &listener.tcp.default),
                (Transport::Udp, "udp_target", &listener.udp.default),
            ];
            for (transport, key, _) in defaults.into_iter().filter(|(.., upstream)| upstream.is_some()) {
                let mut line = Rule::new(ShareOf::Default(Arc::clone(&listener.name)).account(key), transport);
                (line.protocol, line.listeners) = ("any".into(), vec![Arc::clone(&listener.name)]);
                lines.push(line);
            }
        }
        for line in &mut lines {
            if let Some(account) = self.accounts(line.transport).find_rule(&line.name) {
                account.fill_in(line);
            }
        }
        lines
    }

    fn rule_line(&self, rule: &model::Rule) -> Rule {
        let transport = if rule.matcher.is_udp() { Transport::Udp } else { Transport::Tcp };
        let mut line = Rule::new(Arc::clone(&rule.name), transport);
        line.protocol = rule.matcher.protocol().into();
        line.max = rule.max_connections.map(Into::into);
        line
    }

    fn accounts(&self, transport: Transport) -> &Accounts {
        self.targets.of(transport).accounts()
    }

    fn configuration(&self) -> Configuration {
        let refused = self.metrics.is_file_refused();
        Configuration {
            path: self.options.config.display().to_string(),
            state: if refused { LoadedFile::Refused } else { LoadedFile::InEffect },
            last_reload: self.last_reload.as_ref().map(Reload::from),
        }
    }

    /// Forwarding in the kernel.
    pub(super) fn kernel_plane(&self) -> KernelPlane {
        let not_steered = self.metrics.udp().not_steered();
        let Some(kernel) = &self.kernel else {
            let reason = Some("[ebpf] is off, or could not be started: see the log".into());
            return KernelPlane { state: "off".into(), reason, not_steered, ..KernelPlane::default() };
        };
        let interfaces = kernel.attachments().into_iter().map(|(name, hook)| format!("{name} ({hook})")).collect();
        let counted = kernel.counters().into_iter().filter(|(_, count)| *count > 0);
        let (spliced, max_spliced) = kernel.spliced();
        let tcp = kernel.tcp_counters().into_iter().filter(|(_, count)| *count > 0);
        KernelPlane {
            state: kernel.hook().into(),
            reason: None,
            interfaces,
            flows: Some(kernel.flows()),
            max_flows: Some(kernel.max_flows()),
            counters: counted.map(|(counter, count)| (counter.name().into(), count)).collect(),
            not_steered,
            spliced: kernel.splices().then_some(spliced),
            max_spliced: kernel.splices().then_some(max_spliced),
            tcp_counters: tcp.map(|(counter, count)| (counter.name().into(), count)).collect(),
            not_spliced: self.metrics.not_spliced(),
        }
    }

    fn ban_lines(&self) -> Bans {
        let list = self.bans.first(MOST_BANS).into_iter();
        let first = list.map(|(network, source)| Ban { network: network.to_string(), source: source.name().into() });
        Bans { count: self.bans.count(), first: first.collect() }
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
