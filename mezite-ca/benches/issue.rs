//! What a certificate costs beyond its signature: issuing and verifying, side by side with plain Ed25519 over the same
//! bytes by the same key. Divide the times of one run; no figure means anything across machines.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ed25519_dalek::{Signer as _, SigningKey};
use mezite_ca::verify::{self, Context};
use mezite_ca::{
    IdentityKey, IdentityRequest, PeerKind, PeerName, Signer, SoftwareKey, TlsRequest, TrustBundle,
    UserTls, openssh,
};
use mezite_core::{ClusterName, Secret, Serial, Span, UnixTime, UserName};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustls_pki_types::CertificateDer;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const LIFE: Span = Span::from_secs(8 * 3600);
const SEED: [u8; 32] = [7; 32];

fn key(seed: [u8; 32]) -> SoftwareKey {
    SoftwareKey::from_seed(Secret::new(seed))
}

fn ssh(criterion: &mut Criterion) {
    let (cluster, user): (ClusterName, UserName) =
        ("example".parse().unwrap(), "alice".parse().unwrap());
    let authority = IdentityKey::new(Arc::new(key(SEED)));
    let mut trust = TrustBundle::empty(cluster.clone());
    trust.identity.push(authority.public_key());
    let public_key = openssh::public_key(key([8; 32]).public_key());
    let request = IdentityRequest {
        cluster: &cluster,
        user: &user,
        public_key: &public_key,
        ttl: LIFE,
        ceiling: LIFE,
    };
    let mut rng = StdRng::seed_from_u64(7);
    let serial = Serial::from_u64(42);
    let prepared = authority.prepare(&request, serial, NOW, &mut rng).unwrap();
    let message = prepared.message().to_vec();
    let plain = SigningKey::from_bytes(&SEED);
    let signature = plain.sign(&message);
    let blob = prepared
        .finish(&signature.to_bytes())
        .unwrap()
        .to_bytes()
        .unwrap();
    let context = Context {
        trust: &trust,
        now: NOW,
        source: None,
        revoked: &|_| false,
    };

    let mut group = criterion.benchmark_group("ssh");
    group.throughput(Throughput::Elements(1));
    group.bench_function("sign, plain Ed25519", |bench| {
        bench.iter(|| plain.sign(black_box(&message)));
    });
    group.bench_function("prepare and sign", |bench| {
        bench.iter(|| {
            let prepared = authority.prepare(black_box(&request), serial, NOW, &mut rng);
            plain.sign(prepared.unwrap().message())
        });
    });
    group.bench_function("issue, with the check of the signature", |bench| {
        bench.iter(|| {
            authority
                .issue(black_box(&request), serial, NOW, &mut rng)
                .unwrap()
        });
    });
    group.bench_function("verify, plain Ed25519", |bench| {
        let public = plain.verifying_key();
        bench.iter(|| {
            public
                .verify_strict(black_box(&message), &signature)
                .unwrap()
        });
    });
    group.bench_function("verify, the whole checklist", |bench| {
        bench.iter(|| verify::identity(black_box(&blob), &context).unwrap());
    });
    group.finish();
}

fn tls(criterion: &mut Criterion) {
    let cluster: ClusterName = "example".parse().unwrap();
    let mut rng = StdRng::seed_from_u64(7);
    let authority = UserTls::create(Arc::new(key(SEED)), &cluster, NOW, &mut rng).unwrap();
    let mut trust = TrustBundle::empty(cluster.clone());
    trust.user_tls.push(authority.certificate().to_vec());
    let peer = PeerName {
        cluster,
        kind: PeerKind::User,
        name: "alice".to_owned(),
    };
    let request = TlsRequest {
        twin: None,
        peer: &peer,
        public_key: key([8; 32]).public_key(),
        dns_names: &[],
        addresses: &[],
        life: LIFE,
    };
    let serial = Serial::from_u64(42);
    let chain: [CertificateDer<'static>; 1] = [authority.issue(&request, serial, NOW).unwrap()];
    let context = Context {
        trust: &trust,
        now: NOW,
        source: None,
        revoked: &|_| false,
    };
    let mut group = criterion.benchmark_group("tls");
    group.throughput(Throughput::Elements(1));
    group.bench_function("issue, with the check of the signature", |bench| {
        bench.iter(|| authority.issue(black_box(&request), serial, NOW).unwrap());
    });
    group.bench_function("verify, the whole checklist", |bench| {
        let kinds = [PeerKind::User];
        bench.iter(|| {
            verify::peer(black_box(&chain), verify::Purpose::Client, &kinds, &context).unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, ssh, tls);
criterion_main!(benches);
