//! Encrypted Client Hello as users of foreign software see it.

mod kit;
mod quic;
mod tls;
