//! The programs for TCP: what arrives on spliced connections, and what this machine sends on them itself.

mod arriving;
mod leaving;
mod maps;
