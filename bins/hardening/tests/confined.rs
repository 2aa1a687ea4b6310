//! What a process can do after it has given up everything: tried from inside, one forbidden thing after the other.
#![expect(
    unsafe_code,
    clippy::unwrap_used,
    reason = "tests; a child must be forked, because the test's own process has threads"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mezite_hardening::{Account, Files, Measure, Report, State, confine, give, lower, names};
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, geteuid};

/// Runs `act` in a process of one thread and gives what it said.
fn in_a_child(act: impl FnOnce() -> String) -> String {
    let (mut from, mut into) = std::io::pipe().unwrap();
    // SAFETY: the child uses what is its own, the C library's allocator works after a fork, and it ends without return.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            let said = said.unwrap_or_else(|_| String::from("PANIC"));
            let written = into.write_all(said.as_bytes()).is_ok();
            // SAFETY: ends the process at once, without the destructors and handlers of the parent.
            unsafe { libc::_exit(i32::from(!written)) }
        }
        ForkResult::Parent { child } => {
            drop(into);
            let mut said = String::new();
            from.read_to_string(&mut said).unwrap();
            assert_eq!(
                waitpid(child, None).unwrap(),
                WaitStatus::Exited(child, 0),
                "{said}"
            );
            said
        }
    }
}

/// An account to become, where that is possible.
fn nobody() -> Option<Account> {
    geteuid().is_root().then(|| Account {
        name: String::from("nobody"),
        uid: 65534,
        gid: 65534,
    })
}

/// A directory that is given to [`nobody`], and may be reached by it.
fn place() -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let outer = tempfile::tempdir().unwrap();
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let inner = outer.path().join("data");
    give("data directory", &inner, nobody().as_ref()).unwrap();
    (outer, inner)
}

/// Everything that can be given up, with `directory` kept.
fn give_up(directory: &Path) -> Result<String, String> {
    let files = Files {
        read: names().collect(),
        write: vec![directory.to_owned()],
    };
    let mut report = lower(nobody().as_ref()).map_err(|error| error.to_string())?;
    confine(&files, &[], false, &mut report).map_err(|error| error.to_string())?;
    Ok(report.names(State::NotSupported))
}

/// Says whether what was tried has failed.
fn tried<T, E: std::fmt::Display>(what: &str, outcome: Result<T, E>) -> String {
    match outcome {
        Ok(_) => format!("DONE {what}\n"),
        Err(error) => format!("refused {what}: {error}\n"),
    }
}

fn call(what: &str, number: libc::c_long, arguments: [libc::c_long; 5]) -> String {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the arguments are numbers that no call takes for an address it may write to.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    tried(what, nix::errno::Errno::result(result))
}

fn forbidden(parent: libc::c_long) -> String {
    let mut said = String::new();
    for (what, number) in [
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("pivot_root", libc::SYS_pivot_root),
        ("chroot", libc::SYS_chroot),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("memfd_create", libc::SYS_memfd_create),
        ("keyctl", libc::SYS_keyctl),
        ("add_key", libc::SYS_add_key),
        ("kexec_load", libc::SYS_kexec_load),
        ("init_module", libc::SYS_init_module),
        ("finit_module", libc::SYS_finit_module),
        ("delete_module", libc::SYS_delete_module),
        ("reboot", libc::SYS_reboot),
        ("swapon", libc::SYS_swapon),
        ("settimeofday", libc::SYS_settimeofday),
        ("setuid", libc::SYS_setuid),
        ("setresuid", libc::SYS_setresuid),
        ("setgroups", libc::SYS_setgroups),
        ("capset", libc::SYS_capset),
        ("personality", libc::SYS_personality),
        ("clone3", libc::SYS_clone3),
        ("execve", libc::SYS_execve),
        ("execveat", libc::SYS_execveat),
        ("mknodat", libc::SYS_mknodat),
        ("symlinkat", libc::SYS_symlinkat),
        ("seccomp", libc::SYS_seccomp),
    ] {
        said += &call(what, number, [0; 5]);
    }
    let dumpable = libc::c_long::from(libc::PR_SET_DUMPABLE);
    said += &call("becoming dumpable", libc::SYS_prctl, [dumpable, 1, 0, 0, 0]);
    said += &call(
        "a signal to the parent",
        libc::SYS_kill,
        [parent, 0, 0, 0, 0],
    );
    let signal = [parent, parent, 0, 0, 0];
    said += &call(
        "a signal to a thread of the parent",
        libc::SYS_tgkill,
        signal,
    );
    let packet = [libc::c_long::from(libc::AF_PACKET), 3, 0, 0, 0];
    said += &call("a packet socket", libc::SYS_socket, packet);
    let audit = [libc::c_long::from(libc::AF_NETLINK), 3, 9, 0, 0];
    said += &call("a socket to the kernel's audit", libc::SYS_socket, audit);
    let sti = i64::try_from(libc::TIOCSTI).unwrap();
    said += &call("typing into a terminal", libc::SYS_ioctl, [0, sti, 0, 0, 0]);
    said += &call(
        "a process",
        libc::SYS_clone,
        [libc::c_long::from(libc::SIGCHLD), 0, 0, 0, 0],
    );
    let both = libc::c_long::from(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
    let private = libc::c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    said += &call(
        "memory to write and execute",
        libc::SYS_mmap,
        [0, 4096, both, private, -1],
    );
    said += &tried("a program", Command::new("/bin/true").status());
    said += &format!(
        "refused /bin/true by exec: {}\n",
        Command::new("/bin/true").exec()
    );
    said += &tried("reading /etc/shadow", fs::read("/etc/shadow"));
    said += &tried("reading /etc/passwd", fs::read("/etc/passwd"));
    said += &tried("reading /proc/self/environ", fs::read("/proc/self/environ"));
    said += &tried("listing /", fs::read_dir("/"));
    said += &tried("writing to /tmp", fs::write("/tmp/mezite-was-here", ""));
    said += &tried(
        "writing to /etc/hosts",
        fs::OpenOptions::new().append(true).open("/etc/hosts"),
    );
    said += &tried("binding a port", TcpListener::bind("127.0.0.1:0"));
    said
}

/// What a hub does all day.
fn permitted(directory: &Path, address: std::net::SocketAddr) -> std::io::Result<()> {
    fs::create_dir_all(directory.join("a/b"))?;
    fs::write(directory.join("a/b/file"), "x")?;
    fs::rename(directory.join("a/b/file"), directory.join("a/other"))?;
    fs::read_dir(directory.join("a"))?;
    fs::File::open(directory.join("a"))?.sync_all()?;
    fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(directory.join("a/other"))?;
    fs::remove_file(directory.join("a/other"))?;
    let socket = directory.join("socket");
    drop(UnixListener::bind(&socket)?);
    fs::remove_file(socket)?;
    fs::read("/etc/hosts")?;
    drop(TcpStream::connect(address)?);
    std::thread::spawn(|| ())
        .join()
        .map_err(|_| std::io::Error::other("no thread"))?;
    std::net::ToSocketAddrs::to_socket_addrs("localhost:1")?;
    Ok(())
}

#[test]
fn attack_80_what_was_given_up_is_refused_and_the_rest_works() {
    let (_outer, directory) = place();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let parent = i64::from(std::process::id());
    let said = in_a_child(|| {
        let lacking = match give_up(&directory) {
            Ok(lacking) => lacking,
            Err(error) => return error,
        };
        let works = permitted(&directory, address);
        let works = works.map_or_else(
            |error| format!("NOT PERMITTED: {error}\n"),
            |()| String::new(),
        );
        let dumped = nix::sys::prctl::get_dumpable() == Ok(false);
        format!(
            "lacks [{lacking}]\nnot dumpable {dumped}\n{works}{}",
            forbidden(parent)
        )
    });
    assert!(
        said.starts_with("lacks []\nnot dumpable true\nrefused "),
        "{said}"
    );
    assert!(!said.contains("DONE"), "{said}");
    assert!(said.lines().count() > 50, "{said}");
}

/// The same things work where nothing was given up, so their refusal shows something.
#[test]
fn without_the_measures_the_same_is_not_refused() {
    let said = in_a_child(|| {
        let mut said = tried("a program", Command::new("/bin/true").status());
        said += &tried("reading /etc/passwd", fs::read("/etc/passwd"));
        said += &tried("listing /", fs::read_dir("/"));
        said += &tried("binding a port", TcpListener::bind("127.0.0.1:0"));
        said += &call(
            "memory_fd",
            libc::SYS_memfd_create,
            [i64::try_from(c"x".as_ptr().addr()).unwrap(), 0, 0, 0, 0],
        );
        said
    });
    assert_eq!(said.matches("DONE").count(), 5, "{said}");
}

#[test]
fn attack_69_root_has_no_way_back() {
    if !geteuid().is_root() {
        return;
    }
    let said = in_a_child(|| {
        let report = match lower(nobody().as_ref()) {
            Ok(report) => report,
            Err(error) => return error.to_string(),
        };
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        let again = nix::unistd::setuid(0.into()).is_err();
        let names = report.names(State::InForce);
        [
            of("Uid:"),
            of("Gid:"),
            of("Groups:"),
            of("CapInh:"),
            of("CapPrm:"),
            of("CapEff:"),
            of("CapBnd:"),
            of("CapAmb:"),
            of("NoNewPrivs:"),
            format!("{again} {names}"),
        ]
        .join("\n")
    });
    let none = "0000000000000000";
    let id = "65534 65534 65534 65534";
    let measures = "true user, capabilities, bounding set, no_new_privs, not dumpable";
    let expected = [id, id, "", none, none, none, none, none, "1", measures].join("\n");
    assert_eq!(said, expected);
}

/// A drop that is asked for and not possible stops the program.
#[test]
fn attack_69_an_impossible_change_of_the_user_is_no_start() {
    let account = |uid| Account {
        name: String::from("someone"),
        uid,
        gid: uid,
    };
    let said = in_a_child(|| {
        let mut said = String::new();
        if geteuid().is_root() {
            said += &tried("root", lower(Some(&account(0))));
            said += &tried("nobody", lower(nobody().as_ref()));
        }
        said + &tried("someone", lower(Some(&account(12345))))
    });
    if geteuid().is_root() {
        assert!(
            said.starts_with("refused root: cannot become `someone`"),
            "{said}"
        );
    }
    assert!(
        said.contains("refused someone: cannot become `someone` (user 12345, group 12345)"),
        "{said}"
    );
}

#[test]
fn what_is_switched_off_is_not_asked_for_and_said() {
    let said = in_a_child(|| {
        let Ok(mut report) = lower(None) else {
            return String::from("not lowered");
        };
        let off = [Measure::Memory, Measure::Landlock, Measure::Seccomp];
        let confined = confine(&Files::default(), &off, true, &mut report);
        format!("{} {}", confined.is_ok(), report.names(State::NotAsked))
    });
    assert!(
        said.starts_with("true user") && said.ends_with("memory, landlock, seccomp"),
        "{said}"
    );
}

/// Whoever has given up system calls already is on a kernel that lacks landlock, as far as it can see.
#[test]
fn attack_80_what_a_kernel_lacks_is_told_and_refused_in_strict_mode() {
    let (_outer, directory) = place();
    let said = in_a_child(|| {
        if let Err(error) = give_up(&directory) {
            return error;
        }
        let again = |strict| {
            let mut report = Report::default();
            let files = Files::default();
            let confined = confine(&files, &[Measure::Memory], strict, &mut report);
            let lacks = report.names(State::NotSupported);
            format!(
                "{lacks}: {}\n",
                confined.map_or_else(|error| error.to_string(), |()| String::from("on"))
            )
        };
        again(false) + &again(true)
    });
    let lacks = "files, ports, signals, system calls";
    let expected = format!(
        "{lacks}: on\n{lacks}: `hardening.strict` is set and this kernel lacks: {lacks}; use a newer kernel, or remove `hardening.strict`\n"
    );
    assert_eq!(said, expected);
}

#[test]
fn with_threads_nothing_is_given_up() {
    let said = in_a_child(|| {
        let (wait, waiting) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || waiting.recv().is_ok());
        let said = tried("lowering", lower(None));
        drop(wait);
        drop(thread.join());
        said
    });
    assert!(
        said.contains("refused lowering: cannot give up privileges with 2 threads"),
        "{said}"
    );
}

#[test]
fn a_directory_of_somebody_else_is_told_with_the_remedy() {
    if !geteuid().is_root() {
        return;
    }
    let (_outer, directory) = place();
    let account = nobody();
    give("data directory", &directory, account.as_ref()).unwrap();
    fs::write(directory.join("left by root"), "").unwrap();
    let error = give("data directory", &directory, account.as_ref()).unwrap_err();
    let remedy = format!("`chown -R 65534:65534 {}`", directory.display());
    assert!(
        error.contains("left by root` belongs to user 0") && error.contains(&remedy),
        "{error}"
    );
    assert!(
        give("data directory", &directory, None)
            .unwrap_err()
            .contains("runs as `root`")
    );
}
