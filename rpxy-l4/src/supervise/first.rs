//! The configuration that the daemon starts with: read, waited for where that is asked for, and watched from then on.

use anyhow::{Context, Result};

use super::{
    Options, beside,
    notify::Notify,
    signals::{Signal, Signals},
};
use crate::{
    config::{self, Severity, model::Config, watch::Watch},
    log::Logs,
};

/// Problems of one file that are logged.
const MOST_PROBLEMS: usize = 100;

/// The configuration to start with, and the watch on its files; `None` when a signal came first.
pub(super) async fn first(options: &Options, logs: &Logs, notify: &mut Notify) -> Result<Option<(Config, Watch)>> {
    let mut signals = Signals::new().context("cannot handle signals")?;
    let mut watch =
        Watch::new(&options.config).with_context(|| format!("cannot watch {}", options.config.display()))?;
    if let Some(reason) = watch.degraded() {
        tracing::warn!("the configuration is polled every few seconds, without change events: {reason}");
    }
    let config = first_config(options, logs, &mut watch, (&mut signals, notify)).await?;
    Ok(config.map(|mut config| {
        options.fill_in(&mut config);
        (config, watch)
    }))
}

/// The configuration to start with; `None` when a signal came first.
async fn first_config(
    options: &Options,
    logs: &Logs,
    watch: &mut Watch,
    (signals, notify): (&mut Signals, &mut Notify),
) -> Result<Option<Config>> {
    loop {
        let path = options.config.clone();
        let Some(loaded) = beside(move || config::load(&path), signals).await? else { return Ok(None) };
        match loaded {
            Ok(loaded) => {
                options.form.follow(loaded.config.access_log_format);
                for warning in &loaded.warnings {
                    tracing::warn!("{}", warning.in_file(&options.config));
                }
                watch.set_others(&loaded.files);
                return Ok(Some(loaded.config));
            }
            Err(error) => {
                options.form.follow(error.log_format());
                if !options.wait_for_config {
                    return Err(error.into());
                }
                let problems = error.told_apart().into_iter().map(|(_, text)| (Severity::Warning, text));
                let head = "waiting for a valid configuration: ";
                notify.status(&format!("{head}{}", options.config.display()));
                say_each(head, head, problems.collect());
                watch.set_others(error.files());
            }
        }
        tokio::select! {
            () = watch.changed() => {}
            signal = signals.next() => match signal {
                Signal::Reload => {}
                Signal::Reopen => logs.reopen(),
                Signal::Stop => return Ok(None),
            },
        }
    }
}

/// Logs problems, each on a line of its own, the first behind `first`, the others behind `others`.
pub(super) fn say_each(first: &str, others: &str, problems: Vec<(Severity, String)>) {
    let left = problems.len().saturating_sub(MOST_PROBLEMS);
    for (index, (severity, text)) in problems.into_iter().take(MOST_PROBLEMS).enumerate() {
        let head = if index == 0 { first } else { others };
        match severity {
            Severity::Error => tracing::error!("{head}{text}"),
            Severity::Warning => tracing::warn!("{head}{text}"),
        }
    }
    if left > 0 {
        tracing::error!("{others}{left} more problems; `rpxy-l4 --check` tells all of them");
    }
}
