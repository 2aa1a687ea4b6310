//! User, groups, capabilities and the marks of a process: given up for good, then looked at whether they are gone.

use caps::CapSet;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{
    Gid, Uid, geteuid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid,
};

use crate::report::{Line, Report, State};
use crate::{HardeningError, sys};

/// Who to become.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "three facts of a line in the password file"
)]
pub struct Account {
    /// For messages.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The only group that is kept.
    pub gid: u32,
}

/// Every set of capabilities of a thread but for the bounding set, which is emptied before them: that needs the effective one.
const SETS: [CapSet; 4] = [
    CapSet::Ambient,
    CapSet::Inheritable,
    CapSet::Effective,
    CapSet::Permitted,
];

/// Gives up the user (for `account`, if the process is root), every group but one, every capability, and the right to gain
/// any by starting a program; and forbids core dumps and being looked into by processes of the same user. To be called
/// while there is one thread, after sockets are bound and what only root can read is read.
///
/// # Errors
/// What could not be given up. The process must end then: it is in a state between.
pub fn lower(account: Option<&Account>) -> Result<Report, HardeningError> {
    check_threads()?;
    let mut report = Report::default();
    // First, because it needs a capability that goes with the user.
    let bounded = clear_bounding_set()?;
    report.push(change_user(account)?);
    for set in SETS {
        if !caps::read(None, set).is_ok_and(|left| left.is_empty()) {
            caps::clear(None, set).map_err(|error| refused("capabilities", error))?;
        }
    }
    for set in SETS {
        let left = caps::read(None, set).map_err(|error| refused("capabilities", error))?;
        check("no capabilities", left.is_empty())?;
    }
    report.push(Line::new("capabilities", State::InForce, "none is left"));
    report.push(if bounded {
        Line::new("bounding set", State::InForce, "no program can bring one")
    } else {
        let why = "started without root, which alone can empty it; no_new_privs does the same here";
        Line::new("bounding set", State::NotAsked, why)
    });
    prctl::set_no_new_privs().map_err(|error| refused("new privileges", error))?;
    check("no_new_privs", prctl::get_no_new_privs() == Ok(true))?;
    let detail = "no program started from here gains a right";
    report.push(Line::new("no_new_privs", State::InForce, detail));
    // Changing the user has set this anew.
    prctl::set_dumpable(false).map_err(|error| refused("core dumps", error))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|error| refused("core dumps", error))?;
    check("not dumpable", prctl::get_dumpable() == Ok(false))?;
    let detail = "no core dumps, and no process of the same user looks into this one";
    report.push(Line::new("not dumpable", State::InForce, detail));
    Ok(report)
}

/// Memory that is or was writable never becomes executable.
pub(crate) fn protect_memory() -> Result<Vec<Line>, HardeningError> {
    let line = |state, detail| vec![Line::new("memory", state, detail)];
    match sys::deny_writable_code() {
        Ok(()) => {
            let detail = "nothing is writable and executable";
            Ok(line(State::InForce, detail))
        }
        Err(Errno::EINVAL) => Ok(line(State::NotSupported, "needs Linux 6.3")),
        Err(error) => Err(refused("writable and executable memory", error)),
    }
}

/// Capabilities and rules of landlock belong to threads: others would keep what they have.
pub(crate) fn check_threads() -> Result<(), HardeningError> {
    // Without /proc, as in an empty root, nobody can be asked.
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(HardeningError::Threads { threads });
    }
    Ok(())
}

/// Whether it is empty now.
fn clear_bounding_set() -> Result<bool, HardeningError> {
    let failed = |error| refused("the bounding set of capabilities", error);
    let can = caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP);
    if can.map_err(failed)? {
        caps::clear(None, CapSet::Bounding).map_err(failed)?;
        let left = caps::read(None, CapSet::Bounding).map_err(failed)?;
        check("the empty bounding set", left.is_empty())?;
    }
    let left = caps::read(None, CapSet::Bounding).map_err(failed)?;
    Ok(left.is_empty())
}

fn change_user(account: Option<&Account>) -> Result<Line, HardeningError> {
    let own = geteuid();
    let Some(account) = account else {
        let detail = if own.is_root() {
            "runs as root: name an account with `hardening.user`".to_owned()
        } else {
            format!("started as user {own}, which it stays")
        };
        if own.is_root() {
            // The groups of whoever started it are none of its own.
            setgroups(&[]).map_err(|error| refused("groups", error))?;
        }
        return Ok(Line::new("user", State::NotAsked, detail));
    };
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let failed = |why: String| HardeningError::Account {
        account: account.name.clone(),
        uid: account.uid,
        gid: account.gid,
        why,
    };
    if uid.is_root() {
        return Err(failed(
            "that is root, as which nothing would be given up".to_owned(),
        ));
    }
    if own == uid {
        let detail = format!("started as `{}`, which it stays", account.name);
        return Ok(Line::new("user", State::NotAsked, detail));
    }
    let changed = setgroups(&[])
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid));
    changed.map_err(|error| failed(error.desc().to_owned()))?;
    let users = getresuid().map_err(|error| failed(error.desc().to_owned()))?;
    let groups = getresgid().map_err(|error| failed(error.desc().to_owned()))?;
    let became = [users.real, users.effective, users.saved] == [uid; 3]
        && [groups.real, groups.effective, groups.saved] == [gid; 3]
        && getgroups().is_ok_and(|others| others.iter().all(|other| *other == gid))
        && setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_err();
    check("the change of the user", became)?;
    let Account { name, uid, gid } = account;
    let detail = format!("`{name}` (user {uid}, group {gid}), no way back");
    Ok(Line::new("user", State::InForce, detail))
}

pub(crate) fn refused(what: &'static str, error: impl std::fmt::Display) -> HardeningError {
    let why = error.to_string();
    HardeningError::Refused { what, why }
}

fn check(what: &'static str, holds: bool) -> Result<(), HardeningError> {
    if holds {
        Ok(())
    } else {
        Err(HardeningError::NotInForce { what })
    }
}
