//! The metrics endpoint in the life of the daemon.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use tokio::net::TcpListener;

use super::daemon::Daemon;
use crate::{
    config::model::{Config, Transport},
    metrics::Readiness,
    net,
    web::{self, Listener},
};

/// Scrapers and viewers are few.
const BACKLOG: u32 = 16;

/// Binds the metrics endpoint, if the configuration has one. `ours` is the port that it has now.
pub(super) fn bind(config: &Config, ours: Option<u16>) -> Result<Option<Listener>> {
    let Some(address) = config.metrics_listen else { return Ok(None) };
    let bound = bind_tcp(address, ours).with_context(|| format!("metrics_listen: cannot listen on {address}"))?;
    Ok(Some(Listener::Tcp(bound)))
}

/// Binds `address` for those who look at the daemon. `ours` is the port that they have now: a wildcard and a single
/// address of one port overlap.
pub(super) fn bind_tcp(address: SocketAddr, ours: Option<u16>) -> Result<TcpListener> {
    if ours != Some(address.port()) {
        net::tcp_port_is_free(address, false)?;
    }
    Ok(TcpListener::from_std(net::tcp_listener(address, BACKLOG, false)?)?)
}

impl Daemon {
    /// Tells the metrics what holds since a configuration took effect, or since a command changed it: limits, and whether
    /// new traffic is taken.
    pub(super) fn tell_metrics(&self) {
        let (tcp, udp) = (self.config.tcp_connections(), self.config.udp_sessions());
        self.metrics.set_limits(tcp, self.tcp.descriptors.room().into(), udp);
        let is_open = |transport| self.listeners.addresses(transport).next().is_some();
        self.metrics.set_readiness(if self.all_drained() {
            Readiness::Draining
        } else if is_open(Transport::Tcp) || is_open(Transport::Udp) {
            Readiness::Ready
        } else {
            Readiness::Idle
        });
    }

    /// Closes the endpoint, so that a successor can have its address.
    pub(super) async fn close_metrics(&mut self) {
        if let Some(serving) = self.metrics_server.take() {
            serving.abort();
            // An aborted task lets go of the listener only when it has been dropped.
            drop(serving.await);
        }
    }

    /// Serves metrics on `listener` in place of the present one, or not at all.
    pub(super) fn serve_metrics(&mut self, listener: Option<Listener>) {
        if let Some(old) = self.metrics_server.take() {
            old.abort();
        }
        self.metrics_server = listener.map(|listener| tokio::spawn(web::serve(listener, Arc::clone(&self.metrics))));
    }
}
