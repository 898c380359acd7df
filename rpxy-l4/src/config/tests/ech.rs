//! The `ech` table and its keys.

use std::{fs, os::unix::fs::PermissionsExt as _};

use base64::Engine as _;
use hpke::{Kem as _, Serializable as _, kem::DhP256HkdfSha256};

use rpxy_l4_proto::ech::{CipherSuite, Kem, Parameters, generate, write_pem};

use super::{accepted, errors, warnings};
use crate::config::{
    ech::{BASE64, EchKeysError, from_base64},
    model::{Balance, Config, Ech, EchPolicy, Matcher, NamePattern},
};

/// A throw-away pair: X25519, configuration 0x41, public name `public.example`.
const LIST: &str = "AEH+DQA9QQAgACBA33gCXp5kB6qZDDobZiUWmF3pM58j/PDRen/3YLbEWwAEAAEAAQAOcHVibGljLmV4YW1wbGUAAA==";
const KEY: &str = "iCqDaWFEAeGlFe0ajA6KD/5SKj9w7lT9bmx2tu1Od0c=";

/// Another pair, for P-256: its `ECHConfig` and private key.
fn p256() -> (Vec<u8>, String) {
    let (private_key, public_key) = DhP256HkdfSha256::derive_keypair(&[7; 32]);
    (ech_config(0x42, 0x0010, &public_key.to_bytes()), BASE64.encode(private_key.to_bytes()))
}

/// An `ECHConfig` of RFC 9849 section 4, written out.
fn ech_config(config_id: u8, kem_id: u16, public_key: &[u8]) -> Vec<u8> {
    let mut contents = vec![config_id];
    contents.extend(kem_id.to_be_bytes());
    contents.extend(u16::try_from(public_key.len()).unwrap().to_be_bytes());
    contents.extend(public_key);
    contents.extend([0, 4, 0, 1, 0, 1, 0]);
    contents.extend([5, b'p', b'.', b'o', b'r', b'g', 0, 0]);
    with_version(0xfe0d, &contents)
}

fn with_version(version: u16, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
    [&version.to_be_bytes()[..], &length, contents].concat()
}

/// An `ECHConfigList` in base64.
fn list(configs: &[&[u8]]) -> String {
    let body = configs.concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    BASE64.encode([&length[..], &body].concat())
}

/// The one `ECHConfig` of [`LIST`].
fn x25519() -> Vec<u8> {
    BASE64.decode(LIST).unwrap()[2..].to_vec()
}

fn file(protocol: &str, list: &str, keys: &str, names: &str) -> String {
    format!(
        "listen_port = [8448, 443]\n[protocols.a]\nprotocol = '{protocol}'\ntarget = ['a:1']\n[protocols.a.ech]\n\
         ech_config_list = '{list}'\nprivate_keys = {keys}\nprivate_server_names = {names}"
    )
}

fn ech(config: &Config) -> &Ech {
    let (Matcher::Tls(matcher) | Matcher::Quic(matcher)) = &config.top.rules[0].matcher else { panic!("{config:?}") };
    matcher.ech.as_ref().unwrap()
}

#[test]
fn keys_of_a_list() {
    let (p256_config, p256_key) = p256();
    let both = list(&[&x25519(), &p256_config]);
    let with_unknown = list(&[&with_version(0xfe0c, &[1, 2, 3]), &x25519()]);
    type Row<'a> = (&'a str, &'a str, &'a [&'a str], &'a [(u8, Kem)]);
    let rows: &[Row<'_>] = &[
        ("one", LIST, &[KEY], &[(0x41, Kem::X25519)]),
        ("without padding", LIST.trim_end_matches('='), &[KEY.trim_end_matches('=')], &[(0x41, Kem::X25519)]),
        ("the same key twice", LIST, &[KEY, KEY], &[(0x41, Kem::X25519)]),
        ("two KEMs, in the order of the list", &both, &[&p256_key, KEY], &[(0x41, Kem::X25519), (0x42, Kem::P256)]),
        ("one key for two configurations", &both, &[&p256_key], &[(0x42, Kem::P256)]),
        ("unknown version skipped", &with_unknown, &[KEY], &[(0x41, Kem::X25519)]),
    ];
    for (name, list, keys, expected) in rows {
        let keys = from_base64(list, keys).expect(name);
        let found: Vec<(u8, Kem)> = keys.iter().map(|key| (key.config().config_id, key.kem())).collect();
        assert_eq!(found, *expected, "{name}");
        for key in &keys {
            assert_eq!(keys.with_config_id(key.config().config_id).count(), 1, "{name}");
            assert_eq!(key.config().kem_id, key.kem().id(), "{name}");
        }
    }
    let keys = from_base64(LIST, &[KEY]).unwrap();
    let key = keys.iter().next().unwrap();
    assert_eq!(key.config().raw, x25519());
    assert_eq!(*key.private_key(), BASE64.decode(KEY).unwrap());
}

#[test]
fn keys_that_do_not_fit() {
    let (p256_config, p256_key) = p256();
    let p256_list = list(&[&p256_config]);
    let unusable = list(&[&with_version(0xfe0c, &[1]), &ech_config(1, 0x0011, &[4; 97])]);
    let rows: &[(&str, &str, &[&str], EchKeysError)] = &[
        ("key of another list", LIST, &[&p256_key], EchKeysError::KeyWithoutConfig),
        ("X25519 key for P-256", &p256_list, &[KEY], EchKeysError::KeyWithoutConfig),
        ("zero is no P-256 key", &p256_list, &[&BASE64.encode([0; 32])], EchKeysError::KeyWithoutConfig),
        ("short key", LIST, &["iCqDaWFEAeGl"], EchKeysError::KeyWithoutConfig),
        ("one of two", LIST, &[KEY, &p256_key], EchKeysError::KeyWithoutConfig),
        ("key not base64", LIST, &["?"], EchKeysError::KeyEncoding),
        ("list not base64", "?", &[KEY], EchKeysError::ListEncoding),
        ("nothing usable", &unusable, &[KEY], EchKeysError::NothingUsable { skipped: 1, other_kems: 1 }),
    ];
    for (name, list, keys, expected) in rows {
        assert_eq!(from_base64(list, keys).unwrap_err(), *expected, "{name}");
    }
    let truncated = from_base64("AAA=", &[KEY]).unwrap_err();
    assert!(matches!(truncated, EchKeysError::List(_)), "{truncated}");
}

#[test]
fn keys_are_equal_by_what_is_public() {
    let keys = || from_base64(LIST, &[KEY]).unwrap();
    let (config, key) = p256();
    assert_eq!(keys(), keys());
    assert_ne!(keys(), from_base64(&list(&[&config]), &[&key]).unwrap());
}

#[test]
fn private_keys_show_nowhere() {
    let config = accepted(&file("tls", LIST, &format!("['{KEY}']"), "['private.example']"));
    let bytes = format!("{:?}", BASE64.decode(KEY).unwrap());
    let debug = format!("{config:?}");
    assert!(debug.contains("public.example"), "the keys are shown: {debug}");
    assert!(!debug.contains(KEY) && !debug.contains(bytes.trim_matches(['[', ']'])), "{debug}");
    let (_, other) = p256();
    for wrong in [&other[..], "not/a?key"] {
        let problems = crate::config::parse(&file("tls", LIST, &format!("['{wrong}']"), "['a']")).unwrap_err();
        assert!(!format!("{problems} {problems:?}").contains(wrong), "{problems}");
    }
}

#[test]
fn private_server_names() {
    type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
    let rows: &[Row] = &[
        ("first listen port", "['private.example']", &[("private.example", "private.example:8448")]),
        ("own port", "['private.example:443']", &[("private.example", "private.example:443")]),
        ("normal form", "['Private.Example.']", &[("private.example", "private.example.:8448")]),
        ("order", "['b', 'a']", &[("b", "b:8448"), ("a", "a:8448")]),
        ("address", "['192.0.2.1']", &[("192.0.2.1", "192.0.2.1:8448")]),
        ("IPv6", "['[::1]:443']", &[("::1", "[::1]:443")]),
    ];
    for (name, names, expected) in rows {
        let config = accepted(&file("tls", LIST, &format!("['{KEY}']"), names));
        let found: Vec<_> = ech(&config)
            .private
            .iter()
            .map(|private| (private.server_names.clone(), private.upstream.targets[0].to_string()))
            .collect();
        let expected: Vec<_> =
            expected.iter().map(|(a, b)| (vec![NamePattern::Exact((*a).into())], (*b).to_owned())).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn groups_of_private_names() {
    let group = "[[protocols.a.ech.private]]\nserver_names = ['*.corp.example', 'X.example']\nalpns = ['h2']\n\
                 target = ['b:1', 'c:2']\nload_balance = 'round_robin'\n";
    let text = file("tls", LIST, &format!("['{KEY}']"), "['private.example']");
    let config = accepted(&format!("{text}\n{group}"));
    let [dialled, group_of] = &ech(&config).private[..] else { panic!("{config:?}") };
    assert_eq!(dialled.server_names, [NamePattern::Exact("private.example".into())]);
    assert_eq!(
        group_of.server_names,
        [NamePattern::Wildcard("corp.example".into()), NamePattern::Exact("x.example".into())]
    );
    assert_eq!(group_of.alpns, [b"h2".as_slice().into()]);
    assert_eq!(group_of.upstream.balance, Balance::RoundRobin);
    assert_eq!(group_of.upstream.targets.len(), 2);

    let only = text.replace("private_server_names = ['private.example']", "");
    assert_eq!(ech(&accepted(&format!("{only}\n{group}"))).private.len(), 1, "groups suffice");
    let at = |key: &str| format!("9: protocols.\"a\".ech.private[0]{key}");
    let rows: &[(&str, &str, String)] = &[
        ("no names", "target = ['b:1']", at(".server_names")),
        ("no name in the list", "target = ['b:1']\nserver_names = []", at("").replace("9: ", "11: ") + ".server_names"),
        ("no target", "server_names = ['b']", at(".target")),
    ];
    for (name, group, expected) in rows {
        assert_eq!(
            errors(&format!("{text}\n[[protocols.a.ech.private]]\n{group}")),
            std::slice::from_ref(expected),
            "{name}"
        );
    }
    assert_eq!(errors(&format!("{only}private = []")), ["8: protocols.\"a\".ech.private"]);
}

/// A key file's text, with this configuration number.
pub(super) fn pem(config_id: u8) -> String {
    let parameters = Parameters {
        public_name: "public.example".to_owned(),
        kem: Kem::P256,
        cipher_suites: vec![CipherSuite { kdf_id: 1, aead_id: 1 }],
        config_id,
        maximum_name_length: 0,
    };
    write_pem(&generate(&parameters, &[config_id; 32]).unwrap()).unwrap().to_string()
}

#[test]
fn private_keys_in_a_file_that_is_open_to_others_are_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let (main, part) = (directory.path().join("config.toml"), directory.path().join("part.toml"));
    let ech = file("tls", LIST, &format!("['{KEY}']"), "['b']");
    let include = |text: &str| format!("include = 'part.toml'\n{text}");
    let (top, rules) = ech.split_at(ech.find("[protocols").unwrap());
    let write = |path: &std::path::Path, text: &str, mode| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for (row, main_mode, part_mode, in_part, expected) in [
        ("the owner's", 0o600, 0o644, false, None),
        ("the owner's and the group's", 0o640, 0o644, false, None),
        ("everybody's", 0o644, 0o600, false, Some("config.toml")),
        ("writable by everybody", 0o602, 0o600, false, Some("config.toml")),
        ("included", 0o644, 0o640, true, None),
        ("included, everybody's", 0o600, 0o644, true, Some("part.toml")),
    ] {
        let (main_text, part_text) = if in_part { (include(top), rules) } else { (include(&ech), "") };
        write(&main, &main_text, main_mode);
        write(&part, part_text, part_mode);
        let loaded = crate::config::load(&main).unwrap();
        let warned: Vec<_> = loaded.warnings.iter().map(|warning| warning.in_file(&main).to_string()).collect();
        let fits = |name| matches!(&warned[..], [one] if one.contains(name) && one.contains("o-rwx"));
        assert!(expected.map_or(warned.is_empty(), fits), "{row}: {warned:?}");
    }
}

#[test]
fn key_files() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode: u32| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let inline = format!("ech_config_list = '{LIST}'\nprivate_keys = ['{KEY}']\n");
    let load = |ech: &str| {
        let text = format!(
            "listen_port = 443\n[protocols.a]\nprotocol = 'tls'\ntarget = ['a:1']\n[protocols.a.ech]\n\
             private_server_names = ['b']\n{ech}"
        );
        write("config.toml", &text, 0o640);
        crate::config::load(&directory.path().join("config.toml"))
    };
    write("one.pem", &pem(1), 0o600);
    write("two.pem", &(pem(2) + &pem(3)), 0o400);
    write("open.pem", &pem(4), 0o644);
    write("group.pem", &pem(6), 0o640);
    write("broken.pem", &pem(5).replace("-----END ECHCONFIG", "-----END"), 0o600);

    let rows: &[(&str, String, &[u8], &[&str])] = &[
        ("one file", "config_files = ['one.pem']".to_owned(), &[1], &[]),
        ("files in order", "config_files = ['two.pem', 'one.pem']".to_owned(), &[2, 3, 1], &[]),
        ("beside keys of its own", format!("{inline}config_files = ['one.pem']"), &[0x41, 1], &[]),
        ("the same file twice", "config_files = ['one.pem', './one.pem']".to_owned(), &[1], &[]),
        ("absolute path", format!("config_files = ['{}']", directory.path().join("one.pem").display()), &[1], &[]),
        ("of root and the daemon's group", "config_files = ['group.pem']".to_owned(), &[6], &[]),
        ("open to others", "config_files = ['open.pem']".to_owned(), &[4], &["7: protocols.\"a\".ech.config_files[0]"]),
    ];
    for (name, ech_keys, expected, warnings) in rows {
        let loaded = load(ech_keys).unwrap_or_else(|error| panic!("{name}: {error}"));
        let ids: Vec<u8> = ech(&loaded.config).keys.iter().map(|key| key.config().config_id).collect();
        assert_eq!(ids, *expected, "{name}");
        assert_eq!(loaded.warnings.iter().map(super::position).collect::<Vec<_>>(), *warnings, "{name}");
        assert_eq!(loaded.files.len(), ech_keys.matches(".pem").count(), "{name}");
    }
    for (name, ech_keys, expected) in [
        ("missing", "config_files = ['one.pem', 'none.pem']", "7: protocols.\"a\".ech.config_files[1]: cannot read"),
        ("a directory", "config_files = ['.']", "7: protocols.\"a\".ech.config_files[0]: cannot read"),
        ("broken", "config_files = ['broken.pem']", "line 5: the block has no end"),
        ("no file", "config_files = []", "must not be empty"),
        ("list without keys", &format!("ech_config_list = '{LIST}'\nconfig_files = ['one.pem']"), "private_keys"),
    ] {
        let error = load(ech_keys).unwrap_err();
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert_eq!(
            error.files().len(),
            ech_keys.matches(".pem").count() + usize::from(name == "a directory"),
            "{name}"
        );
    }
}

#[cfg(feature = "proxy-protocol")]
#[test]
fn private_backends_get_the_proxy_header_of_the_rule() {
    use crate::config::model::ProxyVersion;
    let text = file("tls", LIST, &format!("['{KEY}']"), "['private.example']");
    let of = |text: &str| ech(&accepted(text)).private[0].upstream.send_proxy;
    assert_eq!(of(&text), None);
    assert_eq!(of(&format!("tcp_send_proxy_protocol = 'v1'\n{text}")), Some(ProxyVersion::V1), "global");
    let own = text.replace("target = ['a:1']", "target = ['a:1']\nsend_proxy_protocol = 'v2'");
    assert_eq!(of(&format!("tcp_send_proxy_protocol = 'v1'\n{own}")), Some(ProxyVersion::V2), "the rule's own");
}

#[test]
fn policies() {
    let text = file("tls", LIST, &format!("['{KEY}']"), "['private.example']");
    let of = |line: &str| ech(&accepted(&format!("{text}\n{line}"))).policy;
    assert_eq!(of(""), EchPolicy::Allowed);
    assert_eq!(of("policy = 'allowed'"), EchPolicy::Allowed);
    assert_eq!(of("policy = 'Required'"), EchPolicy::Required);
    assert_eq!(of("policy = 'rejected'"), EchPolicy::Rejected);
    assert_eq!(errors(&format!("{text}\npolicy = 'require'")), ["9: protocols.\"a\".ech.policy"]);
}

#[test]
fn tables() {
    let key = format!("['{KEY}']");
    for protocol in ["tls", "quic"] {
        let text = file(protocol, LIST, &key, "['a']");
        assert_eq!(warnings(&text), [""; 0], "{protocol}");
        assert_eq!(ech(&accepted(&text)).keys.iter().count(), 1, "{protocol}");
    }
    let (config, other) = p256();
    let both = list(&[&x25519(), &config]);
    let rows: &[(&str, String, &str)] = &[
        ("wrong list", file("tls", "?", &key, "['a']"), "6: protocols.\"a\".ech.ech_config_list"),
        ("no key", file("tls", LIST, "[]", "['a']"), "7: protocols.\"a\".ech.private_keys"),
        (
            "wrong key",
            file("tls", LIST, &format!("['{KEY}', '{other}']"), "['a']"),
            "7: protocols.\"a\".ech.private_keys[1]",
        ),
        ("no name", file("tls", LIST, &key, "[]"), "8: protocols.\"a\".ech.private_server_names"),
        ("wrong name", file("tls", LIST, &key, "['a', 'b:c']"), "8: protocols.\"a\".ech.private_server_names[1]"),
        ("blank name", file("tls", LIST, &key, "['']"), "8: protocols.\"a\".ech.private_server_names[0]"),
        ("wildcard", file("tls", LIST, &key, "['*.a']"), "8: protocols.\"a\".ech.private_server_names[0]"),
    ];
    for (name, text, expected) in rows {
        assert_eq!(errors(text), [*expected], "{name}");
    }
    let rows: &[(&str, String, &str)] = &[
        ("another protocol", file("ssh", LIST, &key, "['a']"), "5: protocols.\"a\".ech"),
        ("a name twice", file("tls", LIST, &key, "['a', 'A:443']"), "8: protocols.\"a\".ech.private_server_names[1]"),
        ("configuration without key", file("tls", &both, &key, "['a']"), "6: protocols.\"a\".ech.ech_config_list"),
        (
            "public name that is not served",
            file("tls", LIST, &key, "['a']").replace("[protocols.a.ech]", "server_names = ['b']\n[protocols.a.ech]"),
            "6: protocols.\"a\".ech",
        ),
    ];
    for (name, text, expected) in rows {
        assert_eq!(warnings(text), [*expected], "{name}");
    }
    let empty = "listen_port = 1\n[protocols.a]\nprotocol = 'tls'\ntarget = ['a:1']\n[protocols.a.ech]";
    assert_eq!(
        errors(empty),
        [
            "5: protocols.\"a\".ech.ech_config_list",
            "5: protocols.\"a\".ech.private_keys",
            "5: protocols.\"a\".ech.private_server_names"
        ]
    );
}
