//! Where programs draw randomness from.

use std::collections::BTreeSet;
use std::path::Path;

use mezite_core::store::Store;

use crate::rig::Rig;

/// Lines of every program's sources, without their tests.
fn lines(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let other = [
            "target", "tests", "benches", "examples", "fuzz", "xtask", "gen",
        ];
        if path.is_dir() {
            if !name.starts_with('.') && !other.contains(&name.as_str()) {
                lines(&path, found);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let program = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let own = program
                .lines()
                .map(|line| (path.display().to_string(), line.trim().to_owned()));
            found.extend(own);
        }
    }
}

/// A generator that lives in the process gives the same bytes twice after a fork, or when a machine is resumed twice from one
/// snapshot. None does: every draw asks the operating system.
#[test]
fn attack_74_no_generator_keeps_a_state_that_a_fork_or_a_snapshot_copies() {
    let mut found = Vec::new();
    lines(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")),
        &mut found,
    );
    assert!(found.len() > 10_000, "the whole tree: {}", found.len());
    let stateful = [
        "rand::rng()",
        "thread_rng",
        "ThreadRng",
        "StdRng",
        "SmallRng",
        "ChaCha20Rng",
    ];
    let kept: Vec<_> = found
        .iter()
        .filter(|(_, line)| {
            !line.starts_with("//") && stateful.iter().any(|name| line.contains(name))
        })
        .collect();
    assert!(kept.is_empty(), "{kept:?}");
    let drawn: BTreeSet<&str> = found
        .iter()
        .filter(|(_, line)| line.contains("SysRng)"))
        .map(|(path, _)| path.rsplit("/mezite").next().unwrap())
        .collect();
    assert_eq!(
        drawn.len(),
        2,
        "one place in the service, one for drivers: {drawn:?}"
    );
}

/// Two hubs made at the same moment from the same store, as two copies of one machine are: no serial number, id or salt is
/// drawn twice.
#[tokio::test]
async fn attack_74_two_copies_of_a_hub_draw_nothing_twice() {
    let rig = Rig::new().await;
    let copy = rig.hub("hub-2").await;
    let password = rig.user("alice", &["access"], &[]).await;
    let mut serials = BTreeSet::new();
    for hub in [&rig.auth, &copy].into_iter().cycle().take(40) {
        let message = mezite_api::v1::LoginRequest {
            user: "alice".into(),
            password: password.clone(),
            ssh_public_key: crate::rig::ssh_key().to_openssh().unwrap(),
            tls_public_key: mezite_ca::Signer::public_key(&crate::rig::key()).to_vec(),
            client_time_ms: crate::rig::START.as_millis(),
            ..Default::default()
        };
        let identity = hub.login(message.try_into().unwrap(), None).await.unwrap();
        assert!(serials.insert(identity.ssh_certificate.serial()));
    }
    let log = rig
        .store
        .log(&mezite_core::store::LogQuery::after(0, 1000))
        .await
        .unwrap();
    let field = |name: &str| -> BTreeSet<String> {
        let text = |event: &mezite_core::store::StoredEvent| {
            let event: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
            event[name].as_str().unwrap().to_owned()
        };
        log.iter().map(text).collect()
    };
    assert_eq!(
        (field("id").len(), field("salt").len()),
        (log.len(), log.len())
    );
}
