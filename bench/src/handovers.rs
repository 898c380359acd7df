//! What became of the connections of a daemon that may splice, by its own counters.
//!
//! Errs towards no figure: what a candidate that is to splice has relayed is not reported as spliced.

use std::{
    collections::BTreeMap,
    fmt,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, ensure};
use rpxy_l4_tests::topology::Host;

use super::{candidate::Candidate, configuration::METRICS, load::STALL};

/// Counter of connections that were spliced.
const SPLICED: &str = "rpxy_l4_tcp_spliced_total ";
/// Counter of connections that got a backend, by target.
const STARTED: &str = "rpxy_l4_target_started_total{transport=\"tcp\"";
/// Counter of attempts that came to nothing, by reason.
const NOT_SPLICED: &str = "rpxy_l4_tcp_not_spliced_total{reason=\"";
/// A candidate that is to splice may relay one connection in so many: what met a condition too late.
const TOLERATED: u64 = 20;

/// Numbers of hand-overs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Handovers {
    started: u64,
    spliced: u64,
    /// Attempts that came to nothing, by reason. A connection may have several.
    not_spliced: BTreeMap<String, u64>,
}

impl Handovers {
    /// Asks `candidate` on `gateway`; `None` of one that never splices.
    ///
    /// # Errors
    ///
    /// When one that should splice every connection has not.
    pub(super) fn of(candidate: Candidate, gateway: &Host) -> anyhow::Result<Option<Self>> {
        let Some(policy) = candidate.splice_policy() else { return Ok(None) };
        let handovers = Self::read(&gateway.run(scrape)?);
        if policy == "first" {
            let Self { started, spliced, .. } = handovers;
            let relayed = started.saturating_sub(spliced);
            ensure!(spliced > 0 && relayed * TOLERATED <= started, "not spliced: {handovers}");
        }
        Ok(Some(handovers))
    }

    /// All of several.
    pub(super) fn sum(several: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self::default();
        for Self { started, spliced, not_spliced } in several {
            sum.started += started;
            sum.spliced += spliced;
            for (reason, count) in not_spliced {
                *sum.not_spliced.entry(reason).or_default() += count;
            }
        }
        sum
    }

    fn read(metrics: &str) -> Self {
        let mut handovers = Self::default();
        for line in metrics.lines() {
            if line.starts_with(STARTED) {
                handovers.started += line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
            }
            if let Some(count) = line.strip_prefix(SPLICED) {
                handovers.spliced = count.parse().unwrap_or(0);
            }
            let Some((reason, count)) = line.strip_prefix(NOT_SPLICED).and_then(|rest| rest.split_once("\"} ")) else {
                continue;
            };
            if let Ok(count @ 1..) = count.parse() {
                handovers.not_spliced.insert(reason.to_owned(), count);
            }
        }
        handovers
    }
}

/// Such as `90 of 100 connections spliced (not: busy 8, far 2)`.
impl fmt::Display for Handovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} connections spliced", self.spliced, self.started)?;
        if self.not_spliced.is_empty() {
            return Ok(());
        }
        let others: Vec<_> = self.not_spliced.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        write!(f, " (not: {})", others.join(", "))
    }
}

fn scrape() -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&METRICS.into(), STALL).context("metrics of the daemon")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_told() {
        let text = "# HELP x\nrpxy_l4_target_started_total{transport=\"tcp\",target=\"a\"} 60\n\
                    rpxy_l4_target_started_total{transport=\"tcp\",target=\"b\"} 40\n\
                    rpxy_l4_target_started_total{transport=\"udp\",target=\"b\"} 5\nrpxy_l4_tcp_spliced_total 90\nrpxy_l4_tcp_not_spliced_total{reason=\"far\"} 2\n\
                    rpxy_l4_tcp_not_spliced_total{reason=\"busy\"} 8\n\
                    rpxy_l4_tcp_not_spliced_total{reason=\"full\"} 0\nother 7\n";
        let one = Handovers::read(text);
        assert_eq!(one.to_string(), "90 of 100 connections spliced (not: busy 8, far 2)");
        let two = Handovers::sum([one.clone(), one]);
        assert_eq!(two.to_string(), "180 of 200 connections spliced (not: busy 16, far 4)");
        assert_eq!(Handovers::read("").to_string(), "0 of 0 connections spliced");
    }
}
