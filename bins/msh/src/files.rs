//! Files of the state directory: private, written whole or not at all, never through a symbolic link.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use nix::fcntl::OFlag;
use rand::Rng as _;
use thiserror::Error;

/// No file of ours is larger.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why a file or directory was not used.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    #[error("cannot use `{path}`: {error}")]
    Io { path: String, error: io::Error },
    #[error("`{0}` is not a directory of yours: move it away, or set MSH_HOME to another place")]
    NotOurs(String),
    #[error("`{0}` is larger than anything that msh writes")]
    TooLong(String),
    #[error("`{0}` exists already: choose another name, or give --overwrite")]
    Exists(String),
}

fn at(path: &Path) -> impl Fn(io::Error) -> FileError {
    let path = path.display().to_string();
    move |error| FileError::Io {
        path: path.clone(),
        error,
    }
}

/// Makes sure that `path` is a directory of this user that nobody else can open.
pub(crate) fn private_directory(path: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(at(path)(error));
    }
    let found = fs::symlink_metadata(path).map_err(at(path))?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(FileError::NotOurs(path.display().to_string()));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(at(path))?;
    }
    Ok(())
}

/// Puts `content` at `path` in one step. A link that lies there is replaced, not followed.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let mut random = [0; 8];
    mezite_net::random::rng().fill_bytes(&mut random);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", HEXLOWER.encode(&random)));
    let written = fill(&temporary, content, mode).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What is half made is of no use to anybody.
        drop(fs::remove_file(&temporary));
    }
    written.map_err(at(path))?;
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(at(directory))
}

fn fill(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Like [`write()`], but leaves alone what is there.
pub(crate) fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let written = fill(path, content, mode);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(FileError::Exists(path.display().to_string()))
        }
        other => other.map_err(at(path)),
    }
}

/// The content of `path`, or `None` if it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path)(error)),
    };
    let mut content = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(at(path))?;
    if u64::try_from(content.len()).is_ok_and(|length| length > MAX_BYTES) {
        return Err(FileError::TooLong(path.display().to_string()));
    }
    Ok(Some(content))
}

/// Removes a file; one that is not there is removed already.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// The names of the directories in `path`; none if it is not there.
pub(crate) fn directories(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at(path))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at(path))?;
        if entry.file_type().map_err(at(path))?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write(&path, b"one", 0o600).unwrap();
        write(&path, b"two", 0o600).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(matches!(
            write_new(&path, b"three", 0o600),
            Err(FileError::Exists(_))
        ));
    }

    #[test]
    fn attack_82_links_are_replaced_and_never_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (other, link) = (
            directory.path().join("other"),
            directory.path().join("link"),
        );
        fs::write(&other, "not ours").unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        assert!(read(&link).is_err());
        write(&link, b"ours", 0o600).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"not ours");
        assert_eq!(read(&link).unwrap().unwrap(), b"ours");
    }

    #[test]
    fn attack_82_a_linked_or_open_directory_is_not_used_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let (open, link) = (directory.path().join("open"), directory.path().join("link"));
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(matches!(
            private_directory(&link),
            Err(FileError::NotOurs(_))
        ));
        private_directory(&open).unwrap();
        assert_eq!(fs::metadata(&open).unwrap().mode() & 0o777, 0o700);
    }
}
