//! Rotation: every step from every phase, and a world in which nobody is cut off unless somebody said so.

use std::collections::BTreeSet;
use std::sync::Arc;

use mezite_ca::rotation::{
    Force, Generation, KINDS, Lag, Party, PartyKind, Phase, Rotation, RotationError,
};
use mezite_ca::verify::{self, Context, Purpose, VerifyError};
use mezite_ca::{
    GenerationState, IDENTITY_CEILING, IdentityKey, IdentityRequest, KeyKind, PeerKind, SKEW,
    Signer, TrustBundle, UserTls,
};
use mezite_core::{Span, UnixTime};
use proptest::prelude::*;

use crate::fixture::{Cluster, NOW, Verifier, hours, key, nothing, public, rng, serial, user};

/// The generation with this number; its key has the seed 200 + number.
fn generation(kind: KeyKind, number: u8) -> Generation {
    let signer = key(200 + number);
    let cluster = "example".parse().unwrap();
    let public_key = signer.public_key();
    let certificate = match kind {
        KeyKind::UserTls => {
            Some(UserTls::create(Arc::new(signer), &cluster, NOW, &mut rng()).unwrap())
                .map(|authority| authority.certificate().to_vec())
        }
        KeyKind::HostTls => {
            Some(mezite_ca::HostTls::create(Arc::new(signer), &cluster, NOW, &mut rng()).unwrap())
                .map(|authority| authority.certificate().to_vec())
        }
        KeyKind::Audit
        | KeyKind::BreakGlass
        | KeyKind::Gateway
        | KeyKind::Identity
        | KeyKind::Node
        | KeyKind::Recording
        | KeyKind::Session => None,
    };
    Generation {
        number: number.into(),
        public_key,
        certificate,
    }
}

fn standby(kind: KeyKind) -> Rotation {
    Rotation::standby(kind, generation(kind, 1), NOW).unwrap()
}

/// A party that trusts these generations and holds a certificate by this one.
fn party(kind: KeyKind, party: PartyKind, name: &str, trusts: &[u8], holds: u8) -> Party {
    Party {
        kind: party,
        name: name.to_owned(),
        trusts: trusts
            .iter()
            .map(|number| generation(kind, *number).fingerprint())
            .collect(),
        holds: Some(generation(kind, holds).fingerprint()),
    }
}

fn forced(rotation: &Rotation) -> Rotation {
    rotation.advance(&[], NOW, Force::Yes).unwrap().rotation
}

/// Each phase, with the generations 1 and 2.
fn phases(kind: KeyKind) -> [Rotation; 5] {
    let init = standby(kind).begin(generation(kind, 2), NOW).unwrap();
    let clients = forced(&init);
    let servers = forced(&clients);
    let rollback = servers.rollback(NOW).unwrap();
    [standby(kind), init, clients, servers, rollback]
}

#[test]
fn every_step_from_every_phase() {
    use GenerationState::{Active, Next, Retiring};
    use Phase::{Init, Rollback, Standby, UpdateClients, UpdateServers};
    for kind in KINDS {
        let clients = matches!(
            kind,
            KeyKind::Identity | KeyKind::Session | KeyKind::UserTls
        );
        let both = if clients {
            (Active, Retiring, 2)
        } else {
            (Next, Active, 1)
        };
        // Phase, state of new and of old, who signs, the next phase, the phase back.
        let table = [
            (Standby, None, Active, 1, None, None),
            (
                Init,
                Some(Next),
                Active,
                1,
                Some(UpdateClients),
                Some(Standby),
            ),
            (
                UpdateClients,
                Some(both.0),
                both.1,
                both.2,
                Some(UpdateServers),
                Some(if clients { Rollback } else { Standby }),
            ),
            (
                UpdateServers,
                Some(Active),
                Retiring,
                2,
                Some(Standby),
                Some(Rollback),
            ),
            (Rollback, Some(Retiring), Active, 1, Some(Standby), None),
        ];
        for (rotation, (phase, new, old, signs, forward, back)) in phases(kind).iter().zip(table) {
            assert_eq!(rotation.phase(), phase);
            assert_eq!(rotation.signing().number, signs, "{kind} {phase}");
            let states: Vec<_> = rotation
                .trusted()
                .iter()
                .map(|(state, one)| (one.number, *state))
                .collect();
            let expected: BTreeSet<_> = [Some((1, old)), new.map(|state| (2, state))]
                .into_iter()
                .flatten()
                .collect();
            assert_eq!(
                states.iter().copied().collect::<BTreeSet<_>>(),
                expected,
                "{kind} {phase}"
            );
            assert_eq!(
                states[0],
                (signs, Active),
                "the signing generation comes first"
            );
            let step = rotation
                .advance(&[], NOW, Force::Yes)
                .map(|step| step.rotation.phase());
            assert_eq!(step.ok(), forward, "{kind} {phase}");
            assert_eq!(
                rotation.rollback(NOW).map(|back| back.phase()).ok(),
                back,
                "{kind} {phase}"
            );
            let begun = rotation.begin(generation(kind, 2), NOW);
            assert_eq!(begun.is_ok(), phase == Standby, "{kind} {phase}: {begun:?}");
            let text = serde_json::to_string(rotation).unwrap();
            assert_eq!(serde_json::from_str::<Rotation>(&text).unwrap(), *rotation);
        }
        let [.., servers, rollback] = phases(kind);
        assert_eq!(forced(&servers).signing().number, 2);
        assert_eq!(forced(&rollback).signing().number, 1);
        // A number is used once, also after a rollback.
        assert_eq!(forced(&rollback).next_number(), 3);
        let again = forced(&rollback).begin(generation(kind, 2), NOW);
        assert_eq!(
            again,
            Err(RotationError::Number {
                expected: 3,
                found: 2
            })
        );
    }
}

#[test]
fn keys_that_cannot_be_new_are_refused() {
    let rotation = standby(KeyKind::Identity);
    let twin = Generation {
        number: 2,
        ..generation(KeyKind::Identity, 1)
    };
    assert!(matches!(
        rotation.begin(twin, NOW),
        Err(RotationError::Key(_))
    ));
    let weak = Generation {
        number: 2,
        public_key: [0; 32],
        certificate: None,
    };
    assert!(matches!(
        rotation.begin(weak, NOW),
        Err(RotationError::Key(_))
    ));
    let with_certificate = generation(KeyKind::UserTls, 2);
    assert_eq!(
        rotation.begin(with_certificate.clone(), NOW),
        Err(RotationError::Certificate(KeyKind::Identity))
    );
    let other_key = Generation {
        public_key: key(9).public_key(),
        ..with_certificate
    };
    assert_eq!(
        standby(KeyKind::UserTls).begin(other_key, NOW),
        Err(RotationError::Certificate(KeyKind::UserTls))
    );
    for kind in [KeyKind::Audit, KeyKind::BreakGlass, KeyKind::Recording] {
        let verdict = Rotation::standby(kind, generation(kind, 1), NOW);
        assert_eq!(verdict, Err(RotationError::Kind(kind)));
    }
}

#[test]
fn who_lags_behind_is_named_and_holds_it_up() {
    let kind = KeyKind::HostTls;
    let [_, init, _, servers, _] = phases(kind);
    // Every login from before is over.
    let now = NOW.plus(IDENTITY_CEILING).plus(SKEW);
    let parties = [
        party(kind, PartyKind::Hub, "hub1.example", &[1, 2], 2),
        party(kind, PartyKind::Node, "db1", &[1], 1),
        party(kind, PartyKind::Node, "db2", &[1, 2], 1),
    ];
    let Err(RotationError::NotAdopted(adoption)) = init.advance(&parties, now, Force::No) else {
        panic!("db1 does not trust the new key")
    };
    let named = |laggards: &[mezite_ca::rotation::Laggard]| {
        laggards
            .iter()
            .map(|one| (one.name.clone(), one.lag))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        named(&adoption.laggards),
        [("db1".to_owned(), Lag::DoesNotTrust)]
    );
    assert_eq!((adoption.parties, adoption.until), (3, None));
    let said = adoption.to_string();
    assert!(
        said.contains("node `db1` does not trust it yet") && said.contains("--force"),
        "{said}"
    );
    let step = init.advance(&parties, now, Force::Yes).unwrap();
    assert_eq!(
        (step.rotation.phase(), step.despite),
        (Phase::UpdateClients, adoption)
    );
    // The last step asks for certificates too.
    let Err(RotationError::NotAdopted(adoption)) = servers.advance(&parties[..], now, Force::No)
    else {
        panic!("the nodes hold old certificates")
    };
    assert_eq!(
        named(&adoption.laggards),
        [
            ("db1".to_owned(), Lag::DoesNotTrust),
            ("db2".to_owned(), Lag::HoldsOther)
        ]
    );
    let ready = [
        party(kind, PartyKind::Hub, "hub1.example", &[1, 2], 2),
        party(kind, PartyKind::Node, "db1", &[2], 2),
    ];
    let step = servers.advance(&ready, now, Force::No).unwrap();
    assert!(step.despite.is_complete());
    assert_eq!(step.rotation.trusted().len(), 1);
    // Many are counted, ten are named.
    let many: Vec<Party> = (0..25)
        .map(|at| party(kind, PartyKind::Node, &format!("n{at}\n"), &[1], 1))
        .collect();
    let said = init.adoption(&many, now).to_string();
    assert!(
        said.contains("`n9\\n`") && said.contains("and 15 more") && !said.contains("n10"),
        "{said}"
    );
}

#[test]
fn users_certificates_run_out_before_their_key_goes() {
    let [.., servers, rollback] = phases(KeyKind::Identity);
    let hub = [party(KeyKind::Identity, PartyKind::Hub, "hub1", &[1, 2], 2)];
    let over = NOW.plus(IDENTITY_CEILING).plus(SKEW);
    for rotation in [servers, rollback] {
        let early = rotation.advance(&hub, over.minus(Span::from_secs(1)), Force::No);
        assert!(
            matches!(&early, Err(RotationError::NotAdopted(adoption)) if adoption.until == Some(over)),
            "{early:?}"
        );
        assert!(rotation.advance(&hub, over, Force::No).is_ok());
        // Nodes do not check identities: what they trust is no matter.
        let node = [party(KeyKind::Identity, PartyKind::Node, "db1", &[], 1)];
        assert!(rotation.advance(&node, over, Force::No).is_ok());
    }
}

#[test]
fn clients_that_cannot_be_asked_are_given_time_to_log_in_again() {
    let over = NOW.plus(IDENTITY_CEILING).plus(SKEW);
    for kind in KINDS {
        let [_, init, clients, servers, _] = phases(kind);
        let adopted = [
            party(kind, PartyKind::Hub, "hub1", &[1, 2], 2),
            party(kind, PartyKind::Node, "db1", &[1, 2], 2),
        ];
        let early = init.advance(&adopted, over.minus(Span::from_secs(1)), Force::No);
        if matches!(kind, KeyKind::Gateway | KeyKind::HostTls) {
            let Err(RotationError::NotAdopted(adoption)) = &early else {
                panic!("{kind}: a client would meet a key that nobody told it of: {early:?}")
            };
            assert_eq!((adoption.logins_until, adoption.until), (Some(over), None));
            assert!(adoption.laggards.is_empty() && !adoption.is_complete());
            assert!(
                adoption.to_string().contains("logged in before"),
                "{adoption}"
            );
            let forced = init.advance(&adopted, NOW, Force::Yes).unwrap();
            assert_eq!(forced.despite.logins_until, Some(over));
            // Only `init` waits for it: later logins learn both keys.
            for later in [&clients, &servers] {
                assert_eq!(later.adoption(&adopted, NOW).logins_until, None);
            }
        } else {
            assert!(early.is_ok(), "{kind}: {early:?}");
        }
        assert!(init.advance(&adopted, over, Force::No).is_ok(), "{kind}");
    }
}

#[test]
fn what_is_stored_is_a_state_or_nothing() {
    let good = serde_json::to_value(&phases(KeyKind::Identity)[1]).unwrap();
    for (pointer, value) in [
        ("/phase", serde_json::json!("standby")),
        ("/phase", serde_json::json!("later")),
        ("/kind", serde_json::json!("audit")),
        ("/kind", serde_json::json!("user-tls")),
        ("/highest", serde_json::json!(1)),
        ("/new/number", serde_json::json!(1)),
        ("/new/public_key", good["old"]["public_key"].clone()),
        ("/new/public_key", serde_json::json!("AAAA")),
        ("/old/public_key", serde_json::json!("!")),
        ("/new", serde_json::json!(null)),
    ] {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        let read = serde_json::from_value::<Rotation>(changed.clone());
        assert!(read.is_err(), "{pointer}: {changed}");
    }
    assert!(serde_json::from_value::<Rotation>(good).is_ok());
}

/// A cluster's bundle with the ring that a rotation says.
fn bundle(rotation: &Rotation) -> TrustBundle {
    let mut trust = TrustBundle::empty("example".parse().unwrap());
    rotation.write_to(&mut trust);
    trust
}

#[test]
fn attack_16_each_generation_counts_in_its_phases_only() {
    let issue = |number: u8| {
        let authority = IdentityKey::new(Arc::new(key(200 + number)));
        let name = user();
        let request = IdentityRequest {
            cluster: &"example".parse().unwrap(),
            user: &name,
            public_key: &public(100),
            ttl: hours(8),
            ceiling: hours(8),
        };
        let issued = authority.issue(&request, serial(), NOW, &mut rng());
        issued.unwrap().to_bytes().unwrap()
    };
    let verdict = |trust: &TrustBundle, number| {
        let context = Context {
            trust,
            now: NOW,
            source: None,
            revoked: &nothing,
        };
        Verifier::Identity
            .verdict(&issue(number), &context)
            .is_none()
    };
    let kind = KeyKind::Identity;
    let [standby, init, clients, servers, rollback] = phases(kind);
    let done = forced(&servers);
    let undone = forced(&rollback);
    let dropped = init.rollback(NOW).unwrap();
    // Old certificates, new ones, and who may make any: `init` trusts the new key ahead of time and signs with the old.
    for (rotation, old, new, signs) in [
        (&standby, true, false, 1),
        (&init, true, true, 1),
        (&clients, true, true, 2),
        (&servers, true, true, 2),
        (&rollback, true, true, 1),
        (&done, false, true, 2),
        (&undone, true, false, 1),
        (&dropped, true, false, 1),
    ] {
        let trust = bundle(rotation);
        assert_eq!(
            (verdict(&trust, 1), verdict(&trust, 2)),
            (old, new),
            "{rotation:?}"
        );
        assert_eq!(rotation.signing().number, signs);
        assert!(!verdict(&trust, 3), "a third key is nobody's");
        assert_eq!(trust.generations.len(), if old && new { 2 } else { 0 });
        let expected: BTreeSet<String> = rotation
            .trusted()
            .iter()
            .map(|(_, one)| one.fingerprint())
            .collect();
        assert_eq!(trust.fingerprints(kind), expected);
    }
    // The state of a generation explains, and grants nothing: a note without the key in its ring is worth nothing.
    let mut lying = bundle(&init);
    lying.identity = bundle(&standby).identity;
    assert!(!verdict(&lying, 2));
}

#[test]
fn attack_16_tls_generations_rotate_alike() {
    let cluster = Cluster::example();
    let kind = KeyKind::UserTls;
    let peer = cluster.peer_name(PeerKind::User);
    let issue = |number: u8| {
        let one = generation(kind, number);
        let der = one.certificate.unwrap().into();
        let authority = UserTls::load(Arc::new(key(200 + number)), der, &cluster.name).unwrap();
        let request = mezite_ca::TlsRequest {
            twin: None,
            peer: &peer,
            public_key: key(104).public_key(),
            dns_names: &[],
            addresses: &[],
            life: hours(8),
        };
        [authority.issue(&request, serial(), NOW).unwrap()]
    };
    let verdict = |rotation: &Rotation, number| {
        let trust = bundle(rotation);
        let context = Context {
            trust: &trust,
            now: NOW,
            source: None,
            revoked: &nothing,
        };
        verify::peer(&issue(number), Purpose::Client, &[PeerKind::User], &context).map(|_| ())
    };
    let [_, init, clients, servers, _] = phases(kind);
    for rotation in [&init, &clients, &servers] {
        assert_eq!(
            (verdict(rotation, 1), verdict(rotation, 2)),
            (Ok(()), Ok(()))
        );
        assert_eq!(bundle(rotation).fingerprints(kind).len(), 2);
    }
    let gone = verdict(&forced(&servers), 1);
    assert!(
        matches!(gone, Err(VerifyError::UnknownAuthority(_))),
        "{gone:?}"
    );
    assert_eq!(verdict(&forced(&servers), 2), Ok(()));
}

/// Something that happens in the world of the property below.
#[derive(Clone, Debug)]
enum Happening {
    Begin,
    Advance,
    Rollback,
    /// The party at this place fetches the bundle.
    Refresh(usize),
    /// The party at this place gets a new certificate.
    Renew(usize),
    /// A user gets a certificate.
    Login,
    /// A party joins: it gets bundle and certificate at once.
    Join(bool),
    /// Hours pass.
    Wait(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => Just(Happening::Begin),
        6 => Just(Happening::Advance),
        1 => Just(Happening::Rollback),
        8 => (0_usize..5).prop_map(Happening::Refresh),
        5 => (0_usize..5).prop_map(Happening::Renew),
        2 => Just(Happening::Login),
        1 => any::<bool>().prop_map(Happening::Join),
        3 => (1_u64..30).prop_map(Happening::Wait),
    ]
}

/// Parties and certificates as they really are.
struct World {
    rotation: Rotation,
    now: UnixTime,
    parties: Vec<Party>,
    /// Who signed it, which keys its client was told, and when the login ends.
    users: Vec<(String, BTreeSet<String>, UnixTime)>,
}

impl World {
    fn new(kind: KeyKind) -> Self {
        let mut world = Self {
            rotation: standby(kind),
            now: NOW,
            parties: Vec::new(),
            users: Vec::new(),
        };
        for hub in [true, true, false, false] {
            world.happen(&Happening::Join(hub));
        }
        world
    }

    fn happen(&mut self, happening: &Happening) {
        let trusts = bundle(&self.rotation).fingerprints(self.rotation.kind());
        let signs = self.rotation.signing().fingerprint();
        match happening {
            Happening::Begin => {
                let number = u8::try_from(self.rotation.next_number()).unwrap();
                let kind = self.rotation.kind();
                if let Ok(next) = self.rotation.begin(generation(kind, number), self.now) {
                    self.rotation = next;
                }
            }
            Happening::Advance => {
                if let Ok(step) = self.rotation.advance(&self.parties, self.now, Force::No) {
                    self.rotation = step.rotation;
                }
            }
            Happening::Rollback => {
                if let Ok(back) = self.rotation.rollback(self.now) {
                    self.rotation = back;
                }
            }
            Happening::Refresh(at) => {
                if let Some(party) = self.parties.get_mut(*at) {
                    party.trusts = trusts;
                }
            }
            Happening::Renew(at) => {
                if let Some(party) = self.parties.get_mut(*at) {
                    party.holds = Some(signs);
                }
            }
            Happening::Login => {
                self.users
                    .push((signs, trusts, self.now.plus(IDENTITY_CEILING)));
            }
            Happening::Join(hub) => self.parties.push(Party {
                kind: if *hub {
                    PartyKind::Hub
                } else {
                    PartyKind::Node
                },
                name: format!("p{}", self.parties.len()),
                trusts,
                holds: Some(signs),
            }),
            Happening::Wait(h) => self.now = self.now.plus(hours(*h)),
        }
    }

    /// Whether every verifier accepts every certificate of this kind that is held and valid.
    fn nobody_is_cut_off(&self) -> Result<(), String> {
        let (verifiers, holders): (&[PartyKind], &[PartyKind]) = match self.rotation.kind() {
            KeyKind::Identity | KeyKind::UserTls => (&[PartyKind::Hub], &[]),
            KeyKind::Session => (&[PartyKind::Node], &[]),
            KeyKind::Gateway => (&[PartyKind::Hub], &[PartyKind::Hub]),
            KeyKind::Node => (&[PartyKind::Hub], &[PartyKind::Node]),
            KeyKind::Audit | KeyKind::BreakGlass | KeyKind::HostTls | KeyKind::Recording => (
                &[PartyKind::Hub, PartyKind::Node],
                &[PartyKind::Hub, PartyKind::Node],
            ),
        };
        let mut shown: Vec<&String> = self
            .parties
            .iter()
            .filter(|party| holders.contains(&party.kind))
            .filter_map(|party| party.holds.as_ref())
            .collect();
        let signing = self.rotation.signing().fingerprint();
        shown.push(&signing);
        if matches!(self.rotation.kind(), KeyKind::Identity | KeyKind::UserTls) {
            shown.extend(
                self.users
                    .iter()
                    .filter(|(_, _, expires)| self.now < *expires)
                    .map(|(by, _, _)| by),
            );
        }
        for verifier in self
            .parties
            .iter()
            .filter(|party| verifiers.contains(&party.kind))
        {
            if let Some(by) = shown.iter().find(|by| !verifier.trusts.contains(**by)) {
                return Err(format!(
                    "{} does not trust {by} in {}",
                    verifier.name,
                    self.rotation.phase()
                ));
            }
        }
        if matches!(self.rotation.kind(), KeyKind::Gateway | KeyKind::HostTls) {
            let logins = self.users.iter().filter(|(_, _, end)| self.now < *end);
            for (_, told, _) in logins {
                if let Some(by) = shown.iter().find(|by| !told.contains(**by)) {
                    return Err(format!(
                        "a client does not trust {by} in {}",
                        self.rotation.phase()
                    ));
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, without force: two hubs that issue at the same moment during rotation, a node
    /// that joins in the middle, one that sleeps through it, a rollback from anywhere.
    #[test]
    fn attack_16_nobody_is_cut_off_unless_it_is_forced(
        kind in prop::sample::select(&KINDS[..]),
        happenings in proptest::collection::vec(happening(), 0..90),
    ) {
        let mut world = World::new(kind);
        for happening in happenings.iter().take(90) {
            if world.rotation.next_number() > 40 {
                break;
            }
            world.happen(happening);
            if let Err(why) = world.nobody_is_cut_off() {
                prop_assert!(false, "after {:?}: {}", happening, why);
            }
        }
    }
}

#[test]
fn the_world_of_the_property_does_rotate() {
    for kind in KINDS {
        let mut world = World::new(kind);
        world.happen(&Happening::Begin);
        for phase in [Phase::UpdateClients, Phase::UpdateServers, Phase::Standby] {
            for at in 0..4 {
                world.happen(&Happening::Refresh(at));
                world.happen(&Happening::Renew(at));
            }
            world.happen(&Happening::Login);
            world.happen(&Happening::Wait(30));
            world.happen(&Happening::Advance);
            assert_eq!(world.rotation.phase(), phase, "{kind}");
        }
        assert_eq!(world.rotation.signing().number, 2);
        assert_eq!(world.nobody_is_cut_off(), Ok(()));
    }
}
