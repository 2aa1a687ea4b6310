#![doc = include_str!("../README.md")]

mod calls;
mod environment;
mod files;
mod notify;
mod privileges;
mod report;
mod sockets;
mod sys;

use thiserror::Error;

pub use environment::{forget, set};
pub use files::{Files, give, names};
pub use notify::Notifier;
pub use privileges::{Account, lower};
pub use report::{Line, Measure, Report, State};
pub use sockets::{Inherited, bind, inherited};

/// Why a process was not hardened. It must not go on then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HardeningError {
    /// There are threads already, which would keep what this one gives up.
    #[error(
        "cannot give up privileges with {threads} threads running: this is a fault of the program, please report it"
    )]
    Threads {
        /// How many.
        threads: usize,
    },
    /// The account cannot be taken.
    #[error(
        "cannot become `{account}` (user {uid}, group {gid}): {why}; without root the program must be started as that user"
    )]
    Account {
        /// Its name.
        account: String,
        /// Its user id.
        uid: u32,
        /// Its group id.
        gid: u32,
        /// What the system said.
        why: String,
    },
    /// Something was to be given up, and the system refused.
    #[error("cannot give up {what}: {why}")]
    Refused {
        /// What.
        what: &'static str,
        /// What the system said.
        why: String,
    },
    /// A measure was applied and is not there.
    #[error("{what}: asked for, not refused, and yet not in force")]
    NotInForce {
        /// What.
        what: &'static str,
    },
    /// A directory or file cannot be opened for the rule that permits it.
    #[error("cannot permit `{path}`: {why}")]
    Path {
        /// Which.
        path: String,
        /// What the system said.
        why: String,
    },
    /// Strict mode, and the kernel lacks something.
    #[error(
        "`hardening.strict` is set and this kernel lacks: {lacks}; use a newer kernel, or remove `hardening.strict`"
    )]
    Lacking {
        /// The measures.
        lacks: String,
    },
}

/// Takes from a process of one thread, after its privileges were lowered, everything but `files` and the system calls that
/// a server needs. Every thread that is started later inherits it.
///
/// # Errors
/// What failed; the process is in a state between then and must end. What the kernel does not know is no error but a line
/// of the report, unless `strict`.
pub fn confine(
    files: &Files,
    off: &[Measure],
    strict: bool,
    report: &mut Report,
) -> Result<(), HardeningError> {
    type Apply = fn(&Files) -> Result<Vec<Line>, HardeningError>;
    // The last one takes away what the others need.
    let measures: [(Measure, Apply); 3] = [
        (Measure::Memory, |_| privileges::protect_memory()),
        (Measure::Landlock, files::restrict),
        (Measure::Seccomp, |_| calls::restrict()),
    ];
    privileges::check_threads()?;
    for (measure, apply) in measures {
        if off.contains(&measure) {
            let detail = "switched off in the configuration";
            report.push(Line::new(measure.name(), State::NotAsked, detail));
        } else {
            report.extend(apply(files)?);
        }
    }
    let lacks = report.lacking();
    if strict && !lacks.is_empty() {
        return Err(HardeningError::Lacking { lacks });
    }
    Ok(())
}
