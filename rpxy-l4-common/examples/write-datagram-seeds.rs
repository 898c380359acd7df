//! Writes the seeds of the fuzz targets `datagram_class` and `packet` into `fuzz/corpus`, for whoever adds one. Other
//! files there stay.

use std::{fs, io, path::Path};

use rpxy_l4_common::properties::{PACKET_SEEDS, SEEDS, Seed};

fn main() -> io::Result<()> {
    for (target, seeds) in [("datagram_class", SEEDS), ("packet", PACKET_SEEDS)] {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        fs::create_dir_all(&corpus)?;
        for Seed { name, start, len } in seeds {
            let mut bytes = start.to_vec();
            bytes.resize(*len, 0);
            fs::write(corpus.join(name), bytes)?;
        }
    }
    Ok(())
}
