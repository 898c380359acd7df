//! Writes the seeds of the fuzz target `datagram_class` into `fuzz/corpus`, for whoever adds one. Other files there stay.

use std::{fs, io, path::Path};

use rpxy_l4_common::properties::{SEEDS, Seed};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/datagram_class");
    fs::create_dir_all(&corpus)?;
    for Seed { name, start, len } in SEEDS {
        let mut bytes = start.to_vec();
        bytes.resize(*len, 0);
        fs::write(corpus.join(name), bytes)?;
    }
    Ok(())
}
