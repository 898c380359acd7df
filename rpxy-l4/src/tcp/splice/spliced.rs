//! A connection in the kernel plane, until its end.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::splicer::{Live, Splicer};
use crate::{
    metrics::Outcome,
    offload::{self, Ending, SplicedUsage},
    tcp::{
        end::{End, Side},
        record::Traffic,
    },
};

/// A spliced connection, which is ready when it has ended. Dropped before, both its ends are reset.
#[derive(Debug)]
pub(in crate::tcp) struct Spliced<'a> {
    splicer: Arc<Splicer>,
    traffic: &'a mut Traffic,
    /// `None` after the end.
    live: Option<Live>,
}

impl<'a> Spliced<'a> {
    /// What was handed over, and carried `traffic` until then.
    pub(super) fn new(splicer: Arc<Splicer>, live: Live, traffic: &'a mut Traffic) -> Self {
        traffic.spliced(Arc::clone(splicer.splice()), live.place);
        Self { splicer, traffic, live: Some(live) }
    }

    fn add(&mut self, usage: SplicedUsage) {
        let down = self.traffic.down;
        self.traffic.up += usage.bytes_up;
        self.traffic.down += usage.bytes_down;
        self.traffic.moved(down);
    }
}

impl Future for Spliced<'_> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = &mut *self;
        let Some(live) = &mut this.live else { return Poll::Pending };
        let ended = ready!(Pin::new(&mut live.ended).poll(cx));
        // Without an answer, the kernel plane has ended.
        let (why, usage) = ended.unwrap_or((Ending::Closed, SplicedUsage::default()));
        this.live = None;
        this.add(usage);
        let (outcome, reset) = match why {
            Ending::Finished => (Outcome::Closed, None),
            Ending::Reset(offload::Side::Client) => (Outcome::ClientReset, None),
            Ending::Reset(offload::Side::Backend) => (Outcome::BackendReset, None),
            Ending::Idle => (Outcome::Idle, None),
            Ending::HalfClosed => (Outcome::HalfClosed, None),
            Ending::Closed => (Outcome::Drained, Some(Side::Both)),
        };
        Poll::Ready(End { outcome, reset })
    }
}

impl Drop for Spliced<'_> {
    fn drop(&mut self) {
        let Some(Live { place, .. }) = self.live.take() else { return };
        self.splicer.forget(place);
        let usage = self.splicer.splice().usage(place).unwrap_or_default();
        self.add(usage);
        self.splicer.splice().close(place);
    }
}
