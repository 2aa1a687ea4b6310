//! What each request asks for: the operation it stands for, and how it may be answered.

use bytes::Bytes;
use mezite_record::{FileAction, FileAttributes, FileOperation, FileProtocol};

use super::super::files::operation;
use super::Unreadable;
use super::packet::{Fields, kind};

/// Bits of attributes (section 5).
const SIZE: u32 = 0x01;
const OWNER: u32 = 0x02;
const PERMISSIONS: u32 = 0x04;
const TIMES: u32 = 0x08;
const EXTENDED: u32 = 0x8000_0000;

/// The answers to a request besides a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Attributes,
    /// A status; the handle is gone with it.
    Close,
    Data,
    Handle,
    /// One name.
    Name,
    /// The names in a directory.
    Names,
    /// Whatever the extension defines.
    Reply,
    Status,
    /// A status, to content that went with the request.
    Written,
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) expected: Expected,
    /// The open file that it is about; 0 for none.
    pub(super) file: u64,
    /// Where in the file.
    pub(super) offset: u64,
    /// What to yield with its answer; content that passes has none.
    pub(super) operation: Option<Box<FileOperation>>,
}

impl Request {
    /// Reads a request behind its id. `find` knows the open files by their handles.
    pub(super) fn read(
        mut fields: Fields,
        find: impl Fn(&Bytes) -> Result<(u64, Bytes), Unreadable>,
    ) -> Result<Self, Unreadable> {
        let take = &mut fields;
        let request = match take.kind() {
            kind::OPEN => {
                let (path, flags, attributes) = (take.name()?, take.u32()?, attributes(take)?);
                Self::on(FileAction::Open, path, Expected::Handle).with(|operation| {
                    operation.flags = flags;
                    operation.attributes = attributes;
                })
            }
            kind::OPENDIR => Self::on(FileAction::OpenDirectory, take.name()?, Expected::Handle),
            kind::CLOSE => Self::of(FileAction::Close, find(&take.handle()?)?, Expected::Close),
            kind::READDIR => Self::content(find(&take.handle()?)?, 0, Expected::Names),
            kind::READ => {
                let (file, offset, _) = (find(&take.handle()?)?, take.u64()?, take.u32()?);
                Self::content(file, offset, Expected::Data)
            }
            // The length at its end was compared with the packet's.
            kind::WRITE => {
                let (file, offset, _) = (find(&take.handle()?)?, take.u64()?, take.u32()?);
                Self::content(file, offset, Expected::Written)
            }
            kind::STAT | kind::LSTAT => {
                Self::on(FileAction::Stat, take.name()?, Expected::Attributes)
            }
            kind::FSTAT => Self::of(
                FileAction::Stat,
                find(&take.handle()?)?,
                Expected::Attributes,
            ),
            kind::SETSTAT | kind::MKDIR => {
                let action = if take.kind() == kind::MKDIR {
                    FileAction::MakeDirectory
                } else {
                    FileAction::SetAttributes
                };
                let (path, attributes) = (take.name()?, attributes(take)?);
                Self::on(action, path, Expected::Status)
                    .with(|operation| operation.attributes = attributes)
            }
            kind::FSETSTAT => {
                let (file, attributes) = (find(&take.handle()?)?, attributes(take)?);
                Self::of(FileAction::SetAttributes, file, Expected::Status)
                    .with(|operation| operation.attributes = attributes)
            }
            kind::REMOVE => Self::on(FileAction::Remove, take.name()?, Expected::Status),
            kind::RMDIR => Self::on(FileAction::RemoveDirectory, take.name()?, Expected::Status),
            kind::REALPATH => Self::on(FileAction::RealPath, take.name()?, Expected::Name),
            kind::READLINK => Self::on(FileAction::ReadLink, take.name()?, Expected::Name),
            kind::RENAME => Self::two(FileAction::Rename, take)?,
            // OpenSSH and all who follow it send what it points to first, against the draft (its PROTOCOL, 4.1).
            kind::SYMLINK => {
                let (target, path) = (take.name()?, take.name()?);
                Self::on(FileAction::Symlink, path, Expected::Status)
                    .with(|operation| operation.target = target)
            }
            kind::EXTENDED => Self::extended(take, find)?,
            other => return Err(Unreadable::Kind(other)),
        };
        fields.end()?;
        Ok(request)
    }

    fn extended(
        take: &mut Fields,
        find: impl Fn(&Bytes) -> Result<(u64, Bytes), Unreadable>,
    ) -> Result<Self, Unreadable> {
        let name = take.name()?;
        let query = |path| {
            let name = name.clone();
            Self::on(FileAction::Query, path, Expected::Reply)
                .with(|operation| operation.target = name)
        };
        Ok(match name.as_ref() {
            b"posix-rename@openssh.com" => Self::two(FileAction::Rename, take)?,
            b"hardlink@openssh.com" => Self::two(FileAction::Link, take)?,
            b"fsync@openssh.com" => {
                Self::of(FileAction::Sync, find(&take.handle()?)?, Expected::Status)
            }
            b"lsetstat@openssh.com" => {
                let (path, attributes) = (take.name()?, attributes(take)?);
                Self::on(FileAction::SetAttributes, path, Expected::Status)
                    .with(|operation| operation.attributes = attributes)
            }
            b"copy-data" => {
                let (_, from) = find(&take.handle()?)?;
                let (_offset, length) = (take.u64()?, take.u64()?);
                let (file, to) = find(&take.handle()?)?;
                take.u64()?;
                Self::of(FileAction::CopyData, (file, from), Expected::Status).with(|operation| {
                    operation.target = to;
                    operation.attributes.size = (length > 0).then_some(length);
                })
            }
            b"copy-file" => {
                let request = Self::two(FileAction::CopyData, take)?;
                take.u8()?;
                request
            }
            b"statvfs@openssh.com" | b"space-available" => query(take.name()?),
            b"fstatvfs@openssh.com" => {
                let (file, path) = find(&take.handle()?)?;
                query(path).with(|operation| operation.file = file)
            }
            b"check-file-name" => {
                let request = query(take.name()?);
                take.skip();
                request
            }
            b"check-file-handle" => {
                let (file, path) = find(&take.handle()?)?;
                take.skip();
                query(path).with(|operation| operation.file = file)
            }
            b"limits@openssh.com" => query(Bytes::new()),
            b"users-groups-by-id@openssh.com" => {
                take.string()?;
                take.string()?;
                query(Bytes::new())
            }
            b"vendor-id" => {
                take.skip();
                query(Bytes::new())
            }
            b"expand-path@openssh.com" => {
                Self::on(FileAction::RealPath, take.name()?, Expected::Name)
            }
            b"home-directory" => {
                let path = [b"~", take.string()?.as_ref()].concat();
                Self::on(FileAction::RealPath, path.into(), Expected::Name)
            }
            other => {
                let shown = other.get(..64).unwrap_or(other);
                return Err(Unreadable::Extension(shown.escape_ascii().to_string()));
            }
        })
    }

    fn on(action: FileAction, path: Bytes, expected: Expected) -> Self {
        Self {
            expected,
            file: 0,
            offset: 0,
            operation: Some(Box::new(operation(FileProtocol::Sftp, action, path))),
        }
    }

    fn of(action: FileAction, (file, path): (u64, Bytes), expected: Expected) -> Self {
        let request = Self::on(action, path, expected);
        Self { file, ..request }.with(|operation| operation.file = file)
    }

    fn two(action: FileAction, take: &mut Fields) -> Result<Self, Unreadable> {
        let (path, target) = (take.name()?, take.name()?);
        let request = Self::on(action, path, Expected::Status);
        Ok(request.with(|operation| operation.target = target))
    }

    fn content((file, _): (u64, Bytes), offset: u64, expected: Expected) -> Self {
        Self {
            expected,
            file,
            offset,
            operation: None,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut FileOperation)) -> Self {
        if let Some(operation) = &mut self.operation {
            change(operation);
        }
        self
    }
}

/// Reads attributes (section 5).
pub(super) fn attributes(take: &mut Fields) -> Result<FileAttributes, Unreadable> {
    let mask = take.u32()?;
    if mask & !(SIZE | OWNER | PERMISSIONS | TIMES | EXTENDED) != 0 {
        return Err(Unreadable::Body { kind: take.kind() });
    }
    let mut attributes = FileAttributes::default();
    if mask & SIZE != 0 {
        attributes.size = Some(take.u64()?);
    }
    if mask & OWNER != 0 {
        attributes.owner = Some((take.u32()?, take.u32()?));
    }
    if mask & PERMISSIONS != 0 {
        attributes.permissions = Some(take.u32()?);
    }
    if mask & TIMES != 0 {
        attributes.times = Some((take.u32()?, take.u32()?));
    }
    if mask & EXTENDED != 0 {
        for _ in 0..take.u32()? {
            take.string()?;
            take.string()?;
        }
    }
    Ok(attributes)
}
