//! The kit itself: what the other tests take for granted.

mod hosts;
mod udp;
