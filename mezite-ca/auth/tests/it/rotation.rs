//! Rotation as hubs and nodes live through it: what is stored, who signs, who is trusted, who is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mezite_api::request::{RotateKey, RotationStep};
use mezite_auth::{Adopted, Auth, Error, NodeIdentity, OpenError, RotationStatus};
use mezite_ca::rotation::{Force, KINDS, Phase};
use mezite_ca::verify::{self, Context, Purpose, VerifyError};
use mezite_ca::{IDENTITY_CEILING, KeyKind, PeerKind, SKEW, Signer, tls_signer};
use mezite_core::store::{Commit, Expect, Key, Store};
use mezite_core::{Clock, NodeId, Span};
use ssh_key::{Certificate, HashAlg};

use crate::rig::{Rig, db1, key, session, settings, ssh_key};

/// After it nothing is valid that was issued before.
const LONG: Span = Span::from_millis(IDENTITY_CEILING.as_millis() + SKEW.as_millis());

const FORWARD: [Phase; 3] = [Phase::UpdateClients, Phase::UpdateServers, Phase::Standby];

fn signer(certificate: &Certificate) -> String {
    certificate
        .signature_key()
        .fingerprint(HashAlg::Sha256)
        .to_string()
}

/// What stands in the store and log about one key, and the steps that are taken with it.
struct Turn<'a> {
    rig: &'a Rig,
    kind: KeyKind,
}

impl Turn<'_> {
    async fn step(&self, step: RotationStep) -> Result<RotationStatus, Error> {
        let wanted = RotateKey::new(self.kind, step);
        self.rig.auth.rotate(&self.rig.local, wanted).await
    }

    async fn advance(&self) -> Result<RotationStatus, Error> {
        self.step(RotationStep::Advance(Force::No)).await
    }

    async fn force(&self) -> RotationStatus {
        self.step(RotationStep::Advance(Force::Yes)).await.unwrap()
    }

    async fn begin(&self) {
        let begun = self.step(RotationStep::Begin).await.unwrap();
        assert_eq!(begun.rotation.phase(), Phase::Init);
    }

    async fn status(&self, auth: &Auth) -> RotationStatus {
        let all = auth.rotations(&self.rig.local).await.unwrap();
        all.into_iter()
            .find(|status| status.rotation.kind() == self.kind)
            .unwrap()
    }

    /// The generations whose private keys lie in the store.
    async fn private_keys(&self) -> Vec<String> {
        let prefix = format!("ca/{}/", self.kind);
        let found = self.rig.store.list(&prefix, None, 10).await.unwrap();
        found
            .iter()
            .map(|(key, _)| key.as_str().trim_start_matches(&prefix).to_owned())
            .collect()
    }
}

/// What an agent does when a key that signed what it holds is retiring: it renews, and reports.
async fn agent(rig: &Rig, id: &NodeId) -> NodeIdentity {
    let message = mezite_api::v1::RenewNodeRequest {
        host_public_key: ssh_key().to_openssh().unwrap(),
        tls_public_key: key().public_key().to_vec(),
        client_time_ms: rig.clock.now().as_millis(),
        labels: std::collections::HashMap::new(),
    };
    let renew = message.try_into().unwrap();
    let renewed = rig.auth.renew_node(id, &renew).await.unwrap();
    report(&rig.auth, &renewed).await;
    renewed
}

async fn report(auth: &Auth, node: &NodeIdentity) {
    let trust = auth.trust_for_nodes();
    let trusts = [KeyKind::HostTls, KeyKind::Session]
        .map(|kind| (kind.to_string(), trust.fingerprints(kind)));
    let holds = [
        ("node".to_owned(), signer(&node.host_certificate)),
        ("host-tls".to_owned(), tls_signer(&node.tls_chain).unwrap()),
    ];
    let report = Adopted::reported(trusts.into(), holds.into()).unwrap();
    auth.node_reports(&node.id, &report).await.unwrap();
}

/// The hub renews its TLS certificate, as its process does.
async fn renew_hub(auth: &Auth) {
    let (chain, _) = auth.hub_tls(key().public_key()).await.unwrap();
    assert!(auth.is_signed_now(&chain));
    auth.hub_shows(&chain).await.unwrap();
}

/// Waits for what another hub made to arrive through the store.
async fn until(what: &str, ready: impl Fn() -> bool) {
    for _ in 0..400 {
        if ready() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come");
}

/// Everything that the cluster issues, by the key that signed it.
async fn issued(rig: &Rig, auth: &Auth) -> BTreeMap<KeyKind, String> {
    let node = rig
        .node(&format!("n{}", rig.clock.now().as_millis() % 1_000_000))
        .await;
    let gateway = auth
        .gateway_certificate(&["hub.example".into()], &ssh_key())
        .await;
    let (hub, _) = auth.hub_tls(key().public_key()).await.unwrap();
    assert_eq!(tls_signer(&hub), tls_signer(&node.tls_chain));
    rig.auth
        .remove(&rig.local, "node", node.name.as_str())
        .await
        .unwrap();
    [
        (KeyKind::Gateway, signer(&gateway.unwrap())),
        (KeyKind::Node, signer(&node.host_certificate)),
        (KeyKind::HostTls, tls_signer(&hub).unwrap()),
    ]
    .into()
}

#[tokio::test]
async fn each_key_rotates_whole_and_its_old_private_half_goes() {
    for kind in KINDS {
        let rig = Rig::new().await;
        let turn = Turn { rig: &rig, kind };
        let node = rig.node("db1").await;
        report(&rig.auth, &node).await;
        renew_hub(&rig.auth).await;
        let old = turn.status(&rig.auth).await;
        assert_eq!(old.rotation.phase(), Phase::Standby);
        turn.begin().await;
        assert_eq!(turn.private_keys().await, ["1", "2"]);
        assert_eq!(rig.auth.trust().fingerprints(kind).len(), 2, "{kind}");
        report(&rig.auth, &node).await;
        rig.advance(LONG);
        for phase in FORWARD {
            let node = agent(&rig, &node.id).await;
            renew_hub(&rig.auth).await;
            rig.advance(LONG);
            let status = turn
                .advance()
                .await
                .unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert_eq!(status.rotation.phase(), phase, "{kind}");
            let by = issued(&rig, &rig.auth).await;
            if let Some(by) = by.get(&kind) {
                assert_eq!(
                    *by,
                    status.rotation.signing().fingerprint(),
                    "{kind} {phase}"
                );
            }
            report(&rig.auth, &node).await;
        }
        let new = turn.status(&rig.auth).await;
        assert_eq!(new.rotation.signing().number, 2);
        assert_eq!(turn.private_keys().await, ["2"], "{kind}");
        assert_eq!(
            rig.auth.trust().fingerprints(kind),
            BTreeSet::from([new.rotation.signing().fingerprint()])
        );
        let events = rig.events("ca.rotation").await;
        let told: Vec<_> = events
            .iter()
            .map(|event| {
                (
                    event["phase_before"].as_str().unwrap(),
                    event["phase"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("standby", "init"),
                ("init", "update_clients"),
                ("update_clients", "update_servers"),
                ("update_servers", "standby")
            ]
        );
        for event in &events {
            assert_eq!(
                (&event["key_kind"], &event["forced"]),
                (&kind.as_str().into(), &false.into())
            );
            assert_eq!(event["passed_over"], serde_json::json!([]), "{event}");
        }
        assert_eq!(events[3]["removed_generation"], 1);
        let kept = events[0]["document"].as_str().unwrap();
        assert!(
            kept.contains("public_key"),
            "the public halves stay in the log: {kept}"
        );
        // The next one takes the next number.
        turn.begin().await;
        assert_eq!(turn.private_keys().await, ["2", "3"]);
    }
}

#[tokio::test]
async fn a_rotation_goes_back_from_each_phase() {
    for kind in KINDS {
        for forward in 0..3 {
            let rig = Rig::new().await;
            let turn = Turn { rig: &rig, kind };
            let before = turn
                .status(&rig.auth)
                .await
                .rotation
                .signing()
                .fingerprint();
            turn.begin().await;
            for _ in 0..forward {
                turn.force().await;
            }
            let back = turn.step(RotationStep::Rollback).await.unwrap().rotation;
            assert_eq!(
                back.signing().fingerprint(),
                before,
                "{kind} after {forward}"
            );
            if back.phase() == Phase::Rollback {
                let again = turn.step(RotationStep::Rollback).await;
                assert!(matches!(again, Err(Error::Rotation(_))), "{again:?}");
                assert_eq!(turn.private_keys().await, ["1", "2"]);
                turn.force().await;
            }
            let status = turn.status(&rig.auth).await;
            assert_eq!(
                status.rotation.phase(),
                Phase::Standby,
                "{kind} after {forward}"
            );
            assert_eq!(turn.private_keys().await, ["1"], "{kind} after {forward}");
            assert_eq!(
                rig.auth.trust().fingerprints(kind),
                BTreeSet::from([before])
            );
            let last = rig.events("ca.rotation").await.pop().unwrap();
            assert_eq!(last["removed_generation"], 2, "{last}");
            // A number is never used twice, so an old sealed key cannot come back in a new one's place.
            turn.begin().await;
            assert_eq!(turn.private_keys().await, ["1", "3"]);
        }
    }
}

#[tokio::test]
async fn a_hub_that_dies_between_two_steps_finds_the_rotation_as_it_was() {
    for kind in KINDS {
        let rig = Rig::new().await;
        let turn = Turn { rig: &rig, kind };
        for step in [
            RotationStep::Begin,
            RotationStep::Advance(Force::Yes),
            RotationStep::Advance(Force::Yes),
            RotationStep::Rollback,
            RotationStep::Advance(Force::Yes),
        ] {
            // A step that cannot be recorded is not taken, neither here nor in the store.
            rig.break_disk(true);
            let trust = rig.auth.trust();
            let failed = turn.step(step).await;
            assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
            rig.break_disk(false);
            assert_eq!(rig.auth.trust(), trust);
            assert_eq!(rig.hub("hub-3").await.trust(), trust);
            let status = turn.step(step).await.unwrap();
            let restarted = rig.hub("hub").await;
            assert_eq!(
                turn.status(&restarted).await.rotation,
                status.rotation,
                "{kind} {step:?}"
            );
            assert_eq!(restarted.trust(), rig.auth.trust());
            assert_eq!(
                issued(&rig, &restarted).await,
                issued(&rig, &rig.auth).await,
                "{kind} {step:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_second_hub_takes_each_step_up_and_is_waited_for() {
    let rig = Rig::new().await;
    let turn = Turn {
        rig: &rig,
        kind: KeyKind::Gateway,
    };
    let second = rig.hub("hub-2").await;
    turn.begin().await;
    until("the new key", || second.trust() == rig.auth.trust()).await;
    rig.advance(LONG);
    // What it trusts it notes by itself.
    let mut waited = 0;
    while !turn.status(&rig.auth).await.behind.is_empty() {
        waited += 1;
        assert!(waited < 400, "{:?}", turn.status(&rig.auth).await.behind);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for phase in [Phase::UpdateClients, Phase::UpdateServers] {
        assert_eq!(turn.advance().await.unwrap().rotation.phase(), phase);
    }
    let new = turn
        .status(&rig.auth)
        .await
        .rotation
        .signing()
        .fingerprint();
    until("the signing key", || {
        second
            .trust()
            .gateway
            .first()
            .unwrap()
            .fingerprint(HashAlg::Sha256)
            .to_string()
            == new
    })
    .await;
    let names = ["hub.example".to_owned()];
    let certificate = second
        .gateway_certificate(&names, &ssh_key())
        .await
        .unwrap();
    assert_eq!(signer(&certificate), new);
    // A hub that has died is named until it comes back or stops in order.
    let third = rig.hub("hub-3").await;
    drop(third);
    let store = &rig.store;
    let note = Key::new("adopted/hub/hub-3".to_owned()).unwrap();
    let stored = store.get(&note).await.unwrap().unwrap();
    let mut adopted: serde_json::Value = serde_json::from_slice(&stored.value).unwrap();
    adopted["trusts"]["gateway"] = serde_json::json!([]);
    put(&rig, note, &adopted).await;
    let refused = turn.advance().await.unwrap_err().to_string();
    assert!(
        refused.contains("hub `hub-3` does not trust it yet"),
        "{refused}"
    );
    rig.hub("hub-3").await.stop("told to").await.unwrap();
    let mut waited = 0;
    while let Err(error) = turn.advance().await {
        waited += 1;
        assert!(waited < 400, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(turn.status(&second).await.rotation.phase(), Phase::Standby);
}

/// Writes past the auth service, as somebody with the database in their hands would.
async fn put(rig: &Rig, key: Key, value: &serde_json::Value) {
    let stamp = mezite_audit::Stamp {
        now: rig.clock.now(),
        random: [[9; 16], [8; 16]],
        cluster: rig.auth.cluster(),
    };
    let event = mezite_audit::catalogue::HubStopped {
        hub_id: "nobody",
        success: false,
        reason: "forged",
        sessions: 0,
    };
    let commit =
        Commit::new(event.event(&stamp)).put(key, Expect::Any, serde_json::to_vec(value).unwrap());
    rig.store.commit(commit).await.unwrap();
}

#[tokio::test]
async fn attack_72_a_public_key_beside_the_sealed_one_is_not_believed() {
    let rig = Rig::new().await;
    let turn = Turn {
        rig: &rig,
        kind: KeyKind::Session,
    };
    turn.begin().await;
    let trust = rig.auth.trust();
    let at = Key::new("rotation/session".to_owned()).unwrap();
    let stored = rig.store.get(&at).await.unwrap().unwrap();
    let good: serde_json::Value = serde_json::from_slice(&stored.value).unwrap();
    let mut forged = good.clone();
    forged["new"]["public_key"] = data_encoding::BASE64.encode(&key().public_key()).into();
    put(&rig, at.clone(), &forged).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        rig.auth.trust(),
        trust,
        "a running hub goes on with what it knows"
    );
    let refused = Auth::open(
        rig.store.clone(),
        rig.clock.clone(),
        rig.sealer.clone(),
        settings(),
    )
    .await;
    let Err(OpenError::Corrupt(why)) = refused else {
        panic!("a hub started with a foreign key")
    };
    assert!(
        why.contains("generation 2 of the session key is not the one that is sealed"),
        "{why}"
    );
    rig.advance(Span::from_secs(1));
    put(&rig, at, &good).await;
    rig.hub("hub-2").await;
}

#[tokio::test]
async fn a_node_that_joins_in_the_middle_gets_everything_and_counts() {
    for kind in [KeyKind::Session, KeyKind::Node, KeyKind::HostTls] {
        let rig = Rig::new().await;
        let turn = Turn { rig: &rig, kind };
        renew_hub(&rig.auth).await;
        turn.begin().await;
        rig.advance(LONG);
        for (number, phase) in FORWARD.into_iter().enumerate() {
            let trust = rig.auth.trust_for_nodes();
            let joined = rig.node(&format!("n{number}")).await;
            for kind in [KeyKind::Session, KeyKind::HostTls] {
                assert_eq!(
                    trust.fingerprints(kind),
                    rig.auth.trust().fingerprints(kind)
                );
            }
            assert_eq!(
                trust.generations.len(),
                2,
                "both generations are explained: {kind}"
            );
            // It has joined, but nobody knows whether the answer has reached it.
            let counts = turn.status(&rig.auth).await;
            if kind != KeyKind::Node {
                assert!(
                    counts
                        .behind
                        .iter()
                        .any(|one| one.laggard.name == format!("n{number}"))
                );
            }
            report(&rig.auth, &joined).await;
            for name in 0..=number {
                let name = format!("n{name}").parse().unwrap();
                let id = rig.auth.snapshot().node_named(&name).unwrap().id.clone();
                agent(&rig, &id).await;
            }
            renew_hub(&rig.auth).await;
            rig.advance(LONG);
            assert_eq!(
                turn.advance().await.unwrap().rotation.phase(),
                phase,
                "{kind}"
            );
        }
    }
}

#[tokio::test]
async fn who_lags_behind_is_named_with_what_helps_and_force_passes_over_them() {
    let rig = Rig::new().await;
    let turn = Turn {
        rig: &rig,
        kind: KeyKind::Session,
    };
    let node = rig.node("db1").await;
    let message = mezite_api::v1::AddOpenSshNodeRequest {
        name: "web".into(),
        address: "192.0.2.7:22".into(),
        ..Default::default()
    };
    let wanted = message.try_into().unwrap();
    let agentless = rig.auth.add_openssh_node(&rig.local, wanted).await.unwrap();
    report(&rig.auth, &node).await;
    turn.begin().await;
    let refused = turn.advance().await.unwrap_err();
    let said = refused.to_string();
    for words in [
        "node `db1` does not trust it yet",
        "node `web` does not trust it yet",
        "--force",
        "mezctl ca status",
    ] {
        assert!(said.contains(words), "no `{words}` in: {said}");
    }
    assert_eq!(refused.kind(), mezite_api::error::Kind::Precondition);
    let status = turn.status(&rig.auth).await;
    let hint = |name: &str| {
        let behind = status.behind.iter().find(|one| one.laggard.name == name);
        behind.unwrap().hint.clone()
    };
    assert!(
        hint("db1").contains("start it, or remove the node"),
        "{}",
        hint("db1")
    );
    assert!(
        hint("web").contains("mezctl ca adopted web"),
        "{}",
        hint("web")
    );
    assert_eq!(
        turn.status(&rig.auth).await.rotation.phase(),
        Phase::Init,
        "nothing was done"
    );
    // The agent comes back, and the operator speaks for the node that cannot.
    report(&rig.auth, &node).await;
    let stated = rig.auth.state_adoption(&rig.local, &db1()).await;
    assert!(
        matches!(stated, Err(Error::Unfit(_))),
        "an agent speaks for itself: {stated:?}"
    );
    let web = agentless.node.name.clone();
    rig.auth.state_adoption(&rig.local, &web).await.unwrap();
    rig.auth.state_adoption(&rig.local, &web).await.unwrap();
    let events = rig.events("ca.adopted").await;
    let stated: Vec<_> = events
        .iter()
        .filter(|event| event["evidence"] == "stated")
        .collect();
    assert_eq!(stated.len(), 1, "said once, recorded once");
    assert_eq!(
        (&stated[0]["user_name"], &stated[0]["server_hostname"]),
        (&"local:0".into(), &"web".into())
    );
    assert_eq!(
        turn.advance().await.unwrap().rotation.phase(),
        Phase::UpdateClients
    );
    // Force: who was passed over is told.
    let late = rig.node("late").await;
    assert!(turn.advance().await.is_err());
    let forced = turn.force().await;
    assert_eq!(forced.rotation.phase(), Phase::UpdateServers);
    let last = rig.events("ca.rotation").await.pop().unwrap();
    assert_eq!(last["forced"], true);
    assert_eq!(
        last["passed_over"],
        serde_json::json!(["node `late` does not trust it yet"])
    );
    // A node that is removed holds nothing up.
    rig.auth
        .remove(&rig.local, "node", late.name.as_str())
        .await
        .unwrap();
    rig.advance(LONG);
    turn.advance().await.unwrap();
}

#[tokio::test]
async fn an_agentless_node_is_measured_when_it_lets_us_in() {
    let rig = Rig::new().await;
    let turn = Turn {
        rig: &rig,
        kind: KeyKind::Session,
    };
    let message = mezite_api::v1::AddOpenSshNodeRequest {
        name: "web".into(),
        address: "192.0.2.7:22".into(),
        ..Default::default()
    };
    let added = rig
        .auth
        .add_openssh_node(&rig.local, message.try_into().unwrap())
        .await
        .unwrap();
    let alice = rig.alice().await;
    let login = "deploy".parse().unwrap();
    let visit = async |number| {
        let permit = rig
            .auth
            .authorize(&alice, &added.node.name, &login, None, session(number))
            .await
            .unwrap();
        let certificate = rig.auth.issue_session(&permit, &ssh_key()).await.unwrap();
        rig.auth.node_accepted(&permit, &certificate).await.unwrap();
    };
    visit(1).await;
    assert!(
        rig.events("ca.adopted")
            .await
            .iter()
            .all(|event| event["server_hostname"].is_null()),
        "in standby there is nothing to learn"
    );
    turn.begin().await;
    visit(2).await;
    assert!(turn.advance().await.is_err(), "it has let the old key in");
    turn.force().await;
    visit(3).await;
    let measured = rig.events("ca.adopted").await;
    assert_eq!(
        measured
            .iter()
            .filter(|event| event["evidence"] == "measured")
            .count(),
        2
    );
    assert!(
        turn.status(&rig.auth).await.behind.is_empty(),
        "it has let the new key in"
    );
    assert_eq!(
        turn.advance().await.unwrap().rotation.phase(),
        Phase::UpdateServers
    );

    let tls = Turn {
        rig: &rig,
        kind: KeyKind::HostTls,
    };
    tls.begin().await;
    assert_eq!(
        tls.status(&rig.auth).await.adoption.laggards,
        [],
        "it speaks no TLS"
    );
    let node = Turn {
        rig: &rig,
        kind: KeyKind::Node,
    };
    node.begin().await;
    for phase in [Phase::UpdateClients, Phase::UpdateServers] {
        assert!(rig.auth.nodes_to_look_at().await.unwrap().is_empty());
        assert_eq!(node.advance().await.unwrap().rotation.phase(), phase);
    }
    let looked = rig.auth.nodes_to_look_at().await.unwrap();
    assert_eq!(looked.len(), 1);
    let error = node.advance().await.unwrap_err().to_string();
    assert!(
        error.contains("node `web` holds no certificate by it yet"),
        "{error}"
    );
    let signing = rig.auth.trust().node.first().unwrap().clone();
    rig.auth.node_shows(&looked[0].id, &signing).await.unwrap();
    assert!(rig.auth.nodes_to_look_at().await.unwrap().is_empty());
    assert_eq!(
        node.advance().await.unwrap().rotation.phase(),
        Phase::Standby
    );
}

#[tokio::test]
async fn a_report_from_outside_is_bounded_and_of_known_keys() {
    let good = format!("SHA256:{}", "A".repeat(43));
    let one = |kind: &str, key: &str| BTreeMap::from([(kind.to_owned(), key.to_owned())]);
    let many = |kind: &str, count: usize| {
        let keys = (0..count).map(|at| format!("SHA256:{at:A>43}")).collect();
        BTreeMap::from([(kind.to_owned(), keys)])
    };
    assert!(Adopted::reported(many("session", 2), one("node", &good)).is_ok());
    for (trusts, holds) in [
        (many("audit", 1), one("node", &good)),
        (many("session", 9), one("node", &good)),
        (many("session", 1), one("x\n", &good)),
        (many("session", 1), one("node", "SHA256:short")),
        (
            many("session", 1),
            one("node", &format!("MD5:{}", "A".repeat(46))),
        ),
    ] {
        assert!(matches!(
            Adopted::reported(trusts, holds),
            Err(Error::Unfit(_))
        ));
    }
}

#[tokio::test]
async fn attack_15_serials_are_unique_when_two_hubs_issue_at_once_during_rotation() {
    let rig = Rig::new().await;
    let second = rig.hub("hub-2").await;
    let password = rig.user("alice", &["access"], &["deploy"]).await;
    rig.login("alice", &password).await.unwrap();
    let host = Turn {
        rig: &rig,
        kind: KeyKind::HostTls,
    };
    let gateway = Turn {
        rig: &rig,
        kind: KeyKind::Gateway,
    };
    let burst = async |auth: &Auth| {
        for _ in 0..25 {
            let names = ["hub.example".to_owned()];
            auth.gateway_certificate(&names, &ssh_key()).await.unwrap();
            auth.hub_tls(key().public_key()).await.unwrap();
        }
    };
    for phase in 0..5 {
        // Both issue while the step is taken.
        let step = async |turn: &Turn<'_>| match phase {
            0 => {}
            1 => turn.begin().await,
            _ => {
                turn.force().await;
            }
        };
        let steps = async {
            step(&host).await;
            step(&gateway).await;
        };
        tokio::join!(burst(&rig.auth), burst(&second), steps);
    }
    let mut serials = BTreeSet::new();
    let mut signed = 0;
    for kind in ["host.cert.issued", "user.cert.issued"] {
        for event in rig.events(kind).await {
            signed += 1;
            // The two certificates of one login share their number, and their fate.
            let number = [&event["certificate_type"], &event["serial"]].map(ToString::to_string);
            assert!(serials.insert(number), "{event}");
        }
    }
    assert_eq!(signed, 5 * 2 * 25 * 2 + 2);
    assert_eq!(gateway.private_keys().await, ["2"]);
}

#[tokio::test]
async fn attack_15_of_two_steps_at_the_same_moment_one_is_taken() {
    let rig = Rig::new().await;
    let second = rig.hub("hub-2").await;
    let wanted = RotateKey::new(KeyKind::Node, RotationStep::Begin);
    let (one, two) = tokio::join!(
        rig.auth.rotate(&rig.local, wanted),
        second.rotate(&rig.local, wanted)
    );
    let lost = [one, two]
        .into_iter()
        .filter_map(Result::err)
        .collect::<Vec<_>>();
    assert!(
        matches!(lost.as_slice(), [Error::Conflict | Error::Rotation(_)]),
        "{lost:?}"
    );
    assert_eq!(rig.events("ca.rotation").await.len(), 1);
    let turn = Turn {
        rig: &rig,
        kind: KeyKind::Node,
    };
    assert_eq!(turn.private_keys().await, ["1", "2"]);
    until("the winner's key", || second.trust() == rig.auth.trust()).await;
}

/// An identity by each generation, shown in each phase, as real hubs issue and verify them.
#[tokio::test]
async fn attack_16_a_hub_signs_with_the_right_key_and_honours_it_in_its_phases_only() {
    let rig = Rig::new().await;
    let turn = Turn {
        rig: &rig,
        kind: KeyKind::Identity,
    };
    let tls = Turn {
        rig: &rig,
        kind: KeyKind::UserTls,
    };
    let password = rig.user("alice", &["access"], &["deploy"]).await;
    let identity = async || rig.login("alice", &password).await.unwrap();
    // One clock for all: certificates stay valid, so that only the authority decides.
    let verdict = |identity: &mezite_auth::Identity| {
        let trust = rig.auth.trust();
        let context = Context {
            trust: &trust,
            now: rig.clock.now(),
            source: None,
            revoked: &|_| false,
        };
        let ssh = verify::identity(&identity.ssh_certificate.to_bytes().unwrap(), &context);
        let chain: Vec<_> = identity
            .tls_chain
            .iter()
            .map(|der| der.as_slice().into())
            .collect();
        let peer = verify::peer(&chain, Purpose::Client, &[PeerKind::User], &context);
        (ssh.map(|_| ()), peer.map(|_| ()))
    };
    let good = (Ok(()), Ok(()));
    let gone = |verdict: (Result<(), VerifyError>, Result<(), VerifyError>)| {
        matches!(
            verdict,
            (
                Err(VerifyError::UnknownAuthority(_)),
                Err(VerifyError::UnknownAuthority(_))
            )
        )
    };
    let first = identity().await;
    let old = signer(&first.ssh_certificate);
    turn.begin().await;
    tls.begin().await;
    let in_init = identity().await;
    assert_eq!(
        signer(&in_init.ssh_certificate),
        old,
        "a key in init signs nothing"
    );
    assert_eq!(tls_signer(&in_init.tls_chain), tls_signer(&first.tls_chain));
    turn.force().await;
    tls.force().await;
    let second = identity().await;
    assert_ne!(signer(&second.ssh_certificate), old);
    assert_ne!(tls_signer(&second.tls_chain), tls_signer(&first.tls_chain));
    for identity in [&first, &in_init, &second] {
        assert_eq!(verdict(identity), good);
    }
    // Back: both count, the old one signs; then the new one is nothing.
    for turn in [&turn, &tls] {
        turn.step(RotationStep::Rollback).await.unwrap();
    }
    let back = identity().await;
    assert_eq!(signer(&back.ssh_certificate), old);
    assert_eq!(verdict(&second), good);
    turn.force().await;
    tls.force().await;
    assert!(gone(verdict(&second)), "{:?}", verdict(&second));
    assert_eq!(verdict(&first), good);
    // Forward to the end: the old one is nothing.
    for turn in [&turn, &tls] {
        turn.begin().await;
        turn.force().await;
        turn.force().await;
        turn.force().await;
    }
    let third = identity().await;
    assert_eq!(verdict(&third), good);
    for identity in [&first, &in_init, &second, &back] {
        assert!(gone(verdict(identity)), "{:?}", verdict(identity));
    }
    // What was told to the hub's own verifier is told to a hub that starts now.
    let restarted = rig.hub("hub-2").await;
    assert_eq!(restarted.trust(), rig.auth.trust());
}
