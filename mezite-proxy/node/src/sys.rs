//! The few system calls that need unsafe code: what a child does between fork and exec, terminal ioctls, and
//! registering a descriptor with the runtime.
//! Everything here is async-signal-safe where it runs in the child (`signal-safety(7)`): no allocation, no lock.
#![expect(
    unsafe_code,
    reason = "a child's set-up runs between fork and exec, and ioctls and registering a descriptor have no safe wrapper"
)]

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::pty::{PtyMaster, Winsize, grantpt, posix_openpt, unlockpt};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, setsid};
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

nix::ioctl_write_ptr_bad!(set_window_ioctl, libc::TIOCSWINSZ, Winsize);
nix::ioctl_write_int_bad!(set_controlling_ioctl, libc::TIOCSCTTY);

/// How many signals Linux has (`signal(7)`, real-time ones included).
const SIGNALS: libc::c_int = 64;
/// Beyond this number descriptors are not looked for on kernels without `close_range`.
const LAST_DESCRIPTOR: libc::c_int = 65_536;

/// A new pseudo-terminal, both ends closed on exec from the start.
#[derive(Debug)]
pub(crate) struct Pty {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
    /// The slave's path, for `SSH_TTY`.
    pub(crate) path: OsString,
}

/// Opens a pseudo-terminal.
pub(crate) fn open_pty() -> io::Result<Pty> {
    let master: PtyMaster = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = nix::pty::ptsname_r(&master)?;
    let slave = open(
        path.as_str(),
        OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    // The type owns its descriptor but gives it away by duplication only.
    let master = master.as_fd().try_clone_to_owned()?;
    Ok(Pty {
        master,
        slave,
        path: OsString::from_vec(path.into_bytes()),
    })
}

/// Sets a terminal's size; its foreground group gets `SIGWINCH`.
pub(crate) fn set_window(terminal: impl AsFd, size: Winsize) -> io::Result<()> {
    // SAFETY: the descriptor is open while borrowed and the kernel only reads the structure.
    unsafe { set_window_ioctl(terminal.as_fd().as_raw_fd(), &raw const size) }?;
    Ok(())
}

/// Has the runtime wait for a descriptor.
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays the same open file until it is dropped, and is moved in here.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}

/// What a child does before its program starts.
#[derive(Debug)]
pub(crate) struct Child {
    /// Whether standard input is the terminal that the new session gets as its own.
    pub(crate) terminal: bool,
    /// Where it starts, `/` if it cannot go there.
    pub(crate) directory: CString,
    /// The mask of permission bits for new files.
    pub(crate) umask: u32,
}

/// Makes `command` start its program as leader of a session and group of its own, with default signals and no
/// descriptor beyond the first three.
pub(crate) fn prepare(command: &mut Command, child: Child) {
    let prepare = move || {
        default_signals();
        setsid()?;
        if child.terminal {
            // SAFETY: descriptor 0 was just made the terminal's slave; the argument asks for no theft.
            unsafe { set_controlling_ioctl(libc::STDIN_FILENO, 0) }?;
        }
        umask(Mode::from_bits_truncate(child.umask));
        if chdir(child.directory.as_c_str()).is_err() {
            chdir(c"/")?;
        }
        close_others_on_exec();
        Ok(())
    };
    // SAFETY: the closure calls async-signal-safe functions only and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// The agent ignores some signals (SIGPIPE), and ignored ones are inherited. Asks the kernel itself, because the C
/// library refuses to touch the two or three signals that it keeps for threads.
fn default_signals() {
    // All zero is the kernel's `struct sigaction` for SIG_DFL with no flags and no mask; it has at most 32 bytes.
    let default = [0_u64; 8];
    let mask_size: libc::size_t = 8;
    for signal in 1..=SIGNALS {
        // SAFETY: the kernel reads the array, which is longer than its structure, and writes nothing; signals
        // that cannot be set are refused.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                mask_size,
            )
        };
    }
}

/// Marks every descriptor above standard error to be closed by exec. Not closed at once: the parent learns of a
/// failed exec over one of them.
fn close_others_on_exec() {
    let (first, last): (libc::c_uint, libc::c_uint) = (3, libc::c_uint::MAX);
    // SAFETY: marks descriptors; touches no memory.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            last,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked == 0 {
        return;
    }
    for descriptor in 3..=LAST_DESCRIPTOR {
        // SAFETY: marks one descriptor; a number that is not open is refused by the call.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
