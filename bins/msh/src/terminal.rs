//! Standard input as a terminal, while something else is shown on it.

use std::io;

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};

use crate::fail::Failure;

/// Changed settings of the terminal, until dropped.
pub(crate) struct Terminal(Termios);

impl Terminal {
    /// Without echo, lines and signals: every key is ours.
    pub(crate) fn raw() -> Result<Self, Failure> {
        Self::with(termios::cfmakeraw)
    }

    /// Without echo and lines, so that nothing is painted but what we paint. Signals stay.
    pub(crate) fn quiet() -> Result<Self, Failure> {
        Self::with(|settings| {
            settings
                .local_flags
                .remove(LocalFlags::ECHO | LocalFlags::ICANON);
        })
    }

    fn with(change: impl FnOnce(&mut Termios)) -> Result<Self, Failure> {
        let input = io::stdin();
        let failed =
            |error| Failure::failed(format_args!("cannot read keys from the terminal: {error}"));
        let before = termios::tcgetattr(&input).map_err(failed)?;
        let mut changed = before.clone();
        change(&mut changed);
        // What is shown was made for a terminal that treats output as the recorded one did.
        changed.output_flags = before.output_flags;
        termios::tcsetattr(&input, SetArg::TCSADRAIN, &changed).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing could be done about a terminal that is gone.
        let _gone = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}
