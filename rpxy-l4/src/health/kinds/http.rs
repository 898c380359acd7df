//! A request by HTTP/1.1 (RFC 9112), and the status of its response.

use std::{net::IpAddr, ops::RangeInclusive};

use super::Judgement;
use crate::config::model::Host;

/// The value of `Host` for a target (RFC 9110 section 7.2): no zone, and no port where it is the usual one.
pub(super) fn authority(host: &Host, port: u16) -> String {
    const USUAL: u16 = 80;
    let host = match host {
        Host::Ip { address: IpAddr::V4(address), .. } => address.to_string(),
        Host::Ip { address: IpAddr::V6(address), .. } | Host::LinkLocal { address, .. } => format!("[{address}]"),
        Host::Name(name) | Host::Srv(name) => name.to_string(),
        // As clients of such sockets do.
        Host::Unix(_) => return "localhost".to_owned(),
    };
    if port == USUAL { host } else { format!("{host}:{port}") }
}

/// The request; the connection is of no further use.
pub(super) fn request(path: &str, host: &str) -> Vec<u8> {
    let agent = concat!("rpxy-l4/", env!("CARGO_PKG_VERSION"), " (health)");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    request.into_bytes()
}

/// Passes once a final status is among `accepted`. Interim responses are passed over (RFC 9110 section 15.2), but for a
/// switch of protocols, which nobody has asked for.
pub(super) fn judge(mut arrived: &[u8], accepted: &[RangeInclusive<u16>]) -> Judgement {
    const SWITCHING: u16 = 101;
    loop {
        let status = match status(arrived) {
            Ok(Some(status)) => status,
            Ok(None) => return Judgement::NeedMore,
            Err(NotHttp) => return Judgement::Failed("the answer is not HTTP/1".to_owned()),
        };
        if accepted.iter().any(|range| range.contains(&status)) {
            return Judgement::Passed;
        }
        if !(100..200).contains(&status) || status == SWITCHING {
            return Judgement::Failed(format!("status {status}"));
        }
        match arrived.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(end) => arrived = arrived.get(end.saturating_add(4)..).unwrap_or_default(),
            None => return Judgement::NeedMore,
        }
    }
}

struct NotHttp;

/// The status of a response that begins with `bytes`; `None` while it has not come.
fn status(bytes: &[u8]) -> Result<Option<u16>, NotHttp> {
    // `HTTP/1.1 200`, then a space or the end of the line (RFC 9112 section 4).
    const SHAPE: &[u8; 13] = b"HTTP/1.d ddd ";
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'd' => byte.is_ascii_digit(),
        _ => byte == shape,
    };
    let line = bytes.get(..SHAPE.len()).unwrap_or(bytes);
    let (most, last) = line.split_at(line.len().min(SHAPE.len() - 1));
    if !most.iter().zip(SHAPE).all(fits) || !matches!(last, [] | [b' ' | b'\r' | b'\n']) {
        return Err(NotHttp);
    }
    let (Some(digits), [_]) = (most.get(9..12), last) else { return Ok(None) };
    Ok(Some(digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))))
}
