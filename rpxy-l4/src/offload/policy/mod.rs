//! The part of a configuration that the programs enforce by themselves: which datagrams they may drop.
//!
//! Both files err towards the daemon, which decides again about everything that passes.

mod access;
mod drops;
mod guards;

pub(crate) use access::Access;
pub(crate) use drops::drops;
pub(crate) use guards::Guards;
