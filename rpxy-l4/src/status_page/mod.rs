//! The status page: a static page over a JSON interface, for whoever may read and change nothing.
//!
//! The interface is the overview of the admin socket with the [`History`]; the page draws it. It errs towards silence:
//! without the token there is the empty page, and under a name that is not ours there is nothing.

mod access;
mod history;
mod site;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

pub(crate) use self::access::Access;
use self::history::History;
use crate::{
    admin::{Answer, Command, Request},
    metrics::Metrics,
    web::{self, Listener},
};

/// Time between two samples of the history.
const EVERY: Duration = Duration::from_secs(5);
/// Age up to which an overview is told again, so that the control thread makes one a second, however many ask.
const FRESH: Duration = Duration::from_secs(1);

/// The status page of a daemon.
#[derive(Debug)]
pub(crate) struct Page {
    started: Instant,
    access: ArcSwap<Access>,
    metrics: Arc<Metrics>,
    /// Where the overview is asked for.
    requests: mpsc::Sender<Request>,
    history: Mutex<History>,
    /// The overview that was told last.
    told: AsyncMutex<Option<(Instant, Arc<str>)>>,
}

impl Page {
    /// The page of a daemon that was `started` then and answers `requests`.
    #[must_use]
    pub(crate) fn new(
        access: Access,
        started: Instant,
        metrics: &Arc<Metrics>,
        requests: mpsc::Sender<Request>,
    ) -> Arc<Self> {
        Arc::new(Self {
            started,
            access: ArcSwap::from_pointee(access),
            metrics: Arc::clone(metrics),
            requests,
            history: Mutex::default(),
            told: AsyncMutex::default(),
        })
    }

    /// From now on it is for those who pass `access`.
    pub(crate) fn set_access(&self, access: Access) {
        self.access.store(Arc::new(access));
    }

    /// Remembers how things are, every few seconds, until dropped.
    async fn remember(&self) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let sample = self.metrics.sample();
            self.history.lock().unwrap_or_else(PoisonError::into_inner).add(self.started.elapsed(), sample);
        }
    }

    /// What the page shows, as JSON; `None` when the daemon is stopping.
    async fn tell(&self) -> Option<String> {
        let overview = self.overview().await?;
        let history = serde_json::to_string(&*self.history.lock().unwrap_or_else(PoisonError::into_inner)).ok()?;
        Some(format!("{{\"overview\":{overview},\"history\":{history}}}"))
    }

    async fn overview(&self) -> Option<Arc<str>> {
        // Whoever asks meanwhile waits for the same answer.
        let mut told = self.told.lock().await;
        if let Some((when, text)) = &*told
            && when.elapsed() < FRESH
        {
            return Some(Arc::clone(text));
        }
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request { command: Command::Overview {}, answer }).await.ok()?;
        let Ok(Answer::Done { lines, .. }) = answered.await else { return None };
        let text: Arc<str> = lines.into_iter().next()?.into();
        *told = Some((Instant::now(), Arc::clone(&text)));
        Some(text)
    }
}

/// Serves `page` until dropped.
pub(crate) async fn serve(listener: Listener, page: Arc<Page>) {
    tokio::join!(web::serve(listener, Arc::clone(&page)), page.remember());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin;

    #[tokio::test(start_paused = true)]
    async fn however_many_look_one_overview_is_made_and_none_by_a_daemon_that_stops() {
        let (requests, mut asked) = admin::requests();
        let page = Page::new(Access::default(), Instant::now(), &Metrics::new(), requests);
        let viewers: Vec<_> = (0..5)
            .map(|_| {
                let page = Arc::clone(&page);
                tokio::spawn(async move { page.tell().await })
            })
            .collect();
        let Request { command, answer } = asked.recv().await.unwrap();
        assert_eq!(command, Command::Overview {});
        answer.send(Answer::one(&"all is well")).unwrap();
        for viewer in viewers {
            let told = viewer.await.unwrap().unwrap();
            let told: serde_json::Value = serde_json::from_str(&told).unwrap();
            assert_eq!(told["overview"], "all is well");
        }
        assert!(asked.try_recv().is_err(), "nobody asked again");

        drop(asked);
        *page.told.lock().await = None;
        assert_eq!(page.tell().await, None);
    }
}
