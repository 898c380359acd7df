//! Keeps client, candidate and backend on one processor while one datagram at a time is on its way.
//!
//! Nothing could run at the same time then. Waking another processor costs a virtual machine several times what the
//! datagram does, so that the luck of the scheduler would decide the figure.

use anyhow::Context as _;
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use rpxy_l4_tests::processor;

/// While it lives, what the calling thread starts shares one processor with the backend.
#[derive(Debug)]
pub struct OneProcessor {
    backend: Pid,
    all: CpuSet,
}

impl OneProcessor {
    /// Begins it; `backend` has one thread.
    pub(super) fn enter(backend: Pid) -> anyhow::Result<Self> {
        let all = sched_getaffinity(None)?;
        let one = processor::first()?;
        // From here on a failure is undone through Drop.
        let entered = Self { backend, all };
        entered.keep_to(&one).context("sched_setaffinity")?;
        Ok(entered)
    }

    fn keep_to(&self, set: &CpuSet) -> rustix::io::Result<()> {
        sched_setaffinity(Some(self.backend), set)?;
        sched_setaffinity(None, set)
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        // The backend may be gone, which the next measurement tells.
        let _gone = self.keep_to(&self.all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_processor_is_left_until_the_guard_goes() {
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&sleeper);
        let counts = || [None, Some(pid)].map(|pid| sched_getaffinity(pid).unwrap().count());
        let before = counts();
        let one = OneProcessor::enter(pid).unwrap();
        assert_eq!(counts(), [1, 1]);
        drop(one);
        assert_eq!(counts(), before);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
}
