//! OpenSSH's own certificates, from Debian's package `openssh-tests`: the verdict of each step is OpenSSH's, and where
//! it is not, the row says why.

use std::path::Path;

use mezite_core::UnixTime;
use ssh_key::Certificate;

use super::blob::Blob;
use super::ssh::check_options;
use super::{Context, VerifyError};
use crate::signer::signed_by;
use crate::trust::TrustBundle;

const REGRESS: &str = "/usr/lib/openssh/regress";

fn read(path: &str) -> Vec<u8> {
    let path = Path::new(REGRESS).join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}: this test needs the package openssh-tests, which `cargo xtask test` installs",
            path.display()
        )
    });
    let mut words = text.split_whitespace();
    let base64 = words.nth(1).unwrap();
    let blob = data_encoding::BASE64.decode(base64.as_bytes()).unwrap();
    // It is a certificate to ssh-key too, so that a row is never refused for being no certificate at all.
    assert!(Certificate::from_bytes(&blob).is_ok(), "{}", path.display());
    blob
}

fn nobody() -> TrustBundle {
    TrustBundle::empty("example".parse().unwrap())
}

const HERE: [u8; 4] = [127, 0, 0, 1];
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

/// Form, signature and options; not the window and the names, which are from 1999 and strangers'.
fn verdict(blob: &[u8], source: [u8; 4]) -> Result<Vec<String>, VerifyError> {
    let trust = nobody();
    let context = Context {
        trust: &trust,
        now: UnixTime::from_secs(915_148_800),
        source: Some(source.into()),
        revoked: &|_| false,
    };
    let blob = Blob::parse(blob)?;
    if !signed_by(&blob.authority, blob.signed, &blob.signature) {
        return Err(VerifyError::BadSignature);
    }
    if blob.cert_type != 1 {
        return Err(VerifyError::WrongType {
            expected: 1,
            found: blob.cert_type,
        });
    }
    check_options(&blob, &context)?;
    let names = blob.extensions.iter();
    Ok(names.map(|(name, _)| (*name).to_owned()).collect())
}

#[test]
fn attack_07_options_are_read_as_openssh_reads_them() {
    let (x11, agent, port, pty, rc) = (
        "permit-X11-forwarding",
        "permit-agent-forwarding",
        "permit-port-forwarding",
        "permit-pty",
        "permit-user-rc",
    );
    let all: &[&str] = &[x11, agent, port, pty, rc];
    let rows: [(&str, Result<&[&str], VerifyError>); 17] = [
        ("all_permit", Ok(all)),
        ("no_permit", Ok(&[])),
        ("no_agentfwd", Ok(&[x11, port, pty, rc])),
        ("no_portfwd", Ok(&[x11, agent, pty, rc])),
        ("no_pty", Ok(&[x11, agent, port, rc])),
        ("no_user_rc", Ok(&[x11, agent, port, pty])),
        ("no_x11fwd", Ok(&[agent, port, pty, rc])),
        ("only_agentfwd", Ok(&[agent])),
        ("only_portfwd", Ok(&[port])),
        ("only_pty", Ok(&[pty])),
        ("only_user_rc", Ok(&[rc])),
        ("only_x11fwd", Ok(&[x11])),
        ("sourceaddr", Ok(all)),
        // OpenSSH refuses these three too.
        (
            "bad_sourceaddr",
            Err(VerifyError::SourceAddressForm("xxxxx".to_owned())),
        ),
        (
            "unknown_critical",
            Err(VerifyError::CriticalOption("blah".to_owned())),
        ),
        (
            "host",
            Err(VerifyError::WrongType {
                expected: 1,
                found: 2,
            }),
        ),
        // OpenSSH accepts and enforces it; nothing here would enforce it, so it is refused.
        (
            "force_command",
            Err(VerifyError::ForceCommand("foo".to_owned())),
        ),
    ];
    let directory = Path::new(REGRESS).join("unittests/authopt/testdata");
    for (name, expected) in &rows {
        let blob = read(&format!("unittests/authopt/testdata/{name}.cert"));
        let found = verdict(&blob, HERE);
        let found = found
            .as_ref()
            .map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(
            found,
            expected.as_ref().map(|names| names.to_vec()),
            "{name}"
        );
    }
    let there = std::fs::read_dir(directory).unwrap();
    let certificates = there.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        Path::new(&name)
            .extension()
            .is_some_and(|end| end == "cert")
    });
    assert_eq!(
        certificates.count(),
        rows.len(),
        "every certificate has a row"
    );
    let elsewhere = verdict(
        &read("unittests/authopt/testdata/sourceaddr.cert"),
        ELSEWHERE,
    );
    assert!(
        matches!(elsewhere, Err(VerifyError::SourceAddress { .. })),
        "{elsewhere:?}"
    );
}

#[test]
fn attack_12_keys_of_every_type_are_read_as_openssh_reads_them() {
    let (unit, fuzz) = ("unittests/sshkey/testdata", "misc/fuzz-harness/testdata");
    let host = || VerifyError::WrongType {
        expected: 1,
        found: 2,
    };
    let subject = |name: &str| VerifyError::SubjectKey(name.to_owned());
    let authority = |name: &str| VerifyError::AuthorityAlgorithm(name.to_owned());
    // OpenSSH reads all of them. DSA and RSA keys are not certified here, and every authority of ours is Ed25519.
    let (dsa, rsa) = (
        "ssh-dss-cert-v01@openssh.com",
        "ssh-rsa-cert-v01@openssh.com",
    );
    for (path, expected) in [
        (format!("{unit}/ed25519_1-cert.pub"), Some(host())),
        (format!("{unit}/ed25519_sk1-cert.pub"), Some(host())),
        (
            format!("{unit}/ecdsa_1-cert.pub"),
            Some(authority("ecdsa-sha2-nistp256")),
        ),
        (
            format!("{unit}/ecdsa_sk1-cert.pub"),
            Some(authority("ecdsa-sha2-nistp256")),
        ),
        (format!("{unit}/dsa_1-cert.pub"), Some(subject(dsa))),
        (format!("{unit}/rsa_1-cert.pub"), Some(subject(rsa))),
        (format!("{unit}/rsa_1_sha1-cert.pub"), Some(subject(rsa))),
        (format!("{unit}/rsa_1_sha512-cert.pub"), Some(subject(rsa))),
        (format!("{fuzz}/id_ed25519-cert.pub"), None),
        (format!("{fuzz}/id_ed25519_sk-cert.pub"), None),
        (format!("{fuzz}/id_ecdsa-cert.pub"), None),
        (format!("{fuzz}/id_ecdsa_sk-cert.pub"), None),
        (format!("{fuzz}/id_dsa-cert.pub"), Some(subject(dsa))),
        (format!("{fuzz}/id_rsa-cert.pub"), Some(subject(rsa))),
    ] {
        let blob = read(&path);
        assert_eq!(verdict(&blob, HERE).err(), expected, "{path}");
        // With one bit of the signature changed, none passes.
        let mut forged = blob;
        *forged.last_mut().unwrap() ^= 1;
        assert!(verdict(&forged, HERE).is_err(), "{path}");
    }
}
