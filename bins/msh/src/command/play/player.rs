//! The two players: straight on for files and pipes, and with keys on a terminal.

use std::os::fd::AsFd;

use mezite_core::Span;
use mezite_record::play::{RESET, Shown, Timeline};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::time::Instant;

use super::keys::{Key, parse};
use crate::fail::Failure;
use crate::out;
use crate::terminal::Terminal;

/// How far an arrow key goes.
const JUMP: Span = Span::from_secs(5);
/// Whoever asks for the command before within this time after one means the one before that.
const MARGIN: Span = Span::from_millis(1500);
/// The idle limit that `i` turns on.
const IDLE: Span = Span::from_secs(2);

const HELP: &str = "space pause · . step · ← → 5 s · [ ] command · < > speed · 0-9 jump · g G ends · i idle · q quit";

/// Plays from `from` to the end.
pub(super) async fn straight(timeline: &mut Timeline, from: Option<Span>) -> Result<(), Failure> {
    if let Some(from) = from {
        out::bytes(timeline.seek(from).as_bytes())?;
    }
    while let Some(step) = timeline.step() {
        tokio::time::sleep(step.wait.as_duration()).await;
        show(step.shown)?;
    }
    Ok(())
}

/// The watcher's terminal keeps its own size.
fn show(shown: &Shown) -> Result<(), Failure> {
    match shown {
        Shown::Text(text) => out::bytes(text.as_bytes()),
        Shown::Resize { .. } | Shown::Mark(_) | Shown::Exit(_) | _ => Ok(()),
    }
}

/// Plays on a terminal, as the keys say.
pub(super) fn with_keys(timeline: Timeline, from: Option<Span>) -> Result<(), Failure> {
    let terminal = Terminal::raw()?;
    let mut player = Player {
        timeline,
        paused: false,
        over: false,
    };
    let played = player.run(from);
    out::bytes(RESET.as_bytes())?;
    drop(terminal);
    played
}

struct Player {
    timeline: Timeline,
    paused: bool,
    over: bool,
}

impl Player {
    fn run(&mut self, from: Option<Span>) -> Result<(), Failure> {
        if let Some(from) = from {
            self.go(from)?;
        }
        while !self.over {
            let wait = if self.paused {
                None
            } else {
                self.timeline.wait()
            };
            if wait.is_none() && !self.paused {
                return Ok(());
            }
            let started = Instant::now();
            let keys = keys_within(wait)?;
            if keys.is_empty() {
                if let Some(step) = self.timeline.step() {
                    show(step.shown)?;
                }
                continue;
            }
            if !self.paused {
                let passed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                let passed = self.timeline.speed().cover(Span::from_millis(passed));
                self.timeline.pass(passed);
            }
            for key in keys {
                self.press(key)?;
            }
        }
        Ok(())
    }

    fn press(&mut self, key: Key) -> Result<(), Failure> {
        let at = self.timeline.position().as_millis();
        let end = self.timeline.duration();
        match key {
            Key::Quit => self.over = true,
            Key::Pause => {
                self.paused = !self.paused;
                // The status line stands where something else stood.
                return self.go(self.timeline.position());
            }
            Key::Step => {
                self.paused = true;
                if let Some(step) = self.timeline.step() {
                    show(step.shown)?;
                }
                return self.status(None);
            }
            Key::Back => return self.go(Span::from_millis(at.saturating_sub(JUMP.as_millis()))),
            Key::Forward => {
                let to = Span::from_millis(at.saturating_add(JUMP.as_millis()));
                return self.go(to.min(end));
            }
            Key::PreviousMark => {
                let mark = self.timeline.previous_mark(MARGIN).map(|mark| mark.at);
                return self.go(mark.unwrap_or_default());
            }
            Key::NextMark => match self.timeline.next_mark().map(|mark| mark.at) {
                Some(at) => return self.go(at),
                None => return self.status(Some("no command follows")),
            },
            Key::Slower => self.timeline.set_speed(self.timeline.speed().slower()),
            Key::Faster => self.timeline.set_speed(self.timeline.speed().faster()),
            Key::Tenth(tenth) => {
                return self.go(Span::from_millis(end.as_millis() / 10 * u64::from(tenth)));
            }
            Key::Start => return self.go(Span::default()),
            Key::End => return self.go(end),
            Key::Idle => {
                let limit = self.timeline.idle_limit();
                self.timeline
                    .set_idle_limit(if limit.is_some() { None } else { Some(IDLE) });
            }
            Key::Help => {
                self.paused = true;
                return self.status(Some(HELP));
            }
        }
        self.status(None)
    }

    fn go(&mut self, to: Span) -> Result<(), Failure> {
        out::bytes(self.timeline.seek(to).as_bytes())?;
        self.status(None)
    }

    /// While paused, the last line of the terminal tells where it stands.
    fn status(&self, told: Option<&str>) -> Result<(), Failure> {
        if !self.paused {
            return Ok(());
        }
        let idle = self
            .timeline
            .idle_limit()
            .map_or_else(String::new, |limit| format!(" · idle at most {limit}"));
        let place = format!(
            "{} / {} · {}{idle}",
            clock(self.timeline.position()),
            clock(self.timeline.duration()),
            self.timeline.speed()
        );
        let told = told.unwrap_or("paused · ? shows the keys");
        // Save the cursor, last line, reversed, clear, restore.
        let line =
            format!("\u{1b}7\u{1b}[9999;1H\u{1b}[0;7m\u{1b}[2K{place} · {told}\u{1b}[0m\u{1b}8");
        out::bytes(line.as_bytes())
    }
}

/// The keys that are pressed within `wait`, or until one is.
fn keys_within(wait: Option<Span>) -> Result<Vec<Key>, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::failed(format_args!("cannot read keys from the terminal: {error}"))
    };
    let input = std::io::stdin();
    // Longer than a day is as good as for ever; the next round waits on.
    let timeout = wait.map_or(PollTimeout::NONE, |wait| {
        PollTimeout::try_from(wait.as_duration()).unwrap_or(PollTimeout::MAX)
    });
    let mut waiting = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    let ready = loop {
        match poll(&mut waiting, timeout) {
            // A signal, for example of a new size.
            Err(Errno::EINTR) => {}
            Err(error) => return Err(failed(&error)),
            Ok(ready) => break ready,
        }
    };
    if ready == 0 {
        return Ok(Vec::new());
    }
    let mut bytes = [0; 64];
    // Past the buffer of the standard library, which `poll` does not know of.
    let count = nix::unistd::read(&input, &mut bytes).map_err(|error| failed(&error))?;
    if count == 0 {
        // The terminal is gone.
        return Ok(vec![Key::Quit]);
    }
    Ok(parse(bytes.get(..count).unwrap_or_default()))
}

/// Hours, minutes and seconds.
pub(super) fn clock(span: Span) -> String {
    let secs = span.as_secs();
    format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
}
