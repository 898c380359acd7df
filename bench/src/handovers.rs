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

/// Counter of the daemon, by result.
const COUNTER: &str = "rpxy_l4_tcp_handovers_total{result=\"";
/// The result of a connection that was spliced.
const SPLICED: &str = "spliced";
/// A candidate that is to splice may relay one connection in so many: what met a condition too late.
const TOLERATED: u64 = 20;

/// Numbers of connections by result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Handovers(BTreeMap<String, u64>);

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
            let (spliced, all) = (handovers.spliced(), handovers.all());
            ensure!(spliced > 0 && (all - spliced) * TOLERATED <= all, "not spliced: {handovers}");
        }
        Ok(Some(handovers))
    }

    /// All of several.
    pub(super) fn sum(several: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self::default();
        for (result, count) in several.into_iter().flat_map(|handovers| handovers.0) {
            *sum.0.entry(result).or_default() += count;
        }
        sum
    }

    fn read(metrics: &str) -> Self {
        let counts = metrics.lines().filter_map(|line| {
            let (result, count) = line.strip_prefix(COUNTER)?.split_once("\"} ")?;
            Some((result.to_owned(), count.parse().ok()?)).filter(|(_, count)| *count > 0)
        });
        Self(counts.collect())
    }

    fn spliced(&self) -> u64 {
        self.0.get(SPLICED).copied().unwrap_or(0)
    }

    fn all(&self) -> u64 {
        self.0.values().sum()
    }
}

/// Such as `90 of 100 connections spliced (busy: 8, far: 2)`.
impl fmt::Display for Handovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} connections spliced", self.spliced(), self.all())?;
        let others: Vec<_> = self.0.iter().filter(|(result, _)| *result != SPLICED).collect();
        if others.is_empty() {
            return Ok(());
        }
        let others: Vec<_> = others.into_iter().map(|(result, count)| format!("{result}: {count}")).collect();
        write!(f, " ({})", others.join(", "))
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
        let text = "# HELP x\nrpxy_l4_tcp_handovers_total{result=\"spliced\"} 90\n\
                    rpxy_l4_tcp_handovers_total{result=\"far\"} 2\nrpxy_l4_tcp_handovers_total{result=\"busy\"} 8\n\
                    rpxy_l4_tcp_handovers_total{result=\"full\"} 0\nother 7\n";
        let one = Handovers::read(text);
        assert_eq!(one.to_string(), "90 of 100 connections spliced (busy: 8, far: 2)");
        let two = Handovers::sum([one.clone(), one]);
        assert_eq!(two.to_string(), "180 of 200 connections spliced (busy: 16, far: 4)");
        assert_eq!(Handovers::read("").to_string(), "0 of 0 connections spliced");
    }
}
