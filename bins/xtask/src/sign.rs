//! `cargo xtask sign`: signatures over a release, in the forms that cosign, OpenSSL and OpenSSH read. Private keys are only ever
//! read by `openssl` and `ssh-keygen`, so that a key in a token or an agent works as well as a file.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use data_encoding::{BASE64, HEXLOWER};
use serde_json::json;

use crate::dist::{self, PROGRAMS};
use crate::step::{self, Failure};

pub(crate) const HELP: &str = "\
Sign what `cargo xtask dist` made. Which keys, and who holds them: RELEASING.md.

Usage: cargo xtask sign DIR --key KEY [--ssh-key FILE]

SHA256SUMS and each program get NAME.sig (ECDSA P-256 over SHA-256, base64: `cosign verify-blob --signature`) and
NAME.sigstore.json (the same in a Sigstore bundle v0.3: `cosign verify-blob --bundle`). SHA256SUMS covers every file.

  --key KEY        a P-256 private key, as `openssl -sign` takes it: a file in PEM, or a URI of a provider
  --ssh-key FILE   also SHA256SUMS.sshsig, as `ssh-keygen -Y verify -n file` reads it: a private key, or the public
                   half of one that the agent holds
";

/// What `ssh-keygen -Y` calls the purpose of a signature over a file.
const NAMESPACE: &str = "file";

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let (directory, key, ssh_key) = parse(words)?;
    let spki = openssl(&["pkey", "-in", &key, "-pubout", "-outform", "DER"], &[])?;
    // The header of a P-256 key in SubjectPublicKeyInfo; no other is what cosign verifies with these bytes.
    if !spki.starts_with(P256) {
        return Err(Failure::new(format!(
            "`{key}` is no P-256 key: make one with `openssl ecparam -name prime256v1 -genkey -noout -out key.pem`"
        )));
    }
    let hint = BASE64.encode(&sha256(&spki)?);
    let there = PROGRAMS.iter().filter(|name| directory.join(name).exists());
    let mut written = Vec::new();
    for name in ["SHA256SUMS"].iter().chain(there) {
        let bytes = dist::read(&directory.join(name))?;
        let signature = BASE64.encode(&openssl(&["dgst", "-sha256", "-sign", &key], &bytes)?);
        let digest = BASE64.encode(&sha256(&bytes)?);
        let bundle = json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": { "publicKey": { "hint": hint } },
            "messageSignature": {
                "messageDigest": { "algorithm": "SHA2_256", "digest": digest },
                "signature": signature,
            },
        });
        dist::write(
            &directory.join(format!("{name}.sig")),
            format!("{signature}\n"),
        )?;
        dist::write(
            &directory.join(format!("{name}.sigstore.json")),
            format!("{bundle}\n"),
        )?;
        written.push(*name);
    }
    if let Some(ssh_key) = ssh_key {
        let bytes = dist::read(&directory.join("SHA256SUMS"))?;
        let mut sign = Command::new("ssh-keygen");
        sign.args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"])
            .arg(ssh_key);
        dist::write(
            &directory.join("SHA256SUMS.sshsig"),
            filter(&mut sign, &bytes)?,
        )?;
    }
    println!("sign: {} in {}", written.join(", "), directory.display());
    Ok(())
}

const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

fn parse(words: &[String]) -> Result<(PathBuf, String, Option<PathBuf>), Failure> {
    let (mut directory, mut key, mut ssh_key) = (None, None, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            let value = words.next().cloned();
            value.ok_or_else(|| Failure::usage(format!("`{word}` wants a value")))
        };
        match word.as_str() {
            "--key" => key = Some(value()?),
            "--ssh-key" => ssh_key = Some(PathBuf::from(value()?)),
            other if !other.starts_with('-') && directory.is_none() => {
                directory = Some(PathBuf::from(other));
            }
            other => return Err(Failure::usage(format!("unknown option `{other}`"))),
        }
    }
    match (directory, key) {
        (Some(directory), Some(key)) => Ok((directory, key, ssh_key)),
        _ => Err(Failure::usage(
            "give the release's directory and `--key KEY`",
        )),
    }
}

fn sha256(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    HEXLOWER
        .decode(dist::sha256(bytes).as_bytes())
        .map_err(|error| Failure::new(error.to_string()))
}

fn openssl(words: &[&str], input: &[u8]) -> Result<Vec<u8>, Failure> {
    filter(Command::new("openssl").args(words), input)
}

/// Runs a program that reads `input` and writes its answer; what it asks or complains is on the terminal.
fn filter(command: &mut Command, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| step::not_started(command, &error))?;
    let broken =
        |error: std::io::Error| Failure::new(format!("`{}`: {error}", step::shown(command)));
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                // A program that fails says so by its exit code.
                drop(stdin.write_all(input));
            }
        });
        child.wait_with_output()
    });
    let output = output.map_err(broken)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Failure::new(format!(
        "`{}` failed ({})",
        step::shown(command),
        output.status
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_key_that_cosign_can_use_signs() {
        let place = tempfile::tempdir().unwrap();
        let key = place.path().join("ed25519.pem");
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "ed25519", "-out"])
            .arg(&key)
            .status()
            .unwrap();
        assert!(made.success());
        let words = [
            place.path().to_str().unwrap(),
            "--key",
            key.to_str().unwrap(),
        ];
        let failure = run(&words.map(str::to_owned)).unwrap_err();
        assert!(failure.to_string().contains("no P-256 key"), "{failure}");
    }

    #[test]
    fn a_directory_and_a_key_have_to_be_named() {
        for words in [
            &["here"][..],
            &["--key", "x"],
            &["here", "--key"],
            &["here", "there", "--key", "x"],
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(parse(&words).unwrap_err().exit_code(), 2, "{words:?}");
        }
    }
}
