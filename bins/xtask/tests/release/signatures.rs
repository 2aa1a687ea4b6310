//! Signatures, and the procedure of RELEASING.md that makes and verifies them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::fails;
use crate::made::{ok, output, release, target};

/// A copy that may be changed.
fn copy() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(release()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), place.path().join(entry.file_name())).unwrap();
    }
    place
}

/// A release that was signed with keys of the test, as RELEASING.md says.
struct Signed {
    place: TempDir,
    keys: TempDir,
}

impl Signed {
    fn new() -> Self {
        let (place, keys) = (copy(), tempfile::tempdir().unwrap());
        let key = |name: &str| keys.path().join(name);
        ok(Command::new("openssl")
            .args([
                "ecparam",
                "-name",
                "prime256v1",
                "-genkey",
                "-noout",
                "-out",
            ])
            .arg(key("release.pem")));
        ok(Command::new("openssl")
            .args(["pkey", "-pubout", "-in"])
            .arg(key("release.pem"))
            .arg("-out")
            .arg(key("release.pub")));
        ok(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "release", "-f"])
            .arg(key("ssh")));
        let public = fs::read_to_string(key("ssh.pub")).unwrap();
        fs::write(
            key("allowed"),
            format!("release@mezite namespaces=\"file\" {public}"),
        )
        .unwrap();
        let mut sign = Command::new(env!("CARGO_BIN_EXE_xtask"));
        sign.arg("sign")
            .arg(place.path())
            .arg("--key")
            .arg(key("release.pem"))
            .arg("--ssh-key")
            .arg(key("ssh"));
        ok(&mut sign);
        Self { place, keys }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn key(&self, name: &str) -> PathBuf {
        self.keys.path().join(name)
    }

    /// As cosign verifies, by OpenSSL.
    fn openssl(&self, file: &str, signature: &Path) -> Command {
        let mut verify = Command::new("openssl");
        verify
            .args(["dgst", "-sha256", "-verify"])
            .arg(self.key("release.pub"))
            .arg("-signature")
            .arg(signature);
        verify.arg(self.path(file));
        verify
    }

    fn decoded(&self, base64: &str) -> PathBuf {
        let bytes = data_encoding::BASE64
            .decode(base64.trim().as_bytes())
            .unwrap();
        fs::write(self.key("signature"), bytes).unwrap();
        self.key("signature")
    }

    fn mezctl(&self, path: &Path, words: &[&str]) -> Command {
        let mut verify = Command::new(release().join("mezctl"));
        verify
            .arg("verify-release")
            .arg(path)
            .arg("--key")
            .arg(self.key("release.pub"))
            .args(words);
        verify
    }
}

#[test]
fn attack_81_signatures_verify_with_openssl_ssh_keygen_and_mezctl_and_nothing_changed_does() {
    let signed = Signed::new();
    for name in ["SHA256SUMS", "mezhub", "mezctl"] {
        let text = fs::read_to_string(signed.path(&format!("{name}.sig"))).unwrap();
        let signature = signed.decoded(&text);
        ok(&mut signed.openssl(name, &signature));
        // The bundle says the same in the other form.
        let bundle = fs::read_to_string(signed.path(&format!("{name}.sigstore.json"))).unwrap();
        let bundle: Value = serde_json::from_str(&bundle).unwrap();
        assert_eq!(
            bundle["mediaType"],
            "application/vnd.dev.sigstore.bundle.v0.3+json"
        );
        assert_eq!(bundle["messageSignature"]["signature"], text.trim());
        let digest = bundle["messageSignature"]["messageDigest"]["digest"]
            .as_str()
            .unwrap();
        let digest = data_encoding::BASE64.decode(digest.as_bytes()).unwrap();
        let sum = ok(Command::new("sha256sum").arg(signed.path(name)));
        assert!(
            sum.starts_with(&data_encoding::HEXLOWER.encode(&digest)),
            "{sum}"
        );
    }
    let ssh = || {
        let script = "ssh-keygen -Y verify -f \"$1\" -I release@mezite -n file -s \"$2/SHA256SUMS.sshsig\" < \"$2/SHA256SUMS\"";
        let mut verify = Command::new("sh");
        verify
            .args(["-c", script, "sh"])
            .arg(signed.key("allowed"))
            .arg(signed.place.path());
        verify
    };
    ok(&mut ssh());
    let said = ok(&mut signed.mezctl(signed.place.path(), &[]));
    assert!(
        said.starts_with("version ") && said.contains("good  mezhub\n"),
        "{said}"
    );
    ok(&mut signed.mezctl(&signed.path("mezd"), &[]));
    // Without the key nothing is trusted: this program carries none.
    let mut bare = Command::new(release().join("mezctl"));
    let said = fails(bare.arg("verify-release").arg(signed.place.path()));
    assert!(said.contains("--key"), "{said}");
    // A changed program, then a list that was changed with it.
    let mut bytes = fs::read(signed.path("mezd")).unwrap();
    bytes[4096] ^= 1;
    fs::write(signed.path("mezd"), &bytes).unwrap();
    let said = fails(&mut signed.mezctl(&signed.path("mezd"), &[]));
    assert!(said.contains("`mezd` is not the file"), "{said}");
    let list = ok(Command::new("sh")
        .args(["-c", "sha256sum mezhub mezd > SHA256SUMS"])
        .current_dir(signed.place.path()));
    assert_eq!(list, "");
    let said = fails(&mut signed.mezctl(&signed.path("mezd"), &[]));
    assert!(said.contains("not signed"), "{said}");
    let text = fs::read_to_string(signed.path("SHA256SUMS.sig")).unwrap();
    let signature = signed.decoded(&text);
    assert!(
        !output(&mut signed.openssl("SHA256SUMS", &signature))
            .status
            .success()
    );
    fails(&mut ssh());
}

/// Takes a public key, a bundle and the file, as somebody would who verifies with the library that Sigstore's own tools are made of.
const SIGSTORE: &str = "
const { readFileSync } = require('fs');
const { bundleFromJSON } = require('@sigstore/bundle');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');
const [key, bundle, file] = process.argv.slice(1).map(path => readFileSync(path));
const spki = Buffer.from(key.toString().replace(/-----[^-]+-----|\\s/g, ''), 'base64');
const hint = require('crypto').createHash('sha256').update(spki).digest('base64');
const nobody = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
const trust = toTrustMaterial(nobody, { [hint]: { rawBytes: spki } });
const verifier = new Verifier(trust, { tlogThreshold: 0, ctlogThreshold: 0, tsaThreshold: 0 });
verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(bundle)), file));
";

#[test]
fn attack_81_the_bundles_verify_with_sigstores_own_library() {
    let (signed, stranger) = (Signed::new(), Signed::new());
    let verify = |key: &Path, name: &str, file: &Path| {
        let mut node = Command::new("node");
        node.args(["-e", SIGSTORE])
            .arg(key)
            .arg(signed.path(&format!("{name}.sigstore.json")))
            .arg(file)
            .env("NODE_PATH", target().join("tools/sigstore/node_modules"));
        node
    };
    let key = signed.key("release.pub");
    for name in ["SHA256SUMS", "mezhub", "mezd", "msh", "mezctl"] {
        ok(&mut verify(&key, name, &signed.path(name)));
    }
    for mut wrong in [
        verify(&key, "msh", &signed.path("mezd")),
        verify(&stranger.key("release.pub"), "msh", &signed.path("msh")),
    ] {
        let said = fails(&mut wrong);
        assert!(said.contains("VerificationError"), "{said}");
    }
}

#[test]
fn the_procedure_of_releasing_works_as_it_is_written() {
    let place = tempfile::tempdir().unwrap();
    let programs = place.path().join("programs");
    fs::create_dir(&programs).unwrap();
    // `cargo xtask` is the tool under test; the long build is the one that the other tests look at.
    let xtask = env!("CARGO_BIN_EXE_xtask");
    let shim = format!(
        "#!/bin/sh\nshift\n[ \"$1\" = dist ] && exec cp -r {} \"$3\"\nexec {xtask} \"$@\"\n",
        release().display()
    );
    fs::write(programs.join("cargo"), shim).unwrap();
    ok(Command::new("chmod").arg("755").arg(programs.join("cargo")));
    fs::copy(release().join("mezctl"), programs.join("mezctl")).unwrap();
    let database = advisories(place.path());
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../RELEASING.md"))
        .unwrap();
    let mut blocks = 0;
    let mut rest = page.as_str();
    while let Some((_, after)) = rest.split_once("```sh\n") {
        let (block, after) = after.split_once("```").unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-euc", block]).current_dir(place.path());
        ok(shell
            .env("PATH", path)
            .env("ADVISORIES", &database)
            .env_remove("CARGO"));
        blocks += 1;
        rest = after;
    }
    assert_eq!(blocks, 6);
}

/// A database with one advisory, of today and of nothing that we use.
fn advisories(place: &Path) -> PathBuf {
    let database = place.join("advisories");
    let directory = database.join("crates/leftpad");
    fs::create_dir_all(&directory).unwrap();
    let today = ok(Command::new("date").args(["-u", "+%Y-%m-%d"]));
    let year = today.split('-').next().unwrap().to_owned();
    let text = format!(
        "```toml\n[advisory]\nid = \"RUSTSEC-{year}-0001\"\npackage = \"leftpad\"\ndate = \"{}\"\n\n[versions]\npatched = []\n```\n\n# Reads too far\n\nIt does.\n",
        today.trim()
    );
    fs::write(directory.join(format!("RUSTSEC-{year}-0001.md")), text).unwrap();
    database
}
