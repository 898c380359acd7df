//! The counters as an overview tells them.

use prometheus_client::metrics::counter::Counter;

use super::{
    DatagramDrop, Metrics, Outcome,
    accounts::{Load, RuleAccount, TCP_REFUSALS, TargetAccount, UDP_REFUSALS},
    process::Usage,
};
use crate::{
    config::model::Transport,
    offload::{NotSpliced, NotSteered},
    overview::{Bounded, Counts, Overview, Process, Rule, Target, Tcp, Udp},
};

impl Metrics {
    /// Fills in what is counted over all listeners; numbers and limits of now are the caller's.
    pub(crate) fn fill_in(&self, overview: &mut Overview) {
        let not_ready = self.readiness().reason();
        overview.ready = not_ready.is_none();
        overview.not_ready = not_ready.map(Into::into);
        let ended = || Outcome::ALL.into_iter().zip(&self.tcp_ended).map(|(outcome, count)| (outcome, count.get()));
        overview.tcp = Tcp {
            accepted: self.tcp_accepted.get(),
            ended: counts(ended().map(|(outcome, count)| (outcome.name(), count))),
            refused: counts(
                ended().filter(|(outcome, _)| outcome.is_refusal()).map(|(outcome, count)| (outcome.name(), count)),
            ),
            connect_failed: self.tcp_connect_failed.get(),
            accept_paused: self.accept_paused.get(),
            ..std::mem::take(&mut overview.tcp)
        };
        self.udp.fill_in(&mut overview.udp);
        overview.process = Process::from(Usage::now());
        overview.dns_failed = self.dns_failed.get();
        overview.log_lines_lost = self.log_lines_lost.get();
    }

    /// Connections that were not spliced, by reason.
    pub(crate) fn not_spliced(&self) -> Counts {
        let all = NotSpliced::ALL.iter().zip(&self.splice.not_spliced);
        counts(all.map(|(reason, count)| (reason.name(), count.get())))
    }

    /// How many connections or sessions came by the listener called `name`.
    pub(crate) fn fill_in_listener(&self, name: &str, transport: Transport, bounded: &mut Bounded) {
        bounded.started = self.of_listener(name, transport).0.get();
    }
}

impl super::udp::Udp {
    /// Sessions that the kernel did not take, by reason.
    pub(crate) fn not_steered(&self) -> Counts {
        let all = NotSteered::ALL.iter().zip(&self.not_steered);
        counts(all.map(|(reason, count)| (reason.name(), count.get())))
    }

    fn fill_in(&self, udp: &mut Udp) {
        let dropped = || DatagramDrop::ALL.iter().zip(&self.dropped).map(|(reason, count)| (*reason, count.get()));
        *udp = Udp {
            started: self.started.get(),
            ended: counts(super::SessionEnd::ALL.iter().map(|end| end.name()).zip(self.ended.iter().map(Counter::get))),
            dropped: counts(dropped().map(|(reason, count)| (reason.name(), count))),
            refused: counts(
                dropped().filter(|(reason, _)| reason.is_refusal()).map(|(reason, count)| (reason.name(), count)),
            ),
            datagrams_up: self.datagrams_up.get(),
            datagrams_down: self.datagrams_down.get(),
            kernel_drops: self.lost(),
            ..std::mem::take(udp)
        };
    }
}

impl RuleAccount {
    /// Fills in what the rule carries.
    pub(crate) fn fill_in(&self, rule: &mut Rule) {
        let reasons: Vec<&'static str> = match rule.transport {
            Transport::Tcp => TCP_REFUSALS.iter().map(|outcome| outcome.name()).collect(),
            Transport::Udp => UDP_REFUSALS.iter().map(|reason| reason.name()).collect(),
        };
        rule.refused = counts(reasons.into_iter().zip(self.refusals()));
        rule.active = self.load.active();
        (rule.started, (rule.bytes_up, rule.bytes_down)) = carried(&self.load);
    }
}

impl TargetAccount {
    /// Fills in what the target carries.
    pub(crate) fn fill_in(&self, target: &mut Target) {
        (target.started, (target.bytes_up, target.bytes_down)) = carried(&self.load);
        if target.transport == Transport::Tcp {
            target.connect = Some(self.connect.summary());
        }
        target.first_byte = Some(self.first_byte.summary());
    }
}

impl From<Usage> for Process {
    fn from(Usage { cpu, memory, open_files, max_open_files }: Usage) -> Self {
        let cpu_ms = u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX);
        Self { open_files, max_open_files, resident_bytes: memory.map(|memory| memory.resident), cpu_ms }
    }
}

fn carried(load: &Load) -> (u64, (u64, u64)) {
    (load.started(), load.bytes())
}

/// Those that are not zero.
fn counts(all: impl Iterator<Item = (&'static str, u64)>) -> Counts {
    all.filter(|(_, count)| *count > 0).map(|(name, count)| (name.into(), count)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Carried, Readiness};

    fn of(pairs: &[(&'static str, u64)]) -> Counts {
        counts(pairs.iter().copied())
    }

    #[test]
    fn what_was_counted_is_told() {
        let metrics = Metrics::new();
        for outcome in [Outcome::Closed, Outcome::Unmatched, Outcome::Unmatched] {
            metrics.tcp_accepted();
            metrics.tcp_ended(outcome, 1, 2);
        }
        metrics.udp().started();
        metrics.udp().dropped(DatagramDrop::Orphan, 3);
        metrics.udp().dropped(DatagramDrop::NotSentUp, 1);
        metrics.udp().sent_up(4, 400);
        let mut overview = Overview::default();
        overview.tcp.max = 7;
        metrics.fill_in(&mut overview);
        assert_eq!((overview.ready, overview.not_ready.as_deref()), (false, Some("starting")));
        let Tcp { accepted, ended, refused, max, .. } = overview.tcp;
        assert_eq!((accepted, ended, max), (3, of(&[("closed", 1), ("unmatched", 2)]), 7));
        assert_eq!(refused, of(&[("unmatched", 2)]), "who was served is none of them");
        let Udp { started, dropped, refused, datagrams_up, .. } = overview.udp;
        assert_eq!((started, dropped, datagrams_up), (1, of(&[("not_sent_up", 1), ("orphan", 3)]), 4));
        assert_eq!(refused, of(&[("orphan", 3)]));
        metrics.set_readiness(Readiness::Ready);
        let mut overview = Overview::default();
        metrics.fill_in(&mut overview);
        assert_eq!((overview.ready, overview.not_ready), (true, None));
        assert!(overview.process.resident_bytes > Some(0) && overview.process.open_files > Some(2));
    }

    #[test]
    fn rules_and_targets_tell_what_they_carry() {
        let metrics = Metrics::new();
        let accounts = metrics.tcp_accounts();
        let (of_rule, of_target) = (accounts.rule(&"web".into()), accounts.target("a:1"));
        let mut carried = Carried::new(&of_rule, &of_target);
        carried.tell(3, 4);
        carried.answered(Duration::from_millis(3));
        of_rule.refused(Outcome::NoPort);
        let mut rule = Rule::new("web".into(), Transport::Tcp);
        accounts.find_rule("web").unwrap().fill_in(&mut rule);
        assert_eq!((rule.active, rule.started, rule.bytes_up, rule.bytes_down), (1, 1, 3, 4));
        assert_eq!(rule.refused, of(&[("no_port", 1)]));
        let mut target = Target::new(Transport::Tcp, "a:1".to_owned());
        accounts.find_target("a:1").unwrap().fill_in(&mut target);
        assert_eq!((target.started, target.bytes_up, target.bytes_down), (1, 3, 4));
        assert_eq!(target.first_byte.map(|times| times.count), Some(1));
        assert!(metrics.udp_accounts().find_target("a:1").is_none(), "the same host over the other transport");
    }
}
