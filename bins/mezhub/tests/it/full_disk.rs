//! A full disk, end to end, on a small file system of its own.

use std::fs;
use std::io::Write;
use std::process::Command;

use crate::house::{House, Running, Way, is_root, run, stock, text, until};

/// Set in the process that has a file system of its own.
const INSIDE: &str = "MEZITE_TEST_INSIDE";

#[test]
fn attack_32_a_full_disk_stops_sessions_but_not_the_administrator() {
    if std::env::var_os(INSIDE).is_some() {
        return on_a_small_disk();
    }
    // In a mount namespace of its own, which goes with the process.
    let mut command = stock("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "full_disk::attack_32_a_full_disk_stops_sessions_but_not_the_administrator",
        ])
        .arg("--nocapture")
        .env(INSIDE, "1");
    let done = Running::start(&mut command, b"").wait(4 * crate::house::PATIENCE);
    assert_eq!(done.code, 0, "{done}");
}

fn on_a_small_disk() {
    let house = House::start_with(|directory| {
        let data = directory.join("hub");
        fs::create_dir(&data).unwrap();
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=48m,mode=700", "tmpfs"])
            .arg(&data))
        .ok();
        String::from("disk: { reserve: 8MiB, warn_below: 24MiB }\n")
    });
    house.agent("web");
    let (alice, ada) = (
        house.user("alice"),
        house.user_with("ada", "admin", "nobody", &[]),
    );
    let mut session = Running::start(
        alice
            .ssh(Way::Proxy, "web")
            .arg("while :; do echo tick; sleep 0.05; done"),
        b"",
    );
    session.until("tick");
    let told = |event_type: &str| {
        let events = house
            .mezctl(&["audit", "ls", "--type", event_type, "-o", "json"])
            .json();
        events.as_array().unwrap().len()
    };

    let mut ballast = fs::File::create(house.path("hub/ballast")).unwrap();
    ballast.write_all(&vec![1; 18 << 20]).unwrap();
    until("the warning", || told("disk.low") == 1);
    assert!(!session.is_over(), "a warning stops nobody");

    while ballast.write_all(&[1; 4096]).is_ok() {}
    let done = session.wait(crate::house::PATIENCE);
    assert_eq!(done.code, 255, "{done}");
    assert!(done.err().contains("disk is full"), "{done}");
    until("the alarm", || told("disk.full") == 1);
    let status = house.mezctl(&["status", "-o", "json"]).json();
    assert_eq!(status["disk_full"], true, "{status}");
    run(alice.ssh(Way::Jump, "web").arg("true")).fails(255, &["disk is full"]);
    alice.log_in(&[]).fails(4, &["disk is full"]);
    ada.log_in(&[]).ok();
    house
        .mezctl(&["lock", "user", "alice", "--reason", "also now"])
        .ok();
    // A hub that is killed now starts again.
    house.crash_hub();
    house.start_hub();
    house.mezctl(&["status"]).ok();

    drop(ballast);
    fs::remove_file(house.path("hub/ballast")).unwrap();
    until("room", || told("disk.recovered") >= 1);
    until("the node", || house.is_online("web"));
    let bob = house.user("bob");
    assert_eq!(
        run(bob.ssh(Way::Proxy, "web").arg("echo again")).ok(),
        "again\n"
    );
    let ended = house.session("alice", 1);
    assert!(text(ended.event("session.end"), "reason").contains("disk is full"));
    house.mezctl(&["recordings", "verify", &ended.id]).ok();
    house.mezctl(&["audit", "verify"]).ok();
}
