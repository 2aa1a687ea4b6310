//! Archives whose bytes depend on their contents alone: tar, gzip and ar.

use std::io::Write;
use std::path::Path;

use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

use crate::step::Failure;

/// A tar archive in the making. Entries stand in the order in which they are put in.
pub(crate) struct Tar {
    builder: tar::Builder<Vec<u8>>,
    epoch: u64,
}

/// Whose an entry is.
#[derive(Clone, Copy)]
pub(crate) struct Owner(pub(crate) u64);

pub(crate) const ROOT: Owner = Owner(0);

impl Tar {
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            builder: tar::Builder::new(Vec::new()),
            epoch,
        }
    }

    pub(crate) fn directory(&mut self, path: &str, mode: u32, owner: Owner) -> Result<(), Failure> {
        self.entry(&format!("{path}/"), EntryType::Directory, mode, owner, &[])
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
        self.entry(path, EntryType::Regular, mode, ROOT, bytes)
    }

    fn entry(
        &mut self,
        path: &str,
        kind: EntryType,
        mode: u32,
        owner: Owner,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.0);
        header.set_mtime(self.epoch);
        header.set_size(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.builder
            .append_data(&mut header, path, bytes)
            .map_err(|error| Failure::new(format!("cannot pack `{path}`: {error}")))
    }

    pub(crate) fn finish(self) -> Result<Vec<u8>, Failure> {
        self.builder
            .into_inner()
            .map_err(|error| Failure::new(format!("cannot pack: {error}")))
    }
}

/// Every directory above a path, outermost first: archives list them before what lies in them.
pub(crate) fn parents(path: &str) -> Vec<String> {
    let mut above: Vec<String> = Path::new(path)
        .ancestors()
        .skip(1)
        .map(|path| path.to_string_lossy().into_owned())
        .filter(|path| !path.is_empty() && path != ".")
        .collect();
    above.reverse();
    above
}

/// Without a name or a time in its header.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot compress: {error}"));
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        // The best takes twice as long for a hundredth of the size.
        .write(Vec::new(), Compression::default());
    encoder.write_all(bytes).map_err(failed)?;
    encoder.finish().map_err(failed)
}

/// The archive format of `ar(1)`, as `deb(5)` uses it.
pub(crate) fn ar(members: &[(&str, &[u8])], epoch: u64) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let header = format!(
            "{name:<16}{epoch:<12}{0:<6}{0:<6}{1:<8}{2:<10}`\n",
            0,
            100_644,
            bytes.len()
        );
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_contents_give_the_same_bytes() {
        let pack = || {
            let mut tar = Tar::new(1_700_000_000);
            tar.directory("./var", 0o755, ROOT).unwrap();
            tar.file("./var/x", 0o644, b"text").unwrap();
            gzip(&tar.finish().unwrap()).unwrap()
        };
        assert_eq!(pack(), pack());
    }

    #[test]
    fn ar_headers_are_sixty_bytes_and_members_start_at_even_places() {
        let archive = ar(
            &[("debian-binary", b"2.0\n"), ("odd", b"x"), ("next", b"yz")],
            7,
        );
        let text = String::from_utf8(archive).unwrap();
        assert!(text.starts_with(
            "!<arch>\ndebian-binary   7           0     0     100644  4         `\n2.0\n"
        ));
        assert_eq!(text.find("next").unwrap() % 2, 0);
        assert_eq!(text.len(), 8 + 3 * 60 + 4 + 2 + 2);
    }

    #[test]
    fn parents_come_outermost_first() {
        assert_eq!(parents("./usr/bin/x"), ["./usr", "./usr/bin"]);
        assert!(parents("x").is_empty());
    }
}
