//! A no: clear words for the user, exit code 255, an event, and an explanation for the administrator.

use crate::house::{Done, House, Shared, User, Way, login, run, stock, text, write};

static HOUSE: Shared = Shared::new();

const ROLES: &str = "
kind: role
version: v1
metadata: { name: production-only, description: Production }
spec:
  allow: { node_labels: { env: [production] }, logins: ['*'] }
---
kind: role
version: v1
metadata: { name: no-root-logins, description: Never as the operator }
spec:
  allow: { node_labels: { '*': '*' }, logins: ['*'] }
  deny: { logins: [LOGIN] }
---
kind: role
version: v1
metadata: { name: office-only, description: From the office }
spec:
  options: { source_networks: ['192.0.2.0/24'] }
  allow: { node_labels: { '*': '*' }, logins: ['*'] }
";

fn furnish(house: &House) {
    house.agent("web");
    let roles = house.path("roles.yaml");
    write(&roles, ROLES.replace("LOGIN", &login()));
    house.mezctl(&["apply", "-f", roles.to_str().unwrap()]).ok();
}

const WAYS: [Way; 2] = [Way::Proxy, Way::Jump];

/// Refused with these words; the event of it names the user, and its explanation holds `why`.
#[track_caller]
fn refused(user: &User<'_>, done: Done, words: &[&str], why: &[&str]) {
    assert!(done.stdout.is_empty(), "{done}");
    let done = done.fails(255, words);
    let denied = user.house.events_of(&user.name, "authz.denied");
    let event = denied
        .last()
        .unwrap_or_else(|| panic!("no authz.denied for {}: {done}", user.name));
    assert_eq!(text(event, "success"), "false", "{event}");
    assert_eq!(text(event, "resource_name"), "web", "{event}");
    let explained = user.house.mezctl(&["explain", &text(event, "id")]).ok();
    for word in why {
        assert!(explained.contains(word), "no `{word}` in:\n{explained}");
    }
}

#[test]
fn a_login_that_no_role_allows() {
    let house = HOUSE.get(furnish);
    let user = house.user_with("alice", "access", "somebody-else", &[]);
    for way in WAYS {
        let done = run(user.ssh(way, "web").arg("echo in"));
        let id = text(
            house.events_of("alice", "authz.denied").last().unwrap(),
            "id",
        );
        refused(
            &user,
            done,
            &[
                &format!(
                    "you may not log in to web as {}: your roles do not allow this login",
                    login()
                ),
                &format!("ask an administrator, who sees why with `mezctl explain {id}`"),
            ],
            &["role access", "logins wants"],
        );
    }
    assert_eq!(house.events_of("alice", "authz.denied").len(), 2);
    assert!(house.events_of("alice", "session.start").is_empty());
}

/// From where nobody of this role may come.
#[test]
fn a_login_from_another_network() {
    let house = HOUSE.get(furnish);
    let user = house.user_with("frank", "office-only", &login(), &[]);
    let done = run(user.ssh(Way::Proxy, "web").arg("echo in"));
    refused(
        &user,
        done,
        &[&format!(
            "you may not log in to web as {}: your roles do not allow this from your network",
            login()
        )],
        &[
            "decided by role office-only: options.source_networks",
            "127.0.0.1",
        ],
    );
}

#[test]
fn a_login_that_a_role_denies() {
    let house = HOUSE.get(furnish);
    let user = house.user_with("bob", "access,no-root-logins", &login(), &[]);
    let done = run(user.ssh(Way::Proxy, "web").arg("echo in"));
    refused(
        &user,
        done,
        &[&format!(
            "you may not log in to web as {}: your roles do not allow this login",
            login()
        )],
        &["decided by role no-root-logins: deny.logins"],
    );
}

/// A node that the user may not see looks like one that does not exist.
#[test]
fn a_node_that_is_hidden() {
    let house = HOUSE.get(furnish);
    let user = house.user_with("carol", "production-only", &login(), &[]);
    assert!(!user.msh(&["ls"]).ok().contains("web"));
    for way in WAYS {
        let done = run(user.ssh(way, "web").arg("echo in"));
        let missing = run(user.ssh(way, "nowhere").arg("echo in"));
        assert_eq!(
            without_events(&done.err()),
            without_events(&missing.err()).replace("nowhere", "web")
        );
        let denied = house.events_of("carol", "authz.denied");
        assert!(
            denied
                .iter()
                .any(|event| text(event, "resource_name") == "web"),
            "no event for {done}"
        );
        assert_eq!(done.code, 255, "{done}");
        assert!(done.err().contains("no node `web`"), "{done}");
    }
    let denied = house.events_of("carol", "authz.denied");
    let event = denied
        .iter()
        .find(|event| text(event, "resource_name") == "web");
    let explained = house.mezctl(&["explain", &text(event.unwrap(), "id")]).ok();
    assert!(explained.contains("production-only"), "{explained}");
}

/// Each refusal has its own event, whose id is the one thing that differs.
fn without_events(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("`mezctl explain ") {
        kept.push_str(before);
        rest = after.split_once('`').map_or("", |(_, rest)| rest);
    }
    kept + rest
}

#[test]
fn a_locked_user() {
    let house = HOUSE.get(furnish);
    let user = house.user("dave");
    assert_eq!(run(user.ssh(Way::Proxy, "web").arg("echo in")).ok(), "in\n");
    let locked = house.mezctl(&[
        "lock",
        "user",
        "dave",
        "--reason",
        "laptop stolen",
        "-o",
        "json",
    ]);
    let lock = text(&locked.json(), "id");
    for way in WAYS {
        let done = run(user.ssh(way, "web").arg("echo in"));
        assert!(done.stdout.is_empty(), "{done}");
        let attempts = house.events_of("dave", "auth.attempt.failed");
        let id = text(attempts.last().unwrap(), "id");
        done.fails(
            255,
            &[
                "user dave is locked: laptop stolen; ask an administrator",
                &id,
            ],
        );
        let explained = house.mezctl(&["explain", &id]).ok();
        assert!(
            explained.contains("refused before the rules were asked"),
            "{explained}"
        );
    }
    let attempts = house.events_of("dave", "auth.attempt.failed");
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert!(
        text(&attempts[0], "error_message").contains("locked"),
        "{attempts:?}"
    );
    user.log_in(&[]).fails(3, &[]);
    house.mezctl(&["unlock", &lock]).ok();
    assert_eq!(run(user.ssh(Way::Jump, "web").arg("echo in")).ok(), "in\n");
}

#[test]
fn a_locked_node() {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    house
        .mezctl(&["lock", "node", "web", "--reason", "under repair"])
        .ok();
    let done = run(user.ssh(Way::Proxy, "web").arg("echo in"));
    refused(&user, done, &["locked", "under repair"], &["locked"]);
}

/// A certificate that says what ours say, signed by somebody else.
#[test]
fn a_certificate_of_another_authority() {
    let house = HOUSE.get(furnish);
    let user = house.user("erin");
    let (authority, key) = (house.path("forger"), house.path("forged"));
    let path = |path: &std::path::Path| path.display().to_string();
    for file in [&authority, &key] {
        run(stock("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(file))
        .ok();
    }
    let public = format!("{}.pub", path(&key));
    let genuine = user.key().with_file_name("key-cert.pub");
    let said = run(stock("ssh-keygen").arg("-L").arg("-f").arg(&genuine)).ok();
    assert!(said.contains("mezite:house:erin"), "{said}");
    run(stock("ssh-keygen")
        .args([
            "-q",
            "-s",
            &path(&authority),
            "-I",
            "mezite identity user=erin cluster=house",
        ])
        .args([
            "-n",
            "mezite:house:erin",
            "-V",
            "-5m:+1h",
            "-z",
            "7",
            &public,
        ]))
    .ok();
    let before = house.events().len();
    // Straight to the gateway, with the forged certificate alone.
    let mut ssh = stock("ssh");
    ssh.args([
        "-F",
        "none",
        "-i",
        &path(&key),
        "-p",
        &house.ports.ssh.to_string(),
    ])
    .args([
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "IdentityAgent=none",
        "-o",
        "BatchMode=yes",
    ])
    .args(["-o", "StrictHostKeyChecking=yes", "-o"])
    .arg(format!(
        "UserKnownHostsFile={}",
        path(&user.key().with_file_name("known_hosts"))
    ))
    .args([&format!("{}+web@127.0.0.1", login()), "echo in"]);
    let done = run(&mut ssh);
    assert!(done.stdout.is_empty(), "{done}");
    done.fails(255, &["Permission denied"]);
    let events = house.events();
    let failed = events[before..]
        .iter()
        .find(|event| text(event, "event_type") == "auth.attempt.failed");
    let failed = failed.unwrap_or_else(|| panic!("no event for the attempt"));
    assert!(!text(failed, "error_message").is_empty(), "{failed}");
}
