//! Nothing stands in the catalogue that no program reports, and nothing that no test has seen in a log.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use mezite_audit::catalogue;

/// The text of every source below `directory` that goes into a program.
fn sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let other = [
            "target",
            "tests",
            "benches",
            "examples",
            "fuzz",
            "mezite-audit",
            "gen",
        ];
        if path.is_dir() {
            if !name.starts_with('.') && !other.contains(&name) {
                sources(&path, text);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_constructor_of_the_catalogue_is_used() {
    let mut text = String::new();
    sources(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")),
        &mut text,
    );
    let unused: Vec<_> = catalogue::all()
        .iter()
        .filter(|entry| {
            let name = entry.constructor;
            // Built, or handed to the macro that builds it.
            !text.contains(&format!("{name} {{")) && !text.contains(&format!("({name},"))
        })
        .map(|entry| entry.event_type)
        .collect();
    assert!(unused.is_empty(), "nobody reports {unused:?}");
}

/// The text of every test below `directory`, but for those of the catalogue itself.
fn tests(directory: &Path, within: bool, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            let other = ["target", "benches", "fuzz", "mezite-audit", "gen"];
            if !name.starts_with('.') && !other.contains(&name) {
                tests(&path, within || name == "tests", text);
            }
        } else if name.ends_with(".rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let own = source.split_once("#[cfg(test)]").map(|(_, tests)| tests);
            match own {
                _ if within || name == "tests.rs" => text.push_str(&source),
                Some(tests) => text.push_str(tests),
                None => {}
            }
        }
    }
}

/// Every refusal, failure, read, background job and change has somebody who looks into a log and finds its event there.
#[test]
fn attack_57_every_event_of_the_catalogue_is_seen_by_a_test() {
    let mut text = String::new();
    tests(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")),
        false,
        &mut text,
    );
    let seen = |entry: &&catalogue::Entry| {
        text.contains(&format!("\"{}\"", entry.event_type))
            || text.contains(&format!("{}::TYPE", entry.constructor))
    };
    let unseen: Vec<_> = catalogue::all()
        .iter()
        .filter(|entry| !seen(entry))
        .map(|entry| entry.event_type)
        .collect();
    assert!(unseen.is_empty(), "no test looks for {unseen:?}");
}

/// What a hub starts and nobody calls, as its source names it, and what that leaves in the log.
const JOBS: &[(&str, &[&str])] = &[
    // The service itself: `mezite_auth`.
    ("hubs::keep", &["hub.lost", "hub.returned"]),
    ("hubs::watch_over", &["session.end"]),
    ("keep_place", &["ca.adopted"]),
    // What answers: each request has its own events.
    ("accept_local", &[]),
    ("accept_ssh", &["auth.attempt.failed"]),
    ("accept_tls", &[]),
    ("accept_tls", &[]),
    ("serve_grpc", &[]),
    (
        "tunnel::serve",
        &[
            "node.connected",
            "node.left",
            "ca.adopted",
            "node.break_glass.used",
        ],
    ),
    // Tell agents what others have changed, and reported.
    ("tunnel::spread_hubs", &[]),
    ("tunnel::spread_trust", &[]),
    ("auth.run_retention", &["recording.deleted"]),
    (
        "auth.run_sink",
        &[
            "audit.sink.failed",
            "audit.sink.recovered",
            "audit.rollback",
        ],
    ),
    (
        "bursts.run_bursts",
        &[
            "user.login.failed",
            "auth.attempt.failed",
            "authz.denied",
            "node.join.failed",
        ],
    ),
    ("endings.run", &["session.recording.recovered"]),
    ("guard.watch", &["disk.low", "disk.full", "disk.recovered"]),
    // Seals what others report; its own work is the checkpoint, and it stops rather than skip an event.
    ("keeper.run_keeper", &[]),
    ("recover_lost", &["session.recording.recovered"]),
    ("renew_tls", &["host.cert.issued", "ca.adopted"]),
    ("retention.run_log_retention", &["audit.pruned"]),
    // Builds search indexes, which can be built again and say nothing that the recording does not say.
    ("source.keep_indexed", &[]),
    ("survey::run", &["ca.adopted"]),
];

/// The calls that `source` hands to `spawn`, a block's first call for the block; a future that was made above by its call.
fn spawned<'s>(source: &'s str, spawn: &'s str) -> impl Iterator<Item = &'s str> {
    source.split(spawn).skip(1).map(move |rest| {
        let rest = rest.trim_start().trim_start_matches("async move {");
        let name = rest.trim_start().split(['(', ')']).next().unwrap();
        let made = format!("let {name} = ");
        let call = source.split(&made).nth(1).unwrap_or(name);
        call.split('(').next().unwrap()
    })
}

/// A job that nobody has thought of here fails: what it does has its event, or it stands here why it has none.
#[test]
fn attack_57_every_background_job_of_a_hub_has_its_events() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let (auth, hub) = (
        read("mezite-ca/auth/src/auth.rs"),
        read("bins/mezhub/src/hub.rs"),
    );
    let hub = hub.replace("tasks\n            .spawn(", "tasks.spawn(");
    let mut found: Vec<&str> = spawned(&auth, "tokio::spawn(")
        .chain(spawned(&hub, "tasks.spawn("))
        .collect();
    found.sort_unstable();
    let mut known: Vec<&str> = JOBS.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(found, known);
    for event_type in JOBS.iter().flat_map(|(_, types)| *types) {
        assert!(catalogue::find(event_type).is_some(), "{event_type}");
    }
    // Whatever the service can do by itself, a hub does.
    let mut text = String::new();
    sources(&root.join("mezite-ca/auth/src"), &mut text);
    for rest in text.split("pub async fn run_").skip(1) {
        let name = format!(".run_{}", rest.split('(').next().unwrap());
        assert!(found.iter().any(|call| call.ends_with(&name)), "{name}");
    }
}
