//! End-to-end tests: the real daemon between real clients and real servers.
//!
//! One binary, one folder per topic, one network of three hosts per test. `support` holds what tests share; the kit's own
//! tests are with the kit.
#![cfg(test)]

mod support;

mod admin {
    mod bans;
    mod connections;
    mod drain;
    mod healthcheck;
    mod socket;
    mod top;
}
mod config {
    mod listen;
    mod listeners;
    mod peers;
    mod reload;
}
mod daemon {
    mod activation;
    mod confined;
    mod lifecycle;
    mod limits;
    mod logs;
    mod metrics;
    mod notify;
    mod refused;
    mod signals;
    mod status_page;
    mod upgrade;
}
mod documents {
    mod kubernetes;
    mod migrate;
}
mod health {
    mod kinds;
    mod sessions;
    mod targets;
}
mod offload {
    mod attach;
    mod bulk;
    mod forged;
    mod life;
    mod log;
    mod many;
    mod network;
    mod pin;
    mod restart;
    mod rights;
}
mod routing {
    mod dns;
    mod explain;
    mod precedence;
    mod protocols;
    mod services;
}
mod splice {
    mod again;
    mod handed;
    mod kill;
    mod legs;
    mod mode;
    mod pinned;
    mod plan;
    mod play;
    mod programs;
    mod torture;
}
mod tcp {
    mod balance;
    mod client_hello;
    mod endings;
    mod failover;
    mod ports;
    mod probe;
    mod proxy_header;
    mod recognised;
    mod relay;
    mod unix;
    mod verdict;
}
mod udp {
    mod backends;
    mod balance;
    mod gateways;
    mod limits;
    mod listeners;
    mod marks;
    mod quic_datagrams;
    mod quic_paths;
    mod quic_routes;
    mod relay;
    mod reload;
    mod sessions;
    mod wireguard;
}
