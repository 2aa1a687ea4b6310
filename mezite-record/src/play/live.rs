//! A session that runs: what stands on its screen is painted once, then what comes is shown as it comes.

use mezite_core::Span;

use super::{CLEAR, Filter};
use crate::frame::Timed;
use crate::screen::{Screen, Shown};
use crate::terminal::{DEFAULT_SIZE, Emulator};

/// One channel's screen while the session runs, made harmless for the terminal of the watcher (see [`Filter`]).
#[derive(Debug)]
pub struct Live {
    screen: Screen,
    /// What was shown before the watcher came; gone once it was painted.
    before: Option<Emulator>,
    changes: Vec<(Span, Shown)>,
}

impl Live {
    /// The screen of `channel`, or of the first channel that runs or shows something.
    #[must_use]
    pub fn new(channel: Option<u32>) -> Self {
        Self {
            screen: Screen::new(channel, Some(Filter::new())),
            before: Some(Emulator::new(DEFAULT_SIZE)),
            changes: Vec::new(),
        }
    }

    /// Takes the next frame, and gives what to write to the watcher's terminal: nothing before [`Live::present`].
    pub fn push(&mut self, timed: &Timed) -> String {
        let size = self.screen.size;
        self.screen.push(timed, &mut self.changes);
        if let (None, Some(first), Some(before)) = (size, self.screen.size, &mut self.before) {
            drop(before.resize(first));
        }
        let mut text = String::new();
        for (_, shown) in self.changes.drain(..) {
            match (shown, &mut self.before) {
                (Shown::Text(earlier), Some(before)) => drop(before.push(&earlier)),
                (Shown::Resize { cols, rows }, Some(before)) => drop(before.resize((cols, rows))),
                (Shown::Text(now), None) => text.push_str(&now),
                (Shown::Resize { .. }, None) | (Shown::Mark(_) | Shown::Exit(_), _) => {}
            }
        }
        text
    }

    /// The frames so far were before the watcher's time: gives what to write so that a terminal of the session's size shows
    /// what stands there. Empty when it was asked before.
    pub fn present(&mut self) -> String {
        let Some(before) = self.before.take() else {
            return String::new();
        };
        // What was too much work for an emulator is left out: the session paints anew sooner or later.
        let painted = before.dump().unwrap_or_default();
        format!("{CLEAR}{}", Filter::new().push(&painted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{ChannelEvent, Frame};

    fn at(millis: u64, frame: Frame) -> Timed {
        let at = Span::from_millis(millis);
        Timed { at, frame }
    }

    fn pty(cols: u32, rows: u32) -> Timed {
        let term = "xterm".into();
        at(0, Frame::channel(0, ChannelEvent::Pty { term, cols, rows }))
    }

    #[test]
    fn who_comes_late_sees_what_stands_there_and_then_what_comes() {
        let mut live = Live::new(None);
        assert_eq!(live.push(&pty(20, 5)), "");
        assert_eq!(
            live.push(&at(10, Frame::stdout(0, "one\r\ntwo\u{1b}[H\u{1b}[K"))),
            ""
        );
        let painted = live.present();
        assert!(
            painted.starts_with(CLEAR) && painted.contains("two"),
            "{painted:?}"
        );
        assert!(!painted.contains("one"), "it was wiped out: {painted:?}");
        assert_eq!(live.push(&at(20, Frame::stdout(0, "three"))), "three");
        assert_eq!(
            live.push(&at(21, Frame::stdout(1, "of another channel"))),
            ""
        );
        assert_eq!(live.present(), "");
    }

    #[test]
    fn attack_50_a_running_session_cannot_write_to_the_watchers_terminal() {
        let mut live = Live::new(None);
        live.push(&pty(20, 5));
        live.present();
        let shown = live.push(&at(1, Frame::stdout(0, "a\u{1b}]52;c;eA==\u{7}b")));
        assert_eq!(shown, "ab");
        assert_eq!(live.push(&at(2, Frame::stdout(0, "c\u{1b}]52;c;"))), "c");
        assert_eq!(live.push(&at(3, Frame::stdout(0, "eA==\u{7}d"))), "d");
    }
}
