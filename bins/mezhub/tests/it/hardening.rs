//! What hub and agent have given up once they run, seen from outside: in `/proc`, on the network, in the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::house::{House, Way, accepts, chmod, contains, is_root, program, run, stock, text};

/// Whom a hub of root becomes in these tests; a number needs no account.
const NOBODY: &str = "hardening:\n  user: \"65534\"\n";

/// A house whose directory others may pass.
fn house_of_nobody() -> House {
    House::start_with(|directory| {
        chmod(directory, 0o755);
        NOBODY.to_owned()
    })
}

fn hub(house: &House) -> Command {
    let mut command = Command::new(program("mezhub"));
    command
        .arg("start")
        .arg("--config")
        .arg(house.path("mezite.yaml"))
        .env_remove("RUST_LOG");
    command
}

/// A port that only root may bind.
fn low_port() -> u16 {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (700..1000).rev().find(free).unwrap()
}

/// What `/proc` says of each thread of the hub, by name.
fn threads(house: &House) -> Vec<impl Fn(&str) -> String> {
    let process = house.with_hub(|child| child.id());
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let status = |task: std::io::Result<fs::DirEntry>| {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        move |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let words = line.unwrap_or_else(|| panic!("no {name} in {status}"));
            words.split_whitespace().collect::<Vec<_>>().join(" ")
        }
    };
    tasks.map(status).collect()
}

#[test]
fn attack_80_every_thread_of_a_hub_that_root_started_has_lost_everything() {
    if !is_root() {
        return;
    }
    let house = house_of_nobody();
    house.stop_hub();
    let port = low_port();
    let mut command = hub(&house);
    command.env("MEZITE_LISTEN_AUTH", format!("127.0.0.1:{port}"));
    house.start_hub_with(command);
    assert!(accepts(port));
    house.agent("web");
    let user = house.user("alice");
    run(user.ssh(Way::Proxy, "web").arg("echo hello")).ok();
    house.session("alice", 1);
    let threads = threads(&house);
    assert!(threads.len() > 2);
    for of in threads {
        for id in ["Uid:", "Gid:"] {
            assert_eq!(of(id), "65534 65534 65534 65534");
        }
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(of(set), "0000000000000000", "{set}");
        }
        let marks = ["Groups:", "NoNewPrivs:", "Seccomp:"].map(&of);
        assert_eq!(marks, ["", "1", "2"]);
    }
    let log = house.hub_log();
    assert!(
        log.contains("hardened") && log.contains("system calls"),
        "{log}"
    );
    assert!(!log.contains("runs as root"), "{log}");
}

/// Whoever starts it: the whole suite runs under it.
#[test]
fn attack_80_a_hub_gives_up_what_it_can_whoever_starts_it() {
    let house = House::start();
    for of in threads(&house) {
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(of(set), "0000000000000000", "{set}");
        }
        assert_eq!([of("NoNewPrivs:"), of("Seccomp:")], ["1", "2"]);
    }
    assert_eq!(house.hub_log().contains("runs as root"), is_root());
}

#[test]
fn attack_80_an_agent_before_an_sshd_gives_up_everything_and_its_sessions_nothing() {
    let house = House::start();
    house.agent_before_sshd("web");
    let log = fs::read_to_string(house.path("web.log")).unwrap();
    assert!(
        log.contains("hardened") && log.contains("system calls"),
        "{log}"
    );
    let user = house.user("alice");
    let mut ssh = user.ssh(Way::Proxy, "web");
    let status = run(ssh.arg("grep -E 'NoNewPrivs|Seccomp:' /proc/self/status")).ok();
    let words: Vec<_> = status.split_whitespace().collect();
    assert_eq!(words, ["NoNewPrivs:", "0", "Seccomp:", "0"]);
}

#[test]
fn a_directory_that_the_account_cannot_use_stops_the_start_with_the_remedy() {
    if !is_root() {
        return;
    }
    let house = House::start();
    house.stop_hub();
    let config = fs::read_to_string(house.path("mezite.yaml")).unwrap();
    fs::write(house.path("mezite.yaml"), config + NOBODY).unwrap();
    house.mezhub(&["start"]).fails(
        1,
        &[
            "belongs to user 0",
            "user 65534",
            &format!("`chown -R 65534:65534 {}`", house.path("hub").display()),
        ],
    );
}

#[test]
fn what_is_in_force_can_be_shown_while_the_hub_runs() {
    let house = House::start();
    let shown = house.mezhub(&["start", "--show-hardening"]).ok();
    let lines: Vec<_> = shown.lines().collect();
    assert!(
        lines[0].starts_with("MEASURE") && lines[0].contains("STATE"),
        "{shown}"
    );
    let measures = house
        .mezhub(&["start", "--show-hardening", "-o", "json"])
        .json();
    let measures = measures.as_array().unwrap();
    assert_eq!(measures.len(), lines.len() - 1);
    let state = |name: &str| {
        let found = measures.iter().find(|line| line["measure"] == name);
        text(found.unwrap_or_else(|| panic!("no {name}")), "state")
    };
    for name in [
        "capabilities",
        "no_new_privs",
        "not dumpable",
        "files",
        "system calls",
    ] {
        assert_eq!(state(name), "in_force", "{name}");
    }
    assert_eq!(state("user"), "not_asked");
    // Switched off is said, and makes strict mode no failure.
    let config = fs::read_to_string(house.path("mezite.yaml")).unwrap();
    let more = "hardening:\n  strict: true\n  dangerously_off: [seccomp]\n";
    fs::write(house.path("mezite.yaml"), config + more).unwrap();
    let shown = house.mezhub(&["start", "--show-hardening"]).ok();
    assert!(
        shown.contains("switched off in the configuration"),
        "{shown}"
    );
}

#[test]
fn health_is_told_by_exit_code_and_sentence_and_leaves_no_trace() {
    let house = House::start();
    // Reading the log is itself an event.
    let events = || {
        let events = house.events();
        let others = events.iter().filter(|it| it["event_type"] != "audit.read");
        others.count()
    };
    let before = events();
    let said = house.mezhub(&["health"]).ok();
    assert!(
        said.starts_with("healthy: the hub of cluster house answers"),
        "{said}"
    );
    assert_eq!(events(), before);
    house.stop_hub();
    house
        .mezhub(&["health"])
        .fails(1, &["unhealthy: no hub answers at"])
        .in_one_line();
}

#[test]
fn attack_73_secrets_of_the_environment_are_gone_once_they_are_read() {
    let house = House::start();
    house.stop_hub();
    let mut command = hub(&house);
    command
        .env("MEZITE_RECORDINGS_S3_ACCESS_KEY", "AKID:open-sesame")
        .env("MEZITE_LOG_FORMAT", "text");
    house.start_hub_with(command);
    let process = house.with_hub(|child| child.id());
    let shown = fs::read(format!("/proc/{process}/environ"));
    if !is_root() {
        // Nobody else of the same user sees anything at all.
        assert!(shown.is_err());
        return;
    }
    let shown = shown.unwrap();
    assert!(contains(&shown, b"MEZITE_LOG_FORMAT=text"));
    assert!(!contains(&shown, b"sesame"));
}

/// One address that a program wanted to reach, as strace writes it.
fn destination(line: &str) -> Option<String> {
    let inside = line.split_once("sa_family=")?.1;
    let field = |name: &str| {
        let rest = inside.split_once(name)?.1;
        rest.split(['"', ')', ',', '}'])
            .find(|part| !part.is_empty() && *part != "(")
    };
    let family = inside.split([',', '}']).next()?;
    Some(match family {
        "AF_INET" => format!("{}:{}", field("inet_addr(\"")?, field("htons(")?),
        "AF_INET6" => format!(
            "[{}]:{}",
            field("inet_pton(AF_INET6, \"")?,
            field("htons(")?
        ),
        other => other.to_owned(),
    })
}

/// Set where the test runs once more, in a network of its own.
const INSIDE: &str = "MEZITE_TEST_NO_ROUTE";

/// Every program does something: hub, both kinds of agents, both command lines.
fn whole_story() {
    let house = House::start();
    house.agent("web");
    house.agent_before_sshd("carried");
    let user = house.user_with("alice", "access,auditor", &crate::house::login(), &[]);
    for (way, node) in [
        (Way::Proxy, "web"),
        (Way::Jump, "web"),
        (Way::Proxy, "carried"),
    ] {
        run(user.ssh(way, node).arg("echo hello")).ok();
    }
    let session = house.session("alice", 3);
    user.msh(&["ls"]).ok();
    user.msh(&["play", &session.id, "--speed", "100"]).ok();
    house.mezctl(&["status"]).ok();
    for step in ["--begin", "--rollback"] {
        let rotate = ["ca", "rotate", step, "--authority", "user"];
        house.mezctl(&rotate).ok();
    }
    house.mezctl(&["audit", "rotate-key"]).ok();
    house.mezctl(&["audit", "verify"]).ok();
    house.mezctl(&["recordings", "verify", "--all"]).ok();
    house.mezhub(&["health"]).ok();
    house.stop_hub();
}

/// Frequent calls that reach nothing and that a filter lets through in any form.
const UNWATCHED: &str = "trace=!read,write,readv,writev,pread64,pwrite64,futex,epoll_wait,epoll_pwait,epoll_ctl,clock_gettime,sched_yield,madvise,munmap,close,fstat,lseek,recvfrom,recvmsg,rt_sigprocmask,rt_sigaction,fsync,fdatasync,brk,wait4";

/// Everything that a whole story asks of the network, where there is none but the machine itself: nobody calls out. And whoever is
/// confined asks the kernel for nothing that was given up.
#[test]
fn attack_80_nothing_is_reached_but_what_is_configured() {
    if std::env::var_os(INSIDE).is_some() {
        return whole_story();
    }
    let trace = tempfile::NamedTempFile::new().unwrap();
    let story = "hardening::attack_80_nothing_is_reached_but_what_is_configured";
    let inside = format!(
        "ip link set lo up && exec strace -f -qq -e '{UNWATCHED}' -e signal=none -o {} {} --exact {story}",
        trace.path().display(),
        std::env::current_exe().unwrap().display()
    );
    let mut unshare = stock("unshare");
    if !is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare
        .args(["--net", "sh", "-c", &inside])
        .env(INSIDE, "1");
    let done = run(&mut unshare);
    assert!(done.out().contains("1 passed"), "{done}");
    let lines = fs::read_to_string(trace.path()).unwrap();
    let call = |line: &str| {
        line.split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    };
    let (mut bound, mut reached) = (BTreeSet::new(), BTreeSet::new());
    for line in lines.lines() {
        let Some(place) = destination(line) else {
            continue;
        };
        let call = call(line);
        if call.starts_with("bind(") {
            bound.insert(place);
        } else if call.starts_with("connect(") || call.starts_with("send") {
            reached.insert(place);
        }
    }
    assert!(
        reached
            .iter()
            .filter(|place| place.starts_with("127.0.0.1:"))
            .count()
            >= 2,
        "{reached:?}"
    );
    // Where sshd may listen, it asks the C library for addresses, which connects a socket to each without sending: the
    // unspecified address is this machine.
    let here = |place: &str| {
        let unspecified = ["0.0.0.0:", "[::]:"].iter();
        let mut port = unspecified.filter_map(|any| place.strip_prefix(any));
        port.any(|port| bound.contains(&format!("127.0.0.1:{port}")))
    };
    let stray: Vec<_> = reached
        .iter()
        .filter(|place| !["AF_UNIX", "AF_NETLINK", "AF_UNSPEC"].contains(&place.as_str()))
        .filter(|place| !bound.contains(*place) && !here(place))
        .collect();
    assert!(
        stray.is_empty(),
        "{stray:?} were reached, and listened to were {bound:?}"
    );
    let missed = refused_to_the_confined(&lines);
    assert!(missed.is_empty(), "{missed:#?}");
}

/// What the kernel refused to processes with a filter of system calls, and to their threads. Not `clone3`, whose flags a filter
/// cannot see: the C library has an older call for it, which shows that the filter is there.
fn refused_to_the_confined(lines: &str) -> Vec<&str> {
    let id = |text: &str| text.trim().parse::<u32>().ok();
    let of = |line: &str| line.split_once(' ').and_then(|(first, _)| id(first));
    let mut parents = BTreeMap::new();
    for line in lines.lines().filter(|line| line.contains("clone")) {
        let child = line.rsplit_once(" = ").and_then(|(_, child)| id(child));
        if let (Some(parent), Some(child)) = (of(line), child) {
            parents.insert(child, parent);
        }
    }
    let (mut filtered, mut without_clone3) = (BTreeSet::new(), BTreeSet::new());
    let mut refused = Vec::new();
    for line in lines.lines() {
        let Some(process) = of(line) else { continue };
        if line.contains(" seccomp(SECCOMP_SET_MODE_FILTER") && !line.contains(" = -1") {
            filtered.insert(process);
            continue;
        }
        let chain = std::iter::successors(Some(process), |process| parents.get(process).copied());
        let Some(confined) = chain.into_iter().find(|process| filtered.contains(process)) else {
            continue;
        };
        if line.contains("clone3") && line.contains("-1 ENOSYS") {
            without_clone3.insert(confined);
        } else if ["-1 ENOSYS", "-1 EPERM", "-1 EACCES"]
            .iter()
            .any(|no| line.contains(no))
        {
            refused.push(line);
        }
    }
    // The hub, and the agent before an sshd.
    assert!(
        filtered.len() >= 2 && without_clone3 == filtered,
        "{filtered:?} {without_clone3:?}"
    );
    refused
}

#[test]
fn destinations_are_read_as_strace_writes_them() {
    for (line, place) in [
        (
            "7 connect(3, {sa_family=AF_INET, sin_port=htons(3080), sin_addr=inet_addr(\"192.0.2.1\")}, 16) = 0",
            Some("192.0.2.1:3080"),
        ),
        (
            "7 connect(3, {sa_family=AF_UNIX, sun_path=\"/x\"}, 5) = 0",
            Some("AF_UNIX"),
        ),
        ("7 sendto(3, \"x\", 1, MSG_NOSIGNAL, NULL, 0) = 1", None),
    ] {
        assert_eq!(destination(line).as_deref(), place);
    }
    let v6 = "7 connect(3, {sa_family=AF_INET6, sin6_port=htons(22), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, \"2001:db8::1\", &sin6_addr), sin6_scope_id=0}, 28) = 0";
    assert_eq!(destination(v6).as_deref(), Some("[2001:db8::1]:22"));
}

/// The units as they are shipped.
pub(crate) fn units() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd"))
}

#[test]
fn attack_80_the_units_are_as_strict_as_they_can_be() {
    let directory = tempfile::tempdir().unwrap();
    for (unit, threshold) in [
        ("mezhub.service", 13),
        ("mezd.service", 13),
        ("mezd@.service", 52),
    ] {
        // A template has no score, its instances have.
        let path = directory.path().join(unit.replace('@', "@deploy"));
        fs::copy(units().join(unit), &path).unwrap();
        let mut analyze = stock("systemd-analyze");
        analyze.args(["security", "--offline=yes", "--json=short"]);
        analyze.arg(format!("--threshold={threshold}")).arg(&path);
        let done = run(&mut analyze);
        assert_eq!(
            done.code, 0,
            "{unit} scores more than {threshold} tenths:\n{done}"
        );
        let rows: Value = serde_json::from_str(&done.out()).unwrap();
        assert!(
            rows.as_array().is_some_and(|rows| rows.len() > 50),
            "{done}"
        );
    }
    // The measure measures: a unit without any of it is far above.
    let bare = directory.path().join("bare.service");
    fs::write(&bare, "[Service]\nExecStart=/bin/true\n").unwrap();
    let mut analyze = stock("systemd-analyze");
    analyze.args(["security", "--offline=yes", "--threshold=52"]);
    assert_ne!(run(analyze.arg(&bare)).code, 0);
}

#[test]
fn attack_80_the_units_have_the_promised_set() {
    let unit = fs::read_to_string(units().join("mezhub.service")).unwrap();
    for line in [
        "User=mezite",
        "Group=mezite",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "ReadWritePaths=/var/lib/mezite /var/log/mezite",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "PrivateDevices=yes",
        "ProtectKernelTunables=yes",
        "ProtectControlGroups=yes",
        "ProtectKernelModules=yes",
        "MemoryDenyWriteExecute=yes",
        "RestrictRealtime=yes",
        "SystemCallArchitectures=native",
    ] {
        assert!(unit.lines().any(|found| found == line), "no {line}");
    }
    assert!(unit.contains("\nSystemCallFilter=@system-service "));
    assert!(unit.contains("\nLoadCredentialEncrypted=sealing.key:/etc/mezite/sealing.cred\n"));
}

#[test]
fn attack_73_the_units_keep_keys_out_of_swap_and_core_files() {
    for unit in ["mezhub.service", "mezd.service"] {
        let unit = fs::read_to_string(units().join(unit)).unwrap();
        for line in ["LimitCORE=0", "MemorySwapMax=0", "KeyringMode=private"] {
            assert!(unit.lines().any(|found| found == line), "no {line}");
        }
    }
}

#[test]
fn the_units_are_read_without_complaint() {
    let directory = tempfile::tempdir().unwrap();
    for unit in [
        "mezhub.service",
        "mezhub.socket",
        "mezd.service",
        "mezd@.service",
        "mezd-sshd.path",
        "mezd-sshd.service",
    ] {
        let mut content = fs::read_to_string(units().join(unit)).unwrap();
        for name in ["mezhub", "mezd"] {
            let own = program(name).display().to_string();
            content = content.replace(&format!("/usr/bin/{name} "), &format!("{own} "));
        }
        fs::write(directory.path().join(unit), content).unwrap();
    }
    let mut analyze = stock("systemd-analyze");
    analyze.args(["verify", "--man=no"]);
    for unit in [
        "mezhub.service",
        "mezhub.socket",
        "mezd.service",
        "mezd@deploy.service",
        "mezd-sshd.path",
    ] {
        analyze.arg(directory.path().join(unit));
    }
    fs::copy(
        directory.path().join("mezd@.service"),
        directory.path().join("mezd@deploy.service"),
    )
    .unwrap();
    let done = run(&mut analyze);
    let own = |line: &&str| line.contains("mez");
    let complaints: Vec<_> = done.stderr.split(|byte| *byte == b'\n').collect();
    let complaints: Vec<_> = complaints
        .iter()
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    let complaints: Vec<_> = complaints.iter().map(String::as_str).filter(own).collect();
    assert!(complaints.is_empty() && done.code == 0, "{done}");
}

#[test]
fn accounts_and_directories_are_made_as_the_units_want_them() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let etc = root.path().join("etc");
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(etc.join("group"), "root:x:0:\n").unwrap();
    let at = format!("--root={}", root.path().display());
    run(stock("systemd-sysusers")
        .arg(&at)
        .arg(units().join("sysusers.d/mezite.conf")))
    .ok();
    let mut tmpfiles = stock("systemd-tmpfiles");
    tmpfiles.args([&at, "--create"]);
    run(tmpfiles.arg(units().join("tmpfiles.d/mezite.conf"))).ok();
    let passwd = fs::read_to_string(etc.join("passwd")).unwrap();
    for (unit, directory) in [
        ("mezhub.service", "var/lib/mezite"),
        ("mezd.service", "var/lib/mezite-node"),
    ] {
        use std::os::unix::fs::MetadataExt;
        let text = fs::read_to_string(units().join(unit)).unwrap();
        let user = text
            .lines()
            .find_map(|line| line.strip_prefix("User="))
            .unwrap();
        let line = passwd
            .lines()
            .find(|line| line.starts_with(&format!("{user}:")))
            .unwrap();
        assert!(line.ends_with("/usr/sbin/nologin"), "{line}");
        let facts = fs::metadata(root.path().join(directory)).unwrap();
        let uid = line.split(':').nth(2).unwrap();
        assert_eq!(
            (facts.uid().to_string().as_str(), facts.mode() & 0o777),
            (uid, 0o700)
        );
    }
}
