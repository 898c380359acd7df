//! How candidates are set up and started.
//!
//! Each is set up as its manual advises for plain relaying on two processors, with logging off.

use std::{fs, net::SocketAddrV4, path::Path};

use anyhow::{Context as _, bail};

use super::{
    candidate::{Candidate, Daemons},
    rig::{Rig, Service, guarded},
};
use crate::{process::Process, topology::Host};

/// Processors' worth of threads or workers that each multi-threaded candidate gets.
const THREADS: usize = 2;

/// A candidate at work. Dropping it ends it.
#[derive(Debug)]
pub struct Running<'rig> {
    /// Where clients connect to.
    pub target: SocketAddrV4,
    process: Option<Process>,
    /// Held for its Drop.
    _nat: Option<Nat<'rig>>,
}

impl Candidate {
    /// Its configuration or rule in front of `service`, for the report; empty where there is none.
    pub fn configuration(self, service: Service, connections: usize) -> String {
        let (front, back) = (Rig::front(self.index(), service), Rig::back(self.index(), service));
        let (address, port) = (front.ip(), front.port());
        // Closing ones count too.
        let allowed = connections + 100;
        match self {
            Self::Rpxy | Self::Baseline => format!(
                "listen_port = {port}\nlisten_address_v4 = \"{address}\"\nworkers = {THREADS}\n\
                 tcp_max_connections = {allowed}\ntcp_target = [\"{back}\"]\n"
            ),
            Self::RpxyRouted => format!(
                "listen_port = {port}\nlisten_address_v4 = \"{address}\"\nworkers = {THREADS}\n\
                 tcp_max_connections = {allowed}\n\n[protocols.web]\nprotocol = \"http\"\ntarget = [\"{back}\"]\n"
            ),
            Self::Haproxy => {
                // For bulk the best that it has: faster here than `splice-auto`, which does not always splice.
                let option = match service {
                    Service::Echo => "",
                    Service::Source => "    option splice-response\n",
                };
                format!(
                    "global\n    nbthread {THREADS}\n    maxconn {allowed}\n\ndefaults\n    mode tcp\n{option}    \
                     timeout connect 5s\n    timeout client 5m\n    timeout server 5m\n\nlisten bench\n    \
                     bind {front}\n    server backend {back}\n",
                )
            }
            // A worker may get more than its share of the connections, each of which takes two of its slots.
            Self::Nginx => format!(
                "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nuser root;\ndaemon off;\n\
                 worker_processes {THREADS};\npid nginx.pid;\nerror_log stderr error;\n\
                 events {{ worker_connections {}; }}\nstream {{\n    access_log off;\n    server {{\n        \
                 listen {front} reuseport backlog=4096;\n        proxy_pass {back};\n    }}\n}}\n",
                2 * allowed
            ),
            Self::Sslh => format!("sslh-select -f -n -p {front} --http {back} --anyprot {back}\n"),
            Self::Splice | Self::Direct => String::new(),
            Self::Nat => format!(
                "add table ip bench; \
                 add chain ip bench prerouting {{ type nat hook prerouting priority dstnat; }}; \
                 add rule ip bench prerouting ip daddr {address} tcp dport {port} dnat to {back};\n"
            ),
        }
    }

    /// Starts it in front of `service`, ready for up to `connections` at once, and waits until it relays.
    ///
    /// # Errors
    ///
    /// When it does not start or does not relay; its own words are in the error.
    pub fn start<'rig>(
        self,
        rig: &'rig Rig,
        daemons: &Daemons,
        directory: &Path,
        service: Service,
        connections: usize,
    ) -> anyhow::Result<Running<'rig>> {
        let front = Rig::front(self.index(), service);
        let back = Rig::back(self.index(), service);
        let configuration = self.configuration(service, connections);
        let file = directory.join(format!("{}.conf", self.name()));
        fs::write(&file, &configuration).with_context(|| file.display().to_string())?;

        let mut running = Running { target: front, process: None, _nat: None };
        let gateway = rig.gateway();
        let command = match self {
            Self::Rpxy | Self::RpxyRouted | Self::Baseline => {
                let mut command = guarded(gateway, self.daemon(daemons).context("no daemon given")?);
                command.arg("--config").arg(&file).env("RUST_LOG", "warn");
                Some(command)
            }
            Self::Haproxy => {
                let mut command = guarded(gateway, "haproxy");
                command.arg("-db").arg("-f").arg(&file);
                Some(command)
            }
            Self::Nginx => {
                let mut command = guarded(gateway, "nginx");
                command.arg("-p").arg(directory).args(["-e", "stderr"]).arg("-c").arg(&file);
                Some(command)
            }
            Self::Sslh => {
                // It writes a line a connection to standard error, which has no switch.
                let mut command = guarded(gateway, "sh");
                command.args(["-c", &format!("exec {} 2>/dev/null", configuration.trim_end())]);
                Some(command)
            }
            Self::Splice => {
                let mut command = guarded(gateway, rig.executable());
                command.args(["relay", &front.to_string(), &back.to_string()]);
                Some(command)
            }
            Self::Nat => {
                running._nat = Some(Nat::new(gateway, &configuration)?);
                None
            }
            Self::Direct => {
                running.target = back;
                None
            }
        };
        running.process = command.map(|mut command| Process::spawn(self.name(), &mut command)).transpose()?;
        rig.until_it_answers(running.target).with_context(|| running.explain())?;
        Ok(running)
    }
}

impl Running<'_> {
    /// The process whose time and memory count, with its descendants; `None` when the kernel does the work.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// What the candidate has to say to a failure.
    pub fn explain(&self) -> String {
        let transcript = self.process.as_ref().map(Process::transcript).unwrap_or_default();
        if transcript.is_empty() { "it wrote nothing".to_owned() } else { format!("it wrote:\n{transcript}but") }
    }
}

/// Rules in the gateway's kernel. Removed on drop, because connection tracking would slow down the next candidate.
#[derive(Debug)]
struct Nat<'rig>(&'rig Host);

impl<'rig> Nat<'rig> {
    fn new(gateway: &'rig Host, rules: &str) -> anyhow::Result<Self> {
        nft(gateway, rules)?;
        let nat = Self(gateway);
        // Entries of closed connections would fill the table within a few runs.
        for state in ["time_wait", "fin_wait", "last_ack", "close", "close_wait"] {
            gateway.sysctl(&format!("netfilter/nf_conntrack_tcp_timeout_{state}"), "1")?;
        }
        Ok(nat)
    }
}

impl Drop for Nat<'_> {
    fn drop(&mut self) {
        // Best effort: the namespace that holds the rules goes away too.
        let _gone = nft(self.0, "delete table ip bench");
    }
}

fn nft(host: &Host, rules: &str) -> anyhow::Result<()> {
    let output = host.command("nft").arg(rules.trim_end()).output().context("nft")?;
    if !output.status.success() {
        bail!("nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
