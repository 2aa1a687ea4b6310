//! A throw-away PostgreSQL server for tests and benches: its own directory, a free port, gone when dropped or when the
//! process that started it ends, however it ends.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    reason = "for tests: what does not work ends them"
)]

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use tempfile::TempDir;

/// The most that starting may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The server's superuser.
const USER: &str = "mezite";

/// A running server.
#[derive(Debug)]
pub struct Server {
    process: Mutex<Option<Child>>,
    port: u16,
    owner: Option<User>,
    settings: Vec<String>,
    databases: AtomicU32,
    directory: TempDir,
}

impl Server {
    /// The server that the tests of a process share while any of them runs.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut slot = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = slot.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start(&[]));
        *slot = Arc::downgrade(&server);
        server
    }

    /// A server of its own, with `settings` such as `ssl=on`.
    #[must_use]
    pub fn start(settings: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("mzpg").tempdir().unwrap();
        let owner = owner();
        if let Some(owner) = &owner {
            nix::unistd::chown(directory.path(), Some(owner.uid), Some(owner.gid)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Self {
            process: Mutex::default(),
            port,
            owner,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            databases: AtomicU32::new(0),
            directory,
        };
        let mut initdb = server.command("initdb");
        initdb.args([
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--username",
            USER,
        ]);
        run(initdb.arg("--pgdata").arg(server.data()));
        server.restart();
        server
    }

    /// A new database whose default order of texts is that of English, by ICU, and not that of bytes; gives its
    /// connection string, through the Unix socket.
    pub fn database(&self) -> String {
        self.database_like("ENCODING UTF8 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C.UTF-8'")
    }

    /// A new database with other options of `CREATE DATABASE`.
    pub fn database_like(&self, options: &str) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let make = format!("CREATE DATABASE {name} TEMPLATE template0 {options}");
        self.sql("postgres", &make);
        self.string(&name)
    }

    /// The connection string of a database.
    #[must_use]
    pub fn string(&self, database: &str) -> String {
        let directory = self.directory().display();
        format!(
            "host={directory} port={} user={USER} dbname={database}",
            self.port
        )
    }

    /// The same database through TCP, to the given port or the server's own.
    #[must_use]
    pub fn over_tcp(&self, string: &str, port: Option<u16>) -> String {
        let database = string.rsplit('=').next().unwrap();
        let port = port.unwrap_or(self.port);
        format!("host=localhost hostaddr=127.0.0.1 port={port} user={USER} dbname={database}")
    }

    /// Does `sql` as the superuser behind everybody's back; gives what it prints. `database` is a name or a connection
    /// string of [`Server::database`].
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let name = database.rsplit('=').next().unwrap();
        let mut psql = self.command("psql");
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set",
            "ON_ERROR_STOP=1",
        ]);
        run(psql.args(["--dbname", &self.string(name), "--command", sql]))
            .trim()
            .to_owned()
    }

    /// Where its files may lie beside its own.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Makes a file of its directory one that only the server may read.
    pub fn hand_over(&self, name: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.directory().join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if let Some(owner) = &self.owner {
            nix::unistd::chown(&path, Some(owner.uid), Some(owner.gid)).unwrap();
        }
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// kill -9, as the kernel does it when memory is short.
    pub fn crash(&self) {
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        run(Command::new("kill").args(["-KILL", pid]));
        self.wait();
    }

    /// Starts it again after a [`Server::crash`].
    pub fn restart(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut child = self.spawn();
            loop {
                let mut ready = self.command("pg_isready");
                ready.args(["--quiet", "--host"]).arg(self.directory());
                let ready = ready
                    .args(["--port", &self.port.to_string()])
                    .status()
                    .unwrap();
                if ready.success() {
                    *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
                    return;
                }
                assert!(
                    Instant::now() < deadline,
                    "PostgreSQL does not start: {}",
                    self.log()
                );
                sleep(Duration::from_millis(20));
                // Processes of a server that was killed may still be about; then it does not start yet.
                if child.try_wait().unwrap().is_some() {
                    break;
                }
            }
        }
    }

    /// What it has written to its log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory().join("log")).unwrap_or_default()
    }

    /// A shell waits beside the server for the end of this process, and ends the server then.
    fn spawn(&self) -> Child {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory().join("log"))
            .unwrap();
        let watch = r#"trap '' INT; "$0" "$@" & server=$!; (while kill -0 $server 2>/dev/null; do sleep 0.1; done; kill $$) 2>/dev/null & cat; trap '' TERM; kill -QUIT $server; wait $server"#;
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(watch).arg(program("postgres"));
        shell
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.directory());
        shell.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        for setting in ["max_connections=200", "log_line_prefix=%m [%p] %q%d "] {
            shell.args(["-c", setting]);
        }
        for setting in &self.settings {
            shell.args(["-c", setting]);
        }
        self.as_owner(&mut shell);
        shell
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Ends what is left: the shell's standard input closes.
    fn wait(&self) {
        let child = self
            .process
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut child) = child {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }

    fn data(&self) -> PathBuf {
        self.directory().join("data")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        self.as_owner(&mut command);
        command
    }

    /// The server refuses to run as root.
    fn as_owner(&self, command: &mut Command) {
        command
            .current_dir(self.directory())
            .env_clear()
            .env("LC_ALL", "C");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if let Some(owner) = &self.owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.wait();
    }
}

/// Somebody who is not root; `None` when this process is not root either.
fn owner() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    let known = ["postgres", "nobody"];
    let found = known.iter().find_map(|name| User::from_name(name).ok()?);
    assert!(
        found.is_some(),
        "there is neither a user `postgres` nor `nobody`"
    );
    found
}

/// One of PostgreSQL's programs: where Debian keeps each version, or in `PATH`.
fn program(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path().join("bin"))
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = versions
        .into_iter()
        .rev()
        .chain(std::env::split_paths(&path));
    let found = places
        .map(|place| place.join(name))
        .find(|program| program.exists());
    found.unwrap_or_else(|| {
        panic!("PostgreSQL's `{name}` is missing: run `cargo xtask test`, which installs it or says how")
    })
}

/// Runs a program to its end, which must be a good one; gives what it printed.
fn run(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(
        done.status.success(),
        "{command:?}: {}\n{out}\n{err}",
        done.status
    );
    out.into_owned()
}
