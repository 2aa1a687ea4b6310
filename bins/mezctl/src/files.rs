//! Files that the user named: read with a bound, written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use mezite_core::Secret;
use mezite_record::Identity;
use rand::Rng as _;

use crate::fail::Failure;

/// Largest document, key or checkpoint that is read.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The text of `path`, or of standard input for `-`.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| {
        let path = path.display();
        Failure::usage(format_args!("cannot read `{path}`: {error}"))
    })?;
    Ok(text)
}

/// The age identities in a file, one a line, as `age-keygen` writes them.
pub(crate) fn identities(path: &Path) -> Result<Vec<Identity>, Failure> {
    let text = Secret::new(read(path)?);
    let found: Vec<Identity> = text
        .expose()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    if found.is_empty() {
        let path = path.display();
        return Err(Failure::usage(format_args!(
            "`{path}` holds no age identity: expected a line AGE-SECRET-KEY-1…"
        )));
    }
    Ok(found)
}

/// Where a command writes: standard output, or a file that appears when everything is in it.
#[derive(Debug)]
pub(crate) enum Output {
    Stdout(BufWriter<io::Stdout>),
    File {
        file: BufWriter<File>,
        temporary: PathBuf,
        path: PathBuf,
    },
}

impl Output {
    /// Standard output without a path, or for `-`.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::Stdout(BufWriter::new(io::stdout())));
        };
        let mut random = [0; 8];
        mezite_net::random::rng().fill_bytes(&mut random);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}", HEXLOWER.encode(&random)));
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary);
        let file = opened.map_err(|error| cannot(path, &error))?;
        let file = BufWriter::new(file);
        Ok(Self::File {
            file,
            temporary,
            path: path.to_owned(),
        })
    }

    /// Everything is written.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        match &mut self {
            Self::Stdout(out) => out.flush().map_err(|error| Failure::output(&error)),
            Self::File {
                file,
                temporary,
                path,
            } => {
                let whole = file.flush().and_then(|()| file.get_ref().sync_all());
                whole
                    .and_then(|()| fs::rename(temporary, &*path))
                    .map_err(|error| cannot(path, &error))
            }
        }
    }
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    Failure::failed(format_args!("cannot write `{path}`: {error}"))
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(data),
            Self::File { file, .. } => file.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Self::File { temporary, .. } = self {
            // Gone already when it was finished.
            drop(fs::remove_file(temporary));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        let mut output = Output::open(Some(&path)).unwrap();
        output.write_all(b"half").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let mut output = Output::open(Some(&path)).unwrap();
        output.write_all(b"whole").unwrap();
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
