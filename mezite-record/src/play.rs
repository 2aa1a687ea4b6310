//! Replay: what to show and how long to wait before it. Pure: the player holds the clock and the terminal.

mod filter;
mod live;

use std::fmt;
use std::str::FromStr;

use mezite_core::Span;
use thiserror::Error;

use crate::frame::Timed;
use crate::screen::Screen;
pub use crate::screen::Shown;
use crate::terminal::{DEFAULT_SIZE, Emulator};
pub use filter::Filter;
pub use live::Live;

/// What a player writes when it stops, so that a recording cut in the middle leaves the terminal usable: main screen,
/// whole scroll region, cursor shown, line wrap on, attributes and character set reset.
pub const RESET: &str = "\u{1b}[?1049l\u{1b}[r\u{1b}[?25h\u{1b}[?7h\u{1b}[0m\u{1b}(B\r\n";

/// What makes a terminal blank before a screen is painted anew: main screen, everything reset, cleared, cursor at home.
pub const CLEAR: &str = "\u{1b}[?1049l\u{1b}[!p\u{1b}[r\u{1b}[0m\u{1b}(B\u{1b}[H\u{1b}[2J";

/// How fast to play: a factor from 0.01 to 1000, written as `2`, `0.5` or `1.5x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speed {
    percent: u64,
}

/// A thousand times as fast.
const MAX_PERCENT: u64 = 100_000;

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.percent % 100 {
            0 => write!(f, "{}x", self.percent / 100),
            rest => write!(f, "{}.{rest:02}x", self.percent / 100),
        }
    }
}

impl Default for Speed {
    fn default() -> Self {
        Self { percent: 100 }
    }
}

/// Why a text is not a speed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a speed: write a factor from 0.01 to 1000, for example 2 or 0.5")]
pub struct SpeedError(String);

impl Speed {
    /// Twice as fast, up to 1000.
    #[must_use]
    pub fn faster(self) -> Self {
        let percent = self.percent.saturating_mul(2).min(MAX_PERCENT);
        Self { percent }
    }

    /// Half as fast, down to 0.01.
    #[must_use]
    pub fn slower(self) -> Self {
        let percent = (self.percent / 2).max(1);
        Self { percent }
    }

    /// How much of the session passes in this time at this speed.
    #[must_use]
    pub fn cover(self, span: Span) -> Span {
        Span::from_millis(span.as_millis().saturating_mul(self.percent) / 100)
    }

    /// How long something takes at this speed.
    #[must_use]
    pub fn stretch(self, span: Span) -> Span {
        Span::from_millis(span.as_millis().saturating_mul(100) / self.percent.max(1))
    }
}

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Self, SpeedError> {
        let error = || {
            SpeedError(
                text.chars()
                    .take(40)
                    .flat_map(char::escape_default)
                    .collect(),
            )
        };
        let number = text.strip_suffix('x').unwrap_or(text);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 2 {
            return Err(error());
        }
        let percent = format!("{whole}{fraction:0<2}")
            .parse()
            .map_err(|_| error())?;
        if (1..=MAX_PERCENT).contains(&percent) {
            Ok(Self { percent })
        } else {
            Err(error())
        }
    }
}

/// The next thing to do for a player.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step<'a> {
    /// How long to wait first, with speed and idle limit applied.
    pub wait: Span,
    /// When it was shown, since the start of the session.
    pub at: Span,
    /// What to show then.
    pub shown: &'a Shown,
}

/// A place worth going to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mark {
    /// When, since the start of the session.
    pub at: Span,
    /// A command with its prompt, or a remark of the recorder; one line without controls.
    pub label: String,
}

/// One channel's screen over time, made harmless for the terminal of the watcher (see [`Filter`]).
#[derive(Clone, Debug)]
pub struct Timeline {
    pieces: Vec<(Span, Shown)>,
    marks: Vec<Mark>,
    end: Span,
    next: usize,
    position: Span,
    speed: Speed,
    idle_limit: Option<Span>,
}

impl Timeline {
    /// Collects the screen of `channel`, or of the first channel that runs or shows something.
    ///
    /// # Errors
    /// The first error of `frames`.
    pub fn collect<E>(
        frames: impl IntoIterator<Item = Result<Timed, E>>,
        channel: Option<u32>,
    ) -> Result<Self, E> {
        let mut screen = Screen::new(channel, Some(Filter::new()));
        let mut timeline = Self {
            pieces: Vec::new(),
            marks: Vec::new(),
            end: Span::default(),
            next: 0,
            position: Span::default(),
            speed: Speed::default(),
            idle_limit: None,
        };
        let mut changes = Vec::new();
        for timed in frames {
            let timed = timed?;
            timeline.end = timed.at;
            let first_size = screen.size;
            screen.push(&timed, &mut changes);
            timeline.take(&mut changes);
            if let (None, Some((cols, rows))) = (first_size, screen.size) {
                timeline
                    .pieces
                    .push((timed.at, Shown::Resize { cols, rows }));
            }
        }
        changes.extend(screen.finish().map(|rest| (timeline.end, rest)));
        timeline.take(&mut changes);
        Ok(timeline)
    }

    fn take(&mut self, changes: &mut Vec<(Span, Shown)>) {
        for (at, shown) in changes.drain(..) {
            match shown {
                Shown::Text(_) | Shown::Resize { .. } => self.pieces.push((at, shown)),
                Shown::Mark(label) => self.marks.push(Mark { at, label }),
                Shown::Exit(_) => {}
            }
        }
    }

    /// Commands and remarks in order.
    #[must_use]
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The next mark after the position.
    #[must_use]
    pub fn next_mark(&self) -> Option<&Mark> {
        self.marks.iter().find(|mark| mark.at > self.position)
    }

    /// The last mark that lies more than `margin` before the position: whoever goes back twice in a row gets past the
    /// mark they are at.
    #[must_use]
    pub fn previous_mark(&self, margin: Span) -> Option<&Mark> {
        let before = self.position.as_millis().saturating_sub(margin.as_millis());
        let before = |mark: &&Mark| mark.at.as_millis() < before;
        self.marks.iter().rev().find(before)
    }

    /// Plays at `speed` from here on.
    pub fn set_speed(&mut self, speed: Speed) {
        self.speed = speed;
    }

    /// The longest wait, if there is one.
    #[must_use]
    pub fn idle_limit(&self) -> Option<Span> {
        self.idle_limit
    }

    /// Waits at most `limit`, counted before the speed is applied; `None` waits as long as the session did.
    pub fn set_idle_limit(&mut self, limit: Option<Span>) {
        self.idle_limit = limit;
    }

    /// How long to wait before the next step, with speed and idle limit applied, or `None` at the end.
    #[must_use]
    pub fn wait(&self) -> Option<Span> {
        let (at, _) = self.pieces.get(self.next)?;
        let gap = Span::from_millis(at.as_millis().saturating_sub(self.position.as_millis()));
        let gap = self.idle_limit.map_or(gap, |limit| gap.min(limit));
        Some(self.speed.stretch(gap))
    }

    /// The next step, or `None` at the end.
    pub fn step(&mut self) -> Option<Step<'_>> {
        let wait = self.wait()?;
        let (at, shown) = self.pieces.get(self.next)?;
        self.next += 1;
        self.position = self.position.max(*at);
        Some(Step {
            wait,
            at: *at,
            shown,
        })
    }

    /// Goes to `to` since the start, forward or back, and gives what to write at once so that a terminal of the
    /// recording's size shows what stood there: it clears the screen and paints it.
    pub fn seek(&mut self, to: Span) -> String {
        self.next = self.pieces.partition_point(|(at, _)| *at <= to);
        self.position = to;
        let before = self.pieces.get(..self.next).unwrap_or_default();
        let mut emulator = Emulator::new(DEFAULT_SIZE);
        for (_, shown) in before {
            match shown {
                Shown::Text(text) => drop(emulator.push(text)),
                Shown::Resize { cols, rows } => drop(emulator.resize((*cols, *rows))),
                Shown::Mark(_) | Shown::Exit(_) => {}
            }
        }
        let painted = emulator.dump().unwrap_or_else(|| {
            // Too much work for an emulator: the watcher's terminal does it.
            let texts = before.iter().filter_map(|(_, shown)| match shown {
                Shown::Text(text) => Some(text.as_str()),
                Shown::Resize { .. } | Shown::Mark(_) | Shown::Exit(_) => None,
            });
            texts.collect()
        });
        format!("{CLEAR}{}", Filter::new().push(&painted))
    }

    /// Time passed within a wait: the position moves on by `span` at the speed of the session.
    pub fn pass(&mut self, span: Span) {
        let next = self.pieces.get(self.next).map_or(self.end, |(at, _)| *at);
        let passed = self.position.as_millis().saturating_add(span.as_millis());
        self.position = Span::from_millis(passed).min(next.max(self.position));
    }

    /// Where the timeline stands.
    #[must_use]
    pub fn position(&self) -> Span {
        self.position
    }

    /// When the last thing was recorded.
    #[must_use]
    pub fn duration(&self) -> Span {
        self.end
    }

    /// The speed it plays at.
    #[must_use]
    pub fn speed(&self) -> Speed {
        self.speed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{ChannelEvent, Frame};

    fn at(millis: u64, frame: Frame) -> Result<Timed, ()> {
        let at = Span::from_millis(millis);
        Ok(Timed { at, frame })
    }

    fn timeline() -> Timeline {
        let pty = ChannelEvent::Pty {
            term: "xterm".into(),
            cols: 80,
            rows: 24,
        };
        let frames = [
            at(0, Frame::channel(0, pty)),
            at(100, Frame::stdout(0, "a")),
            at(200, Frame::stdout(1, "of another channel")),
            at(10_100, Frame::stdout(0, "b\u{1b}]52;c;eA==\u{7}")),
            at(10_200, Frame::stdout(0, "c")),
        ];
        Timeline::collect(frames, None).unwrap()
    }

    fn waits(timeline: &mut Timeline) -> Vec<(u64, Shown)> {
        let mut all = Vec::new();
        while let Some(step) = timeline.step() {
            all.push((step.wait.as_millis(), step.shown.clone()));
        }
        all
    }

    fn text(text: &str) -> Shown {
        Shown::Text(text.to_owned())
    }

    #[test]
    fn waits_as_the_session_did_or_faster() {
        let size = Shown::Resize { cols: 80, rows: 24 };
        let all = vec![
            (0, size),
            (100, text("a")),
            (10_000, text("b")),
            (100, text("c")),
        ];
        assert_eq!(waits(&mut timeline()), all);
        let mut fast = timeline();
        fast.set_speed("2x".parse().unwrap());
        fast.set_idle_limit(Some(Span::from_secs(1)));
        let found: Vec<_> = waits(&mut fast).into_iter().map(|(wait, _)| wait).collect();
        assert_eq!(found, [0, 50, 500, 50]);
    }

    #[test]
    fn seeks_forward_and_back() {
        let mut timeline = timeline();
        let painted = timeline.seek(Span::from_secs(5));
        assert!(painted.starts_with(CLEAR) && painted.contains('a'));
        assert_eq!(
            timeline.step().map(|step| step.wait.as_millis()),
            Some(5100)
        );
        assert!(timeline.seek(Span::from_millis(10_200)).contains("abc"));
        assert_eq!(timeline.step(), None);
        assert!(!timeline.seek(Span::from_millis(100)).contains("ab"));
        assert_eq!(
            timeline.step().map(|step| step.shown.clone()),
            Some(text("b"))
        );
        assert_eq!(timeline.duration(), Span::from_millis(10_200));
    }

    #[test]
    fn commands_are_marks_to_go_to() {
        let exec = ChannelEvent::Exec {
            command: "make\n\u{1b}all".into(),
        };
        let frames = [
            at(10, Frame::channel(0, exec)),
            at(20, Frame::stdout(0, "x")),
            at(5000, Frame::note("paused")),
        ];
        let mut timeline = Timeline::collect(frames, None).unwrap();
        let labels: Vec<_> = timeline.marks().iter().map(|it| &*it.label).collect();
        assert_eq!(labels, ["make\\n\\u{1b}all", "paused"]);
        assert_eq!(timeline.next_mark().unwrap().at.as_millis(), 10);
        timeline.seek(Span::from_millis(10));
        assert_eq!(timeline.next_mark().unwrap().label, "paused");
        assert_eq!(timeline.previous_mark(Span::default()), None);
        timeline.pass(Span::from_secs(60));
        assert_eq!(
            timeline.position().as_millis(),
            20,
            "not past the next step"
        );
        timeline.seek(Span::from_secs(5));
        let near = timeline.previous_mark(Span::from_secs(1)).unwrap();
        assert_eq!(near.at.as_millis(), 10);
    }

    #[test]
    fn speeds_read_as_people_write_them() {
        for (good, percent) in [
            ("1", 100),
            ("2x", 200),
            ("0.5", 50),
            ("1.25x", 125),
            ("1000", 100_000),
        ] {
            assert_eq!(good.parse(), Ok(Speed { percent }), "{good}");
        }
        for bad in [
            "",
            "x",
            "0",
            "-1",
            "1.",
            ".5",
            "1001",
            "1.234",
            "1e3",
            "99999999999999999999999",
        ] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_reset_passes_the_filter() {
        assert_eq!(Filter::new().push(RESET), RESET);
        assert_eq!(Filter::new().push(CLEAR), CLEAR);
    }
}
