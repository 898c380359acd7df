//! The targets that were drained by command, beyond any configuration.

use std::sync::Arc;

use crate::{
    config::model::{Config, Transport},
    route::Health,
};

/// The targets that were drained by command. Holding their states keeps them while no configuration has the target.
#[derive(Debug, Default)]
pub(super) struct DrainedTargets(Vec<(Transport, String, Arc<Health>)>);

impl DrainedTargets {
    /// All of them, in the order in which they were drained.
    pub(super) fn all(&self) -> impl Iterator<Item = (Transport, &str, &Arc<Health>)> {
        self.0.iter().map(|(transport, target, health)| (*transport, target.as_str(), health))
    }

    /// Those that are in no rule of `config`.
    pub(super) fn removed<'a>(
        &'a self,
        config: &'a Config,
    ) -> impl Iterator<Item = (Transport, &'a str, &'a Arc<Health>)> {
        self.all().filter(|(transport, target, _)| !has_target(config, *transport, target))
    }

    /// Remembers a target.
    pub(super) fn add(&mut self, transport: Transport, target: &str, health: &Arc<Health>) {
        if !self.0.iter().any(|(_, _, known)| Arc::ptr_eq(known, health)) {
            self.0.push((transport, target.to_owned(), Arc::clone(health)));
        }
    }

    /// Forgets a target.
    pub(super) fn remove(&mut self, health: &Arc<Health>) {
        self.0.retain(|(_, _, known)| !Arc::ptr_eq(known, health));
    }
}

fn has_target(config: &Config, transport: Transport, wanted: &str) -> bool {
    let of_transport = config.upstreams().filter(|(of, ..)| *of == transport);
    of_transport.flat_map(|(.., upstream)| &upstream.targets).any(|target| target.to_string() == wanted)
}
