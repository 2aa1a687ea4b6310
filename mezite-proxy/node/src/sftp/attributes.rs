//! File attributes: what the system says, as SFTP says it, and the way back.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, fchown, lchown};
use std::path::Path;
use std::time::{Duration, SystemTime};

use mezite_core::UnixTime;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, utimensat};
use nix::sys::time::TimeSpec;
use russh_sftp::protocol::FileAttributes;

use crate::account::Names;

/// Permission bits that a client may set, the set-id and sticky bits among them.
const PERMISSIONS: u32 = 0o7777;

/// The attributes of a file. Times outside of what version 3 can say become its first or last second.
pub(super) fn of(metadata: &Metadata) -> FileAttributes {
    FileAttributes {
        size: Some(metadata.len()),
        uid: Some(metadata.uid()),
        user: None,
        gid: Some(metadata.gid()),
        group: None,
        permissions: Some(metadata.mode()),
        atime: Some(seconds(metadata.atime())),
        mtime: Some(seconds(metadata.mtime())),
    }
}

fn seconds(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}

/// The permission bits asked for, if any.
pub(super) fn permissions(attributes: &FileAttributes) -> Option<u32> {
    attributes.permissions.map(|bits| bits & PERMISSIONS)
}

/// Changes what is told, following symbolic links: size, permissions, times, then owner, as OpenSSH does.
pub(super) fn apply_to_path(path: &Path, attributes: &FileAttributes) -> io::Result<()> {
    if let Some(size) = attributes.size {
        File::options().write(true).open(path)?.set_len(size)?;
    }
    if let Some(bits) = permissions(attributes) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits))?;
    }
    if let Some((accessed, modified)) = times(attributes) {
        set_times(path, accessed, modified, UtimensatFlags::FollowSymlink)?;
    }
    if attributes.uid.is_some() || attributes.gid.is_some() {
        chown(path, attributes.uid, attributes.gid)?;
    }
    Ok(())
}

/// The same for an open file.
pub(super) fn apply_to_file(file: &File, attributes: &FileAttributes) -> io::Result<()> {
    if let Some(size) = attributes.size {
        file.set_len(size)?;
    }
    if let Some(bits) = permissions(attributes) {
        file.set_permissions(std::fs::Permissions::from_mode(bits))?;
    }
    if let Some((accessed, modified)) = times(attributes) {
        let time = |seconds: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
        let times = std::fs::FileTimes::new();
        file.set_times(
            times
                .set_accessed(time(accessed))
                .set_modified(time(modified)),
        )?;
    }
    if attributes.uid.is_some() || attributes.gid.is_some() {
        fchown(file, attributes.uid, attributes.gid)?;
    }
    Ok(())
}

/// The same for a path whose last part may be a symbolic link, which is changed itself. Linux has no permissions
/// of links and no size of theirs to set, and says so.
pub(super) fn apply_to_link(path: &Path, attributes: &FileAttributes) -> io::Result<()> {
    if attributes.size.is_some() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    if let Some(bits) = permissions(attributes) {
        let mode = Mode::from_bits_truncate(bits);
        fchmodat(AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink)?;
    }
    if let Some((accessed, modified)) = times(attributes) {
        set_times(path, accessed, modified, UtimensatFlags::NoFollowSymlink)?;
    }
    if attributes.uid.is_some() || attributes.gid.is_some() {
        lchown(path, attributes.uid, attributes.gid)?;
    }
    Ok(())
}

fn set_times(path: &Path, accessed: u32, modified: u32, follow: UtimensatFlags) -> io::Result<()> {
    let spec = |seconds: u32| TimeSpec::new(seconds.into(), 0);
    Ok(utimensat(
        AT_FDCWD,
        path,
        &spec(accessed),
        &spec(modified),
        follow,
    )?)
}

fn times(attributes: &FileAttributes) -> Option<(u32, u32)> {
    attributes.atime.zip(attributes.mtime)
}

/// A line as `ls -l` writes it, which clients show as it is. Times are UTC.
pub(super) fn long_name(name: &str, metadata: &Metadata, names: &Names) -> String {
    format!(
        "{} {:>4} {:<8} {:<8} {:>8} {} {name}",
        mode_text(metadata.mode()),
        metadata.nlink(),
        names.user(metadata.uid()),
        names.group(metadata.gid()),
        metadata.len(),
        date_text(seconds(metadata.mtime())),
    )
}

/// The type and permissions as `ls(1)` writes them, for example `drwxr-xr-t`.
fn mode_text(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Month, day and year, for example `Nov 23  2026`.
fn date_text(seconds: u32) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let text = UnixTime::from_secs(seconds.into()).to_string();
    let mut parts = text.split(['-', 'T']);
    let mut next = || parts.next().unwrap_or_default();
    let (year, month, day) = (next(), next(), next());
    let month = month
        .parse()
        .ok()
        .and_then(|month: usize| MONTHS.get(month.checked_sub(1)?));
    format!("{} {day}  {year}", month.unwrap_or(&"?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_dates_read_as_ls_writes_them() {
        assert_eq!(mode_text(0o100_644), "-rw-r--r--");
        assert_eq!(mode_text(0o041_777), "drwxrwxrwt");
        assert_eq!(mode_text(0o104_654), "-rwSr-xr--");
        assert_eq!(mode_text(0o120_777), "lrwxrwxrwx");
        assert_eq!(date_text(0), "Jan 01  1970");
        assert_eq!(date_text(1_795_478_400), "Nov 24  2026");
    }

    #[test]
    fn times_beyond_version_3_stop_at_its_ends() {
        assert_eq!(seconds(-1), 0);
        assert_eq!(seconds(i64::MAX), u32::MAX);
        assert_eq!(seconds(5), 5);
    }
}
