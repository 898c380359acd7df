//! The committed corpora of the fuzz targets hold: every file is replayed, and no seed is missing.

use std::{collections::BTreeSet, fs, path::PathBuf};

use super::{seeds::seeds, *};

fn directory(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "fuzz", "corpus", target].iter().collect()
}

/// The first word of an answer's text form, so that breadth can be asserted without naming values.
fn kind(answer: &impl Debug) -> String {
    format!("{answer:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// Replays every file of a corpus and asserts which answers come up.
#[track_caller]
fn replay(target: &str, property: impl Fn(&[u8]) -> String, expected: &[&str]) {
    let mut answers = BTreeSet::new();
    for entry in fs::read_dir(directory(target)).unwrap() {
        let path = entry.unwrap().path();
        answers.insert(property(&fs::read(&path).unwrap()));
    }
    assert_eq!(answers, expected.iter().map(|&answer| answer.to_owned()).collect(), "answers in corpus/{target}");
}

#[test]
fn the_corpora_hold_and_reach_every_answer() {
    let four = ["Match", "NeedMore", "NotThis", "Unreadable"];
    replay("client_hello", |data| kind(&client_hello(data)), &four);
    replay("http", |data| kind(&http(data).1), &four);
    replay("proxy_protocol", |data| kind(&proxy_protocol(data)), &["Complete", "Invalid", "NeedMore"]);
    let pairs = ["Match NotThis", "NeedMore NotThis", "NotThis Match", "NotThis NeedMore", "NotThis NotThis"];
    replay(
        "socks5_ssh",
        |data| format!("{:?} {:?}", kind(&socks5_ssh(data).0), kind(&socks5_ssh(data).1)).replace('"', ""),
        &pairs,
    );
    replay("ech_config", |data| kind(&ech_config(data)), &["Err", "Ok"]);
    replay("ech_inner", |data| kind(&ech_inner(data)), &["Err", "Ok"]);
    replay("ech_pem", |data| kind(&ech_pem(data)), &["Err", "Ok"]);
    replay(
        "second_hello",
        |data| {
            let (second, flight) = second_hello(data);
            format!("{} {flight:?}", kind(&second))
        },
        &[
            "Match NotThis",
            "NeedMore NotThis",
            "NotThis Match(HelloRetryRequest)",
            "NotThis Match(ServerHello)",
            "NotThis NotThis",
        ],
    );
    let packets = ["Handshake Err", "Initial Err", "None Err", "None Ok", "Retry Err", "ZeroRtt Err"];
    replay(
        "quic_packet",
        |data| {
            let (types, frames) = quic_packet(data);
            format!("{} {}", types.first().map_or("None".to_owned(), kind), kind(&frames))
        },
        &packets,
    );
    replay("quic_initial", |data| kind(&quic_initial(data)), &four);
    replay(
        "initial_rewrite",
        |data| initial_rewrite(data).map_or("None".to_owned(), |answer| kind(&answer)),
        &["Broken", "Done", "None", "Second", "Wait"],
    );
    let messages = ["CookieReply", "Initiation", "None", "Response", "Transport"];
    replay("wireguard", |data| wireguard(data).map_or("None".to_owned(), |message| kind(&message)), &messages);
}

#[test]
fn the_seeds_are_committed() {
    for (target, name, bytes) in seeds() {
        assert_eq!(fs::read(directory(target).join(name)).ok(), Some(bytes), "{target}/{name}");
    }
}
