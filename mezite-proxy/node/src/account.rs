//! Unix accounts, read from `/etc/passwd` and `/etc/group` by an own parser: no NSS, so that a static
//! binary finds them and no foreign library is loaded. Directory services are not asked.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mezite_core::Login;
use nix::unistd::{getegid, geteuid, getgroups};
use thiserror::Error;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// Account files beyond this many bytes are refused.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// The shell where none is named (`passwd(5)`: an empty field means `/bin/sh`).
const DEFAULT_SHELL: &str = "/bin/sh";

/// Why there is no account.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AccountError {
    /// No line of the password file has this name.
    #[error("no account `{login}` on this node: create it there, or log in as another")]
    Unknown {
        /// The login asked for.
        login: String,
    },
    /// The line that has this name cannot be read.
    #[error(
        "the account `{login}` cannot be used: its line in the password file has a bad {field}"
    )]
    Malformed {
        /// The login asked for.
        login: String,
        /// Which part is bad.
        field: &'static str,
    },
    /// An account file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A Unix account: who the programs of a login run as, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
    shell: PathBuf,
    groups: Vec<u32>,
}

impl Account {
    /// The account `login` as this machine's files describe it.
    ///
    /// # Errors
    /// [`AccountError::Unknown`] without such a line, [`AccountError::Malformed`] if it cannot be used,
    /// [`AccountError::Unreadable`] if a file cannot be read.
    pub fn lookup(login: &Login) -> Result<Self, AccountError> {
        Self::find(login, &read(PASSWD)?, &read(GROUP)?)
    }

    /// The account `login` in the text of a password file (`passwd(5)`) and of a group file (`group(5)`).
    /// The first line with the name counts, as it does for the C library.
    ///
    /// # Errors
    /// [`AccountError::Unknown`] without such a line, [`AccountError::Malformed`] if it cannot be used.
    pub fn find(login: &Login, passwd: &[u8], group: &[u8]) -> Result<Self, AccountError> {
        let name = login.as_str();
        let line = lines(passwd)
            .find(|line| fields(line).next() == Some(name.as_bytes()))
            .ok_or_else(|| AccountError::Unknown {
                login: name.to_owned(),
            })?;
        let mut account = Self::parse(line).map_err(|field| AccountError::Malformed {
            login: name.to_owned(),
            field,
        })?;
        account.groups = groups_of(name, account.gid, group);
        Ok(account)
    }

    /// The account this process runs as, with the groups it really has.
    ///
    /// Without a line for the user id (usual in containers) the name is `uid<number>`, the home is `$HOME`
    /// where that is an absolute path and `/` otherwise, the shell is `/bin/sh`.
    ///
    /// # Errors
    /// [`AccountError::Unreadable`] if the password file exists but cannot be read.
    pub fn current() -> Result<Self, AccountError> {
        let mut account = Self::of_process()?;
        account.groups = getgroups()
            .unwrap_or_default()
            .iter()
            .map(|gid| gid.as_raw())
            .chain([account.gid])
            .collect();
        account.groups.sort_unstable();
        account.groups.dedup();
        Ok(account)
    }

    /// The name of the account this process runs as. Asks for no groups, which a confined process cannot count.
    ///
    /// # Errors
    /// As of [`Self::current`].
    pub fn own_name() -> Result<String, AccountError> {
        Self::of_process().map(|account| account.name)
    }

    /// The account this process runs as, by the password file.
    fn of_process() -> Result<Self, AccountError> {
        let passwd = match read(PASSWD) {
            Err(AccountError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Vec::new()
            }
            other => other?,
        };
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let mut account = Self::by_uid(geteuid().as_raw(), &passwd)
            .unwrap_or_else(|| Self::unlisted(geteuid().as_raw(), home));
        account.gid = getegid().as_raw();
        Ok(account)
    }

    /// The first usable line with this user id.
    fn by_uid(uid: u32, passwd: &[u8]) -> Option<Self> {
        lines(passwd)
            .filter_map(|line| Self::parse(line).ok())
            .find(|account| account.uid == uid)
    }

    /// An account for a user id that no line names.
    fn unlisted(uid: u32, home: Option<PathBuf>) -> Self {
        Self {
            name: format!("uid{uid}"),
            uid,
            gid: uid,
            home: home
                .filter(|home| home.is_absolute())
                .unwrap_or_else(|| PathBuf::from("/")),
            shell: PathBuf::from(DEFAULT_SHELL),
            groups: Vec::new(),
        }
    }

    /// `name:password:uid:gid:comment:home:shell`; the error names the bad field.
    fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let mut fields = fields(line);
        let mut next = |field| fields.next().ok_or(field);
        let name = std::str::from_utf8(next("name")?).map_err(|_| "name")?;
        if name.is_empty() || name.starts_with(['+', '-']) {
            return Err("name");
        }
        next("password")?;
        let uid = id(next("user id")?).ok_or("user id")?;
        let gid = id(next("group id")?).ok_or("group id")?;
        next("comment")?;
        let home = path(next("home directory")?, "/").ok_or("home directory")?;
        let shell = path(next("shell")?, DEFAULT_SHELL).ok_or("shell")?;
        Ok(Self {
            name: name.to_owned(),
            uid,
            gid,
            home,
            shell,
            groups: vec![gid],
        })
    }

    /// The login name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user id.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// The primary group's id.
    #[must_use]
    pub const fn gid(&self) -> u32 {
        self.gid
    }

    /// The home directory, absolute. It may not exist.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The login shell, absolute.
    #[must_use]
    pub fn shell(&self) -> &Path {
        &self.shell
    }

    /// All group ids, the primary one among them, ascending.
    #[must_use]
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }
}

/// Names of user and group ids, for listings. Unreadable files give no names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: std::collections::BTreeMap<u32, String>,
    groups: std::collections::BTreeMap<u32, String>,
}

impl Names {
    /// As this machine's files say now.
    pub(crate) fn load() -> Self {
        Self {
            users: names_by_id(&read(PASSWD).unwrap_or_default()),
            groups: names_by_id(&read(GROUP).unwrap_or_default()),
        }
    }

    pub(crate) fn user(&self, uid: u32) -> String {
        self.users
            .get(&uid)
            .cloned()
            .unwrap_or_else(|| uid.to_string())
    }

    pub(crate) fn group(&self, gid: u32) -> String {
        self.groups
            .get(&gid)
            .cloned()
            .unwrap_or_else(|| gid.to_string())
    }
}

/// Both files begin `name:password:id`; the first line with an id counts.
fn names_by_id(text: &[u8]) -> std::collections::BTreeMap<u32, String> {
    let mut names = std::collections::BTreeMap::new();
    for line in lines(text) {
        let mut fields = fields(line);
        let name = fields
            .next()
            .and_then(|name| std::str::from_utf8(name).ok());
        if let (Some(name), Some(id)) = (name, fields.nth(1).and_then(id)) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}

fn groups_of(name: &str, primary: u32, group: &[u8]) -> Vec<u32> {
    let mut ids: Vec<u32> = lines(group)
        .filter_map(|line| {
            let mut fields = fields(line).skip(2);
            let gid = id(fields.next()?)?;
            let mut members = fields.next()?.split(|byte| *byte == b',');
            members
                .any(|member| member == name.as_bytes())
                .then_some(gid)
        })
        .chain([primary])
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
}

fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b':')
}

/// A user or group id in decimal digits. 2^32-1 is refused: the system calls read it as "no change".
fn id(field: &[u8]) -> Option<u32> {
    if field.is_empty() || !field.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let id = std::str::from_utf8(field).ok()?.parse().ok()?;
    (id != u32::MAX).then_some(id)
}

fn path(field: &[u8], default: &str) -> Option<PathBuf> {
    if field.is_empty() {
        return Some(PathBuf::from(default));
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(field));
    (path.is_absolute() && !field.contains(&0)).then(|| path.to_owned())
}

fn read(path: &'static str) -> Result<Vec<u8>, AccountError> {
    let read = || {
        let mut text = Vec::new();
        let length = File::open(path)?
            .take(MAX_FILE + 1)
            .read_to_end(&mut text)?;
        if u64::try_from(length).is_ok_and(|length| length > MAX_FILE) {
            return Err(io::Error::other("larger than 16 MiB"));
        }
        Ok(text)
    };
    read().map_err(|source| AccountError::Unreadable { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"# comment\n\
        root:x:0:0:root:/root:/bin/bash\n\
        +alice:x:7:7::/:/bin/sh\n\
        alice:x:1000:1000:Alice,,,:/home/alice:/usr/bin/zsh\n\
        alice:x:0:0::/root:/bin/bash\n\
        bare:x:1001:1001:::\n\
        short:x:1002\n\
        minus:x:-1:5::/:/bin/sh\n\
        max:x:4294967295:5::/:/bin/sh\n\
        rel:x:1003:5::home:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:root,alice\nali:x:11:alic,aliceb\nbad:x:-1:alice\ndocker:x:5:alice\nalice:x:1000:\n";

    fn find(login: &str) -> Result<Account, AccountError> {
        let login = Login::try_from(login.to_owned());
        Account::find(
            &login.unwrap_or_else(|error| panic!("{error}")),
            PASSWD,
            GROUP,
        )
    }

    #[test]
    fn finds_the_first_line_and_all_groups() {
        let alice = find("alice").unwrap();
        assert_eq!((alice.uid(), alice.gid()), (1000, 1000));
        assert_eq!(alice.home(), Path::new("/home/alice"));
        assert_eq!(alice.shell(), Path::new("/usr/bin/zsh"));
        assert_eq!(alice.groups(), [5, 10, 1000]);
    }

    #[test]
    fn empty_home_and_shell_have_defaults() {
        let bare = find("bare").unwrap();
        assert_eq!(bare.home(), Path::new("/"));
        assert_eq!(bare.shell(), Path::new("/bin/sh"));
        assert_eq!(bare.groups(), [1001]);
    }

    #[test]
    fn errors_name_the_login_and_the_field() {
        assert!(matches!(find("bob"), Err(AccountError::Unknown { login }) if login == "bob"));
        for (login, bad) in [
            ("short", "group id"),
            ("minus", "user id"),
            ("max", "user id"),
            ("rel", "home directory"),
        ] {
            assert!(
                matches!(find(login), Err(AccountError::Malformed { field, .. }) if field == bad),
                "{login}"
            );
        }
    }

    #[test]
    fn a_user_id_without_a_line_gets_an_account() {
        assert_eq!(Account::by_uid(0, PASSWD).unwrap().name(), "root");
        assert_eq!(Account::by_uid(9999, PASSWD), None);
        let unlisted = Account::unlisted(9999, Some(PathBuf::from("/work")));
        assert_eq!(unlisted.name(), "uid9999");
        assert_eq!(unlisted.home(), Path::new("/work"));
        assert_eq!(unlisted.shell(), Path::new("/bin/sh"));
        let relative = Account::unlisted(9999, Some(PathBuf::from("work")));
        assert_eq!(relative.home(), Path::new("/"));
    }

    #[test]
    fn current_is_this_process() {
        let current = Account::current().unwrap();
        assert_eq!(current.uid(), geteuid().as_raw());
        assert!(current.groups().contains(&getegid().as_raw()));
    }

    #[test]
    fn names_of_ids() {
        let names = names_by_id(GROUP);
        assert_eq!(names.get(&10).map(String::as_str), Some("wheel"));
        assert_eq!(names_by_id(PASSWD).get(&1000).unwrap(), "alice");
    }
}
