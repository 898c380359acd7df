//! SRV records (RFC 2782): which hosts and ports offer a service, and in which order.

use std::{sync::Arc, time::Duration};

use super::{Entry, Name, Resolver, Shared, Sought};

/// Records used of one answer, those of the best priority first.
const MAX_RECORDS: usize = 32;

/// A name of a service.
pub(crate) type Service = Entry<Vec<Record>>;

/// One host that offers a service.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Records of the smallest number are tried first.
    pub priority: u16,
    /// Share of the clients among records of one priority.
    pub weight: u16,
    pub port: u16,
    /// The host, without a dot at the end.
    pub host: Arc<str>,
    pub name: Arc<Name>,
}

/// A record as it came: priority, weight, port, and the host, complete and without a dot at the end.
pub(super) type Told = (u16, u16, u16, String);

impl Sought for Vec<Record> {
    /// An answer without any record says that the service is not offered.
    async fn look_up(
        shared: &Arc<Shared>,
        name: &Arc<str>,
        _known: Option<&Self>,
    ) -> Result<(Self, Option<Duration>), String> {
        let (told, ttl) = shared.system.look_up_service(name).await?;
        let resolver = Resolver { shared: Arc::clone(shared) };
        let record = |(priority, weight, port, host): Told| {
            // Complete: the search list does not hold.
            let name = resolver.name(&format!("{host}.").into());
            Record { priority, weight, port, host: host.into(), name }
        };
        Ok((usable(told).into_iter().map(record).collect(), Some(ttl)))
    }
}

/// The records that lead somewhere, in the order of their priorities. A host that is the root says that there is none.
fn usable(mut told: Vec<Told>) -> Vec<Told> {
    told.retain(|(_, _, port, host)| !host.is_empty() && *port != 0);
    told.sort();
    // One that is there twice would have twice the share, in some answers.
    told.dedup_by(|b, a| (a.2, &a.3) == (b.2, &b.3));
    told.truncate(MAX_RECORDS);
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_lead_nowhere_are_left_out() {
        let told = |priority, weight, port, host: &str| (priority, weight, port, host.to_owned());
        for (row, given, expected) in [
            (
                "by priority",
                vec![told(20, 1, 1, "b"), told(10, 1, 1, "a")],
                vec![told(10, 1, 1, "a"), told(20, 1, 1, "b")],
            ),
            ("the root is no host", vec![told(0, 0, 0, "")], vec![]),
            ("port 0 is none", vec![told(0, 0, 0, "a")], vec![]),
            ("twice", vec![told(1, 5, 1, "a"), told(1, 5, 1, "a")], vec![told(1, 5, 1, "a")]),
            ("two ports", vec![told(1, 5, 1, "a"), told(1, 5, 2, "a")], vec![told(1, 5, 1, "a"), told(1, 5, 2, "a")]),
        ] {
            assert_eq!(usable(given), expected, "{row}");
        }
        let many = (0..100).map(|n| told(100 - n, 0, 1, "a.test")).map(|(p, w, _, h)| (p, w, p, h)).collect();
        let used = usable(many);
        assert_eq!((used.len(), used[0].0), (MAX_RECORDS, 1), "those of the best priority");
    }
}
