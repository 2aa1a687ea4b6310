//! The way in while the hub is down: a key that no hub holds, and certificates made with nothing but `ssh-keygen`.

use std::path::Path;

use mezite_ca::verify::{self, Context, VerifiedBreakGlass, VerifyError};
use mezite_ca::{BREAK_GLASS_CEILING, KeyKind, TrustBundle, principal};
use mezite_core::{NodeId, Span};
use ssh_key::{Certificate, PublicKey};

use crate::fixture::{Cluster, NOW, SOURCE, login, node_id, nothing};
use crate::judges::{run, text};

/// A key made with `ssh-keygen` and a cluster that trusts it.
struct Offline {
    directory: tempfile::TempDir,
    trust: TrustBundle,
}

impl Offline {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, algorithm) in [("glass", "ed25519"), ("mine", "ecdsa")] {
            keygen(
                directory.path(),
                &["-q", "-t", algorithm, "-N", "", "-f", name],
            );
        }
        let line = std::fs::read_to_string(directory.path().join("glass.pub")).unwrap();
        let mut trust = Cluster::example().trust;
        trust
            .break_glass
            .push(PublicKey::from_openssh(&line).unwrap());
        Self { directory, trust }
    }

    /// `ssh-keygen -s` for these principals and this window; 2027-01-15 08:00 UTC is the tests' present.
    fn certify(&self, principals: &str, window: &str, more: &[&str]) -> Vec<u8> {
        let head = [
            "-q",
            "-s",
            "glass",
            "-I",
            "alice at the console",
            "-n",
            principals,
            "-V",
            window,
        ];
        let arguments = [&head[..], more, &["mine.pub"]].concat();
        keygen(self.directory.path(), &arguments);
        let file = self.directory.path().join("mine-cert.pub");
        let text = std::fs::read_to_string(file).unwrap();
        Certificate::from_openssh(&text)
            .unwrap()
            .to_bytes()
            .unwrap()
    }

    fn verdict(
        &self,
        certificate: &[u8],
        ceiling: &str,
    ) -> Result<VerifiedBreakGlass, VerifyError> {
        let context = Context {
            trust: &self.trust,
            now: NOW,
            source: Some(SOURCE),
            revoked: &nothing,
        };
        verify::break_glass(certificate, &node_id(), &login(), span(ceiling), &context)
    }
}

fn span(text: &str) -> Span {
    text.parse().unwrap()
}

fn keygen(directory: &Path, arguments: &[&str]) {
    let output = run("ssh-keygen", arguments, directory);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
}

/// Ten minutes around the present.
const WINDOW: &str = "20270115075900:20270115080900";

#[test]
fn a_certificate_of_stock_ssh_keygen_opens_its_node() {
    let offline = Offline::new();
    let ours = principal::session(&node_id(), &login());
    let elsewhere = principal::session(&NodeId::new([2; 16]), &login());
    let verified = offline
        .verdict(&offline.certify(&ours, WINDOW, &[]), "15m")
        .unwrap();
    assert_eq!(verified.login(), &login());
    assert_eq!(verified.key_id(), "alice at the console");
    assert!(verified.permits("pty"), "ssh-keygen's defaults");
    let clear = offline.certify(&format!("{elsewhere},{ours}"), WINDOW, &["-O", "clear"]);
    assert!(!offline.verdict(&clear, "15m").unwrap().permits("pty"));

    let refused = |principals: &str, more: &[&str]| {
        offline
            .verdict(&offline.certify(principals, WINDOW, more), "15m")
            .unwrap_err()
    };
    assert!(matches!(
        refused(&elsewhere, &[]),
        VerifyError::WrongPrincipal { .. }
    ));
    for bad in ["root", "*", "mezite:*:root", "mezite:example:alice"] {
        let both = format!("{ours},{bad}");
        assert_eq!(
            refused(&both, &[]),
            VerifyError::PrincipalForm(bad.to_owned())
        );
    }
    assert!(matches!(
        refused(&ours, &["-O", "source-address=203.0.113.0/24"]),
        VerifyError::SourceAddress { .. }
    ));
    assert_eq!(
        refused(&ours, &["-O", "force-command=id"]),
        VerifyError::ForceCommand("id".to_owned())
    );
    assert_eq!(
        refused(&ours, &["-h"]),
        VerifyError::WrongType {
            expected: 1,
            found: 2
        }
    );
}

#[test]
fn its_life_is_short_whatever_anybody_says() {
    let offline = Offline::new();
    let ours = principal::session(&node_id(), &login());
    let verdict = |window: &str, ceiling: &str| {
        offline.verdict(&offline.certify(&ours, window, &[]), ceiling)
    };
    // Five minutes are granted to clocks that differ.
    assert!(verdict("20270115075500:20270115085500", "1h").is_ok());
    for (window, ceiling) in [
        (WINDOW, "4m"),
        ("20270115075500:20270115090100", "1h"),
        ("20270115075500:20270115090100", "7d"),
        ("20270115075500:20280115080000", "7d"),
        ("always:forever", "7d"),
    ] {
        let most = span(ceiling).min(BREAK_GLASS_CEILING).as_secs() + 300;
        let verdict = verdict(window, ceiling);
        assert!(
            matches!(verdict, Err(VerifyError::Life { most: found, .. }) if found == most),
            "{window} {ceiling}: {verdict:?}"
        );
    }
    assert!(matches!(
        verdict("20270115074000:20270115075000", "1h"),
        Err(VerifyError::Expired { .. })
    ));
}

#[test]
fn the_break_glass_key_is_nothing_else_and_nothing_else_is_it() {
    let offline = Offline::new();
    let certificate = offline.certify(&principal::session(&node_id(), &login()), WINDOW, &[]);
    let context = Context {
        trust: &offline.trust,
        now: NOW,
        source: Some(SOURCE),
        revoked: &nothing,
    };
    let verdict = verify::session(&certificate, &node_id(), &login(), &context);
    let wrong = VerifyError::WrongRing {
        expected: KeyKind::Session,
        found: KeyKind::BreakGlass,
    };
    assert_eq!(verdict, Err(wrong));
    // A cluster that does not list the key any more.
    let trust = Cluster::example().trust;
    let forgotten = Context {
        trust: &trust,
        ..context
    };
    let hour = BREAK_GLASS_CEILING;
    let verdict = verify::break_glass(&certificate, &node_id(), &login(), hour, &forgotten);
    assert!(
        matches!(verdict, Err(VerifyError::UnknownAuthority(_))),
        "{verdict:?}"
    );
    // Revoked by the serial number that ssh-keygen gives by default, with the key of the holder.
    let by_key = |found: &verify::Revocable<'_>| found.authority == KeyKind::BreakGlass;
    let revoked = Context {
        revoked: &by_key,
        ..context
    };
    let verdict = verify::break_glass(&certificate, &node_id(), &login(), hour, &revoked);
    assert!(
        matches!(verdict, Err(VerifyError::Revoked(_))),
        "{verdict:?}"
    );
}

#[test]
fn bundles_from_before_and_after_read_each_other() {
    /// What readers knew before there were break-glass keys and generations.
    #[derive(serde::Deserialize)]
    struct Before {
        identity: Vec<String>,
        host_tls: Vec<String>,
    }

    let offline = Offline::new();
    let text = serde_json::to_string(&offline.trust).unwrap();
    let before: Before = serde_json::from_str(&text).unwrap();
    assert_eq!((before.identity.len(), before.host_tls.len()), (1, 1));
    assert_eq!(
        serde_json::from_str::<TrustBundle>(&text).unwrap(),
        offline.trust
    );
    let none = TrustBundle::empty("example".parse().unwrap());
    let plain = serde_json::to_string(&none).unwrap();
    assert!(
        !plain.contains("break_glass") && !plain.contains("generations"),
        "{plain}"
    );
}
