//! Writes the seeds of the fuzz targets for streams into `fuzz/corpus`, for whoever adds one. Other files there stay.

use std::{fs, io, path::Path};

use rpxy_l4_proto::properties::seeds::seeds;

fn main() -> io::Result<()> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (target, name, bytes) in seeds() {
        let directory = corpora.join(target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(name), bytes)?;
    }
    Ok(())
}
