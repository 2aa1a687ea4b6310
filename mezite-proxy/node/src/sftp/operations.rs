//! What each request does. One request at a time, blocking.
//!
//! Paths are the login's own: the kernel decides what it may reach, there is no second check here that could
//! differ from it.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};
use nix::libc;
use nix::sys::statvfs::{FsFlags, fstatvfs, statvfs};
use russh_sftp::protocol::File as Entry;
use russh_sftp::protocol::{
    Attrs, ExtendedReply, FileAttributes, Handle, Name, OpenFlags, Packet, StatusCode, Version,
};

use super::handles::{Directory, Handles, Open};
use super::refusal::Refusal;
use super::{MAX_DATA, MAX_HANDLES, MAX_PACKET, Options, SftpError, attributes};
use crate::account::Names;

/// How many directory entries one reply carries, as OpenSSH does.
const LISTED: usize = 100;
/// Extended requests that are served, with the version each has (OpenSSH's `PROTOCOL`, section 4).
const EXTENSIONS: [(&str, &str); 8] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

/// Packet types that are coded here (draft section 3).
const READ: u8 = 5;
const WRITE: u8 = 6;
const DATA: u8 = 103;

type Answer = Result<Packet, Refusal>;

/// One client's state.
#[derive(Debug)]
pub(super) struct Server {
    options: Options,
    handles: Handles,
    names: Option<Names>,
    begun: bool,
}

impl Server {
    pub(super) const fn new(options: Options) -> Self {
        Self {
            options,
            handles: Handles::new(),
            names: None,
            begun: false,
        }
    }

    /// Makes `reply` the reply to one packet: `request` without its length, `reply` with it. Both buffers are the
    /// caller's, to be used again.
    pub(super) fn answer(&mut self, request: &[u8], reply: &mut Vec<u8>) -> Result<(), SftpError> {
        let mut head = Fields(request);
        let (kind, id) = (
            head.byte().unwrap_or_default(),
            head.number().unwrap_or_default(),
        );
        // What makes up the time of a transfer is done without copying; everything else goes through the library.
        let packet = match kind {
            READ if self.begun => match self.read(id, head, reply) {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal.reply(id),
            },
            WRITE if self.begun => self
                .write(head)
                .map_or_else(|refusal| refusal.reply(id), |()| done(id)),
            _ => self.answer_packet(id, Bytes::copy_from_slice(request))?,
        };
        let packet = Bytes::try_from(packet).map_err(|error| SftpError::Encoding {
            message: error.to_string(),
        })?;
        reply.clear();
        reply.extend_from_slice(&packet);
        Ok(())
    }

    fn answer_packet(&mut self, id: u32, mut request: Bytes) -> Result<Packet, SftpError> {
        match Packet::try_from(&mut request) {
            Ok(Packet::Init(init)) if !self.begun && init.version >= 3 => {
                self.begun = true;
                Ok(Packet::Version(version()))
            }
            _ if !self.begun => Err(SftpError::Version),
            Ok(packet) => Ok(self
                .perform(id, packet)
                .unwrap_or_else(|refusal| refusal.reply(id))),
            Err(_) => Ok(Refusal::from(StatusCode::BadMessage).reply(id)),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the rest are replies, which no client sends"
    )]
    fn perform(&mut self, id: u32, packet: Packet) -> Answer {
        match packet {
            Packet::Open(open) => self.open(id, &open.filename, open.pflags, &open.attrs),
            Packet::Close(close) => self.handles.close(&close.handle).map(|()| done(id)),
            Packet::Lstat(lstat) => {
                let metadata = fs::symlink_metadata(self.path(&lstat.path)?)?;
                Ok(attributes_reply(id, &metadata))
            }
            Packet::Stat(stat) => Ok(attributes_reply(id, &fs::metadata(self.path(&stat.path)?)?)),
            Packet::Fstat(fstat) => {
                let metadata = self.handles.file(&fstat.handle)?.metadata()?;
                Ok(attributes_reply(id, &metadata))
            }
            Packet::SetStat(set) => {
                let path = self.changed(&set.path)?;
                Ok(attributes::apply_to_path(&path, &set.attrs).map(|()| done(id))?)
            }
            Packet::FSetStat(set) => {
                self.writable()?;
                let file = self.handles.file(&set.handle)?;
                Ok(attributes::apply_to_file(file, &set.attrs).map(|()| done(id))?)
            }
            Packet::OpenDir(open) => self.open_directory(id, &open.path),
            Packet::ReadDir(read) => self.list(id, &read.handle),
            Packet::Remove(remove) => {
                Ok(fs::remove_file(self.changed(&remove.filename)?).map(|()| done(id))?)
            }
            Packet::MkDir(make) => self.make_directory(id, &make.path, &make.attrs),
            Packet::RmDir(remove) => {
                Ok(fs::remove_dir(self.changed(&remove.path)?).map(|()| done(id))?)
            }
            Packet::RealPath(real) => real_path(id, &self.path(&real.path)?),
            Packet::Rename(rename) => {
                let (from, to) = (
                    self.changed(&rename.oldpath)?,
                    self.changed(&rename.newpath)?,
                );
                Ok(rename_to_new(&from, &to).map(|()| done(id))?)
            }
            Packet::ReadLink(read) => {
                let target = fs::read_link(self.path(&read.path)?)?;
                one_name(id, &target)
            }
            // OpenSSH sends the target first, against the draft, and all clients follow it.
            Packet::Symlink(link) => {
                let (target, link) = (utf8(&link.linkpath)?, self.changed(&link.targetpath)?);
                Ok(std::os::unix::fs::symlink(target, link).map(|()| done(id))?)
            }
            Packet::Extended(extended) => self.extended(id, &extended.request, &extended.data),
            _ => Err(StatusCode::OpUnsupported.into()),
        }
    }

    /// A path of the client; relative ones begin in the start directory, and so does the empty one.
    fn path(&self, path: &str) -> Result<PathBuf, Refusal> {
        Ok(self.options.start.join(utf8(path)?))
    }

    /// A path that is about to be changed.
    fn changed(&self, path: &str) -> Result<PathBuf, Refusal> {
        self.writable()?;
        self.path(path)
    }

    fn writable(&self) -> Result<(), Refusal> {
        if self.options.read_only {
            return Err(Refusal::new(
                StatusCode::PermissionDenied,
                "this server is read-only",
            ));
        }
        Ok(())
    }

    /// Opens without waiting: a named pipe without its other end must not stop the server.
    fn open(&mut self, id: u32, path: &str, flags: OpenFlags, wanted: &FileAttributes) -> Answer {
        self.handles.has_room()?;
        if flags.intersects(
            OpenFlags::WRITE | OpenFlags::APPEND | OpenFlags::CREATE | OpenFlags::TRUNCATE,
        ) {
            self.writable()?;
        }
        let mut options = OpenOptions::new();
        options
            .read(flags.contains(OpenFlags::READ))
            .write(flags.contains(OpenFlags::WRITE))
            .append(flags.contains(OpenFlags::APPEND))
            .truncate(flags.contains(OpenFlags::TRUNCATE))
            .create(flags.contains(OpenFlags::CREATE))
            .create_new(flags.contains(OpenFlags::CREATE | OpenFlags::EXCLUDE))
            .mode(attributes::permissions(wanted).unwrap_or(0o666))
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = options.open(self.path(path)?)?;
        let handle = self.handles.add(Open::File(file));
        Ok(Packet::Handle(Handle { id, handle }))
    }

    /// Reads straight into the reply: length, type, id, length of the data, data.
    fn read(&self, id: u32, mut fields: Fields<'_>, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        const HEAD: usize = 13;
        let file = self.handles.file(fields.text()?)?;
        let offset = fields.long()?;
        let wanted = fields.number()?.min(MAX_DATA);
        reply.resize(HEAD + usize::try_from(wanted).unwrap_or_default(), 0);
        let data = reply.get_mut(HEAD..).unwrap_or_default();
        let count = uninterrupted(|| file.read_at(data, offset))?;
        if count == 0 && wanted > 0 {
            return Err(StatusCode::Eof.into());
        }
        reply.truncate(HEAD + count);
        // At most MAX_DATA was read.
        let count = u32::try_from(count).unwrap_or_default();
        let mut head = reply.get_mut(..HEAD).unwrap_or_default();
        head.put_u32(count.saturating_add(9));
        head.put_u8(DATA);
        head.put_u32(id);
        head.put_u32(count);
        Ok(())
    }

    fn write(&self, mut fields: Fields<'_>) -> Result<(), Refusal> {
        let file = self.handles.file(fields.text()?)?;
        let offset = fields.long()?;
        Ok(file.write_all_at(fields.bytes()?, offset)?)
    }

    fn open_directory(&mut self, id: u32, path: &str) -> Answer {
        self.handles.has_room()?;
        let path = self.path(path)?;
        let entries = fs::read_dir(&path)?;
        let handle = self.handles.add(Open::Directory(Directory {
            path,
            entries,
            dots_listed: false,
        }));
        Ok(Packet::Handle(Handle { id, handle }))
    }

    /// The next entries, or end of file. Entries that vanish meanwhile are left out.
    fn list(&mut self, id: u32, handle: &str) -> Answer {
        let names = self.names.get_or_insert_with(Names::load);
        let directory = self.handles.directory(handle)?;
        let mut files = Vec::with_capacity(LISTED);
        if !std::mem::replace(&mut directory.dots_listed, true) {
            files.extend(
                [".", ".."]
                    .iter()
                    .filter_map(|name| entry(&directory.path, name, names)),
            );
        }
        while files.len() < LISTED {
            let Some(next) = directory.entries.next() else {
                break;
            };
            let name = next?.file_name();
            // Shown with replacement characters, which no request may contain: seen, but not mistaken for another.
            match name.to_str() {
                Some(name) => files.extend(entry(&directory.path, name, names)),
                None => files.push(Entry::new(name.to_string_lossy(), FileAttributes::empty())),
            }
        }
        if files.is_empty() {
            return Err(StatusCode::Eof.into());
        }
        Ok(Packet::Name(Name { id, files }))
    }

    fn make_directory(&self, id: u32, path: &str, wanted: &FileAttributes) -> Answer {
        let path = self.changed(path)?;
        let mode = attributes::permissions(wanted).unwrap_or(0o777);
        Ok(fs::DirBuilder::new()
            .mode(mode)
            .create(path)
            .map(|()| done(id))?)
    }

    fn extended(&self, id: u32, request: &str, data: &[u8]) -> Answer {
        let mut data = Fields(data);
        match request {
            "posix-rename@openssh.com" => {
                let (from, to) = (self.changed(data.text()?)?, self.changed(data.text()?)?);
                Ok(fs::rename(from, to).map(|()| done(id))?)
            }
            "hardlink@openssh.com" => {
                let (from, to) = (self.changed(data.text()?)?, self.changed(data.text()?)?);
                Ok(fs::hard_link(from, to).map(|()| done(id))?)
            }
            "fsync@openssh.com" => {
                let file = self.handles.file(data.text()?)?;
                Ok(file.sync_all().map(|()| done(id))?)
            }
            "lsetstat@openssh.com" => {
                let path = self.changed(data.text()?)?;
                Ok(attributes::apply_to_link(&path, &data.attributes()?).map(|()| done(id))?)
            }
            "statvfs@openssh.com" => {
                let path = self.path(data.text()?)?;
                Ok(file_system(id, &statvfs(&path).map_err(io::Error::from)?))
            }
            "fstatvfs@openssh.com" => {
                let file: &File = self.handles.file(data.text()?)?;
                Ok(file_system(id, &fstatvfs(file).map_err(io::Error::from)?))
            }
            "limits@openssh.com" => Ok(limits(id)),
            "expand-path@openssh.com" => self.expand(id, data.text()?),
            _ => Err(StatusCode::OpUnsupported.into()),
        }
    }

    /// `~` and `~/…` are the start directory; other accounts' homes are not told.
    fn expand(&self, id: u32, path: &str) -> Answer {
        let rest = match path.strip_prefix('~') {
            None => path,
            Some("") => ".",
            Some(rest) => rest
                .strip_prefix('/')
                .map(|rest| rest.trim_start_matches('/'))
                .ok_or_else(|| Refusal::from(StatusCode::NoSuchFile))?,
        };
        real_path(id, &self.path(rest)?)
    }
}

/// A directory entry with its attributes and its line of `ls -l`.
fn entry(directory: &Path, name: &str, names: &Names) -> Option<Entry> {
    let metadata = fs::symlink_metadata(directory.join(name)).ok()?;
    Some(Entry {
        filename: name.to_owned(),
        longname: attributes::long_name(name, &metadata, names),
        attrs: attributes::of(&metadata),
    })
}

/// Version 3's rename does not replace: a link is made and the old name removed, so that no other process can
/// slip a file in between. Directories and file systems without links are looked at first instead.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(from)?.is_file() {
        match fs::hard_link(from, to) {
            Ok(()) => return fs::remove_file(from),
            Err(error) if !no_links(&error) => return Err(error),
            Err(_) => {}
        }
    }
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

/// The file system has no hard links, or they are not allowed for this file.
fn no_links(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EMLINK | libc::EXDEV)
    )
}

/// The path without links and dots. Its last part need not exist, so that clients can ask before they create.
fn real_path(id: u32, path: &Path) -> Answer {
    let real = match (fs::canonicalize(path), path.parent(), path.file_name()) {
        (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            fs::canonicalize(parent)?.join(name)
        }
        (real, _, _) => real?,
    };
    one_name(id, &real)
}

fn one_name(id: u32, path: &Path) -> Answer {
    let name = path
        .to_str()
        .ok_or_else(|| Refusal::new(StatusCode::Failure, "the name is not UTF-8"))?;
    let file = Entry {
        filename: name.to_owned(),
        longname: name.to_owned(),
        attrs: FileAttributes::empty(),
    };
    Ok(Packet::Name(Name {
        id,
        files: vec![file],
    }))
}

/// The library decodes what is not UTF-8 to the replacement character, by which two names would become one.
fn utf8(name: &str) -> Result<&str, Refusal> {
    if name.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Refusal::new(StatusCode::BadMessage, "names must be UTF-8"));
    }
    Ok(name)
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn version() -> Version {
    let extensions: HashMap<String, String> = EXTENSIONS
        .iter()
        .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
        .collect();
    let mut version = Version::new();
    version.extensions = extensions;
    version
}

fn attributes_reply(id: u32, metadata: &fs::Metadata) -> Packet {
    Packet::Attrs(Attrs {
        id,
        attrs: attributes::of(metadata),
    })
}

fn done(id: u32) -> Packet {
    Packet::status(id, StatusCode::Ok, "done", "en")
}

fn limits(id: u32) -> Packet {
    let handles = u64::try_from(MAX_HANDLES).unwrap_or(u64::MAX);
    numbers(
        id,
        &[MAX_PACKET.into(), MAX_DATA.into(), MAX_DATA.into(), handles],
    )
}

fn file_system(id: u32, system: &nix::sys::statvfs::Statvfs) -> Packet {
    let read_only = u64::from(system.flags().contains(FsFlags::ST_RDONLY));
    let no_set_id = u64::from(system.flags().contains(FsFlags::ST_NOSUID));
    let values = [
        system.block_size(),
        system.fragment_size(),
        system.blocks(),
        system.blocks_free(),
        system.blocks_available(),
        system.files(),
        system.files_free(),
        system.files_available(),
        system.filesystem_id(),
        read_only | (no_set_id << 1),
        system.name_max(),
    ];
    numbers(id, &values)
}

fn numbers(id: u32, values: &[u64]) -> Packet {
    let data = values
        .iter()
        .flat_map(|value| value.to_be_bytes())
        .collect();
    Packet::ExtendedReply(ExtendedReply { id, data })
}

/// The fields of a packet that are read here and not by the library.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Result<u8, Refusal> {
        self.0
            .try_get_u8()
            .map_err(|_| StatusCode::BadMessage.into())
    }

    fn number(&mut self) -> Result<u32, Refusal> {
        self.0
            .try_get_u32()
            .map_err(|_| StatusCode::BadMessage.into())
    }

    fn long(&mut self) -> Result<u64, Refusal> {
        self.0
            .try_get_u64()
            .map_err(|_| StatusCode::BadMessage.into())
    }

    fn bytes(&mut self) -> Result<&'a [u8], Refusal> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(StatusCode::BadMessage)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, Refusal> {
        std::str::from_utf8(self.bytes()?)
            .map_err(|_| Refusal::new(StatusCode::BadMessage, "names must be UTF-8"))
    }

    /// Attributes as the draft's section 5 has them.
    fn attributes(&mut self) -> Result<FileAttributes, Refusal> {
        let flags = self.number()?;
        let mut attributes = FileAttributes::empty();
        if flags & 1 != 0 {
            attributes.size = Some(self.long()?);
        }
        if flags & 2 != 0 {
            attributes.uid = Some(self.number()?);
            attributes.gid = Some(self.number()?);
        }
        if flags & 4 != 0 {
            attributes.permissions = Some(self.number()?);
        }
        if flags & 8 != 0 {
            attributes.atime = Some(self.number()?);
            attributes.mtime = Some(self.number()?);
        }
        Ok(attributes)
    }
}
