//! What name servers say of a name, one family of addresses at a time.

use std::{net::IpAddr, pin::pin, time::Duration};

use tokio::time::timeout;

use crate::config::model::is_one_host;

/// Time for the answer of one family once the other has addresses.
const OTHER_FAMILY: Duration = Duration::from_millis(500);

/// One family's answer: addresses, at least one, and how long they hold.
pub(super) type Answer = Result<(Vec<IpAddr>, Duration), Missing>;

/// No address of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) why: Why,
    pub(super) reason: String,
}

/// Causes of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The name surely has none.
    Absent,
    /// Those who were asked do not know.
    Failed,
    /// Nobody answers.
    Silent,
}

/// The addresses of an answer that a backend can have: a name server must not make us send to all hosts, or to any.
pub(super) fn found(mut addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, Missing> {
    addresses.retain(|address| is_one_host(*address));
    if addresses.is_empty() {
        return Err(Missing { why: Why::Absent, reason: "the name has no address".to_owned() });
    }
    Ok(addresses)
}

/// Both families' answers, as far as they come: once one has addresses, the other has [`OTHER_FAMILY`].
pub(super) async fn both(v4: impl Future<Output = Answer>, v6: impl Future<Output = Answer>) -> [Answer; 2] {
    let late = || Err(Missing { why: Why::Silent, reason: "no answer in time".to_owned() });
    let (mut v4, mut v6) = (pin!(v4), pin!(v6));
    tokio::select! {
        first = &mut v4 => {
            let second = if first.is_ok() { timeout(OTHER_FAMILY, v6).await.unwrap_or_else(|_| late()) } else { v6.await };
            [first, second]
        }
        first = &mut v6 => {
            let second = if first.is_ok() { timeout(OTHER_FAMILY, v4).await.unwrap_or_else(|_| late()) } else { v4.await };
            [second, first]
        }
    }
}

/// One answer of two, with what is `known` in place of what did not come.
pub(super) fn merged(answers: [Answer; 2], known: &[IpAddr]) -> Answer {
    if let [Err(v4), Err(v6)] = &answers {
        return Err(if v4.why == Why::Absent { v6.clone() } else { v4.clone() });
    }
    let mut addresses = Vec::new();
    let mut ttl: Option<Duration> = None;
    for (answer, is_v4) in answers.into_iter().zip([true, false]) {
        match answer {
            Ok((more, holds)) => {
                addresses.extend(more);
                ttl = Some(ttl.map_or(holds, |ttl| ttl.min(holds)));
            }
            Err(Missing { why: Why::Absent, .. }) => {}
            Err(Missing { why: Why::Failed | Why::Silent, .. }) => {
                addresses.extend(known.iter().filter(|address| address.is_ipv4() == is_v4));
            }
        }
    }
    Ok((addresses, ttl.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn missing(why: Why) -> Answer {
        Err(Missing { why, reason: format!("{why:?}") })
    }

    #[test]
    fn families_are_put_together() {
        let ok = |address, seconds| Ok((vec![ip(address)], Duration::from_secs(seconds)));
        let known = [ip("192.0.2.9"), ip("2001:db8::9")];
        for (row, answers, expected) in [
            ("both", [ok("192.0.2.1", 60), ok("2001:db8::1", 30)], Ok((vec!["192.0.2.1", "2001:db8::1"], 30))),
            ("IPv4 only", [ok("192.0.2.1", 60), missing(Why::Absent)], Ok((vec!["192.0.2.1"], 60))),
            ("IPv6 late", [ok("192.0.2.1", 60), missing(Why::Silent)], Ok((vec!["192.0.2.1", "2001:db8::9"], 60))),
            ("IPv4 failed", [missing(Why::Failed), ok("2001:db8::1", 30)], Ok((vec!["192.0.2.9", "2001:db8::1"], 30))),
            ("none", [missing(Why::Absent), missing(Why::Absent)], Err(Why::Absent)),
            ("none, one uncertain", [missing(Why::Absent), missing(Why::Failed)], Err(Why::Failed)),
        ] {
            let expected = expected
                .map(|(addresses, ttl)| (addresses.into_iter().map(ip).collect(), Duration::from_secs(ttl)))
                .map_err(|why| Missing { why, reason: format!("{why:?}") });
            assert_eq!(merged(answers, &known), expected, "{row}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_family_does_not_wait_for_the_other() {
        let ok = || Ok((vec![ip("192.0.2.1")], Duration::ZERO));
        let begun = tokio::time::Instant::now();
        let [v4, v6] = both(async { ok() }, std::future::pending()).await;
        assert!(v4.is_ok() && v6.unwrap_err().why == Why::Silent);
        assert!(begun.elapsed() < Duration::from_secs(1));
        let slow = async {
            sleep(Duration::from_secs(5)).await;
            ok()
        };
        assert!(
            both(slow, async { missing(Why::Absent) }).await[0].is_ok(),
            "what has no address is no reason to hurry"
        );
    }
}
