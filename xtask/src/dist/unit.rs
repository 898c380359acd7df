//! The unit of instances, `rpxy-l4@.service`, made of the unit of the service: so that they do not part.

use anyhow::{Result, bail};

/// What the one has for all and the other for each instance.
const CHANGES: [(&str, &str); 5] = [
    (
        "# systemd unit of rpxy-l4. Local changes belong into a drop-in: `systemctl edit rpxy-l4`.",
        "# systemd unit of instances of rpxy-l4: rpxy-l4@web reads /etc/rpxy-l4/web.toml, and may have its admin socket in\n\
      # /run/rpxy-l4/web. Local changes belong into a drop-in: `systemctl edit rpxy-l4@web`.",
    ),
    (
        "Description=Layer-4 reverse proxy and protocol multiplexer\n",
        "Description=Layer-4 reverse proxy and protocol multiplexer, %i\n",
    ),
    ("/etc/rpxy-l4/config.toml", "/etc/rpxy-l4/%i.toml"),
    ("\nLogsDirectory=rpxy-l4\n", "\nLogsDirectory=rpxy-l4/%i\n"),
    ("\nRuntimeDirectory=rpxy-l4\n", "\nRuntimeDirectory=rpxy-l4/%i\n"),
];

/// The unit of instances.
pub(super) fn instances(service: &str) -> Result<String> {
    let mut unit = service.to_owned();
    for (one, each) in CHANGES {
        if !unit.contains(one) {
            bail!("packaging/rpxy-l4.service has no `{}` any more: what is that of an instance?", one.trim());
        }
        unit = unit.replace(one, each);
    }
    Ok(unit
        .replace("/var/log/rpxy-l4`", "/var/log/rpxy-l4/%i`")
        .replace("/run/rpxy-l4/admin.sock", "/run/rpxy-l4/%i/admin.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_share_no_file() {
        let unit = instances(include_str!("../../../packaging/rpxy-l4.service")).unwrap();
        let set: Vec<&str> = unit.lines().filter(|line| !line.starts_with('#')).collect();
        for line in &set {
            let of_all = line.contains("rpxy-l4/") && !line.contains("%i");
            assert!(!of_all || line.contains("/usr/share/doc/"), "{line}");
        }
        assert!(set.contains(&"RuntimeDirectory=rpxy-l4/%i") && set.contains(&"User=rpxy-l4"));
        assert!(instances("[Unit]\n").is_err());
    }
}
