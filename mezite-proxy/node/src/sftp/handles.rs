//! Open files and directories, by the names that the client knows them by.

use std::collections::BTreeMap;
use std::fs::{File, ReadDir};
use std::path::PathBuf;

use russh_sftp::protocol::StatusCode;

use super::MAX_HANDLES;
use super::refusal::Refusal;

/// What a handle stands for.
#[derive(Debug)]
pub(super) enum Open {
    File(File),
    Directory(Directory),
}

/// A directory being listed.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) entries: ReadDir,
    /// Whether `.` and `..` were listed, which the system's own listing leaves out.
    pub(super) dots_listed: bool,
}

/// At most [`MAX_HANDLES`]; a number is not given twice, so that a late request cannot meet another file.
#[derive(Debug)]
pub(super) struct Handles {
    open: BTreeMap<u64, Open>,
    next: u64,
}

impl Handles {
    pub(super) const fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            next: 0,
        }
    }

    /// Whether one more may be opened.
    pub(super) fn has_room(&self) -> Result<(), Refusal> {
        if self.open.len() >= MAX_HANDLES {
            return Err(Refusal::new(
                StatusCode::Failure,
                format!("more than {MAX_HANDLES} open files"),
            ));
        }
        Ok(())
    }

    pub(super) fn add(&mut self, open: Open) -> String {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        self.open.insert(number, open);
        number.to_string()
    }

    pub(super) fn file(&self, handle: &str) -> Result<&File, Refusal> {
        match number(handle).and_then(|number| self.open.get(&number)) {
            Some(Open::File(file)) => Ok(file),
            Some(Open::Directory(_)) | None => Err(unknown()),
        }
    }

    pub(super) fn directory(&mut self, handle: &str) -> Result<&mut Directory, Refusal> {
        match number(handle).and_then(|number| self.open.get_mut(&number)) {
            Some(Open::Directory(directory)) => Ok(directory),
            Some(Open::File(_)) | None => Err(unknown()),
        }
    }

    pub(super) fn close(&mut self, handle: &str) -> Result<(), Refusal> {
        let open = number(handle).and_then(|number| self.open.remove(&number));
        open.map(drop).ok_or_else(unknown)
    }
}

fn number(handle: &str) -> Option<u64> {
    let number: u64 = handle.parse().ok()?;
    (number.to_string() == handle).then_some(number)
}

fn unknown() -> Refusal {
    Refusal::new(StatusCode::Failure, "no such handle")
}
