//! The fuzz targets' corpora, replayed; and their seeds, made by `ssh-keygen` from keys of every type.
//!
//! `MEZITE_WRITE_CORPUS=1 cargo test -p mezite-ca corpus` writes the seeds anew (nonces and keys are drawn again).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mezite_ca::krl::{Krl, Scope};
use mezite_ca::rotation::{Force, Generation, Rotation};
use mezite_ca::seal::{Context, KeyFile, Sealer};
use mezite_ca::{KeyKind, PeerKind, Signer, openssh, principal};
use mezite_core::Serial;
use ssh_key::public::{EcdsaPublicKey, SkEcdsaSha2NistP256, SkEd25519};
use ssh_key::{Certificate, PublicKey};

use crate::fixture::{Cluster, NOW, public, rng, session_id};
use crate::judges::{run, text};

#[path = "../../../fuzz/corpus.rs"]
mod corpora;
#[path = "../../../fuzz/ca/targets.rs"]
mod targets;

use corpora::Corpora;

const CORPORA: Corpora = Corpora("ca");

#[test]
fn the_corpus_of_certificate_holds() {
    CORPORA.replay("certificate", targets::certificate);
}

#[test]
fn the_corpus_of_meaning_holds() {
    CORPORA.replay("meaning", targets::meaning);
}

#[test]
fn the_corpus_of_krl_holds() {
    CORPORA.replay("krl", targets::krl);
}

#[test]
fn the_corpus_of_sealed_holds() {
    CORPORA.replay("sealed", targets::sealed);
}

#[test]
fn the_corpus_of_trust_holds() {
    CORPORA.replay("trust", targets::trust);
}

/// What `ssh-keygen` is told for a ring: principals and options.
fn told(ring: KeyKind) -> (String, Vec<String>) {
    let node = targets::node();
    let session = principal::session(&node, &targets::login());
    match ring {
        KeyKind::Identity => ("mezite:example:alice".to_owned(), vec!["clear".to_owned()]),
        KeyKind::Gateway => ("db1.example,hub.example".to_owned(), Vec::new()),
        KeyKind::Node => (format!("{node}.example"), Vec::new()),
        KeyKind::BreakGlass => (session, Vec::new()),
        KeyKind::Audit
        | KeyKind::HostTls
        | KeyKind::Recording
        | KeyKind::Session
        | KeyKind::UserTls => (
            session,
            vec![
                format!("extension:session-id@mezite={}", session_id()),
                "extension:user@mezite=alice".to_owned(),
                "source-address=192.0.2.0/24".to_owned(),
            ],
        ),
    }
}

/// The certificate that `ssh-keygen` makes for `subject.pub`.
fn certify(directory: &Path, ring: KeyKind, subject: &str) -> Vec<u8> {
    let ca = directory.join("ca");
    let signer = targets::authority(ring);
    std::fs::write(
        &ca,
        openssh::private_key(signer.seed(), "").unwrap().expose(),
    )
    .unwrap();
    std::fs::set_permissions(&ca, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (principals, options) = told(ring);
    let host = matches!(ring, KeyKind::Gateway | KeyKind::Node);
    let window = "20270115075900:20270115080400";
    let mut arguments = vec![
        "-q",
        "-s",
        "ca",
        "-I",
        "seed",
        "-z",
        "42",
        "-V",
        window,
        "-n",
        &principals,
    ];
    arguments.extend(host.then_some("-h"));
    arguments.extend(options.iter().flat_map(|option| ["-O", option]));
    let file = format!("{subject}.pub");
    arguments.push(&file);
    let output = run("ssh-keygen", &arguments, directory);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    let line = std::fs::read_to_string(directory.join(format!("{subject}-cert.pub"))).unwrap();
    Certificate::from_openssh(&line)
        .unwrap()
        .to_bytes()
        .unwrap()
}

/// Public keys of every type that OpenSSH certifies: made by `ssh-keygen`, those of security keys by hand, as no such
/// device is needed to be certified.
fn subjects(directory: &Path) -> Vec<(&'static str, bool)> {
    for (name, algorithm, bits) in [
        ("ed25519", "ed25519", "256"),
        ("ecdsa256", "ecdsa", "256"),
        ("ecdsa384", "ecdsa", "384"),
        ("ecdsa521", "ecdsa", "521"),
        ("rsa", "rsa", "2048"),
    ] {
        let arguments = ["-q", "-t", algorithm, "-b", bits, "-N", "", "-f", name];
        let output = run("ssh-keygen", &arguments, directory);
        assert!(output.status.success(), "{name}: {}", text(&output));
    }
    let line = std::fs::read_to_string(directory.join("ecdsa256.pub")).unwrap();
    let ecdsa = PublicKey::from_openssh(&line).unwrap();
    let Some(EcdsaPublicKey::NistP256(point)) = ecdsa.key_data().ecdsa() else {
        panic!("ssh-keygen was asked for P-256")
    };
    let ed25519 = *public(100).key_data().ed25519().unwrap();
    let sk_ecdsa = PublicKey::from(ssh_key::public::KeyData::from(SkEcdsaSha2NistP256::new(
        *point, "ssh:",
    )));
    let sk_ed25519 = PublicKey::from(ssh_key::public::KeyData::from(SkEd25519::new(
        ed25519, "ssh:",
    )));
    for (name, key) in [("sk-ecdsa", sk_ecdsa), ("sk-ed25519", sk_ed25519)] {
        std::fs::write(
            directory.join(format!("{name}.pub")),
            key.to_openssh().unwrap(),
        )
        .unwrap();
    }
    vec![
        ("ed25519", true),
        ("ecdsa256", true),
        ("ecdsa384", true),
        ("ecdsa521", true),
        ("sk-ecdsa", true),
        ("sk-ed25519", true),
        ("rsa", false),
    ]
}

/// Signature key and signature of an Ed25519 authority: two strings.
const TAIL: usize = (4 + 4 + 11 + 4 + 32) + (4 + 4 + 11 + 4 + 64);

#[test]
fn certificates_of_ssh_keygen_for_keys_of_every_type_are_seeds() {
    let directory = tempfile::tempdir().unwrap();
    for (subject, accepted) in subjects(directory.path()) {
        for (at, ring) in (0..).zip(targets::RINGS) {
            let blob = certify(directory.path(), ring, subject);
            assert_eq!(
                targets::accepted(&blob),
                usize::from(accepted),
                "{ring} {subject}"
            );
            CORPORA.keep("certificate", &format!("{ring}-{subject}"), &blob);
            // Signed again, it is the same certificate: the seed reaches behind the signature.
            let content = &blob[..blob.len() - TAIL];
            assert_eq!(targets::signed(content, &targets::authority(ring)), blob);
            let input = [&[at], content].concat();
            targets::meaning(&input);
            CORPORA.keep("meaning", &format!("{ring}-{subject}"), &input);
        }
    }
}

#[test]
fn lists_bundles_and_sealed_keys_are_seeds() {
    let cluster = Cluster::example();
    for kind in [PeerKind::User, PeerKind::Hub, PeerKind::Node] {
        CORPORA.keep(
            "certificate",
            &format!("tls-{kind}"),
            &cluster.tls_certificate(kind),
        );
    }
    CORPORA.keep(
        "certificate",
        "tls-authority",
        cluster.host_tls.certificate(),
    );

    let mut list = Krl::new(1, NOW, "seed");
    let authority = cluster.identity.public_key();
    CORPORA.keep("krl", "empty", &list.to_bytes().unwrap());
    for serial in [1, 2, 3, 9] {
        list.revoke_serial(Scope::Authority(&authority), Serial::from_u64(serial))
            .unwrap();
    }
    list.revoke_key_id(Scope::EveryAuthority, "alice").unwrap();
    list.revoke_key(public(7).key_data()).unwrap();
    list.revoke_fingerprint([9; 32]).unwrap();
    let bytes = list.to_bytes().unwrap();
    targets::krl(&bytes);
    CORPORA.keep("krl", "ours", &bytes);
    let directory = tempfile::tempdir().unwrap();
    let write =
        |name: &str, content: &str| std::fs::write(directory.path().join(name), content).unwrap();
    write("ca.pub", &authority.to_openssh().unwrap());
    let key = public(7).to_openssh().unwrap();
    let mut serials = String::from("id: alice\nserial: 100-2000\n");
    (1..60)
        .step_by(2)
        .for_each(|serial| serials.push_str(&format!("serial: {serial}\n")));
    for (name, spec) in [
        ("serials", serials),
        ("hashes", format!("sha1: {key}\nsha256: {key}\n{key}\n")),
    ] {
        write("spec", &spec);
        let output = run(
            "ssh-keygen",
            &["-k", "-f", "list", "-s", "ca.pub", "spec"],
            directory.path(),
        );
        assert!(output.status.success(), "{}", text(&output));
        let bytes = std::fs::read(directory.path().join("list")).unwrap();
        assert!(Krl::parse(&bytes).is_ok(), "{name}");
        targets::krl(&bytes);
        CORPORA.keep("krl", &format!("ssh-keygen-{name}"), &bytes);
    }

    let sealer = KeyFile::parse(targets::KEY_FILE).unwrap();
    for (name, kind, generation) in [
        ("session", KeyKind::Session, 1),
        ("later", KeyKind::Session, 2),
        ("other", KeyKind::Node, 1),
    ] {
        let context = Context {
            cluster: &cluster.name,
            kind,
            generation,
        };
        let sealed = sealer.seal(&[3; 32], &context, &mut rng()).unwrap();
        let session = Context {
            kind: KeyKind::Session,
            generation: 1,
            ..context
        };
        assert_eq!(sealer.open(&sealed, &session).is_ok(), name == "session");
        targets::sealed(&sealed);
        CORPORA.keep("sealed", name, &sealed);
    }

    CORPORA.keep(
        "trust",
        "bundle",
        &serde_json::to_vec(&targets::bundle()).unwrap(),
    );
    CORPORA.keep(
        "trust",
        "cluster",
        &serde_json::to_vec(&cluster.trust).unwrap(),
    );
    let generation = |number: u8| Generation {
        number: number.into(),
        public_key: crate::fixture::key(200 + number).public_key(),
        certificate: None,
    };
    let rotation = Rotation::standby(KeyKind::Session, generation(1), NOW).unwrap();
    let rotation = rotation.begin(generation(2), NOW).unwrap();
    let mut bundle = targets::bundle();
    rotation.write_to(&mut bundle);
    CORPORA.keep(
        "trust",
        "rotating-bundle",
        &serde_json::to_vec(&bundle).unwrap(),
    );
    CORPORA.keep("trust", "rotation", &serde_json::to_vec(&rotation).unwrap());
    let rotation = rotation.advance(&[], NOW, Force::Yes).unwrap().rotation;
    let bytes = serde_json::to_vec(&rotation).unwrap();
    targets::trust(&bytes);
    CORPORA.keep("trust", "rotation-later", &bytes);
}
