//! What fuzz targets call: the one door into the daemon besides [`crate::run`], and only with the feature of this name.

pub use crate::udp::udp_core;
