//! End-to-end tests: the real daemon between real clients and real servers.
//!
//! One binary, one module per topic, one network of three hosts per test.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod admin_bans;
#[cfg(test)]
mod balance;
#[cfg(test)]
mod client_hello;
#[cfg(test)]
mod common;
#[cfg(test)]
mod dns;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod listen;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod offload_attach;
#[cfg(test)]
mod offload_bulk;
#[cfg(test)]
mod offload_kit;
#[cfg(test)]
mod offload_life;
mod offload_log;
#[cfg(test)]
mod offload_many;
#[cfg(test)]
mod offload_network;
#[cfg(test)]
mod offload_pin;
#[cfg(test)]
mod offload_restart;
#[cfg(test)]
mod offload_rights;
#[cfg(test)]
mod precedence;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod proxy_header;
#[cfg(test)]
mod quic_datagrams;
#[cfg(test)]
mod quic_paths;
#[cfg(test)]
mod quic_routes;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod targets;
#[cfg(test)]
mod udp_balance;
#[cfg(test)]
mod udp_kit;
#[cfg(test)]
mod udp_relay;
#[cfg(test)]
mod udp_reload;
#[cfg(test)]
mod udp_sessions;
#[cfg(test)]
mod wireguard;
