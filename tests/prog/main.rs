//! Tests of the eBPF programs: a packet and the maps go in; what comes out is the action, the packet and the counter.
//!
//! The kernel's own verifier loads the object, and its BPF_PROG_TEST_RUN runs the programs, so that nothing stands
//! between the test and what a network card would meet.

#[cfg(test)]
mod account;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod guards;
#[cfg(test)]
mod kernel;
#[cfg(test)]
mod load;
#[cfg(test)]
mod log;
#[cfg(test)]
mod maps;
#[cfg(test)]
mod packet;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod seal;
#[cfg(test)]
mod spliced;
#[cfg(test)]
mod tables;
