//! Revocation lists: ours judged by `ssh-keygen -Q`, OpenSSH's read by us, and what is no list revoking everything.

use std::path::Path;

use mezite_ca::krl::{Krl, KrlError, Loaded, MAX_KRL_BYTES, MAX_KRL_ENTRIES, Scope};
use mezite_ca::verify::{Context, Revocable, VerifyError};
use mezite_ca::{IdentityRequest, KeyKind};
use mezite_core::Serial;
use proptest::prelude::*;
use ssh_key::{Certificate, PublicKey};

use crate::fixture::{Cluster, NOW, Verifier, hours, public, rng};
use crate::forge::string;
use crate::judges::{run, text};

fn certificate(cluster: &Cluster, user: &str, seed: u8, serial: u64) -> Certificate {
    let request = IdentityRequest {
        cluster: &cluster.name,
        user: &user.parse().unwrap(),
        public_key: &public(seed),
        ttl: hours(1),
        ceiling: hours(1),
    };
    cluster
        .identity
        .issue(&request, Serial::from_u64(serial), NOW, &mut rng())
        .unwrap()
}

fn revoked(list: &Krl, certificate: &Certificate) -> bool {
    list.revokes(&Revocable {
        serial: Serial::from_u64(certificate.serial()),
        key_id: certificate.key_id(),
        key: certificate.public_key(),
        authority: KeyKind::Identity,
        authority_key: certificate.signature_key(),
    })
}

/// What `ssh-keygen -Q` says of each file.
fn keygen_says(list: &str, files: &[String], directory: &Path) -> Vec<bool> {
    let mut arguments = vec!["-Q", "-f", list];
    arguments.extend(files.iter().map(String::as_str));
    let output = run("ssh-keygen", &arguments, directory);
    let said = text(&output);
    files
        .iter()
        .map(|file| {
            let line = said
                .lines()
                .find(|line| line.starts_with(&format!("{file} ")));
            let line = line.unwrap_or_else(|| panic!("no word on {file}: {said}"));
            assert!(line.ends_with("REVOKED") || line.ends_with("ok"), "{line}");
            line.ends_with("REVOKED")
        })
        .collect()
}

/// A way to revoke, and its name.
type Way = (&'static str, fn(&mut Krl, &PublicKey));

const WAYS: [Way; 9] = [
    ("nothing", |_, _| {}),
    ("serial", |list, authority| {
        list.revoke_serial(Scope::Authority(authority), Serial::from_u64(7))
            .unwrap();
    }),
    ("serials", |list, authority| {
        list.revoke_serials(Scope::Authority(authority), 8..=10)
            .unwrap();
        list.revoke_serials(Scope::Authority(authority), 12..=13)
            .unwrap();
        list.revoke_serials(Scope::Authority(authority), u64::MAX - 1..=u64::MAX)
            .unwrap();
    }),
    ("serial of every authority", |list, _| {
        list.revoke_serial(Scope::EveryAuthority, Serial::from_u64(7))
            .unwrap();
    }),
    ("key id", |list, authority| {
        let id = "mezite identity user=alice cluster=example";
        list.revoke_key_id(Scope::Authority(authority), id).unwrap();
    }),
    ("key id of every authority", |list, _| {
        let id = "mezite identity user=alice cluster=example";
        list.revoke_key_id(Scope::EveryAuthority, id).unwrap();
    }),
    ("key", |list, _| {
        list.revoke_key(public(101).key_data()).unwrap()
    }),
    ("authority", |list, authority| {
        list.revoke_key(authority.key_data()).unwrap();
    }),
    ("fingerprint", |list, _| {
        let fingerprint = public(100).fingerprint(ssh_key::HashAlg::Sha256);
        list.revoke_fingerprint(fingerprint.sha256().unwrap())
            .unwrap();
    }),
];

#[test]
fn attack_17_ssh_keygen_agrees_on_every_way_to_revoke() {
    let (ours, theirs) = (Cluster::example(), Cluster::new("example", 50));
    let mut certificates = Vec::new();
    for cluster in [&ours, &theirs] {
        for (user, seed) in [("alice", 100), ("bob", 101)] {
            for serial in [0, 1, 7, 8, 10, 11, 13, u64::MAX] {
                certificates.push(certificate(cluster, user, seed, serial));
            }
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        std::fs::write(directory.path().join(name), content).unwrap();
    };
    let files: Vec<String> = (0..certificates.len())
        .map(|at| format!("{at}-cert.pub"))
        .collect();
    for (file, certificate) in files.iter().zip(&certificates) {
        write(file, certificate.to_openssh().unwrap().as_bytes());
    }
    for (name, way) in WAYS {
        let mut list = Krl::new(3, NOW, name);
        way(&mut list, &ours.identity.public_key());
        let bytes = list.to_bytes().unwrap();
        write("list", &bytes);
        let verdicts: Vec<bool> = certificates
            .iter()
            .map(|certificate| revoked(&list, certificate))
            .collect();
        assert_eq!(
            keygen_says("list", &files, directory.path()),
            verdicts,
            "{name}"
        );
        let some = verdicts.contains(&true) && verdicts.contains(&false);
        assert_eq!(some, name != "nothing", "{name}: {verdicts:?}");
        assert_eq!(Krl::parse(&bytes), Ok(list), "{name}");
    }
}

#[test]
fn attack_17_lists_of_ssh_keygen_are_read_as_it_reads_them() {
    let cluster = Cluster::example();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        std::fs::write(directory.path().join(name), content).unwrap();
    };
    let openssh = |key: &PublicKey| format!("{}\n", key.to_openssh().unwrap());
    write("ca.pub", &openssh(&cluster.identity.public_key()));
    let bob = openssh(&public(101));
    // Numbers that ssh-keygen packs into lists, ranges and bitmaps.
    let serials = "serial: 1-4\nserial: 10\nserial: 15\nserial: 30\nserial: 50\nserial: 90\nserial: 999\n\
                   serial: 500\nserial: 501\nserial: 502\nserial: 503-600\nserial: 700-797\nserial: 10000-20000\n\
                   serial: 599-701\nserial: 9223372036854775807\n";
    let ids = "id: mezite identity user=bob cluster=example\nid: somebody else\n";
    let specs = [
        ("serials", serials.to_owned(), Some("ca.pub")),
        ("serials-of-every", serials.to_owned(), Some("NONE")),
        ("ids", ids.to_owned(), Some("ca.pub")),
        ("ids-of-every", ids.to_owned(), Some("NONE")),
        ("sha1", format!("sha1: {bob}"), None),
        ("sha256", format!("sha256: {bob}"), None),
        ("key", bob, None),
        ("authority", openssh(&cluster.identity.public_key()), None),
    ];
    let mut certificates = Vec::new();
    for serial in (0..20).chain([
        29, 30, 31, 49, 50, 51, 90, 499, 500, 650, 797, 798, 9999, 15_000, 20_001,
    ]) {
        certificates.push(certificate(&cluster, "alice", 100, serial));
        certificates.push(certificate(&cluster, "bob", 101, serial));
    }
    certificates.push(certificate(&cluster, "alice", 100, i64::MAX.unsigned_abs()));
    let files: Vec<String> = (0..certificates.len())
        .map(|at| format!("{at}-cert.pub"))
        .collect();
    for (file, certificate) in files.iter().zip(&certificates) {
        write(file, &certificate.to_openssh().unwrap());
    }
    for (name, spec, authority) in specs {
        write("spec", &spec);
        let mut arguments = vec!["-k", "-f", "list", "-z", "9"];
        arguments.extend(authority.map(|file| ["-s", file]).into_iter().flatten());
        arguments.push("spec");
        let output = run("ssh-keygen", &arguments, directory.path());
        assert!(output.status.success(), "{name}: {}", text(&output));
        let list = Krl::parse(&std::fs::read(directory.path().join("list")).unwrap()).unwrap();
        assert_eq!(list.version(), 9);
        let verdicts: Vec<bool> = certificates
            .iter()
            .map(|certificate| revoked(&list, certificate))
            .collect();
        assert_eq!(
            keygen_says("list", &files, directory.path()),
            verdicts,
            "{name}"
        );
        assert!(verdicts.contains(&true), "{name}");
        // And back: what we write of it, OpenSSH reads the same way.
        std::fs::write(directory.path().join("again"), list.to_bytes().unwrap()).unwrap();
        assert_eq!(
            keygen_says("again", &files, directory.path()),
            verdicts,
            "{name}"
        );
    }
}

/// A list with one of everything.
fn full() -> Krl {
    let authority = Cluster::example().identity.public_key();
    let mut list = Krl::new(3, NOW, "full");
    for (_, way) in WAYS {
        way(&mut list, &authority);
    }
    list
}

#[test]
fn attack_17_a_corrupt_list_revokes_everything() {
    let cluster = Cluster::example();
    let certificate = certificate(&cluster, "carol", 102, 5).to_bytes().unwrap();
    let verdict = |bytes: &[u8]| {
        let list = Loaded::read(bytes);
        let revoked = |certificate: &Revocable<'_>| list.revokes(certificate);
        let context = Context {
            revoked: &revoked,
            ..cluster.context()
        };
        Verifier::Identity.verdict(&certificate, &context)
    };
    let refused = Some(VerifyError::Revoked(Serial::from_u64(5)));
    let mut empty = Krl::new(1, NOW, "").to_bytes().unwrap();
    assert_eq!(verdict(&empty), None);
    for bytes in [
        &b""[..],
        b"SSHKRL\n\0",
        b"ssh-ed25519 AAAA",
        &empty[..empty.len() - 1],
    ] {
        assert_eq!(verdict(bytes), refused, "{bytes:?}");
    }
    // The format has no end mark: a list cut between two sections is a shorter list. Anywhere else it is none.
    let bytes = full().to_bytes().unwrap();
    let readable = (0..bytes.len())
        .filter(|cut| verdict(&bytes[..*cut]).is_none())
        .count();
    // After the header and the sections on certificates; the next one names the authority.
    assert_eq!(readable, 3);
    // A section that is unknown, is signed, or must be understood.
    let extension = [string(b"x@y"), vec![1], string(b"")].concat();
    for (section, content) in [
        (9, string(b"")),
        (4, string(b"")),
        (0, vec![]),
        (255, extension.clone()),
    ] {
        let bytes = [&empty[..], &[section], &string(&content)].concat();
        assert_eq!(verdict(&bytes), refused, "{section}");
    }
    let mut optional = extension;
    optional[7] = 0;
    empty.push(255);
    empty.extend(string(&optional));
    assert_eq!(verdict(&empty), None);
}

/// A list with one section of certificates of every authority, which has one part.
fn with_part(part: u8, content: &[u8]) -> Result<Krl, KrlError> {
    let mut bytes = Krl::new(1, NOW, "").to_bytes()?;
    let section = [string(b""), string(b""), vec![part], string(content)].concat();
    bytes.push(1);
    bytes.extend(string(&section));
    Krl::parse(&bytes)
}

#[test]
fn attack_17_odd_sections_are_refused() {
    let numbers = |list: &[u64]| {
        list.iter()
            .flat_map(|n| n.to_be_bytes())
            .collect::<Vec<u8>>()
    };
    let bitmap = |offset: u64, bits: &[u8]| [numbers(&[offset]), string(bits)].concat();
    assert!(with_part(0x20, &numbers(&[1, 5, 3])).is_ok());
    assert!(with_part(0x22, &bitmap(u64::MAX - 7, &[0, 0xff])).is_ok());
    for (part, content, error) in [
        (0x20, numbers(&[0]), KrlError::SerialRange(0, 0)),
        (0x20, vec![0; 7], KrlError::Malformed("serial list")),
        (0x21, numbers(&[0, 9]), KrlError::SerialRange(0, 9)),
        (0x21, numbers(&[9, 8]), KrlError::SerialRange(9, 8)),
        (
            0x21,
            numbers(&[8, 9, 9]),
            KrlError::TrailingBytes("section"),
        ),
        (0x22, bitmap(0, &[1]), KrlError::SerialRange(0, 0)),
        (
            0x22,
            bitmap(1, &[0x80]),
            KrlError::Malformed("serial bitmap"),
        ),
        (
            0x22,
            bitmap(u64::MAX - 7, &[1, 0xff]),
            KrlError::Malformed("serial bitmap"),
        ),
        (0x23, string(b""), KrlError::KeyId(String::new())),
        (
            0x23,
            string(b"a\0b"),
            KrlError::KeyId("a\\u{0}b".to_owned()),
        ),
        (0x24, vec![], KrlError::UnknownSection(0x24)),
    ] {
        assert_eq!(
            with_part(part, &content),
            Err(error),
            "{part:#x} {content:?}"
        );
    }
    // Keys are plain keys.
    let nested = Cluster::example()
        .identity_certificate()
        .to_bytes()
        .unwrap();
    for key in [nested, b"x".to_vec(), string(b""), string(b"ssh-ed25519")] {
        let mut bytes = Krl::new(1, NOW, "").to_bytes().unwrap();
        bytes.push(2);
        bytes.extend(string(&string(&key)));
        assert_eq!(
            Krl::parse(&bytes),
            Err(KrlError::Malformed("key")),
            "{key:?}"
        );
    }
}

#[test]
fn attack_17_a_huge_list_is_not_read() {
    let size = MAX_KRL_BYTES + 1;
    assert_eq!(Krl::parse(&vec![0; size]), Err(KrlError::TooLarge(size)));
    // 2 MiB of alternating bits would become eight million ranges.
    let bitmap = [1_u64.to_be_bytes().to_vec(), string(&vec![0x55; 1 << 21])].concat();
    assert_eq!(with_part(0x22, &bitmap), Err(KrlError::TooMany));
    let bitmap = [
        1_u64.to_be_bytes().to_vec(),
        string(&vec![0x7f; (1 << 21) + 2]),
    ]
    .concat();
    assert_eq!(
        with_part(0x22, &bitmap),
        Err(KrlError::Malformed("serial bitmap"))
    );
    let serials: Vec<u8> = (1..)
        .step_by(2)
        .take(MAX_KRL_ENTRIES + 1)
        .flat_map(u64::to_be_bytes)
        .collect();
    assert_eq!(with_part(0x20, &serials), Err(KrlError::TooMany));
    // The most that is kept is written and read again.
    let full = with_part(0x20, &serials[8..]).unwrap();
    assert_eq!(Krl::parse(&full.to_bytes().unwrap()), Ok(full));
    // One range is one entry, however wide: nothing is unrolled.
    let all = with_part(
        0x21,
        &[1_u64.to_be_bytes(), u64::MAX.to_be_bytes()].concat(),
    )
    .unwrap();
    assert!(revoked(&all, &Cluster::example().identity_certificate()));
}

proptest! {
    #[test]
    fn attack_17_no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut list = full().to_bytes().unwrap();
        list.extend(&bytes);
        drop(Krl::parse(&list));
        let _ = Krl::parse(&bytes);
    }

    #[test]
    fn lists_read_back(
        serials in proptest::collection::vec((1_u64..500, 0_u64..4), 0..20),
        ids in proptest::collection::vec("[a-z =]{1,30}", 0..5),
        keys in proptest::collection::vec(1_u8.., 0..4),
    ) {
        let authority = public(9);
        let mut list = Krl::new(1, NOW, "any");
        for (at, (first, more)) in serials.into_iter().enumerate() {
            let scope = if at % 3 == 0 { Scope::EveryAuthority } else { Scope::Authority(&authority) };
            list.revoke_serials(scope, first..=first + more).unwrap();
        }
        for id in &ids {
            list.revoke_key_id(Scope::EveryAuthority, id).unwrap();
        }
        for key in keys {
            list.revoke_key(public(key).key_data()).unwrap();
            list.revoke_fingerprint([key; 32]).unwrap();
        }
        prop_assert_eq!(Krl::parse(&list.to_bytes().unwrap()), Ok(list));
    }
}
