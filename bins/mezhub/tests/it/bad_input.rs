//! What people get wrong: each mistake is one clear line and the documented exit code, and leaves nothing half-made.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::house::{
    CLUSTER, Done, House, Ports, Shared, chmod, config, free_port, is_root, program, run, stock,
    text, write,
};

static HOUSE: Shared = Shared::new();

/// A hub that is not running: its directory, its sealing key and its configuration.
struct Bare {
    directory: tempfile::TempDir,
    ports: Ports,
}

impl Bare {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("mz").tempdir().unwrap();
        let ports = Ports::free();
        let key = run(stock("openssl").args(["rand", "-hex", "32"])).ok();
        write(&directory.path().join("sealing.key"), key);
        let bare = Self { directory, ports };
        bare.configure(&config(bare.directory.path(), ports));
        bare
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn configure(&self, text: &str) {
        write(&self.path("mezite.yaml"), text);
    }

    fn text(&self) -> String {
        config(self.directory.path(), self.ports)
    }

    fn mezhub(&self, command: &str) -> Done {
        let mut mezhub = Command::new(program("mezhub"));
        mezhub
            .arg(command)
            .arg("--config")
            .arg(self.path("mezite.yaml"));
        run(&mut mezhub)
    }

    /// Runs the hub until it answers, then stops it as an operator would.
    #[track_caller]
    fn run_once(&self) {
        let mut mezhub = Command::new(program("mezhub"));
        mezhub
            .arg("start")
            .arg("--config")
            .arg(self.path("mezite.yaml"));
        let mut hub = crate::house::Running::start(&mut mezhub, b"");
        crate::house::until("the hub", || crate::house::accepts(self.ports.ssh));
        assert!(!hub.is_over());
        hub.signal("-TERM");
        let done = hub.wait(Duration::from_secs(20));
        assert_eq!(done.code, 0, "{done}");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    // Of its own: every failed login in its log is one of these.
    let house = House::start();
    let user = house.user("alice");
    let login = |name: &str, password: &str| {
        let home = tempfile::tempdir().unwrap();
        let mut msh = Command::new(program("msh"));
        msh.arg("--home")
            .arg(home.path().join("msh"))
            .args([
                "login",
                "--proxy",
                &house.https(),
                "--user",
                name,
                "--ca-pin",
                &user.pin,
            ])
            .env("HOME", home.path())
            .env("MEZITE_PASSWORD", password);
        let done = run(&mut msh)
            .fails(3, &["wrong user or password"])
            .in_one_line();
        let keys = home.path().join("msh").join(CLUSTER).join("key");
        assert!(!keys.exists(), "a key was left behind");
        done
    };
    // The fastest of each tells them apart, if anything does; a busy machine only needs more of them to show it.
    let (mut known, mut unknown) = (Duration::MAX, Duration::MAX);
    let mut tries: u64 = 0;
    let alike = loop {
        let (wrong, nobody) = (login("alice", "not it"), login("nobody", "not it"));
        assert_eq!(wrong.err(), nobody.err());
        known = known.min(wrong.took);
        unknown = unknown.min(nobody.took);
        tries += 1;
        let alike = (0.4..2.5).contains(&(known.as_secs_f64() / unknown.as_secs_f64()));
        if tries == 12 || (tries >= 3 && alike) {
            break alike;
        }
    };
    assert!(alike, "{known:?} for a known user, {unknown:?} for none");
    // The first of a burst are an event each, the rest is one with a count, at the latest when the hub stops.
    house.stop_hub();
    house.start_hub();
    let mut failed = house.events();
    failed.retain(|event| text(event, "event_type") == "user.login.failed");
    let attempts = |event: &serde_json::Value| event["attempts"].as_u64().unwrap();
    let counted: u64 = failed.iter().map(attempts).sum();
    assert_eq!(counted, 2 * tries, "{failed:?}");
    let named = |name: &str| {
        let alone = failed.iter().filter(|event| attempts(event) == 1);
        alone
            .filter(|event| text(event, "user_name") == name)
            .count()
    };
    assert!(named("alice") > 0 && named("nobody") > 0, "{failed:?}");
}

#[test]
fn a_wrong_pin_is_no_hub_of_ours() {
    let house = HOUSE.get(|_| {});
    let user = house.user("pinned");
    let wrong = format!("sha256:{}", "0".repeat(64));
    let mut msh = Command::new(program("msh"));
    msh.arg("--home")
        .arg(user.home.join("other"))
        .args([
            "login",
            "--proxy",
            &house.https(),
            "--user",
            "pinned",
            "--ca-pin",
            &wrong,
        ])
        .env("MEZITE_PASSWORD", &user.password);
    let done = run(&mut msh);
    assert!([1, 3, 4].contains(&done.code), "{done}");
    assert!(done.err().contains("pin"), "{done}");
}

#[test]
fn a_malformed_configuration_is_told_with_file_line_column_and_key() {
    let bare = Bare::new();
    let path = bare.path("mezite.yaml").display().to_string();
    for (text, words) in [
        (
            bare.text() + "lisen:\n  ssh: 127.0.0.1:1\n",
            vec!["line 16", "column 1", "lisen"],
        ),
        (
            bare.text().replace("  https: 127", "  https: nowhere127"),
            vec!["line 8", "column"],
        ),
        (bare.text() + "names: [again]\n", vec!["line 16", "names"]),
        (bare.text().replace("cluster: house\n", ""), vec!["cluster"]),
        (
            bare.text().replace("cluster: house", "cluster: [house"),
            vec!["line"],
        ),
        (
            bare.text().replace("cluster: house", "cluster: Not A Name"),
            vec!["line 1", "Not A Name"],
        ),
    ] {
        bare.configure(&text);
        for command in ["start", "check-config"] {
            let mut words = words.clone();
            words.push(&path);
            bare.mezhub(command).fails(1, &words).in_one_line();
        }
    }
    assert!(!bare.path("hub").exists(), "a data directory was made");
    bare.configure(&bare.text());
    bare.mezhub("check-config").ok();
}

#[test]
fn a_configuration_that_is_not_there() {
    let missing = "/nonexistent/mezite.yaml";
    let mut mezhub = Command::new(program("mezhub"));
    run(mezhub.args(["start", "--config", missing]))
        .fails(1, &[missing])
        .in_one_line();
}

#[test]
fn usage_errors_are_code_two() {
    for (name, words) in [
        ("mezhub", ["start", "--no-such-option"].as_slice()),
        ("mezd", &["join"]),
        ("msh", &["login", "--proxy"]),
        ("mezctl", &["no-such-command"]),
    ] {
        let done = run(Command::new(program(name)).args(words));
        assert_eq!(done.code, 2, "{done}");
    }
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_made() {
    let bare = Bare::new();
    let _occupied = TcpListener::bind(("127.0.0.1", bare.ports.ssh)).unwrap();
    let address = format!("127.0.0.1:{}", bare.ports.ssh);
    bare.mezhub("start")
        .fails(1, &[&address, "listen.ssh", "in use"])
        .in_one_line();
    assert!(!bare.path("hub").exists(), "a data directory was made");
}

#[test]
fn a_data_directory_of_a_newer_version_is_left_alone() {
    let bare = Bare::new();
    bare.run_once();
    let database = bare.path("hub/mezhub.db");
    // The schema's number is the database's `user_version`: four bytes, big-endian, at offset 60 of the file.
    let mut content = fs::read(&database).unwrap();
    assert!(content.starts_with(b"SQLite format 3\0"));
    let schema = u32::from_be_bytes(content[60..64].try_into().unwrap());
    assert!((1..1000).contains(&schema), "{schema}");
    content[60..64].copy_from_slice(&(schema + 1000).to_be_bytes());
    fs::write(&database, &content).unwrap();
    let done = bare.mezhub("start");
    let found = (schema + 1000).to_string();
    done.fails(1, &["schema", &found, "newer"]).in_one_line();
    assert!(
        fs::read(&database).unwrap() == content,
        "the database was changed"
    );
}

#[test]
fn a_database_of_another_cluster() {
    let bare = Bare::new();
    bare.run_once();
    bare.configure(&bare.text().replace("cluster: house", "cluster: barn"));
    bare.mezhub("start")
        .fails(1, &["`house`", "`barn`"])
        .in_one_line();
}

#[test]
fn a_data_directory_that_is_not_writable() {
    let bare = Bare::new();
    let (locked, data) = (bare.path("locked"), bare.path("locked/hub"));
    fs::create_dir(&locked).unwrap();
    let name = bare.path("hub").display().to_string();
    bare.configure(&bare.text().replace(&name, data.to_str().unwrap()));
    let mut mezhub = if is_root() {
        // Root writes everywhere: become somebody who does not.
        chmod(bare.directory.path(), 0o755);
        for name in ["mezite.yaml", "sealing.key"] {
            run(stock("chown").arg("65534:65534").arg(bare.path(name))).ok();
        }
        let copy = bare.path("mezhub");
        fs::copy(program("mezhub"), &copy).unwrap();
        chmod(&copy, 0o755);
        let mut command = stock("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(copy);
        command
    } else {
        chmod(&locked, 0o500);
        Command::new(program("mezhub"))
    };
    let config = bare.path("mezite.yaml");
    let done = run(mezhub.arg("start").arg("--config").arg(config));
    done.fails(1, &["data directory", data.to_str().unwrap(), "ermi"])
        .in_one_line();
    assert_eq!(fs::read_dir(&locked).unwrap().count(), 0);
}

#[test]
fn a_sealing_key_that_is_missing_wrong_or_open_to_others() {
    let bare = Bare::new();
    bare.run_once();
    let (key, away) = (bare.path("sealing.key"), bare.path("away"));
    let name = key.display().to_string();

    fs::rename(&key, &away).unwrap();
    bare.mezhub("start")
        .fails(1, &["sealing key", &name])
        .in_one_line();
    let other = run(stock("openssl").args(["rand", "-hex", "32"])).ok();
    write(&key, other);
    bare.mezhub("start")
        .fails(1, &["cannot be opened", "sealing key"])
        .in_one_line();
    write(&key, "not hexadecimal at all\n");
    bare.mezhub("start")
        .fails(1, &["sealing key", &name])
        .in_one_line();
    fs::copy(&away, &key).unwrap();
    chmod(&key, 0o644);
    bare.mezhub("start")
        .fails(1, &["chmod 600", &name])
        .in_one_line();
    chmod(&key, 0o600);
    bare.run_once();

    let inside = bare.path("hub/sealing.key");
    fs::rename(&key, &inside).unwrap();
    bare.configure(&bare.text().replace(&name, inside.to_str().unwrap()));
    bare.mezhub("start")
        .fails(1, &["data directory", "elsewhere"])
        .in_one_line();
}

#[test]
fn a_second_hub_on_the_same_directory() {
    let house = HOUSE.get(|_| {});
    let mine = house.path("second.yaml");
    write(&mine, config(mine.parent().unwrap(), Ports::free()));
    let mut mezhub = Command::new(program("mezhub"));
    run(mezhub.arg("start").arg("--config").arg(&mine))
        .fails(1, &["another hub"])
        .in_one_line();
}

/// The node that could not join has left nothing behind.
#[track_caller]
fn nothing_in(directory: &Path) {
    assert!(!directory.join("node.json").exists());
    let keys = fs::read_dir(directory).map_or(0, |entries| {
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|ending| ending == "key"))
            .count()
    });
    assert_eq!(keys, 0, "keys were left behind");
}

#[test]
fn a_token_is_good_once_for_its_time_and_for_its_name() {
    let house = HOUSE.get(|_| {});
    let place = house.path("joining");

    let (token, pin) = house.token(&[]);
    house.join("first", &token, &pin, &house.path("first")).ok();
    house
        .join("second", &token, &pin, &place)
        .fails(3, &["already used", "mezctl tokens add"])
        .in_one_line();
    nothing_in(&place);

    let (token, pin) = house.token(&["--ttl", "1s"]);
    std::thread::sleep(Duration::from_millis(1_500));
    house
        .join("third", &token, &pin, &place)
        .fails(3, &["expired", "mezctl tokens add"])
        .in_one_line();
    nothing_in(&place);

    let (token, pin) = house.token(&[]);
    house
        .join("first", &token, &pin, &place)
        .fails(3, &["`first` is taken"])
        .in_one_line();
    nothing_in(&place);

    let (named, pin) = house.token(&["--node-name", "fourth"]);
    house
        .join("fifth", &named, &pin, &place)
        .fails(3, &["another node"])
        .in_one_line();
    nothing_in(&place);

    house
        .join("sixth", "no-such-token", &pin, &place)
        .fails(3, &["not known"])
        .in_one_line();
    nothing_in(&place);

    // A token that was refused for its name is not used up.
    house.join("fourth", &named, &pin, &place).ok();
    let failed = house.events();
    let failed = failed
        .iter()
        .filter(|event| text(event, "event_type") == "node.join.failed");
    assert!(failed.count() >= 4);
}

#[test]
fn a_hub_that_cannot_be_reached_is_named_within_seconds() {
    let address = format!("127.0.0.1:{}", free_port());
    let home = tempfile::tempdir().unwrap();
    let pin = format!("sha256:{}", "0".repeat(64));
    let mut msh = Command::new(program("msh"));
    msh.arg("--home")
        .arg(home.path())
        .args([
            "login", "--proxy", &address, "--user", "alice", "--ca-pin", &pin,
        ])
        .env("MEZITE_PASSWORD", "x");
    let mut mezd = Command::new(program("mezd"));
    mezd.args(["join", "--hub", &address, "--token", "x", "--ca-pin", &pin])
        .args(["--name", "web", "--data-dir"])
        .arg(home.path().join("node"));
    let mut mezctl = Command::new(program("mezctl"));
    let socket = home.path().join("mezctl.sock").display().to_string();
    mezctl.args(["--socket", &socket, "status"]);
    for (mut command, place) in [(msh, &address), (mezd, &address), (mezctl, &socket)] {
        let done = run(&mut command).fails(4, &[place]).in_one_line();
        assert!(done.took < Duration::from_secs(10), "{done}");
    }
    nothing_in(&home.path().join("node"));
}

/// Somebody listens there who never answers.
#[test]
fn a_hub_that_does_not_answer_is_given_up_within_seconds() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let home = tempfile::tempdir().unwrap();
    let pin = format!("sha256:{}", "0".repeat(64));
    let mut msh = Command::new(program("msh"));
    msh.arg("--home")
        .arg(home.path())
        .args([
            "login", "--proxy", &address, "--user", "alice", "--ca-pin", &pin,
        ])
        .env("MEZITE_PASSWORD", "x");
    let done = run(&mut msh).fails(4, &[&address]).in_one_line();
    assert!(done.took < Duration::from_secs(20), "{done}");
}

#[test]
fn a_hub_that_has_gone_is_unavailable_to_those_who_logged_in() {
    let house = House::start();
    house.agent("web");
    let user = house.user("alice");
    house.crash_hub();
    user.msh(&["ls"]).fails(4, &[&house.https()]).in_one_line();
    let done = run(user.ssh(crate::house::Way::Proxy, "web").arg("echo in"));
    done.fails(255, &[&house.https()]);
}
