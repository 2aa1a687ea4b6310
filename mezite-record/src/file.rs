//! What is recorded of file transfers: one [`FileOperation`] per request that was answered, in words for people and in bytes.

use std::fmt;

use bytes::Bytes;
use data_encoding::HEXLOWER;

use crate::frame::MAX_TEXT;
use crate::screen::one_line;
use crate::wire::{Malformed, Reader, put_bytes, put_varint};

/// Most ranges of a file that one transfer lists.
pub const MAX_RANGES: usize = 16;

/// The protocol that an operation was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileProtocol {
    /// SFTP version 3 (draft-ietf-secsh-filexfer-02).
    Sftp,
    /// The protocol of `scp -t` and `scp -f`, which was that of `rcp`.
    Scp,
}

/// Declares the actions with their codes in the format and their words.
macro_rules! actions {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $word:literal;)+) => {
        /// What was done, or tried.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum FileAction {
            $($(#[doc = $doc])+ $name,)+
        }

        impl FileAction {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            const fn code(self) -> u8 {
                match self {
                    $(Self::$name => $code,)+
                }
            }

            /// The word for tables, JSON and events.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

actions! {
    /// A file was opened.
    Open = 1, "open";
    /// A file or directory was closed: says what was transferred in between.
    Close = 2, "close";
    /// A directory was opened to be listed.
    OpenDirectory = 3, "opendir";
    /// A whole file was copied in one operation (scp).
    Copy = 4, "copy";
    /// A file was removed.
    Remove = 5, "remove";
    /// A file or directory got another name.
    Rename = 6, "rename";
    /// A directory was made.
    MakeDirectory = 7, "mkdir";
    /// A directory was removed.
    RemoveDirectory = 8, "rmdir";
    /// Size, owner, permissions or times were set.
    SetAttributes = 9, "setstat";
    /// A symbolic link was made at `path`; `target` is where it points.
    Symlink = 10, "symlink";
    /// A hard link was made at `target`, to `path`.
    Link = 11, "link";
    /// The server copied from `path` to `target` by itself: what it copied did not pass.
    CopyData = 12, "copy-data";
    /// A file was forced to the disk.
    Sync = 13, "fsync";
    /// Attributes were asked for.
    Stat = 14, "stat";
    /// A path was resolved; `target` is what it became.
    RealPath = 15, "realpath";
    /// A symbolic link was read; `target` is where it points.
    ReadLink = 16, "readlink";
    /// Something else was asked of the server: room, limits, names of users, a checksum.
    Query = 17, "query";
    /// The sender said that something went wrong, in place of a file (scp).
    Complain = 18, "error";
}

impl FileAction {
    /// Whether it changes something on the node.
    #[must_use]
    pub const fn changes(self) -> bool {
        match self {
            Self::Remove
            | Self::Rename
            | Self::MakeDirectory
            | Self::RemoveDirectory
            | Self::SetAttributes
            | Self::Symlink
            | Self::Link
            | Self::CopyData => true,
            Self::Open
            | Self::Close
            | Self::OpenDirectory
            | Self::Copy
            | Self::Sync
            | Self::Stat
            | Self::RealPath
            | Self::ReadLink
            | Self::Query
            | Self::Complain => false,
        }
    }
}

/// One operation on a file, with its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "observers build it")]
pub struct FileOperation {
    /// Where it was read.
    pub protocol: FileProtocol,
    /// What was done.
    pub action: FileAction,
    /// Ties what happens to one opened file together: unique within the channel. 0 where nothing is open.
    pub file: u64,
    /// The exact bytes of the name, as it was sent.
    pub path: Bytes,
    /// The other name, where an operation has two; empty otherwise.
    pub target: Bytes,
    /// How a file was opened, as `pflags` of SFTP; 0 otherwise.
    pub flags: u32,
    /// What was to be set.
    pub attributes: FileAttributes,
    /// Names that a directory gave.
    pub entries: u64,
    /// What came from the node.
    pub read: Option<Transfer>,
    /// What went to the node.
    pub written: Option<Transfer>,
    /// What the other side said to it.
    pub outcome: Outcome,
}

/// Attributes as SFTP version 3 has them (section 5); scp's are a part of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the draft's list is closed")]
pub struct FileAttributes {
    /// In bytes.
    pub size: Option<u64>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Type and permission bits.
    pub permissions: Option<u32>,
    /// Of the last access and the last change, in seconds since 1970.
    pub times: Option<(u32, u32)>,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "answered or not")]
pub enum Outcome {
    /// The channel ended before the answer came.
    Unanswered,
    /// The answer.
    Status {
        /// 0 for yes; otherwise as SFTP numbers them (section 7), or 1 and 2 as scp does.
        code: u32,
        /// What the other side said to it.
        message: String,
    },
}

impl Outcome {
    /// It worked.
    pub const OK: Self = Self::Status {
        code: 0,
        message: String::new(),
    };

    /// Whether it worked.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        matches!(self, Self::Status { code: 0, .. })
    }
}

/// Content that passed in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "observers build it")]
pub struct Transfer {
    /// Bytes that passed, each time they did.
    pub bytes: u64,
    /// From the first byte of the file to its last, in order, nothing failed.
    pub whole: bool,
    /// Of what passed. Only where that was one piece, in order, each byte once, nothing failed.
    pub sha256: Option<[u8; 32]>,
    /// Which parts of the file passed: first byte and length, ascending, at most [`MAX_RANGES`].
    pub ranges: Vec<(u64, u64)>,
    /// There were more ranges.
    pub more: bool,
}

const SFTP_FLAGS: [(u32, &str); 6] = [
    (0x01, "read"),
    (0x02, "write"),
    (0x04, "append"),
    (0x08, "create"),
    (0x10, "truncate"),
    (0x20, "exclusive"),
];

/// The words of SFTP's status codes (section 7).
const SFTP_STATUS: [&str; 9] = [
    "ok",
    "end of file",
    "no such file",
    "permission denied",
    "failure",
    "bad message",
    "no connection",
    "connection lost",
    "operation unsupported",
];

/// One line for people: `close #1 'x': wrote 3 bytes, SHA-256 …: ok`.
impl fmt::Display for FileOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action.as_str())?;
        if self.file > 0 {
            write!(f, " #{}", self.file)?;
        }
        let name = |bytes: &Bytes| one_line(&String::from_utf8_lossy(bytes));
        if !self.path.is_empty() {
            write!(f, " `{}`", name(&self.path))?;
        }
        if !self.target.is_empty() {
            write!(f, " -> `{}`", name(&self.target))?;
        }
        for word in self.flag_words() {
            write!(f, " {word}")?;
        }
        write!(f, "{}", self.attributes)?;
        if self.entries > 0 {
            write!(f, ", {} names", self.entries)?;
        }
        for (word, transfer) in [("read", &self.read), ("wrote", &self.written)] {
            if let Some(transfer) = transfer {
                write!(f, ", {word} {transfer}")?;
            }
        }
        match &self.outcome {
            Outcome::Unanswered => f.write_str(": not answered"),
            Outcome::Status { code, message } => {
                let known = usize::try_from(*code)
                    .ok()
                    .and_then(|code| SFTP_STATUS.get(code));
                match (self.protocol, code, known) {
                    (_, 0, _) => f.write_str(": ok")?,
                    (FileProtocol::Sftp, _, Some(word)) => write!(f, ": {word}")?,
                    (_, code, _) => write!(f, ": failed with {code}")?,
                }
                if *code != 0 && !message.is_empty() {
                    write!(f, " ({})", one_line(message))?;
                }
                Ok(())
            }
        }
    }
}

impl FileOperation {
    /// How the file was opened, in words.
    #[must_use]
    pub fn flag_words(&self) -> Vec<&'static str> {
        SFTP_FLAGS
            .into_iter()
            .filter(|(bit, _)| self.flags & bit != 0)
            .map(|(_, word)| word)
            .collect()
    }
}

impl fmt::Display for FileAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(size) = self.size {
            write!(f, " size={size}")?;
        }
        if let Some((user, group)) = self.owner {
            write!(f, " owner={user}:{group}")?;
        }
        if let Some(permissions) = self.permissions {
            write!(f, " mode={permissions:04o}")?;
        }
        if let Some((accessed, modified)) = self.times {
            write!(f, " atime={accessed} mtime={modified}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)?;
        if !self.whole {
            f.write_str(" (in part:")?;
            for (from, length) in &self.ranges {
                write!(f, " {from}+{length}")?;
            }
            f.write_str(if self.more { " …)" } else { ")" })?;
        }
        match &self.sha256 {
            Some(digest) => write!(f, " SHA-256 {}", HEXLOWER.encode(digest)),
            None => f.write_str(" out of order"),
        }
    }
}

const HAS_SIZE: u8 = 1;
const HAS_OWNER: u8 = 2;
const HAS_PERMISSIONS: u8 = 4;
const HAS_TIMES: u8 = 8;

const PASSED: u8 = 1;
const WHOLE: u8 = 2;
const DIGEST: u8 = 4;
const MORE: u8 = 8;

impl FileOperation {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.protocol {
            FileProtocol::Sftp => 0,
            FileProtocol::Scp => 1,
        });
        out.push(self.action.code());
        put_varint(self.file, out);
        put_bytes(&self.path, MAX_TEXT, out);
        put_bytes(&self.target, MAX_TEXT, out);
        put_varint(self.flags.into(), out);
        self.attributes.encode(out);
        put_varint(self.entries, out);
        for transfer in [&self.read, &self.written] {
            match transfer {
                None => out.push(0),
                Some(transfer) => transfer.encode(out),
            }
        }
        match &self.outcome {
            Outcome::Unanswered => put_varint(0, out),
            Outcome::Status { code, message } => {
                put_varint(u64::from(*code) + 1, out);
                crate::frame::put_text(message, out);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let protocol = match reader.u8()? {
            0 => FileProtocol::Sftp,
            1 => FileProtocol::Scp,
            _ => return Err(Malformed("a file protocol this version does not know")),
        };
        let code = reader.u8()?;
        let action = FileAction::ALL.iter().find(|it| it.code() == code);
        Ok(Self {
            protocol,
            action: *action.ok_or(Malformed("a file action this version does not know"))?,
            file: reader.varint()?,
            path: reader.bytes(MAX_TEXT)?,
            target: reader.bytes(MAX_TEXT)?,
            flags: reader.varint_u32()?,
            attributes: FileAttributes::decode(reader)?,
            entries: reader.varint()?,
            read: Transfer::decode(reader)?,
            written: Transfer::decode(reader)?,
            outcome: match reader.varint()?.checked_sub(1) {
                None => Outcome::Unanswered,
                Some(code) => Outcome::Status {
                    code: u32::try_from(code).map_err(|_| Malformed("a number exceeds 32 bits"))?,
                    message: reader.text(MAX_TEXT)?,
                },
            },
        })
    }
}

impl FileAttributes {
    fn encode(&self, out: &mut Vec<u8>) {
        let bit = |there: bool, bit: u8| if there { bit } else { 0 };
        out.push(
            bit(self.size.is_some(), HAS_SIZE)
                | bit(self.owner.is_some(), HAS_OWNER)
                | bit(self.permissions.is_some(), HAS_PERMISSIONS)
                | bit(self.times.is_some(), HAS_TIMES),
        );
        if let Some(size) = self.size {
            put_varint(size, out);
        }
        let pair = |(one, other): (u32, u32)| [one, other];
        let numbers = self.owner.into_iter().flat_map(pair);
        let numbers = numbers.chain(self.permissions);
        for number in numbers.chain(self.times.into_iter().flat_map(pair)) {
            put_varint(number.into(), out);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mask = reader.u8()?;
        if mask & !(HAS_SIZE | HAS_OWNER | HAS_PERMISSIONS | HAS_TIMES) != 0 {
            return Err(Malformed("an attribute this version does not know"));
        }
        let mut attributes = Self::default();
        if mask & HAS_SIZE != 0 {
            attributes.size = Some(reader.varint()?);
        }
        if mask & HAS_OWNER != 0 {
            attributes.owner = Some((reader.varint_u32()?, reader.varint_u32()?));
        }
        if mask & HAS_PERMISSIONS != 0 {
            attributes.permissions = Some(reader.varint_u32()?);
        }
        if mask & HAS_TIMES != 0 {
            attributes.times = Some((reader.varint_u32()?, reader.varint_u32()?));
        }
        Ok(attributes)
    }
}

impl Transfer {
    fn encode(&self, out: &mut Vec<u8>) {
        let listed = self.ranges.get(..MAX_RANGES).unwrap_or(&self.ranges);
        let more = self.more || listed.len() < self.ranges.len();
        let bit = |there: bool, bit: u8| if there { bit } else { 0 };
        out.push(
            PASSED | bit(self.whole, WHOLE) | bit(self.sha256.is_some(), DIGEST) | bit(more, MORE),
        );
        put_varint(self.bytes, out);
        out.extend(self.sha256.iter().flatten());
        put_varint(crate::wire::count(listed.len()), out);
        for (from, length) in listed {
            put_varint(*from, out);
            put_varint(*length, out);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Option<Self>, Malformed> {
        let mask = reader.u8()?;
        if mask == 0 {
            return Ok(None);
        }
        if mask & PASSED == 0 || mask & !(PASSED | WHOLE | DIGEST | MORE) != 0 {
            return Err(Malformed("a transfer this version does not know"));
        }
        let bytes = reader.varint()?;
        let sha256 = (mask & DIGEST != 0).then(|| reader.array());
        let sha256 = sha256.transpose()?;
        let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        if count > MAX_RANGES {
            return Err(Malformed("a transfer lists too many ranges"));
        }
        let range = |_| Ok((reader.varint()?, reader.varint()?));
        Ok(Some(Self {
            bytes,
            whole: mask & WHOLE != 0,
            sha256,
            ranges: (0..count).map(range).collect::<Result<_, Malformed>>()?,
            more: mask & MORE != 0,
        }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_transfer() -> impl Strategy<Value = Option<Transfer>> {
        let ranges = prop::collection::vec(any::<(u64, u64)>(), 0..MAX_RANGES);
        let parts = (
            any::<u64>(),
            any::<bool>(),
            any::<Option<[u8; 32]>>(),
            ranges,
            any::<bool>(),
        );
        prop::option::of(
            parts.prop_map(|(bytes, whole, sha256, ranges, more)| Transfer {
                bytes,
                whole,
                sha256,
                ranges,
                more,
            }),
        )
    }

    /// Any operation that can be written and read back unchanged.
    pub(crate) fn any_operation() -> impl Strategy<Value = FileOperation> {
        let name = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let attributes = (
            any::<Option<u64>>(),
            any::<[Option<(u32, u32)>; 2]>(),
            any::<Option<u32>>(),
        )
            .prop_map(|(size, [owner, times], permissions)| FileAttributes {
                size,
                owner,
                permissions,
                times,
            });
        let outcome = prop_oneof![
            Just(Outcome::Unanswered),
            (any::<u32>(), "\\PC{0,20}")
                .prop_map(|(code, message)| Outcome::Status { code, message })
        ];
        let what = (any::<bool>(), prop::sample::select(FileAction::ALL));
        let numbers = (any::<u64>(), any::<u32>(), any::<u64>());
        let transfers = (any_transfer(), any_transfer());
        (
            what,
            numbers,
            name(),
            name(),
            attributes,
            transfers,
            outcome,
        )
            .prop_map(
                |(
                    (scp, action),
                    (file, flags, entries),
                    path,
                    target,
                    attributes,
                    (read, written),
                    outcome,
                )| {
                    FileOperation {
                        protocol: if scp {
                            FileProtocol::Scp
                        } else {
                            FileProtocol::Sftp
                        },
                        action,
                        file,
                        path,
                        target,
                        flags,
                        attributes,
                        entries,
                        read,
                        written,
                        outcome,
                    }
                },
            )
    }

    /// A file that was closed after all of it had been written.
    pub(crate) fn upload() -> FileOperation {
        FileOperation {
            protocol: FileProtocol::Sftp,
            action: FileAction::Close,
            file: 1,
            path: Bytes::from_static(b"/srv/new\nname"),
            target: Bytes::new(),
            flags: 0,
            attributes: FileAttributes::default(),
            entries: 0,
            read: None,
            written: Some(Transfer {
                bytes: 3,
                whole: true,
                sha256: Some([0xab; 32]),
                ranges: vec![(0, 3)],
                more: false,
            }),
            outcome: Outcome::OK,
        }
    }

    proptest! {
        #[test]
        fn an_operation_is_one_line_without_controls(operation in any_operation()) {
            prop_assert!(!operation.to_string().chars().any(char::is_control));
        }
    }

    /// The example of FORMAT.md.
    #[test]
    fn an_operation_has_these_bytes() {
        let mut out = Vec::new();
        upload().encode(&mut out);
        let mut expected = b"\x00\x02\x01\x0d/srv/new\nname\x00\x00\x00\x00\x00\x07\x03".to_vec();
        expected.extend([0xab; 32]);
        expected.extend(b"\x01\x00\x03\x01\x00");
        assert_eq!(out, expected);
        let shared = Bytes::from(out);
        for at in [0, 1] {
            let mut edited = shared.to_vec();
            edited[at] = 0xff;
            assert!(FileOperation::decode(&mut Reader::new(&edited.into())).is_err());
        }
    }

    #[test]
    fn operations_read_as_sentences() {
        let digest = "ab".repeat(32);
        let mut operation = upload();
        assert_eq!(
            operation.to_string(),
            format!("close #1 `/srv/new\\nname`, wrote 3 bytes SHA-256 {digest}: ok")
        );
        operation.written = Some(Transfer {
            bytes: 30,
            ranges: vec![(10, 10), (40, 20)],
            more: true,
            ..Transfer::default()
        });
        operation.outcome = Outcome::Unanswered;
        assert_eq!(
            operation.to_string(),
            "close #1 `/srv/new\\nname`, wrote 30 bytes (in part: 10+10 40+20 …) out of order: not answered"
        );
        let open = FileOperation {
            action: FileAction::Open,
            file: 0,
            flags: 0x1a,
            attributes: FileAttributes {
                permissions: Some(0o644),
                ..FileAttributes::default()
            },
            written: None,
            outcome: Outcome::Status {
                code: 3,
                message: "not yours".into(),
            },
            ..operation
        };
        assert_eq!(
            open.to_string(),
            "open `/srv/new\\nname` write create truncate mode=0644: permission denied (not yours)"
        );
    }
}
