//! Ways to run something that have no name of their own: each leaves in the recording what was run, what came in and what
//! came out. The programs that copy are in `matrix`.

use std::path::Path;

use crate::house::{House, Running, User, Way, run, run_with, stock, target, until};

/// What a session's recording must hold.
type Holds = &'static [&'static str];

/// `ssh OPTIONS login@node COMMAND` with `input`.
struct Run {
    options: &'static [&'static str],
    command: &'static [&'static str],
    input: &'static str,
    holds: Holds,
}

/// Words that only the node puts together, so that finding them means that output was recorded.
const RUNS: &[Run] = &[
    Run {
        options: &["-T"],
        command: &[],
        input: "echo out-$((40+2))\nexit 3\n",
        holds: &["echo out-$((40+2))", "out-42"],
    },
    Run {
        options: &["-tt"],
        command: &["stty -echo; echo tty-$((40+2)); tty"],
        input: "",
        holds: &["stty -echo; echo tty-", "tty-42", "/dev/pts/"],
    },
    Run {
        options: &["-tt"],
        command: &[],
        input: "echo typed-$((40+2)); exit 3\n",
        holds: &["typed-42"],
    },
    // Whether a variable is taken is the node's to say; that it was passed on is recorded.
    Run {
        options: &["-o", "SetEnv=LC_MEZITE=carried-value"],
        command: &["echo env-$((40+2)) >&2; exit 3"],
        input: "",
        holds: &["LC_MEZITE", "carried-value", "stderr", "env-42"],
    },
    Run {
        options: &["-n"],
        command: &["kill -TERM $$"],
        input: "",
        holds: &["kill -TERM $$", "TERM"],
    },
    Run {
        options: &[],
        command: &["sh -s -- an-argument"],
        input: "echo script-$((40+2))-$1\n",
        holds: &[
            "sh -s -- an-argument",
            "script-42-an-argument",
            "echo script-",
        ],
    },
];

#[test]
fn attack_44_whatever_way_something_is_run_it_is_recorded() {
    let house = House::start();
    house.agent("web");
    house.agentless("db1");
    for (node, way) in [("web", Way::Proxy), ("db1", Way::Jump)] {
        let user = house.user(&format!("{node}-{way:?}").to_lowercase());
        for (index, wanted) in RUNS.iter().enumerate() {
            let mut ssh = user.openssh("ssh", way);
            ssh.args(wanted.options)
                .arg(target(node))
                .args(wanted.command);
            run_with(&mut ssh, wanted.input.as_bytes());
            let session = house.session(&user.name, index + 1);
            holds(&house, &session.id, wanted.holds);
        }
        multiplexed(&house, &user, way, node);
        nothing_but_a_connection(&house, &user, way, node);
    }
    house.mezctl(&["audit", "verify"]).ok();
}

#[track_caller]
fn holds(house: &House, id: &str, wanted: Holds) {
    let recorded = house.export(id, "json");
    for words in wanted {
        assert!(recorded.contains(words), "no `{words}` in {recorded}");
    }
}

/// Further sessions over a ControlMaster's connection are channels of one session.
fn multiplexed(house: &House, user: &User<'_>, way: Way, node: &str) {
    let control = house.path(&format!("{node}.control")).display().to_string();
    let path = format!("ControlPath={control}");
    let mut master = user.openssh("ssh", way);
    master.args(["-o", &path, "-o", "ControlMaster=yes", "-N", &target(node)]);
    let master = Running::start(&mut master, b"");
    until("the shared connection", || Path::new(&control).exists());
    // Many, because a client that closes at once must not miss how it ended (row 26).
    let words = ["second", "third"]
        .into_iter()
        .chain(std::iter::repeat_n("more", 50));
    for word in words {
        let mut ssh = stock("ssh");
        ssh.env("HOME", &user.home)
            .args(["-F", "none", "-o", &path, &target(node)])
            .arg(format!("echo {word}-$((40+2))"));
        assert_eq!(run(&mut ssh).ok(), format!("{word}-42\n"));
    }
    drop(master);
    let session = house.session(&user.name, RUNS.len() + 1);
    holds(house, &session.id, &["second-42", "third-42"]);
    let commands = session.types();
    let commands = commands.iter().filter(|it| *it == "session.exec");
    assert_eq!(commands.count(), 52, "{:?}", session.types());
}

/// `-N` opens no channel; the session and its recording are there all the same.
fn nothing_but_a_connection(house: &House, user: &User<'_>, way: Way, node: &str) {
    let mut ssh = user.openssh("ssh", way);
    ssh.args(["-N", &target(node)]);
    let running = Running::start(&mut ssh, b"");
    let started = || house.events_of(&user.name, "session.start").len();
    until("the session", || started() == RUNS.len() + 2);
    drop(running);
    let session = house.session(&user.name, RUNS.len() + 2);
    assert!(house.recording(&session.id).exists());
}
