//! The IO of UDP: batched sockets, and the thread that waits for them.

mod accounts;
mod commands;
mod hand_over;
mod ingress;
mod kernel;
mod kernel_flow;
mod log;
mod lookups;
mod relay;
mod send;
mod sockets;
mod token;
mod worker;

pub(crate) use worker::Worker;
