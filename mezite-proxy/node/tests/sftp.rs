//! The SFTP server against OpenSSH's own `sftp` and `scp`, without SSH in between: `sftp -D` and `scp -S` start
//! the example `sftp_server`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use mezite_node::sftp::{MAX_DATA, MAX_HANDLES, MAX_PACKET, Options, SftpError, serve};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A directory with `local` and `remote`, and a script that starts the server in `remote`.
struct Site {
    directory: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(site.local()).unwrap();
        fs::create_dir(site.remote()).unwrap();
        let server = server();
        // As `sftp -D` starts it, and as `scp -S` does in place of `ssh`.
        let script = format!(
            "#!/bin/sh\nexec '{}' '{}'\n",
            server.display(),
            site.remote().display()
        );
        fs::write(site.script(), script).unwrap();
        fs::set_permissions(site.script(), fs::Permissions::from_mode(0o755)).unwrap();
        site
    }

    fn local(&self) -> PathBuf {
        self.directory.path().join("local")
    }

    fn remote(&self) -> PathBuf {
        self.directory.path().join("remote")
    }

    fn script(&self) -> PathBuf {
        self.directory.path().join("server")
    }

    /// Runs a batch of `sftp` commands in `local`.
    fn try_sftp(&self, batch: &str) -> Output {
        let file = self.directory.path().join("batch");
        fs::write(&file, batch).unwrap();
        Command::new("sftp")
            .args([Path::new("-D"), &self.script(), Path::new("-b"), &file])
            .current_dir(self.local())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("cannot run OpenSSH's `sftp`: {error}"))
    }

    fn sftp(&self, batch: &str) -> String {
        succeeded(&self.try_sftp(batch))
    }

    fn scp(&self, arguments: &[&str]) -> String {
        let output = Command::new("scp")
            .arg("-S")
            .arg(self.script())
            .args(arguments)
            .current_dir(self.local())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("cannot run OpenSSH's `scp`: {error}"));
        succeeded(&output)
    }
}

fn succeeded(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}{err}");
    out
}

/// Cargo builds the examples of a package with its tests, beside them.
fn server() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let server = tests
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/sftp_server");
    assert!(
        server.exists(),
        "build it first: cargo build -p mezite-node --example sftp_server"
    );
    server
}

fn noise(length: u32) -> Vec<u8> {
    (0..length)
        .map(|n| {
            n.wrapping_mul(2_654_435_761)
                .to_be_bytes()
                .into_iter()
                .next()
                .unwrap()
        })
        .collect()
}

/// Files, directories, links, modes and times, as `cp -a` would keep them.
fn plant(root: &Path) {
    fs::create_dir_all(root.join("tree/a/b")).unwrap();
    fs::write(root.join("tree/empty"), b"").unwrap();
    fs::write(root.join("tree/a/small"), b"small\n").unwrap();
    fs::write(root.join("tree/a/b/Ümläut and space"), noise(3_000_001)).unwrap();
    for number in 0..250 {
        fs::write(root.join(format!("tree/a/b/{number}")), number.to_string()).unwrap();
    }
    let script = root.join("tree/a/script");
    fs::write(&script, b"#!/bin/sh\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::options()
        .write(true)
        .open(&script)
        .unwrap()
        .set_modified(old)
        .unwrap();
}

/// The same names, contents, and with `exactly` modes and times.
fn same(one: &Path, other: &Path, exactly: bool) {
    let (left, right) = (fs::metadata(one).unwrap(), fs::metadata(other).unwrap());
    if exactly {
        assert_eq!(left.mode(), right.mode(), "{}", one.display());
        assert_eq!(left.mtime(), right.mtime(), "{}", one.display());
    }
    if left.is_file() {
        assert!(
            fs::read(one).unwrap() == fs::read(other).unwrap(),
            "{}",
            one.display()
        );
        return;
    }
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(one), names(other));
    for name in names(one) {
        same(&one.join(&name), &other.join(&name), exactly);
    }
}

#[test]
fn trees_are_put_and_got_with_modes_and_times() {
    let site = Site::new();
    plant(&site.local());
    site.sftp("put -pR tree\nget -pR tree back\n");
    same(
        &site.local().join("tree"),
        &site.remote().join("tree"),
        true,
    );
    same(&site.local().join("tree"), &site.local().join("back"), true);
}

#[test]
fn scp_copies_both_ways() {
    let site = Site::new();
    plant(&site.local());
    site.scp(&["-s", "-p", "-r", "tree", "host:copy"]);
    same(
        &site.local().join("tree"),
        &site.remote().join("copy"),
        true,
    );
    site.scp(&["-s", "-p", "-r", "host:~/copy", "back"]);
    same(&site.local().join("tree"), &site.local().join("back"), true);
    site.scp(&["-s", "host:copy/a/s*", "."]);
    assert_eq!(fs::read(site.local().join("small")).unwrap(), b"small\n");
}

#[test]
fn a_large_file_is_byte_exact_and_resumes() {
    let site = Site::new();
    let content = noise(64 * 1024 * 1024);
    fs::write(site.local().join("large"), &content).unwrap();
    fs::write(
        site.remote().join("half"),
        content.get(..10_000_000).unwrap(),
    )
    .unwrap();
    site.sftp("put large\nput -a large half\nget large back\n");
    for copy in [
        site.remote().join("large"),
        site.remote().join("half"),
        site.local().join("back"),
    ] {
        assert!(fs::read(&copy).unwrap() == content, "{}", copy.display());
    }
}

#[test]
fn files_are_made_changed_linked_and_removed() {
    let site = Site::new();
    fs::write(site.local().join("one"), b"1").unwrap();
    fs::write(site.local().join("two"), b"2").unwrap();
    let out = site.sftp(
        "put one\nput two\nrename one two\nmkdir d\nchmod 640 two\nsymlink two s\nln two h\nput two d/x\n\
         rm d/x\nrmdir d\nls -la\npwd\ndf\nput -f one synced\n",
    );
    assert_eq!(fs::read(site.remote().join("two")).unwrap(), b"1");
    assert!(!site.remote().join("one").exists() && !site.remote().join("d").exists());
    assert_eq!(
        fs::metadata(site.remote().join("two")).unwrap().mode() & 0o7777,
        0o640
    );
    assert_eq!(fs::metadata(site.remote().join("two")).unwrap().nlink(), 2);
    assert_eq!(
        fs::read_link(site.remote().join("s")).unwrap(),
        Path::new("two")
    );
    assert!(site.remote().join("synced").exists());
    assert!(out.contains("-rw-r-----    2 "), "{out}");
    assert!(
        out.lines()
            .any(|line| line.starts_with('l') && line.ends_with(" s")),
        "{out}"
    );
    assert!(
        out.lines()
            .any(|line| line.starts_with('d') && line.ends_with(" ..")),
        "{out}"
    );
    assert!(
        out.contains(&format!(
            "Remote working directory: {}",
            site.remote().display()
        )),
        "{out}"
    );
}

#[test]
fn errors_are_told_as_what_they_are() {
    let site = Site::new();
    fs::create_dir(site.remote().join("full")).unwrap();
    fs::write(site.remote().join("full/x"), b"").unwrap();
    for (batch, message) in [
        ("get missing\n", "not found"),
        ("ls missing\n", "not found"),
        ("cd full/x\n", "Can't change directory"),
        ("rmdir full\n", "/remote/full\": Failure"),
        ("mkdir full\n", "/remote/full\": Failure"),
    ] {
        let output = site.try_sftp(batch);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{batch}");
        assert!(told.contains(message), "{batch}: {told}");
    }
}

/// A client that writes packets as it likes.
struct Raw {
    stream: DuplexStream,
    server: tokio::task::JoinHandle<Result<(), SftpError>>,
}

impl Raw {
    fn start(options: Options) -> Self {
        let (stream, theirs) = tokio::io::duplex(1 << 20);
        Self {
            stream,
            server: tokio::spawn(serve(theirs, options)),
        }
    }

    async fn begun(options: Options) -> Self {
        let mut raw = Self::start(options);
        raw.send(1, &[&3_u32.to_be_bytes()]).await;
        assert_eq!(raw.reply().await.first(), Some(&2));
        raw
    }

    async fn send(&mut self, kind: u8, fields: &[&[u8]]) {
        let body = fields.concat();
        self.stream
            .write_u32(u32::try_from(body.len()).unwrap() + 1)
            .await
            .unwrap();
        self.stream.write_u8(kind).await.unwrap();
        self.stream.write_all(&body).await.unwrap();
    }

    /// A request of number 7.
    async fn ask(&mut self, kind: u8, fields: &[&[u8]]) -> Vec<u8> {
        let body = fields.concat();
        self.send(kind, &[&7_u32.to_be_bytes(), &body]).await;
        let reply = self.reply().await;
        assert_eq!(reply.get(1..5).unwrap(), 7_u32.to_be_bytes());
        reply
    }

    async fn reply(&mut self) -> Vec<u8> {
        let length = self.stream.read_u32().await.unwrap();
        let mut reply = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut reply).await.unwrap();
        reply
    }

    async fn ended(self) -> Result<(), SftpError> {
        drop(self.stream);
        self.server.await.unwrap()
    }
}

fn text(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat()
}

/// The code of a status reply.
fn code(reply: &[u8]) -> u8 {
    assert_eq!(reply.first(), Some(&101), "{reply:?}");
    *reply.get(8).unwrap()
}

fn options(directory: &TempDir) -> Options {
    Options::new(directory.path().to_owned())
}

const NO_ATTRIBUTES: &[u8] = &[0; 4];
const READ: &[u8] = &[0, 0, 0, 1];
const WRITE_CREATE: &[u8] = &[0, 0, 0, 0x0a];

#[tokio::test]
async fn many_requests_may_be_sent_before_the_first_reply_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut raw = Raw::begun(options(&directory)).await;
    for number in 0..1000_u32 {
        raw.send(16, &[&number.to_be_bytes(), &text(b".")]).await;
    }
    for number in 0..1000_u32 {
        assert_eq!(raw.reply().await.get(1..5).unwrap(), number.to_be_bytes());
    }
    raw.ended().await.unwrap();
}

#[tokio::test]
async fn attack_70_framing_that_is_broken_ends_the_server() {
    let directory = tempfile::tempdir().unwrap();
    for length in [0, MAX_PACKET + 1, u32::MAX] {
        let mut raw = Raw::begun(options(&directory)).await;
        raw.stream.write_u32(length).await.unwrap();
        assert!(
            matches!(raw.ended().await, Err(SftpError::Length { length: told }) if told == length)
        );
    }
    let mut raw = Raw::begun(options(&directory)).await;
    raw.stream.write_all(&[0, 0, 0, 9, 3, 0]).await.unwrap();
    assert!(matches!(raw.ended().await, Err(SftpError::Truncated)));
    let mut raw = Raw::start(options(&directory));
    raw.send(16, &[&7_u32.to_be_bytes(), &text(b".")]).await;
    assert!(matches!(raw.ended().await, Err(SftpError::Version)));
    let mut raw = Raw::start(options(&directory));
    raw.send(1, &[&2_u32.to_be_bytes()]).await;
    assert!(matches!(raw.ended().await, Err(SftpError::Version)));
}

#[tokio::test]
async fn attack_70_bodies_that_are_broken_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let mut raw = Raw::begun(options(&directory)).await;
    for kind in (3..=20).chain([200]) {
        assert_eq!(code(&raw.ask(kind, &[]).await), 5, "{kind}");
        assert!(
            code(&raw.ask(kind, &[&u32::MAX.to_be_bytes()]).await) >= 4,
            "{kind}"
        );
    }
    for kind in [0, 21, 99, 255] {
        assert_eq!(code(&raw.ask(kind, &[]).await), 5, "{kind}");
    }
    assert_eq!(code(&raw.ask(101, &[&[0; 12]]).await), 8);
    assert_eq!(
        code(&raw.ask(200, &[&text(b"unknown@example.com")]).await),
        8
    );
    assert_eq!(
        code(
            &raw.ask(
                200,
                &[&text(b"hardlink@openssh.com"), &u32::MAX.to_be_bytes()]
            )
            .await
        ),
        5
    );
    raw.ended().await.unwrap();
}

#[tokio::test]
async fn attack_70_names_that_are_not_utf_8_meet_no_other_file() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("caf\u{fffd}"), b"another").unwrap();
    let mut raw = Raw::begun(options(&directory)).await;
    let opened = raw
        .ask(3, &[&text(b"caf\xe9"), WRITE_CREATE, NO_ATTRIBUTES])
        .await;
    assert_eq!(code(&opened), 5);
    assert_eq!(code(&raw.ask(13, &[&text(b"caf\xe9")]).await), 5);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    raw.ended().await.unwrap();
}

#[tokio::test]
async fn attack_70_handles_and_reads_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), vec![1; 1 << 20]).unwrap();
    let mut raw = Raw::begun(options(&directory)).await;
    let opened = raw.ask(3, &[&text(b"file"), READ, NO_ATTRIBUTES]).await;
    let handle = opened.get(5..).unwrap().to_vec();
    let read = raw
        .ask(5, &[&handle, &[0; 8], &u32::MAX.to_be_bytes()])
        .await;
    assert_eq!(read.len(), 9 + usize::try_from(MAX_DATA).unwrap());
    assert_eq!(
        code(
            &raw.ask(5, &[&handle, &(1_u64 << 20).to_be_bytes(), &[0, 0, 0, 1]])
                .await
        ),
        1
    );
    for bad in ["", "00", "1", "-0", "x"] {
        assert_eq!(
            code(&raw.ask(4, &[&text(bad.as_bytes())]).await),
            4,
            "{bad}"
        );
    }
    let mut count = 1;
    // The system's own limit may be lower.
    while raw
        .ask(3, &[&text(b"file"), READ, NO_ATTRIBUTES])
        .await
        .first()
        == Some(&102)
    {
        count += 1;
    }
    assert!(count <= MAX_HANDLES && count > 100, "{count}");
    assert_eq!(code(&raw.ask(4, &[&handle]).await), 0);
    assert_eq!(code(&raw.ask(4, &[&handle]).await), 4);
    raw.ended().await.unwrap();
}

#[tokio::test]
async fn attack_70_a_named_pipe_does_not_stop_the_server() {
    let directory = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(
        &directory.path().join("pipe"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    let mut raw = Raw::begun(options(&directory)).await;
    raw.ask(3, &[&text(b"pipe"), READ, NO_ATTRIBUTES]).await;
    let opened = raw
        .ask(3, &[&text(b"pipe"), &[0, 0, 0, 2], NO_ATTRIBUTES])
        .await;
    assert!(!opened.is_empty());
    raw.ended().await.unwrap();
}

#[tokio::test]
async fn a_read_only_server_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), b"content").unwrap();
    let mut raw = Raw::begun(options(&directory).read_only()).await;
    let file = text(b"file");
    let other = text(b"other");
    for (kind, fields) in [
        (3, vec![file.as_slice(), WRITE_CREATE, NO_ATTRIBUTES]),
        (3, vec![&file, &[0, 0, 0, 0x11], NO_ATTRIBUTES]),
        (9, vec![&file, &[0, 0, 0, 4, 0, 0, 0, 0]]),
        (13, vec![&file]),
        (14, vec![&other, NO_ATTRIBUTES]),
        (15, vec![&file]),
        (18, vec![&file, &other]),
        (20, vec![&file, &other]),
        (200, vec![&text(b"posix-rename@openssh.com"), &file, &other]),
        (200, vec![&text(b"hardlink@openssh.com"), &file, &other]),
        (
            200,
            vec![&text(b"lsetstat@openssh.com"), &file, NO_ATTRIBUTES],
        ),
    ] {
        assert_eq!(code(&raw.ask(kind, &fields).await), 3, "{kind}");
    }
    let opened = raw.ask(3, &[&file, READ, NO_ATTRIBUTES]).await;
    let handle = opened.get(5..).unwrap().to_vec();
    assert_eq!(code(&raw.ask(10, &[&handle, NO_ATTRIBUTES]).await), 3);
    assert!(
        raw.ask(5, &[&handle, &[0; 8], &[0, 0, 1, 0]])
            .await
            .ends_with(b"content")
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    raw.ended().await.unwrap();
}

#[tokio::test]
async fn a_plain_rename_replaces_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        fs::write(directory.path().join(name), name).unwrap();
    }
    fs::create_dir(directory.path().join("d")).unwrap();
    symlink("one", directory.path().join("s")).unwrap();
    let mut raw = Raw::begun(options(&directory)).await;
    for from in ["one", "d", "s"] {
        assert_eq!(
            code(&raw.ask(18, &[&text(from.as_bytes()), &text(b"two")]).await),
            4,
            "{from}"
        );
        let new = format!("new-{from}");
        assert_eq!(
            code(
                &raw.ask(18, &[&text(from.as_bytes()), &text(new.as_bytes())])
                    .await
            ),
            0,
            "{from}"
        );
        assert!(fs::symlink_metadata(directory.path().join(from)).is_err());
        assert!(fs::symlink_metadata(directory.path().join(new)).is_ok());
    }
    assert_eq!(fs::read(directory.path().join("two")).unwrap(), b"two");
    raw.ended().await.unwrap();
}

#[tokio::test]
async fn the_asynchronous_server_carries_bytes_exactly() {
    let directory = tempfile::tempdir().unwrap();
    let content = noise(8 * 1024 * 1024 + 1);
    let mut raw = Raw::begun(options(&directory)).await;
    let flags = [0, 0, 0, 0x0b];
    let opened = raw.ask(3, &[&text(b"file"), &flags, NO_ATTRIBUTES]).await;
    let handle = opened.get(5..).unwrap().to_vec();
    let piece = usize::try_from(MAX_DATA).unwrap();
    for (number, data) in content.chunks(piece).enumerate() {
        let offset = u64::try_from(number * piece).unwrap().to_be_bytes();
        assert_eq!(code(&raw.ask(6, &[&handle, &offset, &text(data)]).await), 0);
    }
    assert!(fs::read(directory.path().join("file")).unwrap() == content);
    let mut back = Vec::new();
    while back.len() < content.len() {
        let offset = u64::try_from(back.len()).unwrap().to_be_bytes();
        let data = raw
            .ask(5, &[&handle, &offset, &MAX_DATA.to_be_bytes()])
            .await;
        assert_eq!(data.first(), Some(&103));
        back.extend_from_slice(data.get(9..).unwrap());
    }
    assert!(back == content);
    raw.ended().await.unwrap();
}
