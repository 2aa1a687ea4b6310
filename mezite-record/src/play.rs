//! Replay: what to show and how long to wait before it. Pure: the player holds the clock and the terminal.

mod filter;

use std::str::FromStr;

use mezite_core::Span;
use thiserror::Error;

use crate::frame::Timed;
use crate::screen::Screen;
pub use crate::screen::Shown;
pub use filter::Filter;

/// What a player writes when it stops, so that a recording cut in the middle leaves the terminal usable: main screen,
/// whole scroll region, cursor shown, line wrap on, attributes and character set reset.
pub const RESET: &str = "\u{1b}[?1049l\u{1b}[r\u{1b}[?25h\u{1b}[?7h\u{1b}[0m\u{1b}(B\r\n";

/// How fast to play: a factor from 0.01 to 1000, written as `2`, `0.5` or `1.5x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speed {
    percent: u64,
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
        if (1..=100_000).contains(&percent) {
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

/// One channel's screen over time, made harmless for the terminal of the watcher (see [`Filter`]).
#[derive(Clone, Debug)]
pub struct Timeline {
    pieces: Vec<(Span, Shown)>,
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
        let mut pieces = Vec::new();
        let mut end = Span::default();
        for timed in frames {
            let timed = timed?;
            end = timed.at;
            let first_size = screen.size;
            pieces.extend(screen.push(&timed));
            if let (None, Some((cols, rows))) = (first_size, screen.size) {
                pieces.push((timed.at, Shown::Resize { cols, rows }));
            }
        }
        pieces.extend(screen.finish().map(|rest| (end, rest)));
        Ok(Self {
            pieces,
            next: 0,
            position: Span::default(),
            speed: Speed::default(),
            idle_limit: None,
        })
    }

    /// Plays at `speed` from here on.
    pub fn set_speed(&mut self, speed: Speed) {
        self.speed = speed;
    }

    /// Waits at most `limit`, counted before the speed is applied; `None` waits as long as the session did.
    pub fn set_idle_limit(&mut self, limit: Option<Span>) {
        self.idle_limit = limit;
    }

    /// The next step, or `None` at the end.
    pub fn step(&mut self) -> Option<Step<'_>> {
        let (at, shown) = self.pieces.get(self.next)?;
        let gap = Span::from_millis(at.as_millis().saturating_sub(self.position.as_millis()));
        let gap = self.idle_limit.map_or(gap, |limit| gap.min(limit));
        self.next += 1;
        self.position = self.position.max(*at);
        Some(Step {
            wait: self.speed.stretch(gap),
            at: *at,
            shown,
        })
    }

    /// Goes to `to` since the start, forward or back, and gives what to show at once to be there. A player clears the
    /// screen first when it goes back; forward, only what lies between is given.
    pub fn seek(&mut self, to: Span) -> &[(Span, Shown)] {
        let end = self.pieces.partition_point(|(at, _)| *at <= to);
        let from = if to < self.position { 0 } else { self.next };
        self.next = end;
        self.position = to;
        self.pieces.get(from..end).unwrap_or_default()
    }

    /// Where the timeline stands.
    #[must_use]
    pub fn position(&self) -> Span {
        self.position
    }

    /// When the last thing was shown.
    #[must_use]
    pub fn duration(&self) -> Span {
        self.pieces.last().map(|(at, _)| *at).unwrap_or_default()
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
        assert_eq!(timeline.seek(Span::from_secs(5)).len(), 2);
        assert_eq!(
            timeline.step().map(|step| step.wait.as_millis()),
            Some(5100)
        );
        assert_eq!(
            timeline.seek(Span::from_millis(10_200)),
            [(Span::from_millis(10_200), text("c"))]
        );
        assert_eq!(timeline.step(), None);
        assert_eq!(timeline.seek(Span::from_millis(100)).len(), 2);
        assert_eq!(
            timeline.step().map(|step| step.shown.clone()),
            Some(text("b"))
        );
        assert_eq!(timeline.duration(), Span::from_millis(10_200));
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
    }
}
