//! Foreign clients and servers for tests in the namespaces of `rpxy-l4-tests`, one module per topic.

pub mod ech;
pub mod quic;
