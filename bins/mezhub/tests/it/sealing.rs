//! The authorities' keys at rest and in memory: what lies on the disk opens with the sealing key alone, another sealing
//! key takes over, and neither a core dump nor a log holds a key.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use data_encoding::{BASE64, HEXLOWER};
use mezite_ca::KeyKind;
use ssh_key::PrivateKey;

use crate::hostile::Hostile;
use crate::house::{House, Way, contains, program, run, stock, write};

/// The private keys of all authorities, as raw bytes and in the ways they could be written.
fn authorities(hostile: &Hostile<'_>) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for kind in KeyKind::ALL {
        let text = fs::read_to_string(hostile.authority(kind)).unwrap();
        let key = PrivateKey::from_openssh(&text).unwrap();
        let seed = key.key_data().ed25519().unwrap().private.to_bytes();
        found.push((format!("the {kind} key"), seed.to_vec()));
        found.push((
            format!("the {kind} key in hexadecimal"),
            HEXLOWER.encode(&seed).into_bytes(),
        ));
        // Whatever stands around it, these digits stay.
        found.push((
            format!("the {kind} key in base64"),
            BASE64.encode(&seed[..30]).into_bytes(),
        ));
    }
    found
}

#[track_caller]
fn in_none(files: &[std::path::PathBuf], secrets: &[(String, Vec<u8>)]) {
    for path in files {
        let content = fs::read(path).unwrap();
        for (name, secret) in secrets {
            assert!(
                !contains(&content, secret),
                "{name} is in {}",
                path.display()
            );
        }
    }
}

fn hub(house: &House) -> Command {
    let mut command = Command::new(program("mezhub"));
    command
        .arg("start")
        .arg("--config")
        .arg(house.path("mezite.yaml"));
    command.env_remove("RUST_LOG");
    command
}

/// From a key file to a passphrase, to a systemd credential, and back to a file.
#[test]
fn attack_72_a_hub_moves_from_one_sealing_key_to_another() {
    let house = House::start();
    let hostile = Hostile::new(&house);
    let secrets = authorities(&hostile);
    in_none(&house.hub_files(), &secrets);
    let config = fs::read_to_string(house.path("mezite.yaml")).unwrap();
    let place = |name: &str| house.path(name).display().to_string();
    let credentials = house.path("credentials");
    fs::create_dir(&credentials).unwrap();
    let fresh = || run(stock("openssl").args(["rand", "-hex", "32"])).ok();
    write(&house.path("passphrase"), "correct horse battery staple\n");
    write(&credentials.join("sealing"), fresh());
    write(&house.path("last.key"), fresh());
    let ways = [
        format!("key_file: {}", place("sealing.key")),
        format!("passphrase_file: {}", place("passphrase")),
        String::from("systemd_credential: sealing"),
        format!("key_file: {}", place("last.key")),
    ];
    let configured = |now: &str, before: Option<&str>| {
        let before = before.map_or_else(String::new, |way| format!("sealing_previous:\n  {way}\n"));
        let lines = config.replace(&ways[0], now);
        assert!(lines.contains(now), "{lines}");
        write(&house.path("mezite.yaml"), lines + &before);
    };
    let command = || {
        let mut command = hub(&house);
        command.env("CREDENTIALS_DIRECTORY", &credentials);
        command
    };
    for pair in ways.windows(2) {
        let (before, now) = (&pair[0], &pair[1]);
        house.stop_hub();
        let old = hostile.sealed();
        // Named alone, the new key opens nothing, and the hub says so in one line.
        configured(now, None);
        run(&mut command()).fails(1, &["sealing"]).in_one_line();
        configured(now, Some(before));
        house.start_hub_with(command());
        assert!(
            house.hub_log().contains("remove `sealing_previous`"),
            "{}",
            house.hub_log()
        );
        house.stop_hub();
        let files = house.hub_files();
        for blob in &old {
            for path in &files {
                let content = fs::read(path).unwrap();
                assert!(
                    !contains(&content, blob.as_bytes()),
                    "an old blob is in {}",
                    path.display()
                );
            }
        }
        configured(before, None);
        run(&mut command()).fails(1, &["sealing"]);
        configured(now, None);
        house.start_hub_with(command());
    }
    house.user("alice");
    in_none(&house.hub_files(), &secrets);
    let events = house.events();
    let moved = events
        .iter()
        .filter(|event| event["event_type"] == "ca.resealed");
    assert_eq!(moved.count(), 3);
}

/// SIGABRT, as a failed assertion would raise it, with core dumps wanted and everything logged.
#[test]
fn attack_73_a_dying_hub_or_node_leaves_no_core_and_no_secret_in_its_log() {
    let house = House::start();
    house.stop_hub();
    let cores = house.path("cores");
    fs::create_dir(&cores).unwrap();
    let wanting_cores = |command: &Command| {
        let mut shell = stock("sh");
        shell.args(["-c", "ulimit -c unlimited && exec \"$@\"", "sh"]);
        shell.arg(command.get_program()).args(command.get_args());
        shell.current_dir(&cores);
        shell
    };
    let dumps = |child: &mut std::process::Child| {
        run(stock("kill").args(["-ABRT", &child.id().to_string()])).ok();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(6), "{status}");
        status.core_dumped()
    };
    let mut sleep = stock("sleep");
    let mut control = wanting_cores(sleep.arg("100")).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(
        dumps(&mut control),
        "this machine writes no core dumps, so their absence shows nothing"
    );

    let mut traced = wanting_cores(&hub(&house));
    traced.env("RUST_LOG", "trace");
    house.start_hub_with(traced);
    let (token, pin) = house.token(&[]);
    house.join("web", &token, &pin, &house.path("web")).ok();
    house.start_agent("web", &[]);
    let user = house.user("alice");
    run(user.ssh(Way::Proxy, "web").arg("echo hello")).ok();
    house.session("alice", 1);
    let mut secrets = authorities(&Hostile::new(&house));
    secrets.push((String::from("the password"), user.password.into_bytes()));
    secrets.push((String::from("the token"), token.into_bytes()));
    secrets.push((String::from("a private key"), b"PRIVATE KEY".to_vec()));
    assert!(house.hub_log().contains("TRACE"), "{}", house.hub_log());
    in_none(&[house.path("hub.log")], &secrets);
    assert!(!house.with_hub(dumps), "the hub dumped core");

    let mut agent = Command::new(program("mezd"));
    agent.args(["start", "--data-dir"]).arg(house.path("web"));
    house.crash("web");
    let mut agent = wanting_cores(&agent).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!dumps(&mut agent), "the agent dumped core");
    let left: Vec<_> = fs::read_dir(&cores)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    in_none(&left, &secrets);
}
