//! The PROXY header that a target would be sent, in words.

use std::net::SocketAddr;

use rpxy_l4_proto::proxy_protocol::{Addresses, Decoded, Tlvs, decode};

use crate::{
    config::model::ProxyVersion,
    route::Route,
    tcp::{Origin, is_unnamed, outbound},
};

/// The header that a target of `route` is sent for a client of one of the sockets that `listen`; `None` if there is none.
pub(super) fn proxy(route: &Route, origin: &Origin, listen: &[String], notes: &mut Vec<String>) -> Option<String> {
    let version = route.send_proxy?;
    let addresses: Vec<SocketAddr> = listen.iter().filter_map(|address| address.parse().ok()).collect();
    let like = |address: &&SocketAddr| address.is_ipv4() == origin.source.is_ipv4();
    let socket = addresses.iter().find(like).or(addresses.first()).copied();
    let destination = origin.destination.or(socket);
    if origin.destination.is_none() && (addresses.len() > 1 || socket.is_some_and(|to| to.ip().is_unspecified())) {
        notes.push("the destination in the PROXY header is the address that the client used".to_owned());
    }
    let known = destination.filter(|_| !is_unnamed(origin.source)).map(|to| (origin.source, to));
    let header = outbound::header(version, known, &Tlvs::default());
    let told = match decode(&header) {
        Decoded::Complete { header, .. } => match header.addresses {
            Addresses::Stream { source, destination } | Addresses::Datagram { source, destination } => {
                format!("{source} -> {destination}")
            }
            Addresses::Local | Addresses::Unknown => "without addresses".to_owned(),
        },
        Decoded::NeedMore | Decoded::Invalid(_) => return None,
    };
    Some(match version {
        ProxyVersion::V1 => format!("v1, {}", String::from_utf8_lossy(&header).trim_end()),
        ProxyVersion::V2 => format!("v2, {told} ({} bytes)", header.len()),
    })
}
