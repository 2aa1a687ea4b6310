//! A full disk, end to end, on a small file system of its own.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::forward::role;
use crate::house::{House, PATIENCE, Running, User, Way, is_root, login, run, stock, text, until};

/// Set in the process that has a file system of its own.
const INSIDE: &str = "MEZITE_TEST_INSIDE";

#[test]
fn attack_32_a_full_disk_stops_sessions_but_not_the_administrator() {
    with_mounts(
        "attack_32_a_full_disk_stops_sessions_but_not_the_administrator",
        on_a_small_disk,
    );
}

#[test]
fn attack_48_a_full_disk_of_recordings_ends_a_session_or_holds_it_as_its_role_says() {
    with_mounts(
        "attack_48_a_full_disk_of_recordings_ends_a_session_or_holds_it_as_its_role_says",
        with_recordings_on_a_small_disk,
    );
}

/// Runs the inside of the test `name` in a mount namespace of its own, which goes with the process.
fn with_mounts(name: &str, inside: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let mut command = stock("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("full_disk::{name}")])
        .arg("--nocapture")
        .env(INSIDE, "1");
    let done = Running::start(&mut command, b"").wait(4 * PATIENCE);
    assert_eq!(done.code, 0, "{done}");
}

fn mount(directory: &Path, options: &str) {
    fs::create_dir(directory).unwrap();
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(directory))
    .ok();
}

fn on_a_small_disk() {
    let house = House::start_with(|directory| {
        mount(&directory.join("hub"), "size=48m,mode=700");
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
    let done = session.wait(PATIENCE);
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

/// Numbered lines that fill a page of the disk soon.
const LINES: &str =
    "i=0; while [ ! -e \"$0\" ]; do i=$((i+1)); printf 'line %d %0500d\\n' $i 0; sleep 0.05; done";

fn with_recordings_on_a_small_disk() {
    let house = House::start_with(|directory| {
        let recordings = directory.join("recordings");
        mount(&recordings, "size=1m,mode=700");
        format!("recordings: {{ directory: {} }}\n", recordings.display())
    });
    house.agent("web");
    role(&house, "patient", "record: { on_failure: suspend }");
    let alice = house.user_with("alice", "patient", &login(), &[]);
    let bob = house.user("bob");
    let stop = house.path("stop");
    let start = |user: &User<'_>| {
        let mut ssh = user.ssh(Way::Proxy, "web");
        let command = LINES.replace("$0", stop.to_str().unwrap());
        let mut session = Running::start(ssh.arg(command), b"");
        session.until("line 3 ");
        session
    };
    let (patient, hasty) = (start(&alice), start(&bob));

    let ballast = house.path("recordings/ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 512]).is_ok() {}
    let ended = hasty.wait(PATIENCE);
    assert_eq!(ended.code, 255, "{ended}");
    assert!(ended.err().contains("could not be recorded"), "{ended}");
    let told =
        |session: &Running, words: &str| String::from_utf8_lossy(&session.stderr()).contains(words);
    until("the word that the session waits", || {
        told(&patient, "the session waits, because it cannot be recorded")
    });
    // Nothing is shown while nothing can be recorded; what the other gave back is taken, too.
    let then = (0..20)
        .find_map(|_| {
            while file.write_all(&[1; 512]).is_ok() {}
            let then = patient.stdout();
            std::thread::sleep(Duration::from_millis(1500));
            (patient.stdout() == then).then_some(then)
        })
        .unwrap();

    drop(file);
    fs::remove_file(&ballast).unwrap();
    until("more of the session", || {
        patient.stdout().len() > then.len() + 5000
    });
    fs::write(&stop, "").unwrap();
    let shown = patient.wait(PATIENCE).ok();
    let session = house.session("alice", 1);
    let actions: Vec<String> = session
        .events
        .iter()
        .filter(|event| text(event, "event_type") == "session.recording.failed")
        .map(|event| text(event, "action"))
        .collect();
    assert!(actions.len().is_multiple_of(2), "{actions:?}");
    for pair in actions.chunks(2) {
        assert_eq!(pair, ["suspended", "resumed"]);
    }
    // No line is lost, and none is there twice.
    let numbers = shown.lines().map(|line| line.split(' ').nth(1).unwrap());
    let numbers: Vec<usize> = numbers.map(|number| number.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len()), "{numbers:?}");
    let [recorded, _] = house.recorded(&session.id);
    assert_eq!(String::from_utf8(recorded).unwrap(), shown);
    house.mezctl(&["recordings", "verify", &session.id]).ok();
    // The other's recording ends with what could be written, and says so.
    let hasty = house.session("bob", 1);
    let failed = hasty.event("session.recording.failed");
    assert_eq!(text(failed, "action"), "terminated");
    assert!(
        text(failed, "error_message").contains("No space left"),
        "{failed}"
    );
    house.mezctl(&["audit", "verify"]).ok();
}
