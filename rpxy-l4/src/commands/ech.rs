//! `rpxy-l4 ech`: generates, shows and rotates key files. A running daemon reloads a changed file by itself.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rpxy_l4_proto::ech::{EchKey, Parameters, encode_config_list, generate, write_pem};
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use crate::{
    cli::{EchCommand, GenerateArgs},
    config::ech::read_key_file,
};

/// Runs `command` and writes its result to `out`.
pub(super) fn run(command: &EchCommand, out: &mut impl Write) -> Result<()> {
    match command {
        EchCommand::Generate(arguments) => make(arguments, out),
        EchCommand::Show { file, private } => show(file, *private, out),
        EchCommand::Rotate { file } => rotate(file, out),
    }
}

fn make(arguments: &GenerateArgs, out: &mut impl Write) -> Result<()> {
    let parameters = Parameters {
        public_name: arguments.public_name.clone(),
        kem: arguments.kem,
        cipher_suites: arguments.suites.clone(),
        config_id: match arguments.config_id {
            Some(id) => id,
            None => unused_id(&[])?,
        },
        maximum_name_length: arguments.max_name_length,
    };
    let text = pem(&new_key(&parameters)?)?;
    let Some(path) = &arguments.out else { return Ok(out.write_all(text.as_bytes())?) };
    let file = fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| match path.exists() {
        true => format!("cannot create {} (`rpxy-l4 ech rotate` adds a key to an existing file)", path.display()),
        false => format!("cannot create {}", path.display()),
    })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(|| path.display().to_string())?;
    writeln!(out, "{} holds a key for {}. See `rpxy-l4 ech show {0}`.", path.display(), parameters.public_name)?;
    Ok(())
}

fn show(path: &Path, private: bool, out: &mut impl Write) -> Result<()> {
    let file = read_key_file(path)?;
    for (index, key) in file.keys.iter().enumerate() {
        let config = key.config();
        let suites: Vec<String> = config.cipher_suites.iter().map(ToString::to_string).collect();
        writeln!(out, "configuration {}{}", index + 1, if index == 0 { " (to be published)" } else { "" })?;
        writeln!(out, "  public name      {}", config.public_name)?;
        writeln!(out, "  config_id        {}", config.config_id)?;
        writeln!(out, "  KEM              {}", key.kem())?;
        writeln!(out, "  cipher suites    {}", suites.join(", "))?;
        writeln!(out, "  max name length  {}", config.maximum_name_length)?;
        writeln!(out, "  extensions       {}", config.extensions.len())?;
    }
    if let Some(mode) = file.exposed {
        writeln!(out, "\nThe key file is open to everybody (mode {mode:04o}): chmod o-rwx {}", path.display())?;
    }
    let Some(first) = file.keys.first() else { return Ok(()) };
    let list = |keys: &[EchKey]| {
        let list = encode_config_list(keys.iter().map(EchKey::config)).context("the configurations are too long")?;
        anyhow::Ok(STANDARD.encode(list))
    };
    let published = list(std::slice::from_ref(first))?;
    writeln!(out, "\nIn the configuration, below [protocols.\"<name>\".ech]:\n")?;
    if private {
        writeln!(out, "ech_config_list = \"{}\"", list(&file.keys)?)?;
        let encoded = |key: &EchKey| format!("\"{}\"", STANDARD.encode(key.private_key()));
        let keys = Zeroizing::new(file.keys.iter().map(encoded).collect::<Vec<_>>().join(", "));
        writeln!(out, "private_keys = [{}]", *keys)?;
    } else {
        writeln!(out, "config_files = [\"{}\"]", path.display())?;
    }
    writeln!(out, "\nIn the DNS, for each private name (RFC 9460, RFC 9848), with the protocols of its server:\n")?;
    writeln!(out, "<private name>. 3600 IN HTTPS 1 . alpn=\"h2,http/1.1\" ech=\"{published}\"")?;
    Ok(())
}

fn rotate(path: &Path, out: &mut impl Write) -> Result<()> {
    let keys = read_key_file(path)?.keys;
    let Some(first) = keys.first() else { bail!("{} contains no key", path.display()) };
    let config = first.config();
    let taken: Vec<u8> = keys.iter().map(|key| key.config().config_id).collect();
    let parameters = Parameters {
        public_name: config.public_name.clone(),
        kem: first.kem(),
        cipher_suites: config.cipher_suites.clone(),
        config_id: unused_id(&taken)?,
        maximum_name_length: config.maximum_name_length,
    };
    let new = pem(&new_key(&parameters)?)?;
    // The file itself, should a link lead to it.
    let path = fs::canonicalize(path).with_context(|| path.display().to_string())?;
    let old = Zeroizing::new(fs::read_to_string(&path).with_context(|| path.display().to_string())?);
    replace(&path, &[new.as_bytes(), old.as_bytes()]).with_context(|| format!("cannot replace {}", path.display()))?;
    writeln!(
        out,
        "{} has a new key in front, config_id {}; {} older. Publish it: `rpxy-l4 ech show {0}`. Remove the old blocks \
         when no client can have them any more.",
        path.display(),
        parameters.config_id,
        keys.len(),
    )?;
    Ok(())
}

/// Puts a new file in the place of the one at `path`, with its mode and owner. A reader sees the old one or the new
/// one.
fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile(directory)?;
    let written = (|| {
        file.1.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o777))?;
        fchown(&file.1, Some(metadata.uid()), Some(metadata.gid()))?;
        for part in parts {
            file.1.write_all(part)?;
        }
        file.1.sync_all()?;
        fs::rename(&file.0, path)
    })();
    if written.is_err() {
        fs::remove_file(&file.0).ok();
    }
    written
}

/// A new file for nobody else in `directory`, with its path.
fn tempfile(directory: &Path) -> io::Result<(std::path::PathBuf, fs::File)> {
    let path = directory.join(format!(".rpxy-l4-ech-{:016x}", u64::from_ne_bytes(random()?)));
    let file = fs::File::options().write(true).create_new(true).mode(0o600).open(&path)?;
    Ok((path, file))
}

fn new_key(parameters: &Parameters) -> Result<EchKey> {
    let material = Zeroizing::new(random()?);
    generate(parameters, &material).context("--public-name, --suites")
}

fn pem(key: &EchKey) -> Result<Zeroizing<String>> {
    write_pem(key).context("the key cannot be written")
}

/// A number that is not `taken`, at random: clients tell configurations by it (RFC 9849 section 4.1).
fn unused_id(taken: &[u8]) -> Result<u8> {
    let free: Vec<u8> = (0..=u8::MAX).filter(|id| !taken.contains(id)).collect();
    let [low, high] = random()?;
    let index = usize::from(u16::from_le_bytes([low, high])) % free.len().max(1);
    free.get(index).copied().context("all 256 values of config_id are in use: remove old keys from the file")
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        // Blocks until the kernel's generator is ready; a signal may cut it short.
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use rpxy_l4_proto::ech::{CipherSuite, Kem};

    use super::*;

    fn generated(directory: &Path, arguments: &[&str]) -> Result<String> {
        use clap::Parser as _;
        let path = directory.join("ech.pem");
        let fixed = ["rpxy-l4", "ech", "generate", "--out", path.to_str().unwrap()];
        let cli = crate::cli::Cli::try_parse_from([&fixed, arguments].concat())?;
        let Some(crate::cli::Command::Ech(command)) = cli.command else { panic!("{cli:?}") };
        said(&command)
    }

    fn said(command: &EchCommand) -> Result<String> {
        let mut out = Vec::new();
        run(command, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_generated_file_is_for_its_owner_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ech.pem");
        generated(directory.path(), &["--public-name", "Public.Example", "--config-id", "9"]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let [key] = &read_key_file(&path).unwrap().keys[..] else { panic!("not one key") };
        let config = key.config();
        assert_eq!((config.public_name.as_str(), config.config_id, key.kem()), ("public.example", 9, Kem::X25519));
        assert_eq!(config.maximum_name_length, 64);
        assert!(generated(directory.path(), &["--public-name", "public.example"]).is_err(), "overwritten");
    }

    #[test]
    fn names_that_no_client_would_take_are_refused() {
        for name in ["", "a..b", "192.0.2.1", "0x7f.1", "a.-b.example", "a_b.example", &"a.".repeat(128), "ä.example"]
        {
            let directory = tempfile::tempdir().unwrap();
            let error = generated(directory.path(), &["--public-name", name]).unwrap_err();
            assert!(format!("{error:#}").contains("public name"), "{name}: {error:#}");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "{name}");
        }
    }

    #[test]
    fn what_is_shown_can_be_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ech.pem");
        generated(directory.path(), &["--public-name", "public.example", "--kem", "p256"]).unwrap();
        let keys = read_key_file(&path).unwrap().keys;
        let secret = STANDARD.encode(keys[0].private_key());
        let shown = said(&EchCommand::Show { file: path.clone(), private: false }).unwrap();
        assert!(!shown.contains(&secret) && shown.contains("p256"), "{shown}");
        let list = STANDARD.encode(encode_config_list([keys[0].config()]).unwrap());
        assert!(shown.contains(&format!("IN HTTPS 1 . alpn=\"h2,http/1.1\" ech=\"{list}\"")), "{shown}");

        let shown = said(&EchCommand::Show { file: path, private: true }).unwrap();
        let line = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)?.split('"').nth(1)).unwrap();
        let again = crate::config::ech::from_base64(line("ech_config_list"), &[line("private_keys")]).unwrap();
        assert_eq!(again.iter().collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
    }

    #[test]
    fn rotating_puts_a_new_key_first_and_keeps_mode_and_link() {
        let directory = tempfile::tempdir().unwrap();
        generated(directory.path(), &["--public-name", "public.example", "--suites", "hkdf-sha384/aes-256-gcm"])
            .unwrap();
        let path = directory.path().join("ech.pem");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let link = directory.path().join("link.pem");
        std::os::unix::fs::symlink("ech.pem", &link).unwrap();
        let before = read_key_file(&path).unwrap().keys;
        said(&EchCommand::Rotate { file: link.clone() }).unwrap();
        said(&EchCommand::Rotate { file: link.clone() }).unwrap();
        let after = read_key_file(&path).unwrap().keys;
        assert_eq!(after.len(), 3);
        assert_eq!(after[2], before[0]);
        let mut ids: Vec<u8> = after.iter().map(|key| key.config().config_id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3, "numbers are told apart");
        assert_eq!(after[0].config().cipher_suites, [CipherSuite { kdf_id: 2, aead_id: 2 }]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left over");
    }

    #[test]
    fn there_are_256_numbers() {
        let all: Vec<u8> = (0..=255).collect();
        assert!(unused_id(&all).is_err());
        assert_eq!(unused_id(&all[1..]).unwrap(), 0);
    }
}
