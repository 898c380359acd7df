//! The sign of life to the service manager: given by the control thread, and only while every worker answers. A thread
//! that hangs so has the daemon restarted.

use std::{future::pending, time::Duration};

use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{listeners::Listeners, notify::Notify, worker::ListenCommand};
use crate::udp::Control;

/// Questions to the workers within one interval of the service manager: one may come late.
const ASKED_WITHIN: u32 = 4;

/// Asks the workers at intervals.
#[derive(Debug)]
pub(super) struct Watchdog {
    interval: Option<Interval>,
    /// Who was asked the last time, and has not been seen to answer.
    asked: Vec<(String, oneshot::Receiver<()>)>,
    /// It was said that somebody does not answer.
    said: bool,
}

impl Watchdog {
    /// As often as the service manager wants it, or never.
    pub(super) fn new(within: Option<Duration>) -> Self {
        let interval = within.map(|within| {
            let mut interval = interval((within / ASKED_WITHIN).max(Duration::from_millis(1)));
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        Self { interval, asked: Vec::new(), said: false }
    }

    /// The next time to look after the workers. Cancel-safe.
    pub(super) async fn due(&mut self) {
        match &mut self.interval {
            Some(interval) => drop(interval.tick().await),
            None => pending().await,
        }
    }

    /// Tells `notify` that all is well if everybody has answered since the last time, then asks again.
    pub(super) fn look(&mut self, listeners: &Listeners, notify: &Notify) {
        if self.all_answered() {
            notify.alive();
            let named = |kind: &'static str| (0..).map(move |index| format!("{kind}-{index}"));
            self.asked.extend(named("worker").zip(listeners.ask_tcp(ListenCommand::Ping)));
            self.asked.extend(named("udp").zip(listeners.ask_udp(Control::Ping)));
        }
    }

    /// Returns whether everybody has answered; says once who has not.
    fn all_answered(&mut self) -> bool {
        self.asked.retain_mut(|(_, answer)| !matches!(answer.try_recv(), Ok(())));
        let silent = !self.asked.is_empty();
        if silent && !self.said {
            let names: Vec<String> = self.asked.iter_mut().map(|(name, answer)| told(name, answer)).collect();
            tracing::warn!("no sign of life for the service manager's watchdog: {}", names.join(", "));
        }
        self.said = silent;
        !silent
    }
}

fn told(name: &str, answer: &mut oneshot::Receiver<()>) -> String {
    match answer.try_recv() {
        Err(TryRecvError::Closed) => format!("{name} has ended"),
        Ok(()) | Err(TryRecvError::Empty) => format!("{name} does not answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_is_a_sign_of_life_only_while_everybody_answers() {
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(30)));
        assert!(watchdog.all_answered(), "nobody was asked yet");
        let (answers, asked): (Vec<_>, Vec<_>) = [(); 3].map(|()| oneshot::channel()).into_iter().unzip();
        watchdog.asked.extend(["a", "b", "c"].map(str::to_owned).into_iter().zip(asked));
        let [a, b, c] = answers.try_into().unwrap();
        assert!(a.send(()).is_ok());
        assert!(!watchdog.all_answered());
        drop(c);
        let told: Vec<_> = watchdog.asked.iter_mut().map(|(name, answer)| told(name, answer)).collect();
        assert_eq!(told, ["b does not answer", "c has ended"]);
        assert!(b.send(()).is_ok());
        assert!(!watchdog.all_answered(), "a thread that has ended does not come back");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watchdog_nobody_is_asked() {
        let mut never = Watchdog::new(None);
        tokio::select! {
            () = never.due() => panic!("it is due"),
            () = tokio::time::sleep(Duration::from_secs(3600)) => {}
        }
    }
}
