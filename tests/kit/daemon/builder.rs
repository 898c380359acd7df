//! Starting a daemon: its configuration, command line, environment and rights.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Daemon, admin_socket, message};
use crate::{OrFail as _, binary::binary, offload_mode::OffloadMode, owned, process::Process, topology::Host};

/// A daemon to be started.
#[derive(Debug)]
pub struct Builder {
    config: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    open_files: Option<u64>,
    capabilities: Option<String>,
    allowed: Vec<String>,
    binary: Option<PathBuf>,
    owner: Option<u32>,
    through: Vec<String>,
}

impl Builder {
    /// Adds arguments after `--config FILE`.
    #[must_use]
    pub fn args<A: ToString>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.to_string()));
        self
    }

    /// Sets a variable of the daemon's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Limits the daemon to `count` open files.
    #[must_use]
    pub fn open_files(mut self, count: u64) -> Self {
        self.open_files = Some(count);
        self
    }

    /// Leaves the daemon no capabilities but these, comma-separated as setpriv(1) names them.
    #[must_use]
    pub fn capabilities(mut self, names: &str) -> Self {
        self.capabilities = Some(names.to_owned());
        self
    }

    /// Gives the directory of the configuration to this user and nobody else.
    #[must_use]
    pub fn owner(mut self, user: u32) -> Self {
        self.owner = Some(user);
        self
    }

    /// Starts another binary.
    #[must_use]
    pub fn binary(mut self, path: PathBuf) -> Self {
        self.binary = Some(path);
        self
    }

    /// Has another program, with these arguments in front of the daemon's command line, execute the daemon.
    #[must_use]
    pub fn through<A: ToString>(mut self, command: impl IntoIterator<Item = A>) -> Self {
        self.through = command.into_iter().map(|word| word.to_string()).collect();
        self
    }

    /// Starts with no file at the path that the daemon is given; [`Daemon::edit`] makes it.
    #[must_use]
    pub fn without_file(mut self) -> Self {
        self.config = None;
        self
    }

    /// Expects warnings and errors that contain `text`.
    #[must_use]
    pub fn allow(mut self, text: &str) -> Self {
        self.allowed.push(text.to_owned());
        self
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it does not become ready.
    #[track_caller]
    pub fn start(self, host: &Host) -> Daemon {
        let daemon = self.launch(host);
        daemon.process.wait_for(0, "its ready line", |line| message(line).starts_with("ready")).or_fail("start");
        daemon
    }

    /// Starts the daemon and does not wait.
    ///
    /// # Panics
    ///
    /// When the program cannot be run.
    #[track_caller]
    pub fn launch(self, host: &Host) -> Daemon {
        let directory = owned::directory();
        // The file is reached through a link, so that `Edit::Symlink` can swing it.
        let first = directory.path().join("0");
        fs::create_dir(&first).or_fail("directory");
        let mode = OffloadMode::current().unwrap_or(OffloadMode::Off);
        if let Some(config) = &self.config {
            let config = complete(config, mode, directory.path());
            fs::write(first.join("config.toml"), config).or_fail("write the configuration");
        }
        std::os::unix::fs::symlink("0", directory.path().join("current")).or_fail("link");
        let config = directory.path().join("current/config.toml");
        if let Some(user) = self.owner {
            let own = |path: &Path| std::os::unix::fs::chown(path, Some(user), None).or_fail("chown");
            [directory.path(), &first, &config].into_iter().filter(|path| path.exists()).for_each(own);
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(directory.path(), private).or_fail("chmod");
        }

        let binary = self.binary.unwrap_or_else(binary);
        let mut command = match (self.open_files, &self.capabilities) {
            (None, None) => match self.through.split_first() {
                None => host.command(binary),
                Some((program, arguments)) => {
                    let mut command = host.command(program);
                    command.args(arguments).arg(binary);
                    command
                }
            },
            (Some(count), _) => {
                let mut command = host.command("prlimit");
                command.arg(format!("--nofile={count}:{count}")).arg(binary);
                command
            }
            (None, Some(names)) => {
                let mut command = host.command("setpriv");
                let set: String = names.split(',').map(|name| format!(",+{name}")).collect();
                command.args(["--inh-caps=-all", &format!("--bounding-set=-all{set}")]).arg(binary);
                command
            }
        };
        command.arg("--config").arg(&config).args(&self.arguments);
        command.env_remove("RUST_LOG").envs(self.environment);
        let process = Process::spawn("rpxy-l4", &mut command).or_fail("start the daemon");
        Daemon { process, directory, config, generation: 0, allowed: self.allowed, mode, ended: false }
    }
}

impl Daemon {
    /// Prepares a daemon with the configuration `config`, to which a short `drain_timeout` is added if it has none,
    /// so that tests end soon, and the table `[ebpf]` of the running test.
    pub fn builder(config: &str) -> Builder {
        Builder {
            config: Some(config.to_owned()),
            arguments: Vec::new(),
            environment: Vec::new(),
            open_files: None,
            capabilities: None,
            allowed: Vec::new(),
            binary: None,
            owner: None,
            through: Vec::new(),
        }
    }
}

/// Adds what every test wants and few care about. Keys at the top of a TOML file must come before its tables.
pub(super) fn complete(config: &str, mode: OffloadMode, directory: &Path) -> String {
    let drain = if config.contains("drain_timeout") { "" } else { "drain_timeout = \"1s\"\n" };
    match mode.table() {
        None => format!("{drain}{config}"),
        Some(table) => {
            let socket = admin_socket(directory);
            let top = mode.top();
            format!("{drain}{top}admin_socket = \"{}\"\n{config}\n{table}", socket.display())
        }
    }
}
