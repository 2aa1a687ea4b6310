//! A whole house on free loopback ports: hub, nodes, users, each a process of its own as operators run them, in one
//! directory that goes with it. What the programs take and print is known here and in no other module.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use data_encoding::{BASE64, HEXLOWER};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

pub(crate) const CLUSTER: &str = "house";

/// The most that one step may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program of that name which belongs to this test; the workspace puts them side by side. With `MEZITE_PROGRAMS`, that of a
/// release.
pub(crate) fn program(name: &str) -> PathBuf {
    let directory = std::env::current_exe().unwrap();
    let directory = directory.parent().and_then(Path::parent).unwrap();
    let released = std::env::var_os("MEZITE_PROGRAMS").map(PathBuf::from);
    let path = released.as_deref().unwrap_or(directory).join(name);
    assert!(
        path.exists(),
        "`{}` is missing: run `cargo xtask test`, or `cargo build --workspace --bins` first",
        path.display()
    );
    path
}

/// A program of the system, which `cargo xtask test` installs.
pub(crate) fn stock(name: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let servers = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(servers)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file());
    let found = found.unwrap_or_else(|| {
        panic!(
            "the program `{name}` is missing: run `cargo xtask test`, which installs it or says how"
        )
    });
    Command::new(found)
}

/// A program in a version of the tests' own, which `cargo xtask test` installs below the target directory.
pub(crate) fn tool(name: &str, program: &str) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut places = exe.ancestors();
    let found = places.find_map(|place| {
        let program = place.join(format!("tools/{name}/bin/{program}"));
        program.is_file().then_some(program)
    });
    Command::new(found.unwrap_or_else(|| {
        panic!("the tool `{name}` is missing: run `cargo xtask test`, which installs it")
    }))
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    shown: String,
    pub(crate) took: Duration,
}

impl Done {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Its output; it must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.out()
    }

    /// Its output as JSON; it must have succeeded.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
    }

    /// It must have failed with this code and one line on standard error that holds all of `words`.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self}");
        let said = self.err();
        for word in words {
            assert!(said.contains(word), "no `{word}` in: {self}");
        }
        self
    }

    /// Standard error is one line.
    #[track_caller]
    pub(crate) fn in_one_line(self) -> Self {
        assert_eq!(self.err().trim_end().lines().count(), 1, "{self}");
        self
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\nended with {} after {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.shown,
            self.code,
            self.took,
            self.out(),
            self.err()
        )
    }
}

/// Runs a program to its end, within [`PATIENCE`].
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Done {
    run_with(command, b"")
}

/// Runs a program to its end with `input` on its standard input.
#[track_caller]
pub(crate) fn run_with(command: &mut Command, input: &[u8]) -> Done {
    Running::start(command, input).wait(PATIENCE)
}

/// A program that runs beside the test; killed when dropped.
pub(crate) struct Running {
    child: Child,
    shown: String,
    started: Instant,
    stdout: Collected,
    stderr: Collected,
}

/// What a program wrote so far.
#[derive(Clone)]
struct Collected(Arc<(Mutex<Vec<u8>>, Mutex<bool>)>);

impl Collected {
    fn from(mut source: impl Read + Send + 'static) -> Self {
        let collected = Self(Arc::default());
        let target = collected.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count) = source.read(&mut buffer) {
                if count == 0 {
                    break;
                }
                lock(&target.0.0).extend_from_slice(&buffer[..count]);
            }
            *lock(&target.0.1) = true;
        });
        collected
    }

    fn so_far(&self) -> Vec<u8> {
        lock(&self.0.0).clone()
    }

    fn is_whole(&self) -> bool {
        *lock(&self.0.1)
    }
}

impl Running {
    #[track_caller]
    pub(crate) fn start(command: &mut Command, input: &[u8]) -> Self {
        let (mut running, stdin) = Self::interactive(command);
        let input = input.to_vec();
        std::thread::spawn(move || {
            let mut stdin = stdin;
            // A program need not read what it was given.
            drop(stdin.write_all(&input));
        });
        running.started = Instant::now();
        running
    }

    /// Started with a standard input that stays open.
    #[track_caller]
    pub(crate) fn interactive(command: &mut Command) -> (Self, std::process::ChildStdin) {
        let shown = shown(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let stdout = Collected::from(child.stdout.take().unwrap());
        let stderr = Collected::from(child.stderr.take().unwrap());
        let stdin = child.stdin.take().unwrap();
        let started = Instant::now();
        (
            Self {
                child,
                shown,
                started,
                stdout,
                stderr,
            },
            stdin,
        )
    }

    pub(crate) fn stdout(&self) -> Vec<u8> {
        self.stdout.so_far()
    }

    pub(crate) fn stderr(&self) -> Vec<u8> {
        self.stderr.so_far()
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn signal(&self, signal: &str) {
        run(stock("kill").args([signal, &self.child.id().to_string()])).ok();
    }

    /// Waits until it has written `text` to its standard output.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !String::from_utf8_lossy(&self.stdout()).contains(text) {
            assert!(
                !self.is_over() && Instant::now() < deadline,
                "{} did not write `{text}`, but:\n{}\n--- stderr\n{}",
                self.shown,
                String::from_utf8_lossy(&self.stdout()),
                String::from_utf8_lossy(&self.stderr.so_far())
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its end, which must come in time.
    #[track_caller]
    pub(crate) fn wait(mut self, limit: Duration) -> Done {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break Some(status);
            }
            if Instant::now() > deadline {
                break None;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = self.started.elapsed();
        // Something it left behind may hold its output open; that is not waited for.
        let patience = Instant::now() + Duration::from_secs(2);
        while status.is_some()
            && !(self.stdout.is_whole() && self.stderr.is_whole())
            && Instant::now() < patience
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        let code = status.map_or(-1, |status| {
            status
                .code()
                .or_else(|| status.signal().map(|signal| 128 + signal))
                .unwrap_or(-1)
        });
        let done = Done {
            code,
            stdout: self.stdout.so_far(),
            stderr: self.stderr.so_far(),
            shown: self.shown.clone(),
            took,
        };
        assert!(status.is_some(), "did not end within {limit:?}: {done}");
        done
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be over already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// A server with its log; killed when dropped.
pub(crate) struct Server {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Server {
    #[track_caller]
    pub(crate) fn start(name: &str, command: &mut Command, log: PathBuf) -> Self {
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", shown(command)));
        Self {
            child,
            name: name.to_owned(),
            log,
        }
    }

    /// Waits until `ready`, and fails at once when the server ends before.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, ready: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !ready() {
            let over = self.child.try_wait().unwrap();
            assert!(
                over.is_none() && Instant::now() < deadline,
                "{}: {what} did not come (ended: {over:?}); its log:\n{}",
                self.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL, as a crash would be.
    pub(crate) fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be over already.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.name, self.log());
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `ready`.
#[track_caller]
pub(crate) fn until(what: &str, ready: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A loopback port that nobody listens on: below the range that the system hands out by itself, each given once.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 1000).unwrap() * 10;
    loop {
        let port = 15_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 15_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn accepts(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// The Unix user that runs the tests: the only login a node serves without root.
pub(crate) fn login() -> String {
    run(stock("id").arg("-un")).ok().trim().to_owned()
}

/// Writes a file that is its owner's alone.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(content.as_ref()).unwrap();
}

/// Bytes that do not compress and differ by `seed`.
pub(crate) fn noise(seed: &str, length: usize) -> Vec<u8> {
    let blocks = (0_u64..).flat_map(|count| {
        let mut hash = Sha256::new();
        hash.update(seed);
        hash.update(count.to_le_bytes());
        hash.finalize().to_vec()
    });
    blocks.take(length).collect()
}

/// A field of an event or document, as text.
pub(crate) fn text(value: &Value, field: &str) -> String {
    let value = &value[field];
    if value.is_null() {
        return String::new();
    }
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Where a hub listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) https: u16,
    pub(crate) ssh: u16,
    pub(crate) tunnel: u16,
    pub(crate) auth: u16,
}

impl Ports {
    pub(crate) fn free() -> Self {
        Self {
            https: free_port(),
            ssh: free_port(),
            tunnel: free_port(),
            auth: free_port(),
        }
    }
}

/// A `mezite.yaml` for these ports with everything in `directory`.
pub(crate) fn config(directory: &Path, ports: Ports) -> String {
    let Ports {
        https,
        ssh,
        tunnel,
        auth,
    } = ports;
    format!(
        "cluster: {CLUSTER}\nhub: hub\nnames: [localhost, 127.0.0.1]\ndata_dir: {0}/hub\nsealing:\n  key_file: {0}/sealing.key\n\
         listen:\n  https: 127.0.0.1:{https}\n  ssh: 127.0.0.1:{ssh}\n  tunnel: 127.0.0.1:{tunnel}\n  auth: 127.0.0.1:{auth}\n\
         advertise:\n  https: 127.0.0.1:{https}\n  ssh: 127.0.0.1:{ssh}\n  tunnel: 127.0.0.1:{tunnel}\n",
        directory.display()
    )
}

/// A house that the tests of a module share while any of them runs.
pub(crate) struct Shared(Mutex<Weak<House>>);

impl Shared {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The house; started with `furnish` if nobody uses one.
    pub(crate) fn get(&self, furnish: impl FnOnce(&House)) -> Arc<House> {
        let mut slot = lock(&self.0);
        if let Some(house) = slot.upgrade() {
            return house;
        }
        let house = Arc::new(House::start());
        furnish(&house);
        *slot = Arc::downgrade(&house);
        house
    }
}

/// A hub and what belongs to it.
pub(crate) struct House {
    // Fields are dropped in this order: agents before the hub, the directory last.
    servers: Mutex<Vec<Server>>,
    hub: Mutex<Option<Server>>,
    pub(crate) ports: Ports,
    directory: TempDir,
}

impl House {
    /// A new cluster with a running hub.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// The same, with more lines in its configuration for its directory.
    pub(crate) fn start_with(lines: impl FnOnce(&Path) -> String) -> Self {
        let directory = tempfile::Builder::new().prefix("mz").tempdir().unwrap();
        let ports = Ports::free();
        let house = Self {
            servers: Mutex::default(),
            hub: Mutex::default(),
            ports,
            directory,
        };
        let key = run(stock("openssl").args(["rand", "-hex", "32"])).ok();
        write(&house.path("sealing.key"), key);
        write(
            &house.path("mezite.yaml"),
            config(house.directory.path(), ports) + &lines(house.directory.path()),
        );
        house.start_hub();
        house
    }

    /// One more hub of the cluster, named `second`, with a directory of its own and the same lines in its configuration.
    pub(crate) fn beside(&self, lines: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("mz").tempdir().unwrap();
        let ports = Ports::free();
        let house = Self {
            servers: Mutex::default(),
            hub: Mutex::default(),
            ports,
            directory,
        };
        fs::copy(self.path("sealing.key"), house.path("sealing.key")).unwrap();
        let config = config(house.directory.path(), ports).replace("hub: hub\n", "hub: second\n");
        write(&house.path("mezite.yaml"), config + lines);
        house.start_hub();
        house
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn start_hub(&self) {
        let mut command = Command::new(program("mezhub"));
        command
            .arg("start")
            .arg("--config")
            .arg(self.path("mezite.yaml"))
            .env_remove("RUST_LOG");
        self.start_hub_with(command);
    }

    /// The hub by a command of the test's own.
    pub(crate) fn start_hub_with(&self, mut command: Command) {
        let mut hub = Server::start("the hub", &mut command, self.path("hub.log"));
        let started = self.hub_log().matches(" ready").count();
        hub.until("ready", || {
            self.hub_log().matches(" ready").count() > started || self.status().code == 0
        });
        *lock(&self.hub) = Some(hub);
    }

    fn status(&self) -> Done {
        self.mezctl(&["status"])
    }

    /// What `act` does to the hub's process.
    pub(crate) fn with_hub<T>(&self, act: impl FnOnce(&mut Child) -> T) -> T {
        act(&mut lock(&self.hub).as_mut().unwrap().child)
    }

    /// `mezhub WORDS --config …`, beside the hub that may run.
    #[track_caller]
    pub(crate) fn mezhub(&self, words: &[&str]) -> Done {
        let mut command = Command::new(program("mezhub"));
        run(command
            .args(words)
            .arg("--config")
            .arg(self.path("mezite.yaml")))
    }

    /// kill -9.
    pub(crate) fn crash_hub(&self) {
        lock(&self.hub).take().unwrap().crash();
    }

    /// As an operator stops it.
    #[track_caller]
    pub(crate) fn stop_hub(&self) {
        let mut hub = lock(&self.hub).take().unwrap();
        let process = hub.child.id().to_string();
        run(stock("kill").args(["-TERM", &process])).ok();
        let deadline = Instant::now() + PATIENCE;
        while hub.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the hub did not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn hub_log(&self) -> String {
        fs::read_to_string(self.path("hub.log")).unwrap_or_default()
    }

    /// As an administrator on the hub's own machine.
    #[track_caller]
    pub(crate) fn mezctl(&self, words: &[&str]) -> Done {
        let mut command = Command::new(program("mezctl"));
        command.arg("--socket").arg(self.path("hub/mezctl.sock"));
        run(command.args(words).env("HOME", self.path("nowhere")))
    }

    /// What a command that does not end by itself has written to its standard output after some seconds.
    #[track_caller]
    pub(crate) fn mezctl_for(&self, seconds: u32, words: &[&str]) -> String {
        let mut command = stock("timeout");
        command
            .arg(seconds.to_string())
            .arg(program("mezctl"))
            .arg("--socket")
            .arg(self.path("hub/mezctl.sock"));
        run(command.args(words).env("HOME", self.path("nowhere"))).out()
    }

    pub(crate) fn https(&self) -> String {
        format!("127.0.0.1:{}", self.ports.https)
    }

    /// A token and the pin that goes with it.
    #[track_caller]
    pub(crate) fn token(&self, words: &[&str]) -> (String, String) {
        let made = self
            .mezctl(&[&["tokens", "add", "-o", "json"], words].concat())
            .json();
        (text(&made, "token"), text(&made, "ca_pin"))
    }

    /// `mezd join` into `directory`.
    #[track_caller]
    pub(crate) fn join(&self, name: &str, token: &str, pin: &str, directory: &Path) -> Done {
        let mut command = Command::new(program("mezd"));
        command
            .args(["join", "--hub", &self.https(), "--token", token])
            .args(["--ca-pin", pin, "--name", name, "--data-dir"])
            .arg(directory);
        run(&mut command)
    }

    /// A node with the agent as its SSH server, online.
    #[track_caller]
    pub(crate) fn agent(&self, name: &str) {
        let (token, pin) = self.token(&[]);
        self.join(name, &token, &pin, &self.path(name)).ok();
        self.start_agent(name, &[]);
    }

    /// Starts the agent of a node that has joined.
    #[track_caller]
    pub(crate) fn start_agent(&self, name: &str, words: &[&str]) {
        let mut command = Command::new(program("mezd"));
        command
            .args(["start", "--data-dir"])
            .arg(self.path(name))
            .args(words)
            .env_remove("RUST_LOG");
        let log = self.path(&format!("{name}.log"));
        let mut server = Server::start(name, &mut command, log);
        server.until("its connection to the hub", || self.is_online(name));
        lock(&self.servers).push(server);
    }

    pub(crate) fn is_online(&self, name: &str) -> bool {
        let found = self.mezctl(&["get", "node", name, "-o", "json"]);
        found.code == 0
            && serde_json::from_str::<Value>(&found.out())
                .is_ok_and(|node| node.pointer("/status/online") == Some(&Value::Bool(true)))
    }

    /// kill -9 for an agent or an sshd.
    pub(crate) fn crash(&self, name: &str) {
        let mut servers = lock(&self.servers);
        let index = servers.iter().position(|server| server.name == name);
        servers.remove(index.unwrap()).crash();
    }

    /// A node with the agent, which carries sessions to a stock sshd beside it; gives the port of that sshd.
    #[track_caller]
    pub(crate) fn agent_before_sshd(&self, name: &str) -> u16 {
        let (token, pin) = self.token(&[]);
        let home = self.path(name);
        self.join(name, &token, &pin, &home).ok();
        let port = free_port();
        let sshd = format!("127.0.0.1:{port}");
        self.start_agent(name, &["--mode", "openssh", "--sshd", &sshd]);
        // The one line that the agent asks for.
        let include = home.join("sshd/mezite.conf").display().to_string();
        let log = fs::read_to_string(self.path(&format!("{name}.log"))).unwrap();
        assert!(log.contains(&format!("Include {include}")), "{log}");
        let directory = self.path(&format!("{name}.sshd"));
        fs::create_dir(&directory).unwrap();
        let lines = fs::read_to_string(include).unwrap();
        write(
            &directory.join("sshd_config"),
            without_root(&lines) + UNPRIVILEGED,
        );
        self.start_sshd(name, port);
        port
    }

    /// A node without an agent; gives the port of its sshd.
    #[track_caller]
    pub(crate) fn agentless(&self, name: &str) -> u16 {
        let port = free_port();
        self.register_sshd(name, port);
        self.start_sshd(name, port);
        port
    }

    /// Sets an sshd up as an operator does who types what `nodes add --openssh` prints.
    #[track_caller]
    pub(crate) fn register_sshd(&self, name: &str, port: u16) {
        let address = format!("127.0.0.1:{port}");
        let added = self
            .mezctl(&["nodes", "add", name, "--openssh", &address, "-o", "json"])
            .json();
        self.set_up_sshd(
            name,
            &text(&added, "sshd_lines"),
            &text(&added, "user_ca"),
            &[],
        );
    }

    /// Writes the printed lines, and has the host key signed with `words` more.
    #[track_caller]
    pub(crate) fn set_up_sshd(&self, name: &str, lines: &str, user_ca: &str, words: &[&str]) {
        let sshd = self.sshd_directory(name, lines, user_ca);
        let key = sshd.join("host");
        run(stock("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key))
        .ok();
        let (public, certificate) = (sshd.join("host.pub"), sshd.join("host-cert.pub"));
        let (public, certificate) = (public.to_str().unwrap(), certificate.to_str().unwrap());
        let sign = [
            "ca",
            "sign-host",
            name,
            "--public-key",
            public,
            "--out",
            certificate,
        ];
        self.mezctl(&[&sign, words].concat()).ok();
    }

    /// The printed lines with paths of the test; everything else in the file is what makes an sshd run without root.
    fn sshd_directory(&self, name: &str, lines: &str, user_ca: &str) -> PathBuf {
        let directory = self.path(&format!("{name}.sshd"));
        fs::create_dir(&directory).unwrap();
        let at = |file: &str| directory.join(file).display().to_string();
        for line in [
            "TrustedUserCAKeys /etc/ssh/mezite_user_ca.pub",
            "HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub",
        ] {
            assert!(lines.contains(line), "no `{line}` in:\n{lines}");
        }
        let mut lines = lines
            .replace("/etc/ssh/mezite_user_ca.pub", &at("user_ca.pub"))
            .replace(
                "/etc/ssh/ssh_host_ed25519_key-cert.pub",
                &at("host-cert.pub"),
            );
        lines = without_root(&lines) + UNPRIVILEGED + &format!("HostKey {}\n", at("host"));
        write(&directory.join("user_ca.pub"), user_ca);
        write(&directory.join("sshd_config"), lines);
        directory
    }

    #[track_caller]
    pub(crate) fn start_sshd(&self, name: &str, port: u16) {
        if is_root() {
            // Where the packages' service would make it.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let directory = self.path(&format!("{name}.sshd"));
        let mut command = stock("sshd");
        command
            .args([
                "-D",
                "-e",
                "-p",
                &port.to_string(),
                "-o",
                "ListenAddress=127.0.0.1",
                "-f",
            ])
            .arg(directory.join("sshd_config"));
        let log = self.path(&format!("{name}.sshd.log"));
        let mut server = Server::start(&format!("{name}.sshd"), &mut command, log);
        server.until("its port", || accepts(port));
        lock(&self.servers).push(server);
    }

    pub(crate) fn sshd_log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.sshd.log"))).unwrap_or_default()
    }

    /// A user with the built-in role `access` and the Unix user's login, logged in.
    #[track_caller]
    pub(crate) fn user(&self, name: &str) -> User<'_> {
        self.user_with(name, "access", &login(), &[])
    }

    /// A user, logged in.
    #[track_caller]
    pub(crate) fn user_with(
        &self,
        name: &str,
        roles: &str,
        logins: &str,
        words: &[&str],
    ) -> User<'_> {
        let added = self.mezctl(&[
            "users", "add", name, "--roles", roles, "--logins", logins, "-o", "json",
        ]);
        let added = added.json();
        let user = self.known_user(name, text(&added, "password"), text(&added, "ca_pin"));
        user.log_in(words).ok();
        user
    }

    /// A user whom somebody else made.
    #[track_caller]
    pub(crate) fn known_user(&self, name: &str, password: String, pin: String) -> User<'_> {
        let home = self.path(&format!("{name}.home"));
        fs::create_dir(&home).unwrap();
        User {
            house: self,
            name: name.to_owned(),
            password,
            pin,
            home,
        }
    }

    /// The whole log, oldest first.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        let exported = self.mezctl(&["audit", "export"]).ok();
        let lines = exported.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The events of one user that have this type.
    #[track_caller]
    pub(crate) fn events_of(&self, user: &str, event_type: &str) -> Vec<Value> {
        let mut events = self.events();
        events.retain(|event| {
            text(event, "user_name") == user && text(event, "event_type") == event_type
        });
        events
    }

    /// The sessions of a user that have ended, in the order of their ends, with all their events.
    #[track_caller]
    pub(crate) fn sessions_of(&self, user: &str) -> Vec<Session> {
        let mut by_id: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut ended = Vec::new();
        for event in self.events() {
            let id = text(&event, "session_id");
            if id.is_empty() || text(&event, "user_name") != user {
                continue;
            }
            let kind = text(&event, "event_type");
            if ["session.end", "session.recording.recovered"].contains(&kind.as_str()) {
                ended.push(id.clone());
            }
            by_id.entry(id).or_default().push(event);
        }
        ended
            .into_iter()
            .map(|id| Session {
                events: by_id[&id].clone(),
                id,
            })
            .collect()
    }

    /// Waits for the `count`th session of a user to end, and gives it.
    #[track_caller]
    pub(crate) fn session(&self, user: &str, count: usize) -> Session {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut sessions = self.sessions_of(user);
            if sessions.len() >= count {
                return sessions.swap_remove(count - 1);
            }
            assert!(
                Instant::now() < deadline,
                "session {count} of {user} did not end; {} did",
                sessions.len()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The file of a recording.
    #[track_caller]
    pub(crate) fn recording(&self, id: &str) -> PathBuf {
        let name = format!("{id}.mzr");
        let months = fs::read_dir(self.path("hub/recordings")).unwrap();
        months
            .map(|month| month.unwrap().path().join(&name))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("there is no recording {name}"))
    }

    /// A recording as `mezctl recordings export` writes it.
    #[track_caller]
    pub(crate) fn export(&self, id: &str, format: &str) -> String {
        self.mezctl(&["recordings", "export", id, "--format", format])
            .ok()
    }

    /// Standard output and standard error as a recording has them, to the byte.
    #[track_caller]
    pub(crate) fn recorded(&self, id: &str) -> [Vec<u8>; 2] {
        let mut streams = [Vec::new(), Vec::new()];
        for line in self.export(id, "json").lines() {
            let frame: Value = serde_json::from_str(line).unwrap();
            if frame["type"] == "output" {
                let stream = &mut streams[usize::from(frame["stream"] == "stderr")];
                match frame["base64"].as_str() {
                    Some(base64) => stream.extend(BASE64.decode(base64.as_bytes()).unwrap()),
                    None => stream.extend_from_slice(text(&frame, "text").as_bytes()),
                }
            }
        }
        streams
    }

    /// Everything below the data directories of the hub.
    pub(crate) fn hub_files(&self) -> Vec<PathBuf> {
        fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let facts = fs::symlink_metadata(&path).unwrap();
                if facts.is_dir() {
                    walk(&path, found);
                } else if facts.is_file() {
                    found.push(path);
                }
            }
        }
        let mut found = vec![self.path("mezite.yaml"), self.path("hub.log")];
        walk(&self.path("hub"), &mut found);
        found
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // Agents first: a hub that dies under them makes their logs longer.
        lock(&self.servers).clear();
        lock(&self.hub).take();
    }
}

/// What lets an sshd of a test run beside others, and without root.
pub(crate) const UNPRIVILEGED: &str = "PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nAuthorizedKeysFile none\n\
    PasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\nMaxStartups 100\n";

/// Only root's sshd can run a command as somebody else.
fn without_root(lines: &str) -> String {
    if is_root() {
        return lines.to_owned();
    }
    lines.replace("User nobody", &format!("User {}", login()))
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A session that has ended.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    /// All its events, in the log's order.
    pub(crate) events: Vec<Value>,
}

impl Session {
    pub(crate) fn types(&self) -> Vec<String> {
        let types = self.events.iter();
        types.map(|event| text(event, "event_type")).collect()
    }

    #[track_caller]
    pub(crate) fn event(&self, event_type: &str) -> &Value {
        let found = self
            .events
            .iter()
            .find(|event| text(event, "event_type") == event_type);
        found.unwrap_or_else(|| panic!("no {event_type} among {:?}", self.types()))
    }
}

/// Somebody who has logged in, with a state directory of their own.
pub(crate) struct User<'a> {
    pub(crate) house: &'a House,
    pub(crate) name: String,
    pub(crate) password: String,
    pub(crate) pin: String,
    pub(crate) home: PathBuf,
}

/// How a user gets to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `ProxyCommand msh proxy`, through TLS.
    Proxy,
    /// `ssh -J`.
    Jump,
}

impl User<'_> {
    #[track_caller]
    pub(crate) fn log_in(&self, words: &[&str]) -> Done {
        let mut command = self.msh_command();
        command
            .args([
                "login",
                "--proxy",
                &self.house.https(),
                "--user",
                &self.name,
            ])
            .args(["--ca-pin", &self.pin])
            .args(words)
            .env("MEZITE_PASSWORD", &self.password);
        let done = run(&mut command);
        if done.code == 0 && !words.contains(&"--out") {
            let snippet = self.msh(&["config"]).ok();
            let lines =
                "\nHost *\n  BatchMode yes\n  ConnectTimeout 20\n  GlobalKnownHostsFile none\n";
            write(&self.home.join("ssh_config"), snippet + lines);
        }
        done
    }

    /// Logs in where the hub is known from before.
    #[track_caller]
    pub(crate) fn log_in_again(&self) -> Done {
        let mut command = self.msh_command();
        command
            .args(["login", "--proxy", &self.house.https()])
            .args(["--user", &self.name])
            .env("MEZITE_PASSWORD", &self.password);
        run(&mut command)
    }

    pub(crate) fn msh_command(&self) -> Command {
        let mut command = Command::new(program("msh"));
        command
            .env("HOME", &self.home)
            .env_remove("SSH_AUTH_SOCK")
            .arg("--home")
            .arg(self.home.join("msh"));
        command
    }

    #[track_caller]
    pub(crate) fn msh(&self, words: &[&str]) -> Done {
        run(self.msh_command().args(words))
    }

    /// A stock program of OpenSSH with the user's configuration.
    pub(crate) fn openssh(&self, name: &str, way: Way) -> Command {
        let mut command = stock(name);
        command
            .env("HOME", &self.home)
            .env_remove("SSH_AUTH_SOCK")
            .args(self.options(way));
        command
    }

    /// `-F …` and what else `way` needs.
    pub(crate) fn options(&self, way: Way) -> Vec<String> {
        let config = self.home.join("ssh_config").display().to_string();
        let mut options = vec![String::from("-F"), config];
        if way == Way::Jump {
            options.extend([String::from("-J"), String::from("127.0.0.1")]);
        }
        options
    }

    /// `ssh login@node`.
    pub(crate) fn ssh(&self, way: Way, node: &str) -> Command {
        let mut command = self.openssh("ssh", way);
        command.arg(target(node));
        command
    }

    /// The user's private key; its certificate lies beside it.
    pub(crate) fn key(&self) -> PathBuf {
        self.home.join("msh").join(CLUSTER).join("key")
    }
}

/// `login@node` by the full name that certificates carry.
pub(crate) fn target(node: &str) -> String {
    format!("{}@{node}.{CLUSTER}", login())
}

/// A session on `web` that writes without end.
pub(crate) fn endless(user: &User<'_>, way: Way) -> Running {
    let mut ssh = user.ssh(way, "web");
    let mut running = Running::start(ssh.arg("while :; do echo tick; sleep 0.05; done"), b"");
    running.until("tick");
    running
}

/// What ends access ends sessions within a second; a loaded machine may be slower than that.
pub(crate) const PROMISED: Duration = Duration::from_secs(2);

/// Whether the bytes are in there.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// Makes a file or directory useless to everybody but its owner, or not.
pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// SHA-256 of a file, as events give it.
pub(crate) fn sha256(path: &Path) -> String {
    HEXLOWER.encode(&Sha256::digest(fs::read(path).unwrap()))
}
