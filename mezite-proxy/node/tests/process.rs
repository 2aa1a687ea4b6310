//! Programs as a login starts them, against the real `sh` and the real terminal driver.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test"
)]

use std::time::Duration;

use mezite_node::process::{Action, Exit, Output, Process, ProcessError, Program};
use mezite_node::terminal::{Size, Terminal};
use mezite_node::{Account, Environment};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

/// The current account, with a plain `sh` whatever its own shell is.
fn account() -> Account {
    let current = Account::current().unwrap();
    let (uid, gid) = (current.uid(), current.gid());
    let line = format!("tester:x:{uid}:{gid}::/tmp:/bin/sh\n");
    Account::find(&"tester".parse().unwrap(), line.as_bytes(), b"").unwrap()
}

fn program(action: Action) -> Program {
    let account = account();
    let environment = Environment::new(&account);
    Program::new(account, environment, action)
}

fn command(line: &str) -> Program {
    program(Action::Command(line.into()))
}

fn terminal(modes: Vec<(u8, u32)>) -> Terminal {
    let size = Size {
        cols: 101,
        rows: 37,
        width: 0,
        height: 0,
    };
    Terminal {
        name: "xterm".into(),
        size,
        modes,
    }
}

async fn all(stream: &mut Output) -> Vec<u8> {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    bytes
}

/// Runs a program with `input`; its output, its errors, its exit.
async fn run(program: Program, input: &[u8]) -> (String, String, Exit) {
    let Process {
        mut stdin,
        mut stdout,
        mut stderr,
        control,
    } = Process::spawn(program).unwrap();
    let feed = async {
        // The program may end before it has read everything.
        let _ = stdin.write_all(input).await;
        stdin.shutdown().await.unwrap();
        // A terminal stays open for as long as its input is held.
        stdin
    };
    let errors = async {
        match &mut stderr {
            Some(stderr) => all(stderr).await,
            None => Vec::new(),
        }
    };
    let (_stdin, out, err) = tokio::join!(feed, all(&mut stdout), errors);
    let exit = timeout(PATIENCE, control.wait()).await.unwrap().unwrap();
    (
        String::from_utf8_lossy(&out).into_owned(),
        String::from_utf8_lossy(&err).into_owned(),
        exit,
    )
}

/// Reads until `text` was seen.
async fn read_until(stream: &mut Output, text: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = vec![0; 32 * 1024];
    while !String::from_utf8_lossy(&seen).contains(text) {
        let count = timeout(PATIENCE, stream.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert!(
            count > 0,
            "ended before `{text}`: {:?}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// Neither running nor a zombie of ours.
async fn gone(pid: &str) {
    let pid = Pid::from_raw(pid.trim().parse().unwrap());
    let stat = format!("/proc/{pid}/stat");
    for _ in 0..500 {
        // An orphan's zombie waits for the machine's first process, which is not ours to hurry.
        let orphan = std::fs::read_to_string(&stat).is_ok_and(|stat| {
            let rest = stat.rsplit(") ").next().unwrap().to_owned();
            let parent = rest.split(' ').nth(1).unwrap().to_owned();
            rest.starts_with('Z') && parent != std::process::id().to_string()
        });
        if orphan || kill(pid, None) == Err(nix::Error::ESRCH) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("process {pid} is still there");
}

#[tokio::test]
async fn exit_codes_and_streams_are_kept_apart() {
    let (out, err, exit) = run(command("echo out; echo err >&2; exit 42"), b"").await;
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    assert_eq!(exit, Exit::Status(42));
    assert_eq!(run(command("exit 0"), b"").await.2, Exit::Status(0));
}

#[tokio::test]
async fn a_signal_is_reported_as_one() {
    let (_, _, exit) = run(command("kill -TERM $$"), b"").await;
    assert!(matches!(exit, Exit::Signal { name, core_dumped: false, .. } if name == "TERM"));
}

#[tokio::test]
async fn input_is_read_to_its_end() {
    let (out, _, exit) = run(command("wc -c"), &vec![7; 300_000]).await;
    assert_eq!((out.trim(), exit), ("300000", Exit::Status(0)));
}

#[tokio::test]
async fn ten_mebibytes_come_back_byte_exact() {
    let input: Vec<u8> = (0..10 * 1024 * 1024_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let Process {
        mut stdin,
        mut stdout,
        control,
        ..
    } = Process::spawn(command("cat")).unwrap();
    let copy = input.clone();
    let feed = tokio::spawn(async move {
        stdin.write_all(&copy).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let output = all(&mut stdout).await;
    feed.await.unwrap();
    assert!(output == input);
    assert_eq!(control.wait().await.unwrap(), Exit::Status(0));
}

#[tokio::test]
async fn ten_mebibytes_through_a_terminal() {
    let line = "stty raw; head -c 10485760 /dev/zero | tr '\\0' a; exit 5";
    let program = command(line).on(terminal(vec![]));
    let (out, _, exit) = run(program, b"").await;
    assert_eq!(out.len(), 10 * 1024 * 1024);
    assert!(out.bytes().all(|byte| byte == b'a'));
    assert_eq!(exit, Exit::Status(5));
}

#[tokio::test]
async fn a_shell_without_a_command_is_a_login_shell() {
    let (out, _, exit) = run(program(Action::Shell), b"echo $0; pwd; exit 3\n").await;
    assert_eq!((out.as_str(), exit), ("-sh\n/tmp\n", Exit::Status(3)));
}

#[tokio::test]
async fn a_program_needs_no_shell() {
    let action = Action::Program("/bin/echo".into(), vec!["$HOME".into(), "a b".into()]);
    assert_eq!(run(program(action), b"").await.0, "$HOME a b\n");
}

#[tokio::test]
async fn a_terminal_has_the_size_the_modes_and_a_name() {
    // 53 ECHO off, 72 ONLCR off, 1 VINTR ^G.
    let modes = vec![(53, 0), (72, 0), (1, 7)];
    let (out, _, exit) = run(
        command("stty size; tty; echo $SSH_TTY $TERM; stty -a").on(terminal(modes)),
        b"",
    )
    .await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "37 101", "{out}");
    assert!(lines[1].starts_with("/dev/pts/"), "{out}");
    assert_eq!(lines[2], format!("{} xterm", lines[1]));
    assert!(
        out.contains("-echo ") && out.contains("-onlcr") && out.contains("intr = ^G"),
        "{out}"
    );
    assert_eq!(exit, Exit::Status(0));
}

#[tokio::test]
async fn resizing_tells_the_program() {
    let line = "trap 'stty size; exit 9' WINCH; echo ready; while :; do sleep 0.05; done";
    let Process {
        stdin: _stdin,
        mut stdout,
        control,
        ..
    } = Process::spawn(command(line).on(terminal(vec![]))).unwrap();
    read_until(&mut stdout, "ready").await;
    control
        .resize(Size {
            cols: 77,
            rows: 11,
            width: 0,
            height: 0,
        })
        .unwrap();
    assert!(String::from_utf8_lossy(&all(&mut stdout).await).contains("11 77"));
    assert_eq!(control.wait().await.unwrap(), Exit::Status(9));
}

#[tokio::test]
async fn keys_of_a_terminal_interrupt_its_foreground() {
    let line = "trap 'exit 7' INT; echo ready; while :; do sleep 0.05; done";
    let Process {
        mut stdin,
        mut stdout,
        control,
        ..
    } = Process::spawn(command(line).on(terminal(vec![]))).unwrap();
    read_until(&mut stdout, "ready").await;
    stdin.write_all(b"\x03").await.unwrap();
    assert!(String::from_utf8_lossy(&all(&mut stdout).await).contains("^C"));
    let exit = timeout(PATIENCE, control.wait()).await.unwrap().unwrap();
    assert_eq!(exit, Exit::Status(7));
}

#[tokio::test]
async fn pipes_have_no_terminal() {
    let (out, _, exit) = run(command("tty"), b"").await;
    assert_eq!((out.as_str(), exit), ("not a tty\n", Exit::Status(1)));
    let process = Process::spawn(command("true")).unwrap();
    assert!(matches!(
        process.control.resize(Size::default()),
        Err(ProcessError::NoTerminal)
    ));
}

#[tokio::test]
async fn signals_are_sent_by_name() {
    let line = "trap 'echo usr1; exit 4' USR1; echo ready; while :; do sleep 0.05; done";
    // The shell reports on its errors' stream how its `sleep` ended.
    let Process {
        mut stdout,
        stderr: _stderr,
        control,
        ..
    } = Process::spawn(command(line)).unwrap();
    read_until(&mut stdout, "ready").await;
    for bad in ["SIGUSR1", "usr1", "9", "STOP", "", "USR1@openssh.com"] {
        assert!(
            matches!(control.signal(bad), Err(ProcessError::UnknownSignal { .. })),
            "{bad}"
        );
    }
    // `sleep` is in the group too and is ended by it.
    control.signal("USR1").unwrap();
    let out = String::from_utf8_lossy(&all(&mut stdout).await).into_owned();
    assert!(out.contains("usr1"), "{out:?} {:?}", control.wait().await);
    assert_eq!(control.wait().await.unwrap(), Exit::Status(4));
    control.signal("KILL").unwrap();
}

#[tokio::test]
async fn a_background_child_does_not_hold_the_session() {
    for on_terminal in [false, true] {
        let mut program = command("trap '' HUP; sleep 60 & echo $!; exit 6");
        if on_terminal {
            program = program.on(terminal(vec![]));
        }
        let (out, _, exit) = timeout(Duration::from_secs(10), run(program, b""))
            .await
            .unwrap();
        assert_eq!(exit, Exit::Status(6));
        let background = Pid::from_raw(out.trim().parse().unwrap());
        kill(background, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}

#[tokio::test]
async fn all_output_is_read_before_the_end_even_by_a_slow_reader() {
    let line = "head -c 65536 /dev/zero; sleep 60 & echo $! >&2; exit 0";
    let Process {
        mut stdout,
        mut stderr,
        control,
        ..
    } = Process::spawn(command(line)).unwrap();
    let background = all(stderr.as_mut().unwrap()).await;
    control.wait().await.unwrap();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(all(&mut stdout).await.len(), 65536);
    let background = String::from_utf8_lossy(&background).trim().parse().unwrap();
    kill(Pid::from_raw(background), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn dropping_ends_the_whole_group_and_leaves_no_zombie() {
    for on_terminal in [false, true] {
        let mut program = command("sleep 100 & echo $$ $!; wait");
        if on_terminal {
            program = program.on(terminal(vec![]));
        }
        let mut process = Process::spawn(program).unwrap();
        let seen = read_until(&mut process.stdout, "\n").await;
        let started = tokio::time::Instant::now();
        drop(process);
        for pid in seen.split_whitespace() {
            gone(pid).await;
        }
        assert!(
            started.elapsed() < Duration::from_secs(3),
            "a polite program needs no SIGKILL"
        );
    }
}

#[tokio::test]
async fn who_ignores_a_hangup_is_killed_after_the_grace_time() {
    let program = command("trap '' HUP; echo ready; while :; do sleep 0.05; done")
        .grace(Duration::from_millis(300));
    let Process {
        mut stdout,
        control,
        ..
    } = Process::spawn(program).unwrap();
    read_until(&mut stdout, "ready").await;
    let started = tokio::time::Instant::now();
    control.close();
    let exit = timeout(PATIENCE, control.wait()).await.unwrap().unwrap();
    assert!(matches!(exit, Exit::Signal { name, .. } if name == "KILL"));
    assert!(started.elapsed() >= Duration::from_millis(250));
    gone(&control.id().to_string()).await;
}

#[tokio::test]
async fn attack_69_a_child_gets_three_descriptors_and_default_signals() {
    // One that a careless library left open across exec.
    let leak = nix::unistd::dup(std::io::stderr()).unwrap();
    for on_terminal in [false, true] {
        let mut program = command("ls /proc/self/fd; grep -E '^Sig(Ign|Blk)' /proc/self/status");
        if on_terminal {
            program = program.on(terminal(vec![]));
        }
        let (out, err, _) = run(program, b"").await;
        let words: Vec<&str> = out.split_whitespace().collect();
        // 3 is the directory that `ls` itself reads.
        assert_eq!(words[..4], ["0", "1", "2", "3"], "{out}{err}");
        assert_eq!(
            words[4..],
            ["SigBlk:", "0000000000000000", "SigIgn:", "0000000000000000"],
            "{out}"
        );
    }
    drop(leak);
}

#[tokio::test]
async fn attack_67_nothing_of_the_agent_is_inherited() {
    let (out, _, _) = run(program(Action::Program("/usr/bin/env".into(), vec![])), b"").await;
    let mut names: Vec<&str> = out
        .lines()
        .map(|line| &line[..line.find('=').unwrap()])
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LOGNAME", "PATH", "SHELL", "USER"]);
}

#[tokio::test]
async fn attack_69_another_account_is_refused() {
    let line = b"other:x:54321:54321::/tmp:/bin/sh\n";
    let other = Account::find(&"other".parse().unwrap(), line, b"").unwrap();
    let environment = Environment::new(&other);
    let refused = Process::spawn(Program::new(other, environment, Action::Shell));
    assert!(matches!(refused, Err(ProcessError::OtherAccount { .. })));
}

#[tokio::test]
async fn what_cannot_start_says_so() {
    let missing = program(Action::Program("/nonexistent/program".into(), vec![]));
    let error = Process::spawn(missing.clone().on(terminal(vec![]))).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot start `/nonexistent/program`"),
        "{error}"
    );
    assert!(matches!(
        Process::spawn(missing),
        Err(ProcessError::Start { .. })
    ));
    let nul = program(Action::from(b"echo a\0b".to_vec()));
    assert!(matches!(Process::spawn(nul), Err(ProcessError::Nul)));
}

#[tokio::test]
async fn a_shell_on_a_terminal_is_interactive_and_has_job_control() {
    let program = program(Action::Shell).on(terminal(vec![]));
    let Process {
        mut stdin,
        mut stdout,
        control,
        ..
    } = Process::spawn(program).unwrap();
    let line = b"case $- in *i*) echo inter''active;; esac; sleep 0.2 & fg; echo $0; exit 3\n";
    stdin.write_all(line).await.unwrap();
    let out = String::from_utf8_lossy(&all(&mut stdout).await).into_owned();
    assert!(
        out.contains("interactive\r\n") && out.contains("-sh\r\n"),
        "{out}"
    );
    assert!(
        !out.contains("no job control") && !out.contains("can't access tty"),
        "{out}"
    );
    assert_eq!(control.wait().await.unwrap(), Exit::Status(3));
}
