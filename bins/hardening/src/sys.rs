//! The few system calls that need unsafe code: one `prctl` that has no wrapper, descriptors that the environment tells of,
//! and the memory in which the environment lies.
#![expect(
    unsafe_code,
    reason = "there is no safe wrapper, and none can be: the arguments come from outside of the language"
)]

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::SockaddrLike;

/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;

/// `PR_SET_MDWE` with `PR_MDWE_REFUSE_EXEC_GAIN`.
pub(crate) fn deny_writable_code() -> Result<(), Errno> {
    let none: libc::c_ulong = 0;
    // SAFETY: takes numbers only and touches no memory of ours.
    let set = unsafe {
        libc::prctl(
            libc::PR_SET_MDWE,
            libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN),
            none,
            none,
            none,
        )
    };
    Errno::result(set).map(drop)
}

/// Takes the `index`th descriptor over, closed on exec from now on.
pub(crate) fn handed_over(index: u32) -> Result<OwnedFd, Errno> {
    let number = i32::try_from(index)
        .ok()
        .and_then(|index| index.checked_add(FIRST));
    let number = number.ok_or(Errno::EBADF)?;
    // SAFETY: marks a descriptor; a number that is not open is refused.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, as the call before has shown, and nobody else has it: who starts a program with LISTEN_PID
    // gives it away, the variable is removed before this is called, and there is one thread, so that it is given once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Where a socket is bound.
pub(crate) fn local_address<T: SockaddrLike>(socket: &OwnedFd) -> Result<T, Errno> {
    nix::sys::socket::getsockname(socket.as_raw_fd())
}

/// Overwrites the value of a variable where the kernel shows it, and removes it.
pub(crate) fn forget_variable(name: &str) {
    let Ok(text) = CString::new(name) else {
        return;
    };
    // SAFETY: programs call this in `main` before they start a thread, so nobody reads or changes the environment
    // meanwhile; `getenv` gives a string that ends with a zero byte in writable memory of this process, and only what is
    // before that byte is overwritten.
    unsafe {
        let value = libc::getenv(text.as_ptr());
        if !value.is_null() {
            for offset in 0..libc::strlen(value) {
                value.add(offset).write_volatile(0);
            }
        }
        std::env::remove_var(name);
    }
}

/// Sets a variable.
#[expect(
    clippy::disallowed_methods,
    reason = "there is one thread, as it says below"
)]
pub(crate) fn set_variable(name: &str, value: &OsStr) {
    // SAFETY: programs call this in `main` before they start a thread, so nobody reads or changes the environment meanwhile.
    unsafe { std::env::set_var(name, value) };
}
