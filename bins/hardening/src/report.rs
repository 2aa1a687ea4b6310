//! What is in force, for people, for programs and for the log.

use serde::{Deserialize, Serialize};

/// What can be switched off, each by its name in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Measure {
    /// No memory that is writable and executable.
    Memory,
    /// Files, ports and signals.
    Landlock,
    /// System calls.
    Seccomp,
}

impl Measure {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }
}

/// What became of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth way")]
pub enum State {
    /// It holds for every thread from now on.
    InForce,
    /// This kernel does not know it.
    NotSupported,
    /// It was switched off, or there was nothing to take.
    NotAsked,
}

impl State {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::InForce => "in force",
            Self::NotSupported => "not supported by this kernel",
            Self::NotAsked => "not asked",
        }
    }
}

/// One measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Line {
    /// Its name.
    pub measure: &'static str,
    /// What became of it.
    pub state: State,
    /// What that means here.
    pub detail: String,
}

impl Line {
    pub(crate) fn new(measure: &'static str, state: State, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            measure,
            state,
            detail,
        }
    }
}

/// All measures, in the order in which they were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Report(Vec<Line>);

impl Report {
    /// The measures.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.0
    }

    /// The names of the measures in that state, for one line of a log.
    #[must_use]
    pub fn names(&self, state: State) -> String {
        let names = self.0.iter().filter(|line| line.state == state);
        names
            .map(|line| line.measure)
            .collect::<Vec<_>>()
            .join(", ")
    }

    pub(crate) fn lacking(&self) -> String {
        self.names(State::NotSupported)
    }

    pub(crate) fn push(&mut self, line: Line) {
        self.0.push(line);
    }

    pub(crate) fn extend(&mut self, lines: Vec<Line>) {
        self.0.extend(lines);
    }
}
