//! Every stock client over every kind of node and every way in: bytes, exit codes, events, recordings.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::Command;

use crate::house::{
    CLUSTER, House, Session, Shared, User, Way, is_root, login, noise, run, run_with, sha256,
    stock, target, text, write,
};

static HOUSE: Shared = Shared::new();

fn furnish(house: &House) {
    house.agent("builtin");
    house.agentless("agentless");
    house.agent_before_sshd("carried");
}

/// One user's visit to one node by one way; counts the sessions it has made.
struct Visit<'a> {
    user: User<'a>,
    node: &'static str,
    way: Way,
    sessions: usize,
    files: PathBuf,
}

impl<'a> Visit<'a> {
    fn new(house: &'a House, node: &'static str, way: Way) -> Self {
        Self::of(&format!("{node}-{way:?}").to_lowercase(), house, node, way)
    }

    fn of(name: &str, house: &'a House, node: &'static str, way: Way) -> Self {
        let user = house.user(name);
        let files = user.home.join("files");
        fs::create_dir(&files).unwrap();
        Self {
            user,
            node,
            way,
            sessions: 0,
            files,
        }
    }

    /// The session that was just made: its events and its recording fit together, and `content` is in the recording.
    #[track_caller]
    fn session(&mut self, opened: &str, content: &[&str]) -> Session {
        self.sessions += 1;
        let session = self.user.house.session(&self.user.name, self.sessions);
        let types = session.types();
        let place = |wanted: &str| {
            let found = types.iter().position(|kind| kind == wanted);
            found.unwrap_or_else(|| panic!("no {wanted} in {types:?}"))
        };
        let order = ["access.granted", "session.start", opened, "session.end"];
        assert!(order.map(place).is_sorted(), "{types:?}");
        let end = session.event("session.end");
        assert_eq!(text(end, "server_hostname"), self.node, "{end}");
        assert_eq!(text(end, "login"), login(), "{end}");
        let recording = self.user.house.recording(&session.id);
        assert_eq!(text(end, "recording_sha256"), sha256(&recording), "{end}");
        let exported = self.user.house.export(&session.id, "text");
        for words in content {
            assert!(exported.contains(words), "no `{words}` in:\n{exported}");
        }
        session
    }

    fn place(&self, name: &str) -> String {
        self.files.join(name).display().to_string()
    }

    fn remote(&self, name: &str) -> String {
        format!("{}:{}", target(self.node), self.place(name))
    }

    fn exec(&mut self) {
        let mut ssh = self.user.ssh(self.way, self.node);
        let done = run_with(
            ssh.arg("cat; echo out; echo err >&2; exit 7"),
            b"told on standard input\n",
        );
        assert_eq!(done.code, 7, "{done}");
        assert_eq!(done.out(), "told on standard input\nout\n", "{done}");
        assert_eq!(done.err(), "err\n", "{done}");
        let session = self.session("session.exec", &["out", "err", "told on standard input"]);
        let exec = session.event("session.exec");
        assert_eq!(text(exec, "command"), "cat; echo out; echo err >&2; exit 7");
        assert_eq!(text(session.event("session.end"), "exit_code"), "7");
    }

    fn terminal(&mut self) {
        let mut ssh = self.user.ssh(self.way, self.node);
        let done = run(ssh.args([
            "-tt",
            "test -t 0 && test -t 1 && test -t 2 && echo a terminal; exit 5",
        ]));
        let log = self.user.house.sshd_log(self.node);
        if done.code == 255 && !is_root() && log.contains("chown(/dev/pts/") {
            // Where /dev/pts is mounted without the group of terminals, only root's sshd can give one.
            eprintln!(
                "{}: this machine's /dev/pts gives an sshd without root no terminal",
                self.node
            );
            self.sessions += 1;
            return;
        }
        assert_eq!(done.code, 5, "{done}");
        assert_eq!(done.out(), "a terminal\r\n", "{done}");
        let session = self.session("session.exec", &["a terminal"]);
        assert_eq!(session.event("session.exec")["pty"], true);
    }

    fn shell(&mut self) {
        let mut ssh = self.user.ssh(self.way, self.node);
        let done = run_with(ssh.arg("-T"), b"echo from a $((6 * 7)) shell\nexit 4\n");
        assert_eq!(done.code, 4, "{done}");
        assert!(done.out().contains("from a 42 shell\n"), "{done}");
        self.sessions += 1;
        let session = self.user.house.session(&self.user.name, self.sessions);
        let exported = self.user.house.export(&session.id, "text");
        assert!(exported.contains("from a 42 shell"), "{exported}");
    }

    /// scp both ways; `-O` is the old protocol, over exec instead of SFTP.
    fn scp(&mut self, old: bool) {
        let sent = noise("scp", 1_500_000);
        write(&self.files.join("up"), &sent);
        let digest = sha256(&self.files.join("up"));
        let opened = if old { "session.exec" } else { "session.sftp" };
        for (from, to, word) in [
            (self.place("up"), self.remote("there"), "wrote"),
            (self.remote("there"), self.place("back"), "read"),
        ] {
            let mut scp = self.user.openssh("scp", self.way);
            run(scp.args(old.then_some("-O")).args(["-q", &from, &to])).ok();
            let copied = format!("{word} 1500000 bytes SHA-256 {digest}: ok");
            let session = self.session(opened, &[&copied]);
            let copied = session
                .events
                .iter()
                .find(|event| event["content_sha256"] == digest);
            let copied = copied.unwrap_or_else(|| panic!("no copy among {:?}", session.events));
            assert_eq!(
                (&copied["whole"], &copied["success"]),
                (&true.into(), &true.into())
            );
        }
        for name in ["there", "back"] {
            let path = self.files.join(name);
            assert!(fs::read(&path).unwrap() == sent, "{name} differs");
            fs::remove_file(path).unwrap();
        }
    }

    fn sftp(&mut self) {
        let sent = noise("sftp", 400_000);
        write(&self.files.join("local"), &sent);
        let batch = format!(
            "mkdir {0}/d\nput {0}/local {0}/d/a\nrename {0}/d/a {0}/d/b\nget {0}/d/b {0}/fetched\nls -l {0}/d\nrm {0}/d/b\nrmdir {0}/d\n",
            self.files.display()
        );
        write(&self.files.join("batch"), batch);
        let mut sftp = self.user.openssh("sftp", self.way);
        run(sftp.args(["-q", "-b", &self.place("batch"), &target(self.node)])).ok();
        let fetched = self.files.join("fetched");
        assert!(fs::read(&fetched).unwrap() == sent);
        assert!(!self.files.join("d").exists());
        let digest = sha256(&fetched);
        let d = self.place("d");
        let session = self.session(
            "session.sftp",
            &[
                &format!("mkdir `{d}`"),
                &format!("`{d}/a`, wrote 400000 bytes SHA-256 {digest}: ok"),
                &format!("rename `{d}/a` -> `{d}/b`: ok"),
                &format!("`{d}/b`, read 400000 bytes SHA-256 {digest}: ok"),
                &format!("remove `{d}/b`: ok"),
                &format!("rmdir `{d}`: ok"),
            ],
        );
        assert_eq!(text(session.event("session.sftp"), "subsystem"), "sftp");
        let done: Vec<String> = session
            .events
            .iter()
            .filter(|event| text(event, "event_type") == "session.sftp")
            .map(|event| text(event, "operation"))
            .collect();
        for operation in ["mkdir", "close", "rename", "remove", "rmdir"] {
            assert!(
                done.iter().any(|it| it == operation),
                "no {operation} in {done:?}"
            );
        }
    }

    /// What is copied in part says which part, and what fails says why.
    fn resumed(&mut self) {
        let whole = noise("resumed", 400_000);
        write(&self.files.join("whole"), &whole);
        write(&self.files.join("tail"), &whole[150_000..]);
        for half in ["up", "down"] {
            write(&self.files.join(half), &whole[..150_000]);
        }
        // Two files with holes of 4 GiB, of which one has something behind it.
        for (name, content) in [("near", ""), ("far", "beyond")] {
            let mut file = fs::File::create(self.files.join(name)).unwrap();
            file.set_len(1 << 32).unwrap();
            file.seek(SeekFrom::End(0)).unwrap();
            file.write_all(content.as_bytes()).unwrap();
        }
        let batch = format!(
            "reput {0}/far {0}/near\nreput {0}/whole {0}/up\nreget {0}/whole {0}/down\n-rename {0}/none {0}/other\n-get /etc/shadow {0}/shadow\nsymlink {0}/whole {0}/link\nchmod 600 {0}/whole\n",
            self.files.display()
        );
        write(&self.files.join("batch"), batch);
        let mut sftp = self.user.openssh("sftp", self.way);
        run(sftp.args(["-q", "-b", &self.place("batch"), &target(self.node)])).ok();
        for half in ["up", "down"] {
            assert!(fs::read(self.files.join(half)).unwrap() == whole, "{half}");
        }
        let tail = sha256(&self.files.join("tail"));
        let part = format!("250000 bytes (in part: 150000+250000) SHA-256 {tail}: ok");
        let files = self.files.display().to_string();
        self.session(
            "session.sftp",
            &[
                &format!("`{files}/near`, wrote 6 bytes (in part: 4294967296+6) SHA-256"),
                &format!("`{files}/up`, wrote {part}"),
                &format!("`{files}/whole`, read {part}"),
                &format!("rename `{files}/none` -> `{files}/other`: "),
                &format!("symlink `{files}/link` -> `{files}/whole`: ok"),
                &format!("setstat `{files}/whole` mode="),
            ],
        );
    }

    fn rsync(&mut self) {
        let tree = self.files.join("tree");
        fs::create_dir_all(tree.join("deep/er")).unwrap();
        write(&tree.join("one"), noise("one", 300_000));
        write(&tree.join("deep/er/two"), noise("two", 7));
        for (from, to) in [
            (format!("{}/", tree.display()), self.remote("there/")),
            (self.remote("there/"), self.place("back/")),
        ] {
            let mut rsync = stock("rsync");
            run(rsync.args(["-a", "-e", &self.remote_shell(), &from, &to])).ok();
            self.session("session.exec", &["rsync --server"]);
        }
        let mut diff = stock("diff");
        run(diff.arg("-r").arg(&tree).arg(self.files.join("back"))).ok();
    }

    fn git(&mut self) {
        let repository = self.files.join("repository");
        let git = |words: &[&str]| {
            let mut git = stock("git");
            git.arg("-C").arg(&self.files).args([
                "-c",
                "user.name=a",
                "-c",
                "user.email=a@example.com",
            ]);
            git.args(words).env("HOME", &self.user.home);
            git.env("GIT_SSH_COMMAND", self.remote_shell());
            run(&mut git).ok()
        };
        git(&["init", "-q", "repository"]);
        write(&repository.join("file"), noise("git", 200_000));
        git(&["-C", "repository", "add", "."]);
        git(&["-C", "repository", "commit", "-q", "-m", "a file"]);
        git(&["clone", "-q", &self.remote("repository"), "clone"]);
        assert_eq!(
            git(&["-C", "clone", "rev-parse", "HEAD"]),
            git(&["-C", "repository", "rev-parse", "HEAD"])
        );
        let cloned = fs::read(self.files.join("clone/file")).unwrap();
        assert!(cloned == noise("git", 200_000));
        self.session("session.exec", &["git-upload-pack"]);
    }

    /// `ssh` with its options, for programs that start it.
    fn remote_shell(&self) -> String {
        format!("ssh {}", self.user.options(self.way).join(" "))
    }

    fn everything(mut self) {
        self.exec();
        self.terminal();
        self.shell();
        self.scp(false);
        self.scp(true);
        self.sftp();
        self.resumed();
        self.rsync();
        self.git();
    }
}

#[test]
fn every_client_reaches_the_agent_by_proxy_command() {
    Visit::new(&HOUSE.get(furnish), "builtin", Way::Proxy).everything();
}

#[test]
fn every_client_reaches_the_agent_by_jump() {
    Visit::new(&HOUSE.get(furnish), "builtin", Way::Jump).everything();
}

#[test]
fn every_client_reaches_a_stock_sshd_by_proxy_command() {
    Visit::new(&HOUSE.get(furnish), "agentless", Way::Proxy).everything();
}

#[test]
fn every_client_reaches_a_stock_sshd_by_jump() {
    Visit::new(&HOUSE.get(furnish), "agentless", Way::Jump).everything();
}

#[test]
fn the_content_of_copied_files_is_kept_where_a_role_asks_for_it() {
    let house = HOUSE.get(furnish);
    let role = house.path("keeper.yaml");
    write(
        &role,
        format!(
            "kind: role\nversion: v1\nmetadata: {{ name: keeper }}\nspec:\n  options: {{ file_copy: true, record: {{ file_content: true }} }}\n  allow: {{ node_labels: {{ \"*\": \"*\" }}, logins: [{}] }}\n",
            login()
        ),
    );
    house.mezctl(&["apply", "-f", role.to_str().unwrap()]).ok();
    let user = house.user_with("kept", "keeper", &login(), &[]);
    let (from, to) = (user.home.join("from"), user.home.join("to"));
    write(&from, "what was in it\n");
    for old in [false, true] {
        let mut scp = user.openssh("scp", Way::Proxy);
        let remote = format!("{}:{}", target("builtin"), to.display());
        run(scp
            .args(old.then_some("-O"))
            .arg("-q")
            .arg(&from)
            .arg(remote))
        .ok();
        let session = house.session("kept", 1 + usize::from(old));
        let exported = house.export(&session.id, "json");
        let content = exported
            .lines()
            .find(|line| line.contains(r#""type":"content""#));
        let content = content.unwrap_or_else(|| panic!("no content in:\n{exported}"));
        assert!(
            content.contains(r#""text":"what was in it\n""#),
            "{content}"
        );
        assert!(content.contains(r#""direction":"written""#), "{content}");
    }
}

#[test]
fn an_agent_carries_sessions_to_the_sshd_beside_it() {
    let house = HOUSE.get(furnish);
    let mut visit = Visit::new(&house, "carried", Way::Proxy);
    visit.exec();
    visit.terminal();
    visit.sftp();
    let log = house.sshd_log("carried");
    assert!(log.contains("Accepted publickey"), "{log}");
}

/// `ssh -p 3023 login+node@hub`, for clients that know no jump hosts.
#[test]
fn a_client_without_jump_hosts_names_the_node_in_the_user() {
    let house = HOUSE.get(furnish);
    for node in ["builtin", "agentless"] {
        let mut visit = Visit::of(&format!("{node}-direct"), &house, node, Way::Proxy);
        let direct = |visit: &Visit<'_>, program: &str| -> Command {
            let mut command = visit.user.openssh(program, Way::Proxy);
            command.args(["-o", &format!("User={}+{node}", login())]);
            command
        };
        let done = run(direct(&visit, "ssh").args(["127.0.0.1", "echo direct; exit 9"]));
        assert_eq!((done.code, done.out().as_str()), (9, "direct\n"), "{done}");
        visit.session("session.exec", &["direct"]);
        let sent = noise("direct", 100_000);
        write(&visit.files.join("local"), &sent);
        let to = format!("127.0.0.1:{}", visit.place("there"));
        run(direct(&visit, "scp").args(["-q", &visit.place("local"), &to])).ok();
        assert!(fs::read(visit.files.join("there")).unwrap() == sent);
        visit.session("session.sftp", &[]);
    }
}

#[test]
fn msh_lists_the_nodes_and_stands_in_for_ssh_and_scp() {
    let house = HOUSE.get(furnish);
    let user = house.user("msh-user");
    let listed = user.msh(&["ls"]).ok();
    for node in ["builtin", "agentless", "carried"] {
        assert!(listed.contains(node), "{listed}");
    }
    let known = fs::read_to_string(user.key().with_file_name("known_hosts")).unwrap();
    assert_eq!(known.lines().count(), 1, "{known}");
    assert!(known.starts_with("@cert-authority *.house"), "{known}");
    let at = format!("{}@builtin", login());
    let done = user.msh(&["ssh", &at, "echo by msh; exit 6"]);
    assert_eq!((done.code, done.out().as_str()), (6, "by msh\n"), "{done}");
    let (from, to) = (user.home.join("from"), user.home.join("to"));
    write(&from, noise("msh", 50_000));
    let remote = format!("{at}.{CLUSTER}:{}", to.display());
    user.msh(&["scp", "-q", from.to_str().unwrap(), &remote])
        .ok();
    assert!(fs::read(to).unwrap() == noise("msh", 50_000));
    let sessions = user.msh(&["sessions"]).ok();
    assert!(
        sessions.contains(&format!("{}@builtin", login())),
        "{sessions}"
    );
}
