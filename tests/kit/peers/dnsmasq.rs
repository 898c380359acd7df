//! dnsmasq as a name server.

use std::{fs, net::Ipv4Addr};

use super::programs::Program;
use crate::{OrFail as _, owned, topology::Host};

/// The server; dropping it stops it.
#[derive(Debug)]
pub struct Dnsmasq {
    _program: Program,
}

impl Dnsmasq {
    /// Serves `address`, port 53, on `host`, with `lines` of its configuration file. Answers may be kept for a second.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[track_caller]
    pub fn start(host: &Host, address: Ipv4Addr, lines: &str) -> Self {
        let directory = owned::directory();
        let file = directory.path().join("dnsmasq.conf");
        let config = format!(
            "keep-in-foreground\nlog-facility=-\nuser=root\npid-file=\nno-resolv\nno-hosts\nlocal-ttl=1\nlocal=/test/\n\
             bind-interfaces\nlisten-address={address}\nexcept-interface=lo\n{lines}\n"
        );
        fs::write(&file, config).or_fail("dnsmasq.conf");
        let mut command = host.command("dnsmasq");
        command.arg("-C").arg(&file);
        Self { _program: Program::start("dnsmasq", &mut command, directory, host, &[53]) }
    }
}

/// A question for the IPv4 addresses of `name` (RFC 1035 section 4).
pub fn question(id: u16, name: &str) -> Vec<u8> {
    let mut question = id.to_be_bytes().to_vec();
    question.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap_or_default());
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    question
}
