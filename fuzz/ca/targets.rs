//! What each fuzz target does with its input. The tests of mezite-ca include this file too and feed it the corpora, so
//! that what was found once is found again without a fuzzer.

use mezite_ca::krl::{Krl, Loaded, MAX_KRL_BYTES};
use mezite_ca::rotation::Rotation;
use mezite_ca::seal::{self, KeyFile, Sealer};
use mezite_ca::verify::{self, Context, Purpose, Revocable};
use mezite_ca::{
    BREAK_GLASS_CEILING, KeyKind, PeerKind, Signer, SoftwareKey, TrustBundle, openssh,
};
use mezite_core::{ClusterName, Login, NodeId, Secret, UnixTime};
use rustls_pki_types::CertificateDer;

/// 2027-01-15 08:00 UTC; the corpora are of that morning.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// The authority of a ring: its seed is this byte, 32 times.
pub(crate) fn authority(kind: KeyKind) -> SoftwareKey {
    let at = match kind {
        KeyKind::Identity => 10,
        KeyKind::Session => 11,
        KeyKind::Gateway => 12,
        KeyKind::Node => 13,
        KeyKind::BreakGlass => 16,
        KeyKind::Audit | KeyKind::HostTls | KeyKind::Recording | KeyKind::UserTls => 15,
    };
    SoftwareKey::from_seed(Secret::new([at; 32]))
}

/// The rings that sign SSH certificates.
pub(crate) const RINGS: [KeyKind; 5] = [
    KeyKind::Identity,
    KeyKind::Session,
    KeyKind::Gateway,
    KeyKind::Node,
    KeyKind::BreakGlass,
];

pub(crate) fn node() -> NodeId {
    NodeId::new([1; 16])
}

pub(crate) fn login() -> Login {
    "root".parse().unwrap()
}

fn cluster() -> ClusterName {
    "example".parse().unwrap()
}

pub(crate) fn bundle() -> TrustBundle {
    let mut trust = TrustBundle::empty(cluster());
    let key = |kind| openssh::public_key(authority(kind).public_key());
    trust.identity.push(key(KeyKind::Identity));
    trust.session.push(key(KeyKind::Session));
    trust.gateway.push(key(KeyKind::Gateway));
    trust.node.push(key(KeyKind::Node));
    trust.break_glass.push(key(KeyKind::BreakGlass));
    trust
}

/// How many of the SSH verifiers accept a blob: one at most, whatever the bytes.
pub(crate) fn accepted(blob: &[u8]) -> usize {
    let trust = bundle();
    let context = Context {
        trust: &trust,
        now: NOW,
        source: "192.0.2.7".parse().ok(),
        revoked: &|_| false,
    };
    let (node, login) = (node(), login());
    let verdicts = [
        verify::identity(blob, &context).is_ok(),
        verify::session(blob, &node, &login, &context).is_ok(),
        verify::gateway_host(blob, "db1.example", &context).is_ok(),
        verify::node_host(blob, &node, &context).is_ok(),
        verify::break_glass(blob, &node, &login, BREAK_GLASS_CEILING, &context).is_ok(),
    ];
    let accepted = verdicts.iter().filter(|accepted| **accepted).count();
    assert!(accepted <= 1, "{verdicts:?}");
    accepted
}

/// Any bytes at every verifier, SSH and X.509. No signature of ours is in reach, except those in the corpus.
pub(crate) fn certificate(data: &[u8]) {
    accepted(data);
    let trust = bundle();
    let context = Context {
        trust: &trust,
        now: NOW,
        source: None,
        revoked: &|_| false,
    };
    let chain = [CertificateDer::from(data)];
    let kinds = [PeerKind::Bot, PeerKind::Hub, PeerKind::Node, PeerKind::User];
    for purpose in [Purpose::Client, Purpose::Server] {
        assert!(verify::peer(&chain, purpose, &kinds, &context).is_err());
    }
    let _ = mezite_ca::pin(data);
    let _ = verify::pinned(&chain, "sha256:00");
}

/// Any content, signed by a right key: what lies behind the signature. The first byte chooses the ring, the rest is the
/// certificate up to and without its signature key.
pub(crate) fn meaning(data: &[u8]) {
    let Some((ring, content)) = data.split_first() else {
        return;
    };
    let Some(ring) = RINGS.get(usize::from(*ring) % RINGS.len()) else {
        return;
    };
    let blob = signed(content, &authority(*ring));
    if accepted(&blob) == 1 {
        // What is accepted has the name of a certificate.
        assert!(is_named(&blob), "accepted, and no certificate");
    }
}

/// `content`, then the signature key and the signature.
pub(crate) fn signed(content: &[u8], signer: &SoftwareKey) -> Vec<u8> {
    let named = |bytes: &[u8]| [string(b"ssh-ed25519"), string(bytes)].concat();
    let mut blob = content.to_vec();
    blob.extend(string(&named(&signer.public_key())));
    let signature = signer.sign(&blob).unwrap();
    blob.extend(string(&named(&signature)));
    blob
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

/// Whether the blob's first field ends as the names of certificate types do.
fn is_named(blob: &[u8]) -> bool {
    let length = blob.first_chunk().map(|head| u32::from_be_bytes(*head));
    let end = length
        .and_then(|length| usize::try_from(length).ok())
        .map(|length| length + 4);
    let name = end.and_then(|end| blob.get(4..end));
    name.is_some_and(|name| name.ends_with(b"-cert-v01@openssh.com"))
}

/// A list that is read can be written, and is read again as what it was; one that cannot be read revokes everything.
pub(crate) fn krl(data: &[u8]) {
    let key = openssh::public_key([7; 32]);
    let certificate = Revocable {
        serial: mezite_core::Serial::from_u64(42),
        key_id: "alice",
        key: key.key_data(),
        authority: KeyKind::Identity,
        authority_key: key.key_data(),
    };
    match Krl::parse(data) {
        Ok(list) => {
            let verdict = list.revokes(&certificate);
            match list.to_bytes() {
                Ok(bytes) => {
                    let again = Krl::parse(&bytes).unwrap();
                    assert_eq!(again, list);
                    assert_eq!(again.revokes(&certificate), verdict);
                    assert_eq!(again.to_bytes().unwrap(), bytes, "one list, one encoding");
                }
                // A bitmap is denser than ranges.
                Err(_) => assert!(data.len() > MAX_KRL_BYTES / 200),
            }
        }
        Err(_) => assert!(Loaded::read(data).revokes(&certificate)),
    }
}

/// The key file of the corpus.
pub(crate) const KEY_FILE: &[u8] = &[b'5'; 64];

/// Any bytes as a sealed key: nothing opens but what was sealed, for what it was sealed for. (A key file, not a
/// passphrase: the costs of Argon2id come from the bytes, and their bounds have tests of their own.)
pub(crate) fn sealed(data: &[u8]) {
    let cluster = cluster();
    let key = KeyFile::parse(KEY_FILE).unwrap();
    let context = |kind, generation| seal::Context {
        cluster: &cluster,
        kind,
        generation,
    };
    let opened = key.open(data, &context(KeyKind::Session, 1)).is_ok();
    assert!(!opened || key.open(data, &context(KeyKind::Session, 2)).is_err());
    assert!(!opened || key.open(data, &context(KeyKind::Identity, 1)).is_err());
}

/// A bundle or a rotation that is read is written and read again as what it was, and any bundle can be verified against.
pub(crate) fn trust(data: &[u8]) {
    if let Ok(rotation) = serde_json::from_slice::<Rotation>(data) {
        let text = serde_json::to_vec(&rotation).unwrap();
        assert_eq!(serde_json::from_slice::<Rotation>(&text).unwrap(), rotation);
        assert!(
            rotation
                .trusted()
                .iter()
                .any(|(_, one)| *one == rotation.signing())
        );
    }
    let Ok(bundle) = serde_json::from_slice::<TrustBundle>(data) else {
        return;
    };
    let text = serde_json::to_vec(&bundle).unwrap();
    assert_eq!(
        serde_json::from_slice::<TrustBundle>(&text).unwrap(),
        bundle
    );
    let context = Context {
        trust: &bundle,
        now: NOW,
        source: None,
        revoked: &|_| false,
    };
    let der: Vec<CertificateDer<'_>> = bundle
        .host_tls
        .iter()
        .take(4)
        .map(|der| der.as_slice().into())
        .collect();
    let _ = verify::peer(&der, Purpose::Server, &[PeerKind::Hub], &context);
    for kind in KeyKind::ALL {
        let _ = bundle.fingerprints(kind);
    }
}
