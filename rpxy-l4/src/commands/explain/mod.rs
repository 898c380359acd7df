//! `rpxy-l4 explain`: makes the first bytes of a client, asks a daemon or a file, and shows the answer.

mod first_bytes;
mod hex;

use std::{fs, io::Read as _, io::Write, path::Path};

use anyhow::{Context, Result, bail};

use super::{client, explanation::show, load};
use crate::{
    admin,
    cli::{ExplainArgs, Spoken},
    config::model::Transport,
    escape,
    explain::{MOST_BYTES, MOST_DATAGRAMS, Question},
    supervise,
};

/// The longest text of captured bytes, in bytes: `hexdump -C` writes five for each of [`MOST_BYTES`].
const LONGEST_TEXT: u64 = 1 << 20;

/// Explains where what `args` describe would go.
pub(super) fn run(args: &ExplainArgs, out: &mut dyn Write) -> Result<()> {
    let question = question(args)?;
    let Some(config) = load(args.config.as_deref())? else {
        let socket = client::socket(args.socket.as_deref(), None)?;
        if !socket.exists() {
            let socket = socket.display();
            bail!(
                "no daemon has its admin_socket at {socket} (--socket names another one, --config asks a file instead)"
            );
        }
        return client::run(&socket, &admin::Command::Explain(question), args.json, out);
    };
    let explanation = supervise::explain_file(config, &question)?;
    let value = serde_json::to_value(&explanation)?;
    if args.json {
        writeln!(out, "{}", escape::json(value.to_string()))?;
    } else {
        show(&value, out)?;
    }
    Ok(())
}

fn question(args: &ExplainArgs) -> Result<Question> {
    let transport = transport(args);
    let first = match &args.hex {
        Some(path) => {
            let text = read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let parts = hex::parse(&text).with_context(|| path.display().to_string())?;
            // A stream has no parts.
            if transport == Transport::Tcp { vec![parts.concat()] } else { parts }
        }
        None => first_bytes::of(args, transport)?,
    };
    if first.iter().map(Vec::len).sum::<usize>() > MOST_BYTES {
        bail!("more than {MOST_BYTES} first bytes; nothing is decided by later ones: leave them out");
    }
    if first.len() > MOST_DATAGRAMS {
        bail!("more than {MOST_DATAGRAMS} datagrams; nothing is decided by later ones: leave them out");
    }
    Ok(Question {
        transport,
        listener: args.listener.clone(),
        from: args.from,
        first,
        rule: args.rule.clone(),
        limit: args.limit,
    })
}

fn transport(args: &ExplainArgs) -> Transport {
    let of_udp = matches!(args.protocol, Some(Spoken::Quic | Spoken::WireGuard)) || args.public_key.is_some();
    if args.udp || (of_udp && !args.tcp) { Transport::Udp } else { Transport::Tcp }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let size = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(LONGEST_TEXT + 1).read_to_string(&mut text)?
    } else {
        fs::File::open(path)?.take(LONGEST_TEXT + 1).read_to_string(&mut text)?
    };
    if size as u64 > LONGEST_TEXT {
        return Err(std::io::Error::other(format!("it has more than {} MiB", LONGEST_TEXT >> 20)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
