//! Python's package manager, as far as the other files need it.

use std::path::Path;
use std::process::Command;

/// A command that installs packages, named by further arguments, into a directory of their own.
pub(super) fn install(directory: &Path) -> Command {
    let mut pip = Command::new("python3");
    pip.env("PIP_ROOT_USER_ACTION", "ignore").args(["-m", "pip", "install", "--quiet", "--upgrade"]);
    pip.arg("--target").arg(directory);
    pip
}
