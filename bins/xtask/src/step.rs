//! Running one command of a longer job: announced, timed, and reproducible when it fails.

use std::fmt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Why a tool stops.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    exit_code: u8,
}

impl Failure {
    /// The job was done and the answer is no.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit_code: 1,
        }
    }

    /// The command line made no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit_code: 2,
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

/// Says what comes, runs it with the terminal attached, says how long it took.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<(), Failure> {
    eprintln!("==> {name}: {}", shown(command));
    let watch = Stopwatch::start();
    let status = command
        .status()
        .map_err(|error| not_started(command, &error))?;
    if !status.success() {
        return Err(Failure::new(format!(
            "{name} failed ({status}); reproduce with\n  {}",
            shown(command)
        )));
    }
    eprintln!("    {name}: done in {:.1} s", watch.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a command whose standard output is the answer.
pub(crate) fn read(command: &mut Command) -> Result<String, Failure> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_started(command, &error))?;
    answer(command, output)
}

fn answer(command: &Command, output: Output) -> Result<String, Failure> {
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::new(format!(
            "`{}` failed ({}): {complaint}",
            shown(command),
            output.status
        )));
    }
    String::from_utf8(output.stdout).map_err(|_| {
        Failure::new(format!(
            "`{}` printed something that is not UTF-8",
            shown(command)
        ))
    })
}

pub(crate) fn not_started(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot start `{}`: {error}", shown(command)))
}

/// The `cargo` that runs us, in the workspace's root.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(crate::tree::root());
    command
}

/// The command as one would type it: set variables, then words, quoted where a shell needs it.
pub(crate) fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!(
            "{}={}",
            name.to_string_lossy(),
            quoted(&value?.to_string_lossy())
        ))
    });
    let program = match command.get_program().to_string_lossy() {
        path if path.ends_with("/cargo") => "cargo".to_owned(),
        path => path.into_owned(),
    };
    let words = command
        .get_args()
        .map(|word| quoted(&word.to_string_lossy()));
    variables
        .chain([program])
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_=./:,@+%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "how old something is depends on when it is asked"
)]
pub(crate) fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

/// The stopwatch of these tools.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "a tool that measures reads the clock"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/opt/rust/bin/cargo");
        command
            .args(["doc", "--message", "it's"])
            .env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(
            shown(&command),
            r"RUSTDOCFLAGS='-D warnings' cargo doc --message 'it'\''s'"
        );
    }

    #[test]
    fn a_failing_command_names_itself_and_its_complaint() {
        let failure = read(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err();
        assert!(failure.to_string().contains("sh -c"), "{failure}");
        assert!(failure.to_string().contains("broken"), "{failure}");
    }
}
