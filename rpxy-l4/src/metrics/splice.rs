//! Counters of spliced TCP: every attempt to hand a connection over has one result.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{Metrics, member};
use crate::offload::NotSpliced;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// The counters.
#[derive(Debug)]
pub(super) struct Splice {
    spliced: Counter,
    /// In the order of [`NotSpliced::ALL`], which is that of the discriminants.
    pub(super) not_spliced: Vec<Counter>,
}

impl Splice {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let family = Family::<ByReason, Counter>::default();
        let not_spliced = NotSpliced::ALL.iter().map(|reason| member(&family, &ByReason { reason: reason.name() }));
        let splice = Self { spliced: Counter::default(), not_spliced: not_spliced.collect() };
        registry.register("tcp_spliced", "TCP connections handed to the kernel", splice.spliced.clone());
        registry.register("tcp_not_spliced", "TCP connections that were not handed to the kernel, by reason", family);
        splice
    }
}

impl Metrics {
    /// A TCP connection was handed to the kernel.
    pub(crate) fn tcp_spliced(&self) {
        self.splice.spliced.inc();
    }

    /// A TCP connection was not, although the kernel splices.
    pub(crate) fn tcp_not_spliced(&self, reason: NotSpliced) {
        if let Some(counter) = self.splice.not_spliced.get(reason as usize) {
            counter.inc();
        }
    }
}
