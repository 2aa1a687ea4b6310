//! The hub under a service manager: sockets that are handed over, readiness, the watchdog, credentials.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::house::{
    House, PATIENCE, Running, Way, accepts, chmod, free_port, is_root, program, run, stock, write,
};

fn hub(house: &House) -> Command {
    let mut command = Command::new(program("mezhub"));
    command
        .arg("start")
        .arg("--config")
        .arg(house.path("mezite.yaml"))
        .env_remove("RUST_LOG");
    command
}

/// The socket on which a service manager listens for what its services say.
struct Manager(UnixDatagram);

impl Manager {
    fn of(house: &House) -> (Self, std::path::PathBuf) {
        let path = house.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        (Self(socket), path)
    }

    /// The next message within `limit`.
    fn hears(&self, limit: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 256];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn hears_nothing_for(&self, quiet: Duration) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.hears(quiet).is_none() {
                return true;
            }
        }
        false
    }
}

#[test]
fn attack_80_sockets_are_taken_over_so_that_no_right_is_needed_for_them() {
    let house = House::start_with(|directory| {
        chmod(directory, 0o755);
        String::new()
    });
    house.stop_hub();
    let ports = house.ports;
    let mut command = stock("systemd-socket-activate");
    for port in [ports.auth, ports.tunnel, ports.https, ports.ssh] {
        command.args(["-l", &format!("127.0.0.1:{port}")]);
    }
    let hub = hub(&house);
    command.arg(hub.get_program()).args(hub.get_args());
    // It starts the hub at the first connection, as systemd would.
    let knock = std::thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", ports.https)) {
                return Some(stream);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    });
    house.start_hub_with(command);
    assert!(knock.join().unwrap().is_some());
    house.agent("web");
    let user = house.user("alice");
    let said = run(user.ssh(Way::Jump, "web").arg("echo hello")).ok();
    assert_eq!(said, "hello\n");
    house.stop_hub();

    // One that the configuration does not know is a mistake, and told.
    let stray = free_port();
    let mut command = stock("systemd-socket-activate");
    command.args(["-l", &format!("127.0.0.1:{stray}")]);
    command.arg(hub.get_program()).args(hub.get_args());
    let knock = std::thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        while !accepts(stray) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    run(&mut command).fails(1, &[&stray.to_string(), "none of `listen`"]);
    knock.join().unwrap();
}

#[test]
fn the_service_manager_hears_that_the_hub_is_ready_lives_and_stops() {
    let house = House::start_with(|_| String::from("lock_staleness: 5s\n"));
    house.stop_hub();
    let (manager, path) = Manager::of(&house);
    let mut command = hub(&house);
    command
        .env("NOTIFY_SOCKET", path)
        .env("WATCHDOG_USEC", "900000");
    house.start_hub_with(command);
    let first = manager.hears(PATIENCE).unwrap();
    assert!(
        first.starts_with("READY=1\nSTATUS=hub hub of cluster house"),
        "{first}"
    );
    for _ in 0..3 {
        assert_eq!(manager.hears(PATIENCE).as_deref(), Some("WATCHDOG=1"));
    }

    // Somebody holds the database: the process runs, and serves nobody.
    let mut holder = stock("python3");
    holder.args([
        "-c",
        "import sqlite3, sys\n\
         c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)\n\
         c.execute('BEGIN IMMEDIATE')\n\
         print('held', flush=True)\n\
         sys.stdin.read()",
    ]);
    let holder = holder
        .arg(house.path("hub/mezhub.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut holder = holder.spawn().unwrap();
    let quiet = manager.hears_nothing_for(Duration::from_secs(3));
    assert!(
        quiet,
        "the watchdog is fed by a hub whose store takes nothing"
    );
    assert!(house.with_hub(|child| child.try_wait().unwrap().is_none()));
    assert!(
        house.hub_log().contains("watchdog is not fed"),
        "{}",
        house.hub_log()
    );
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert_eq!(manager.hears(PATIENCE).as_deref(), Some("WATCHDOG=1"));

    house.stop_hub();
    let last = std::iter::from_fn(|| manager.hears(Duration::from_millis(100))).last();
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}

#[test]
fn the_service_manager_hears_that_an_agent_is_ready() {
    let house = House::start();
    let (token, pin) = house.token(&[]);
    house.join("web", &token, &pin, &house.path("web")).ok();
    let (manager, path) = Manager::of(&house);
    for mode in ["builtin", "openssh"] {
        let mut agent = Command::new(program("mezd"));
        agent
            .args(["start", "--mode", mode, "--data-dir"])
            .arg(house.path("web"))
            .env("NOTIFY_SOCKET", &path);
        let _agent = Running::start(&mut agent, b"");
        let first = manager.hears(PATIENCE).unwrap();
        assert!(
            first.starts_with("READY=1\nSTATUS=node web of cluster house"),
            "{first}"
        );
    }
}

#[test]
fn a_service_manager_that_cannot_be_told_is_an_error() {
    let house = House::start();
    house.stop_hub();
    let mut command = hub(&house);
    run(command.env("NOTIFY_SOCKET", house.path("nobody"))).fails(1, &["NOTIFY_SOCKET", "nobody"]);
}

/// Newer service managers own the file themselves and let the service read it by an access list, which shows as a right
/// of the group.
#[test]
fn attack_72_a_credential_is_read_as_the_service_manager_gives_it() {
    let house = House::start();
    house.stop_hub();
    let directory = house.path("credentials");
    fs::create_dir(&directory).unwrap();
    let (key, credential) = (house.path("sealing.key"), directory.join("sealing.key"));
    write(&credential, fs::read(&key).unwrap());
    let config = fs::read_to_string(house.path("mezite.yaml")).unwrap();
    let config = config.replace(
        &format!("key_file: {}", key.display()),
        "systemd_credential: sealing.key",
    );
    write(&house.path("mezite.yaml"), config);
    for (mode, good) in [(0o400, true), (0o440, true), (0o444, false)] {
        chmod(&credential, mode);
        let mut command = hub(&house);
        command.env("CREDENTIALS_DIRECTORY", &directory);
        if good {
            house.start_hub_with(command);
            house.stop_hub();
        } else {
            run(&mut command).fails(1, &["can be read by others"]);
        }
    }
}

/// The command that the unit's comment gives, with the key of this machine.
#[test]
fn an_encrypted_credential_holds_a_sealing_key() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let encrypted = directory.path().join("sealing.cred");
    let key = run(stock("openssl").args(["rand", "-hex", "32"])).ok();
    let creds = |words: &[&str], input: &str| {
        let mut command = stock("systemd-creds");
        let mut child = command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{words:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // No secret of this machine is made for a test: the empty key stands for it.
    let path = encrypted.to_str().unwrap();
    creds(
        &[
            "--with-key=tpm2-absent",
            "--name=sealing.key",
            "encrypt",
            "-",
            path,
        ],
        &key,
    );
    let opened = creds(&["--name=sealing.key", "decrypt", path, "-"], "");
    assert_eq!(opened, key);
}
