//! Taking samples: every measure goes round all ways in turn, so that what disturbs one disturbs all.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::Way;
use super::cleanup::pause;
use super::stats::Samples;
use crate::step::{self, Failure, Stopwatch};

/// How much is measured.
pub(crate) struct Plan {
    pub(crate) logins: usize,
    pub(crate) transfers: usize,
    /// Bytes of one transfer.
    pub(crate) bytes: u64,
    pub(crate) keystrokes: usize,
    pub(crate) idle_sessions: u32,
    /// No measure starts another round after this time; each has one round at least.
    pub(crate) limit: Duration,
}

/// What was measured on one way.
pub(crate) struct Results {
    pub(crate) way: &'static str,
    /// Wall time of `ssh host true`, ms.
    pub(crate) login: Samples,
    /// MiB/s.
    pub(crate) upload: Samples,
    /// MiB/s.
    pub(crate) download: Samples,
    /// From a byte typed to the byte shown, µs.
    pub(crate) echo: Samples,
    /// Growth of the bastion's proportional set size (PSS) per idle session, KiB.
    pub(crate) idle: Option<f64>,
}

/// A keystroke finds the machine at rest, as a person's does.
const TYPING_PAUSE: Duration = Duration::from_millis(5);

/// Incompressible bytes that are sent over and over; longer than any window a compressor looks back.
const BLOCK: u64 = 16 << 20;

pub(crate) fn all(config: &Path, ways: &[Way], plan: &Plan) -> Result<Vec<Results>, Failure> {
    let random = random(BLOCK)?;
    let file = config.with_file_name("random");
    fill(&file, &random, plan.bytes)?;
    let fresh = |way: &Way| Results {
        way: way.name,
        login: Samples::default(),
        upload: Samples::default(),
        download: Samples::default(),
        echo: Samples::default(),
        idle: None,
    };
    let mut results: Vec<Results> = ways.iter().map(fresh).collect();
    for way in ways {
        login(config, way)?;
    }
    // First, while no bastion holds memory that transfers have left behind.
    eprintln!("==> memory");
    for (way, result) in ways.iter().zip(&mut results) {
        result.idle = idle(config, way, plan.idle_sessions)?;
    }
    eprintln!("==> logins");
    rounds(
        plan.logins,
        plan.limit,
        ways,
        &mut results,
        |way, result| {
            result.login.push(login(config, way)?.as_secs_f64() * 1e3);
            Ok(())
        },
    )?;
    eprintln!("==> throughput");
    rounds(
        plan.transfers,
        plan.limit,
        ways,
        &mut results,
        |way, result| {
            result
                .upload
                .push(rate(plan.bytes, upload(config, way, &random, plan.bytes)?));
            result
                .download
                .push(rate(plan.bytes, download(config, way, &file, plan.bytes)?));
            Ok(())
        },
    )?;
    eprintln!("==> keystrokes");
    let mut terminals = ways
        .iter()
        .map(|way| Session::terminal(config, way))
        .collect::<Result<Vec<_>, _>>()?;
    let watch = Stopwatch::start();
    for key in (b'a'..=b'z').cycle().take(plan.keystrokes) {
        for (terminal, result) in terminals.iter_mut().zip(&mut results) {
            pause(TYPING_PAUSE);
            result.echo.push(terminal.echo(key)?.as_secs_f64() * 1e6);
        }
        if watch.elapsed() > plan.limit {
            break;
        }
    }
    drop(terminals);
    Ok(results)
}

fn rounds(
    count: usize,
    limit: Duration,
    ways: &[Way],
    results: &mut [Results],
    mut sample: impl FnMut(&Way, &mut Results) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let watch = Stopwatch::start();
    for _ in 0..count {
        for (way, result) in ways.iter().zip(results.iter_mut()) {
            sample(way, result)?;
        }
        if watch.elapsed() > limit {
            break;
        }
    }
    Ok(())
}

fn ssh(config: &Path, way: &Way) -> Command {
    let mut command = Command::new("ssh");
    command.arg("-F").arg(config);
    command.arg("--").arg(&way.host);
    command
}

fn login(config: &Path, way: &Way) -> Result<Duration, Failure> {
    let watch = Stopwatch::start();
    step::read(ssh(config, way).arg("true"))?;
    Ok(watch.elapsed())
}

/// From the first byte written to the far side's word that it has read the last.
fn upload(config: &Path, way: &Way, random: &[u8], bytes: u64) -> Result<Duration, Failure> {
    let mut session = Session::start(
        ssh(config, way).arg("exec sh -c 'printf r; cat >/dev/null; printf d'"),
        way,
    )?;
    session.expect(b'r')?;
    let watch = Stopwatch::start();
    let mut input = session
        .input
        .take()
        .ok_or_else(|| session.broken("it has no input"))?;
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    while left > 0 {
        let part = random.get(..left.min(random.len())).unwrap_or(random);
        input
            .write_all(part)
            .map_err(|error| session.broken(error))?;
        left -= part.len();
    }
    drop(input);
    session.expect(b'd')?;
    Ok(watch.elapsed())
}

/// From asking to the last byte read.
fn download(config: &Path, way: &Way, file: &Path, bytes: u64) -> Result<Duration, Failure> {
    let script = format!("exec sh -c 'printf r; read go; cat {}'", file.display());
    let mut session = Session::start(ssh(config, way).arg(script), way)?;
    session.expect(b'r')?;
    let watch = Stopwatch::start();
    session.send(b"\n")?;
    let mut buffer = vec![0; 256 << 10];
    let mut got = 0_u64;
    while got < bytes {
        let count = session
            .output
            .read(&mut buffer)
            .map_err(|error| session.broken(error))?;
        if count == 0 {
            return Err(session.broken(format!("the download ended after {got} of {bytes} bytes")));
        }
        got += u64::try_from(count).unwrap_or(0);
    }
    Ok(watch.elapsed())
}

/// MiB per second.
fn rate(bytes: u64, time: Duration) -> f64 {
    let mebibytes = u32::try_from(bytes >> 20).map_or(f64::INFINITY, f64::from);
    mebibytes / time.as_secs_f64()
}

/// An `ssh` that runs; it ends with this value.
struct Session {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    way: &'static str,
}

impl Session {
    fn start(command: &mut Command, way: &Way) -> Result<Self, Failure> {
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command
            .spawn()
            .map_err(|error| step::not_started(command, &error))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("`ssh` has no pipes"));
        };
        Ok(Self {
            child,
            input: Some(input),
            output,
            way: way.name,
        })
    }

    /// A remote `cat` behind a terminal that neither echoes nor waits for a line.
    fn terminal(config: &Path, way: &Way) -> Result<Self, Failure> {
        let mut command = Command::new("ssh");
        command
            .arg("-F")
            .arg(config)
            .args(["-tt", "--"])
            .arg(&way.host)
            .arg("stty raw -echo; printf r; exec cat");
        let mut session = Self::start(&mut command, way)?;
        session.expect(b'r')?;
        Ok(session)
    }

    fn echo(&mut self, key: u8) -> Result<Duration, Failure> {
        let watch = Stopwatch::start();
        self.send(&[key])?;
        self.expect(key)?;
        Ok(watch.elapsed())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(input) = &mut self.input else {
            return Err(self.broken("its input is closed"));
        };
        let sent = input.write_all(bytes).and_then(|()| input.flush());
        sent.map_err(|error| self.broken(error))
    }

    /// Reads one byte, which must be the wanted one.
    fn expect(&mut self, wanted: u8) -> Result<(), Failure> {
        let mut byte = [0];
        self.output
            .read_exact(&mut byte)
            .map_err(|error| self.broken(error))?;
        if byte == [wanted] {
            Ok(())
        } else {
            Err(self.broken(format!("it answered {byte:?} where {wanted} was due")))
        }
    }

    fn broken(&self, reason: impl std::fmt::Display) -> Failure {
        Failure::new(format!(
            "the session through `{}` broke: {reason}",
            self.way
        ))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What an idle session costs the process in the middle; `None` for a way without one, or where `/proc` hides it.
fn idle(config: &Path, way: &Way, sessions: u32) -> Result<Option<f64>, Failure> {
    let Some(bastion) = way.bastion else {
        return Ok(None);
    };
    pause(Duration::from_millis(300));
    let Some(before) = memory(bastion) else {
        return Ok(None);
    };
    let open = (0..sessions)
        .map(|_| Session::terminal(config, way))
        .collect::<Result<Vec<_>, _>>()?;
    pause(Duration::from_millis(500));
    let after = memory(bastion);
    drop(open);
    Ok(after.map(|after| (after - before) / f64::from(sessions)))
}

/// Proportional set size of a process and all its descendants, KiB; `None` where one of them is hidden from us.
fn memory(process: u32) -> Option<f64> {
    let mut total = 0.0;
    let mut open = vec![process];
    let parents = parents();
    while let Some(id) = open.pop() {
        match std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")) {
            Ok(rollup) => total += pss(&rollup).unwrap_or(0.0),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return None,
            // It ended in between: nothing is resident.
            Err(_) => {}
        }
        open.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == id)
                .map(|(child, _)| *child),
        );
    }
    (total > 0.0).then_some(total)
}

/// The `Pss:` line of `smaps_rollup`, KiB.
fn pss(rollup: &str) -> Option<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        Some((
            id,
            parent(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?,
        ))
    })
    .collect()
}

/// The parent in a line of `/proc/PID/stat`; the program's name before it may hold blanks and brackets.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn random(bytes: u64) -> Result<Vec<u8>, Failure> {
    let mut block = Vec::new();
    let read =
        File::open("/dev/urandom").and_then(|source| source.take(bytes).read_to_end(&mut block));
    read.map_err(|error| Failure::new(format!("cannot read `/dev/urandom`: {error}")))?;
    Ok(block)
}

/// Writes `bytes` of the block, repeated, to a file that downloads read.
fn fill(path: &Path, block: &[u8], bytes: u64) -> Result<(), Failure> {
    let failed = |error| Failure::new(format!("cannot write `{}`: {error}", path.display()));
    let mut file = File::create(path).map_err(failed)?;
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    while left > 0 {
        let part = block.get(..left.min(block.len())).unwrap_or(block);
        file.write_all(part).map_err(failed)?;
        left -= part.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_words() {
        assert_eq!(
            pss("Rss:  900 kB\nPss:                 123 kB\nPss_Dirty: 7 kB\n"),
            Some(123.0)
        );
        assert_eq!(pss("Rss: 900 kB\n"), None);
        assert!(memory(std::process::id()).is_some_and(|size| size > 0.0));
    }

    #[test]
    fn a_parent_is_found_behind_a_hostile_program_name() {
        assert_eq!(parent("42 (sshd: a) b) S 7 42 42 0 -1"), Some(7));
        assert_eq!(parent("no process"), None);
    }

    #[test]
    fn rates_are_mebibytes_per_second() {
        assert!((rate(64 << 20, Duration::from_millis(500)) - 128.0).abs() < 1e-9);
    }

    #[test]
    fn rounds_stop_at_the_limit_but_run_once() {
        let ways = [Way {
            name: "one",
            host: String::new(),
            bastion: None,
        }];
        let mut results = [Results {
            way: "one",
            login: Samples::default(),
            upload: Samples::default(),
            download: Samples::default(),
            echo: Samples::default(),
            idle: None,
        }];
        rounds(50, Duration::ZERO, &ways, &mut results, |_, result| {
            result.login.push(1.0);
            Ok(())
        })
        .unwrap();
        assert_eq!(results[0].login.len(), 1);
    }
}
