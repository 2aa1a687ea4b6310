//! Seccomp: the system calls of a server that starts no program. Everything else does not exist for it.
//!
//! What is not listed is answered with ENOSYS and not by a signal: the C library then tries an older call, as on an older
//! kernel, and a caller gets an error that it handles.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::HardeningError;
use crate::privileges::refused;
use crate::report::{Line, State};

/// Harmless with any arguments, or bounded by the rest: files by landlock, users and capabilities by what is gone.
const FREE: &[libc::c_long] = &[
    // files
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_linkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_umask,
    libc::SYS_utimensat,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    // waiting
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // network
    libc::SYS_connect,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // memory: what is writable and executable is refused by the kernel's own measure
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_membarrier,
    // threads
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // signals to itself
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigpending,
    libc::SYS_sigaltstack,
    // clocks, and who and where it is
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_getrusage,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_capget,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
];

/// The same under their older names, which only this architecture has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_mkdir,
    libc::SYS_link,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// `PR_SET_VMA`, with which the C library names its memory.
const PR_SET_VMA: libc::c_int = 0x5356_4d41;

/// Terminals are asked whether they are one, sockets how much waits and not to block. Not among them: TIOCSTI, which
/// types into a terminal.
const IOCTLS: [libc::c_ulong; 6] = [
    libc::TCGETS,
    libc::TIOCGWINSZ,
    libc::FIONREAD,
    libc::FIONBIO,
    libc::FIOCLEX,
    libc::FIONCLEX,
];

pub(crate) fn restrict() -> Result<Vec<Line>, HardeningError> {
    let line = |state, detail: &str| vec![Line::new("system calls", state, detail)];
    let program = program(std::process::id()).map_err(|error| refused("system calls", error))?;
    match seccompiler::apply_filter_all_threads(&program) {
        Ok(()) => Ok(line(
            State::InForce,
            "no programs, no processes, no tracing, no mounts, no modules, no rings: those of a server only",
        )),
        Err(seccompiler::Error::Seccomp(error))
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) =>
        {
            Ok(line(
                State::NotSupported,
                "needs Linux 3.17 with seccomp filters",
            ))
        }
        Err(error) => Err(refused("system calls (seccomp)", error)),
    }
}

fn program(own: u32) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in FREE.iter().chain(OLDER) {
        rules.insert(*call, Vec::new());
    }
    for (call, conditions) in bounded(own)? {
        let rule = SeccompRule::new(conditions)?;
        rules.entry(call).or_default().push(rule);
    }
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let enosys = u32::try_from(libc::ENOSYS).unwrap_or(u32::MAX);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(enosys),
        SeccompAction::Allow,
        architecture,
    )?;
    BpfProgram::try_from(filter)
}

type Conditions = Result<Vec<(i64, Vec<SeccompCondition>)>, seccompiler::BackendError>;

/// Calls that are harmless with some arguments only; each line is one way to be let through.
fn bounded(own: u32) -> Conditions {
    let is = |argument, value: u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let zero =
        |argument| SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0);
    let mut bounded = Vec::new();
    // Threads, and no processes. `clone3`, whose flags cannot be looked at, is not there.
    let thread = number(libc::CLONE_THREAD);
    let flag = SeccompCmpOp::MaskedEq(thread);
    let threads = SeccompCondition::new(0, SeccompCmpArgLen::Qword, flag, thread)?;
    bounded.push((libc::SYS_clone, vec![threads]));
    // Networks, and the kernel's table of addresses, by which the C library sorts what a name stands for.
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        bounded.push((libc::SYS_socket, vec![is(0, number(family))?]));
    }
    let route = vec![
        is(0, number(libc::AF_NETLINK))?,
        is(2, number(libc::NETLINK_ROUTE))?,
    ];
    bounded.push((libc::SYS_socket, route));
    bounded.push((libc::SYS_socketpair, vec![is(0, number(libc::AF_UNIX))?]));
    for request in IOCTLS {
        bounded.push((libc::SYS_ioctl, vec![is(1, request)?]));
    }
    // Its own threads only.
    for call in [libc::SYS_tgkill, libc::SYS_rt_tgsigqueueinfo] {
        bounded.push((call, vec![is(0, u64::from(own))?]));
    }
    // Names of threads and memory, and questions. Nothing that was given up can be asked back.
    for option in [
        libc::PR_SET_NAME,
        libc::PR_GET_NAME,
        libc::PR_GET_DUMPABLE,
        libc::PR_GET_NO_NEW_PRIVS,
        libc::PR_SET_NO_NEW_PRIVS,
        libc::PR_CAPBSET_READ,
        PR_SET_VMA,
    ] {
        bounded.push((libc::SYS_prctl, vec![is(0, number(option))?]));
    }
    // Limits are read and not set.
    bounded.push((libc::SYS_prlimit64, vec![is(0, 0)?, zero(2)?]));
    Ok(bounded)
}

/// Constants of the C library are positive and of many types.
fn number(constant: libc::c_int) -> u64 {
    u64::try_from(constant).unwrap_or(u64::MAX)
}
