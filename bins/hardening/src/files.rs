//! Landlock: which files the process still reaches; that it takes no more ports; that it signals and calls nobody outside.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
    make_bitflags,
};

use crate::HardeningError;
use crate::privileges::{Account, refused};
use crate::report::{Line, State};

/// What is asked for. Later versions know rights that a server may need, so they are not taken over unseen.
const VERSION: ABI = ABI::V6;

/// What the C library reads to resolve a name.
const NAMES: [&str; 5] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
];

/// From where a program that is not static loads what resolves names.
#[cfg(not(target_feature = "crt-static"))]
const LIBRARIES: [&str; 5] = [
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
];
#[cfg(target_feature = "crt-static")]
const LIBRARIES: [&str; 0] = [];

/// What is still reached. Each may be a file or a directory with what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "one can read or write")]
pub struct Files {
    /// To be read; what is not there is left out.
    pub read: Vec<PathBuf>,
    /// To be written too; must be there.
    pub write: Vec<PathBuf>,
}

/// What it takes to resolve names, to be read.
pub fn names() -> impl Iterator<Item = PathBuf> {
    NAMES.into_iter().chain(LIBRARIES).map(PathBuf::from)
}

/// Makes `path`, which is called `what` in messages, a directory that belongs to `account`, if it is not there, and checks that what is there already does:
/// itself and what lies in it. Root without an account must own it too: it gives up the right to write everywhere.
///
/// # Errors
/// What is wrong, and how to mend it.
pub fn give(what: &str, path: &Path, account: Option<&Account>) -> Result<(), String> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let shown = path.display();
    let failed = |error: std::io::Error| format!("cannot use the {what} `{shown}`: {error}");
    if !path.exists() {
        if let Some(parent) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700).create(path).map_err(failed)?;
        if let Some(parent) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
            let synced = std::fs::File::open(parent).and_then(|parent| parent.sync_all());
            synced.map_err(failed)?;
        }
        if let Some(account) = account {
            std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid)).map_err(failed)?;
        }
    }
    let root = Account {
        name: String::from("root"),
        uid: 0,
        gid: 0,
    };
    let is_root = nix::unistd::geteuid().is_root();
    let Some(account) = account.or_else(|| is_root.then_some(&root)) else {
        return Ok(());
    };
    let check = |path: &Path, owner: u32| {
        if owner == account.uid {
            return Ok(());
        }
        Err(format!(
            "`{}` belongs to user {owner}, and the program runs as `{}` (user {}): `chown -R {}:{} {shown}`",
            path.display(),
            account.name,
            account.uid,
            account.uid,
            account.gid
        ))
    };
    check(path, std::fs::metadata(path).map_err(failed)?.uid())?;
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        check(&entry.path(), entry.metadata().map_err(failed)?.uid())?;
    }
    Ok(())
}

pub(crate) fn restrict(files: &Files) -> Result<Vec<Line>, HardeningError> {
    let failed = |error: landlock::RulesetError| refused("files (landlock)", error);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(VERSION))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::BindTcp))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(VERSION)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    for (path, access) in rules(files)? {
        let opened = PathFd::new(&path).map_err(|error| unusable(&path, error))?;
        ruleset = ruleset
            .add_rule(PathBeneath::new(opened, access))
            .map_err(|error| unusable(&path, error))?;
    }
    let status = ruleset.restrict_self().map_err(failed)?;
    Ok(lines(status.ruleset, &status.landlock))
}

fn unusable(path: &Path, error: impl std::fmt::Display) -> HardeningError {
    HardeningError::Path {
        path: path.display().to_string(),
        why: error.to_string(),
    }
}

/// What is there of what is to be read, and everything that is to be written.
fn rules(files: &Files) -> Result<Vec<(PathBuf, BitFlags<AccessFs>)>, HardeningError> {
    let read_file = make_bitflags!(AccessFs::{ReadFile});
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let write_file = make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate});
    let write = make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | Truncate | Refer | MakeReg | MakeDir | MakeSock | RemoveFile | RemoveDir
    });
    let mut rules = vec![
        (PathBuf::from("/dev/null"), write_file),
        (PathBuf::from("/dev/urandom"), read_file),
    ];
    rules.retain(|(path, _)| path.exists());
    let wanted = files.read.iter().map(|path| (path, false));
    for (path, writes) in wanted.chain(files.write.iter().map(|path| (path, true))) {
        let whole = match std::fs::canonicalize(path) {
            Ok(whole) => whole,
            Err(error) if writes => return Err(unusable(path, error)),
            Err(_) => continue,
        };
        let access = match (whole.is_dir(), writes) {
            (true, true) => write,
            (true, false) => read,
            (false, true) => write_file,
            (false, false) => read_file,
        };
        // A link out of /etc leads to a file that is replaced by another of its name (resolv.conf), so its directory counts.
        let elsewhere = !writes && !whole.is_dir() && whole.parent() != path.parent();
        match whole.parent() {
            Some(parent) if elsewhere => rules.push((parent.to_owned(), read)),
            _ => rules.push((whole, access)),
        }
    }
    Ok(rules)
}

fn lines(ruleset: RulesetStatus, status: &LandlockStatus) -> Vec<Line> {
    let version = match (ruleset, status) {
        (RulesetStatus::NotEnforced, _)
        | (_, LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) => None,
        (_, LandlockStatus::Available { effective_abi, .. }) => Some(*effective_abi),
    };
    let line = |measure, needs: ABI, linux: &str, detail: &str| match version {
        Some(version) if version >= needs => Line::new(measure, State::InForce, detail),
        _ => Line::new(
            measure,
            State::NotSupported,
            format!("needs Linux {linux} with landlock"),
        ),
    };
    vec![
        line(
            "files",
            ABI::V3,
            "6.2",
            "only what the configuration names and what resolves names",
        ),
        line("ports", ABI::V4, "6.7", "no further TCP port can be bound"),
        line(
            "signals",
            ABI::V6,
            "6.12",
            "no process outside is signalled or called by an abstract socket",
        ),
    ]
}
