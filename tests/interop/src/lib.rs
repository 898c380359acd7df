//! Foreign clients and servers for tests in the namespaces of `rpxy-l4-tests`, one module per protocol.

pub mod ech;
