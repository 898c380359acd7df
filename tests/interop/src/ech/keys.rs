//! Keys as `rpxy-l4 ech generate` makes them, read by other eyes than the daemon's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use boring::{hpke::HpkeKey, ssl::SslEchKeys};
use rpxy_l4_tests::{OrFail as _, daemon, owned};
use tempfile::TempDir;

/// The file with keys for one public name.
#[derive(Debug)]
pub struct Keys {
    directory: TempDir,
}

impl Keys {
    /// Makes a key for `public_name`, with these further arguments.
    ///
    /// # Panics
    ///
    /// When the program refuses.
    #[track_caller]
    pub fn generate(public_name: &str, arguments: &[&str]) -> Self {
        let keys = Self { directory: owned::directory() };
        let mut command = Command::new(daemon::binary());
        command.args(["ech", "generate", "--public-name", public_name, "--out"]).arg(keys.file()).args(arguments);
        run(&mut command);
        keys
    }

    /// Puts a new key in front of the ones that are there.
    ///
    /// # Panics
    ///
    /// When the program refuses.
    #[track_caller]
    pub fn rotate(&self) {
        run(Command::new(daemon::binary()).args(["ech", "rotate"]).arg(self.file()));
    }

    /// Gives the first configuration another extension, whose type is not mandatory. Its key stays.
    pub fn extend(&self) {
        const EXTENSION: [u8; 8] = [0x1a, 0x1a, 0, 4, 1, 2, 3, 4];
        let list = self.list();
        // The list's length, version and length of the configuration; its last field is the length of no extensions.
        let mut contents = list[6..list.len() - 2].to_vec();
        contents.extend([0, EXTENSION.len() as u8]);
        contents.extend(EXTENSION);
        let with_length = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
        let config = [&list[2..4], &with_length(&contents)].concat();
        let text = fs::read_to_string(self.file()).or_fail("key file");
        let (key, _) = text.split_once("-----BEGIN ECHCONFIG-----").or_fail("key file");
        let encoded = STANDARD.encode(with_length(&config));
        fs::write(self.file(), format!("{key}-----BEGIN ECHCONFIG-----\n{encoded}\n-----END ECHCONFIG-----\n"))
            .or_fail("key file");
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("ech.pem")
    }

    /// The `ECHConfigList` of the first block: what would be published.
    pub fn list(&self) -> Vec<u8> {
        blocks(&self.file(), "ECHCONFIG").swap_remove(0)
    }

    /// The first key as BoringSSL takes it (X25519 only), to be handed out for a retry.
    ///
    /// # Errors
    ///
    /// BoringSSL refuses.
    pub fn boring(&self) -> anyhow::Result<SslEchKeys> {
        let pkcs8 = blocks(&self.file(), "PRIVATE KEY").swap_remove(0);
        // RFC 8410 section 7: the key is the end.
        let private_key = &pkcs8[pkcs8.len() - 32..];
        let mut builder = SslEchKeys::builder()?;
        // The function's name is BoringSSL's mistake: it is X25519.
        builder.add_key(true, &self.list()[2..], HpkeKey::dhkem_p256_sha256(private_key)?)?;
        Ok(builder.build())
    }
}

/// The contents of the blocks with this label.
fn blocks(file: &Path, label: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(file).or_fail("key file");
    let begin = format!("-----BEGIN {label}-----");
    let contents = text.split(&begin).skip(1).map(|rest| {
        let body = rest.split("-----END").next().unwrap_or_default();
        STANDARD.decode(body.split_whitespace().collect::<String>()).or_fail(label)
    });
    contents.collect()
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().or_fail("rpxy-l4 ech");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
