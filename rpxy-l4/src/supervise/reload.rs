//! Reload: a changed configuration takes effect as a whole or not at all.

use std::{sync::Arc, time::SystemTime};

use anyhow::Result;
use tokio::time::timeout;

use super::{
    admin,
    daemon::{Daemon, FIRST_ANSWERS, LastReload},
    kernel,
    listeners::{self, Served},
    resources, say_each, scrape,
};
use crate::{
    config::{self, LoadError, Loaded, watch::Seen},
    metrics::Reload,
    tcp, udp,
};

/// Problems that `status` tells.
const MOST_TOLD: usize = 10;

impl Daemon {
    /// Reads the file again and applies it if it is valid and its sockets can be bound. Returns the files that it
    /// names, also after a failure: a change of one of them may mend it.
    pub(super) async fn reload(&mut self) -> Vec<Seen> {
        let loaded = config::load(&self.path);
        let files = loaded.as_ref().map_or_else(LoadError::files, |loaded| &loaded.files).to_vec();
        let result = self.apply(loaded).await;
        let path = self.path.display();
        let (result, mut problems) = match result {
            Ok(result) => (result, Vec::new()),
            Err(error) => (Reload::Refused, config::told_apart(&error)),
        };
        match result {
            Reload::Unchanged => tracing::info!("configuration unchanged in {path}"),
            Reload::Applied => tracing::info!("configuration reloaded from {path}: {}", self.summary()),
            Reload::Refused => say_each(
                "configuration not reloaded, the previous one stays in effect: ",
                "configuration not reloaded: ",
                problems.clone(),
            ),
        }
        self.metrics.reloaded(result);
        problems.truncate(MOST_TOLD);
        self.last_reload = Some(LastReload { result, when: SystemTime::now(), problems });
        files
    }

    async fn apply(&mut self, loaded: Result<Loaded, LoadError>) -> Result<Reload> {
        let Loaded { mut config, warnings, .. } = loaded?;
        self.form.overrule(&mut config);
        resources::fill_in(&mut config);
        for warning in &warnings {
            tracing::warn!("{}", warning.in_file(&self.path));
        }
        if config == self.config {
            return Ok(Reload::Unchanged);
        }
        let snapshot = tcp::Snapshot::new(&config, &self.targets.tcp, &self.resolver);
        let udp_snapshot = udp::Snapshot::new(&config, &self.targets.udp, &self.resolver);
        let answers = async { tokio::join!(snapshot.resolved(), udp_snapshot.resolved()) };
        drop(timeout(FIRST_ANSWERS, answers).await);
        let metrics = if config.metrics_listen == self.config.metrics_listen {
            None
        } else {
            let ours = self.config.metrics_listen.map(|held| held.port());
            Some(scrape::bind(&config, ours)?)
        };
        let socket = if config.admin_socket == self.config.admin_socket { None } else { Some(admin::bind(&config)?) };
        // Last, and without a pause until they are served: these sockets get connections from now on.
        let served = Served { tcp: snapshot.has_destination(), udp: udp_snapshot.has_destination() };
        let wanted = listeners::wanted(&config, served)?;
        let plan = self.listeners.plan(&wanted, config.listen.reuse_port)?;

        // Nothing below can fail.
        if config.workers != self.config.workers {
            tracing::warn!("workers: the change takes effect when the daemon is started again");
        }
        kernel::warn_of_postponed(&self.config, &config);
        resources::warn_of_limits(&config);
        self.form.follow(config.access_log_format);
        self.resolver.set_bounds(config.dns);
        self.tcp.snapshot.store(Arc::new(snapshot));
        self.udp.affinity.set_linger(udp_snapshot.affinity_lifetime());
        let udp_snapshot = Arc::new(udp_snapshot);
        self.listeners.tell_udp(|| udp::Control::Snapshot(Arc::clone(&udp_snapshot)));
        self.listeners.apply(plan);
        self.config = config;
        self.apply_bans();
        self.tell_kernel();
        if let Some(listener) = metrics {
            self.serve_metrics(listener);
        }
        if let Some(listener) = socket {
            self.serve_admin(listener);
        }
        Ok(Reload::Applied)
    }
}
