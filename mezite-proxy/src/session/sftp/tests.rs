//! The observer against streams as OpenSSH speaks them, against hostile ones, and in any pieces.

mod pipelining;

use mezite_record::{FileAttributes, Transfer};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::session::files::tests::keep_seed;

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Client,
    Node,
}

fn packet(kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let length = u32::try_from(body.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[kind], &body].concat()
}

fn number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

const NO_ATTRIBUTES: [u8; 4] = [0; 4];

fn init() -> Vec<u8> {
    packet(kind::INIT, &[&number(3)])
}

fn version() -> Vec<u8> {
    let extension = [string(b"posix-rename@openssh.com"), string(b"1")].concat();
    packet(kind::VERSION, &[&number(3), &extension])
}

fn open(id: u32, path: &str, flags: u32) -> Vec<u8> {
    let path = string(path.as_bytes());
    packet(
        kind::OPEN,
        &[&number(id), &path, &number(flags), &NO_ATTRIBUTES],
    )
}

fn on_handle(kind: u8, id: u32, handle: &[u8]) -> Vec<u8> {
    packet(kind, &[&number(id), &string(handle)])
}

fn on_path(kind: u8, id: u32, path: &str) -> Vec<u8> {
    on_handle(kind, id, path.as_bytes())
}

fn read(id: u32, handle: &[u8], offset: u64, length: u32) -> Vec<u8> {
    let place = [&offset.to_be_bytes()[..], &number(length)].concat();
    packet(kind::READ, &[&number(id), &string(handle), &place])
}

fn write(id: u32, handle: &[u8], offset: u64, data: &[u8]) -> Vec<u8> {
    let place = offset.to_be_bytes();
    packet(
        kind::WRITE,
        &[&number(id), &string(handle), &place, &string(data)],
    )
}

fn status_of(id: u32, code: u32) -> Vec<u8> {
    let words = [string(b"words"), string(b"en")].concat();
    packet(kind::STATUS, &[&number(id), &number(code), &words])
}

fn data(id: u32, data: &[u8]) -> Vec<u8> {
    on_handle(kind::DATA, id, data)
}

fn handle(id: u32, handle: &[u8]) -> Vec<u8> {
    on_handle(kind::HANDLE, id, handle)
}

fn names_of(id: u32, names: &[&str]) -> Vec<u8> {
    let count = number(u32::try_from(names.len()).unwrap());
    let all: Vec<u8> = names
        .iter()
        .flat_map(|name| {
            [
                string(name.as_bytes()),
                string(b"-rw-r--r--"),
                NO_ATTRIBUTES.to_vec(),
            ]
            .concat()
        })
        .collect();
    packet(kind::NAME, &[&number(id), &count, &all])
}

fn extended(id: u32, name: &str, body: &[&[u8]]) -> Vec<u8> {
    let name = string(name.as_bytes());
    packet(kind::EXTENDED, &[&number(id), &name, &body.concat()])
}

type Script = Vec<(By, Vec<u8>)>;

fn greeted() -> Script {
    vec![(By::Client, init()), (By::Node, version())]
}

/// Says the script to a new observer.
fn observe(script: &Script, content: bool) -> (Observer, Vec<Seen>, Result<(), Unreadable>) {
    let mut observer = Observer::new(content);
    let mut seen = Vec::new();
    for (by, bytes) in script {
        let bytes = Bytes::copy_from_slice(bytes);
        let read = match by {
            By::Client => observer.from_client(bytes, &mut seen),
            By::Node => observer.from_node(bytes, &mut seen),
        };
        if read.is_err() {
            return (observer, seen, read);
        }
    }
    (observer, seen, Ok(()))
}

fn operations(seen: Vec<Seen>) -> Vec<FileOperation> {
    seen.into_iter()
        .filter_map(|one| match one {
            Seen::Operation(operation) => Some(*operation),
            Seen::Content { .. } | Seen::Remark(_) => None,
        })
        .collect()
}

fn lines(script: Script) -> Vec<String> {
    let whole: Script = greeted().into_iter().chain(script).collect();
    let (_, seen, read) = observe(&whole, false);
    assert_eq!(read, Ok(()));
    operations(seen).iter().map(ToString::to_string).collect()
}

fn refused(script: Script) -> Unreadable {
    let whole: Script = greeted().into_iter().chain(script).collect();
    observe(&whole, false).2.unwrap_err()
}

fn hex(data: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(data))
}

/// `put` and `get` of OpenSSH: requests ahead of their answers, the end of the file asked for.
fn copies() -> Script {
    use By::{Client, Node};
    vec![
        (Client, open(1, "/srv/up", 0x1a)),
        (Node, handle(1, b"\0\0\0\0")),
        (
            Client,
            [
                write(2, b"\0\0\0\0", 0, b"hello "),
                write(3, b"\0\0\0\0", 6, b"world"),
            ]
            .concat(),
        ),
        (Node, [status_of(2, 0), status_of(3, 0)].concat()),
        (Client, on_handle(kind::CLOSE, 4, b"\0\0\0\0")),
        (Node, status_of(4, 0)),
        (Client, open(5, "/srv/down", 1)),
        (Node, handle(5, b"\0\0\0\0")),
        (
            Client,
            [
                read(6, b"\0\0\0\0", 0, 4),
                read(7, b"\0\0\0\0", 4, 4),
                read(8, b"\0\0\0\0", 8, 4),
            ]
            .concat(),
        ),
        (Node, [data(6, b"abcd"), data(7, b"ef")].concat()),
        (Client, read(9, b"\0\0\0\0", 6, 2)),
        (Node, [status_of(8, 1), status_of(9, 1)].concat()),
        (Client, on_handle(kind::CLOSE, 10, b"\0\0\0\0")),
        (Node, status_of(10, 0)),
    ]
}

#[test]
fn copies_have_path_size_digest_and_outcome() {
    assert_eq!(
        lines(copies()),
        [
            "open #1 `/srv/up` write create truncate: ok".to_owned(),
            format!(
                "close #1 `/srv/up`, wrote 11 bytes SHA-256 {}: ok",
                hex(b"hello world")
            ),
            "open #2 `/srv/down` read: ok".to_owned(),
            format!(
                "close #2 `/srv/down`, read 6 bytes SHA-256 {}: ok",
                hex(b"abcdef")
            ),
        ]
    );
}

#[test]
fn content_is_yielded_where_it_is_wanted_each_byte_at_its_place() {
    let script: Script = greeted().into_iter().chain(copies()).collect();
    let (_, seen, _) = observe(&script, true);
    let mut files = [vec![0; 11], vec![0; 6]];
    for one in seen {
        if let Seen::Content {
            file,
            to_node,
            offset,
            data,
        } = one
        {
            assert_eq!(to_node, file == 1);
            let at = usize::try_from(offset).unwrap();
            files[usize::try_from(file).unwrap() - 1][at..at + data.len()].copy_from_slice(&data);
        }
    }
    assert_eq!(files, [b"hello world".to_vec(), b"abcdef".to_vec()]);
}

#[test]
fn what_is_not_whole_is_not_called_whole() {
    use By::{Client, Node};
    let closing = |id| {
        vec![
            (Client, on_handle(kind::CLOSE, id, b"h")),
            (Node, status_of(id, 0)),
        ]
    };
    let opened = |flags| vec![(Client, open(1, "f", flags)), (Node, handle(1, b"h"))];
    let last = |script: Script| lines(script).pop().unwrap();
    // As `reput` resumes.
    let resumed = vec![
        (Client, write(2, b"h", 5, b"tail")),
        (Node, status_of(2, 0)),
    ];
    let resumed = last([opened(0x0a), resumed, closing(3)].concat());
    assert_eq!(
        resumed,
        format!(
            "close #1 `f`, wrote 4 bytes (in part: 5+4) SHA-256 {}: ok",
            hex(b"tail")
        )
    );
    let reordered = vec![
        (
            Client,
            [write(2, b"h", 4, b"tail"), write(3, b"h", 0, b"head")].concat(),
        ),
        (Node, [status_of(2, 0), status_of(3, 0)].concat()),
    ];
    let reordered = last([opened(0x1a), reordered, closing(4)].concat());
    assert_eq!(
        reordered,
        "close #1 `f`, wrote 8 bytes (in part: 0+8) out of order: ok"
    );
    let failed = vec![
        (
            Client,
            [write(2, b"h", 0, b"head"), write(3, b"h", 4, b"tail")].concat(),
        ),
        (Node, [status_of(2, 0), status_of(3, 4)].concat()),
    ];
    let failed = lines([opened(0x1a), failed, closing(4)].concat());
    assert_eq!(
        failed[1..],
        [
            "error #1 `f`: failure (words)".to_owned(),
            "close #1 `f`, wrote 8 bytes (in part: 0+8) out of order: ok".to_owned(),
        ]
    );
    // Without truncation, but cut to its length at the end.
    let attributes = [&number(1)[..], &4_u64.to_be_bytes()].concat();
    let cut = vec![
        (Client, write(2, b"h", 0, b"head")),
        (Node, status_of(2, 0)),
        (
            Client,
            packet(kind::FSETSTAT, &[&number(3), &string(b"h"), &attributes]),
        ),
        (Node, status_of(3, 0)),
    ];
    let cut = last([opened(0x0a), cut, closing(4)].concat());
    assert_eq!(
        cut,
        format!("close #1 `f`, wrote 4 bytes SHA-256 {}: ok", hex(b"head"))
    );
    // A read that stops before the end, one that knows the length, and an empty file.
    let part = vec![(Client, read(2, b"h", 0, 4)), (Node, data(2, b"head"))];
    let stopped = last([opened(1), part.clone(), closing(3)].concat());
    assert!(stopped.contains("(in part: 0+4)"), "{stopped}");
    let stat = packet(kind::ATTRS, &[&number(3), &attributes]);
    let known = vec![(Client, on_handle(kind::FSTAT, 3, b"h")), (Node, stat)];
    let known = last([opened(1), part, known, closing(4)].concat());
    assert_eq!(
        known,
        format!("close #1 `f`, read 4 bytes SHA-256 {}: ok", hex(b"head"))
    );
    let empty = last([opened(0x1a), closing(2)].concat());
    assert_eq!(
        empty,
        format!("close #1 `f`, wrote 0 bytes SHA-256 {}: ok", hex(b""))
    );
}

/// Every operation without content.
fn changes() -> Script {
    use By::{Client, Node};
    let attributes = [&number(4)[..], &number(0o755)].concat();
    let two = |id, kind, one: &str, other: &str| {
        packet(
            kind,
            &[
                &number(id),
                &string(one.as_bytes()),
                &string(other.as_bytes()),
            ],
        )
    };
    vec![
        (Client, on_path(kind::REMOVE, 1, "a")),
        (Client, two(2, kind::RENAME, "a", "b")),
        (Node, status_of(2, 3)),
        (Node, status_of(1, 0)),
        (
            Client,
            packet(kind::MKDIR, &[&number(3), &string(b"d"), &attributes]),
        ),
        (Node, status_of(3, 0)),
        (Client, on_path(kind::RMDIR, 4, "d\nx")),
        (Node, status_of(4, 2)),
        (
            Client,
            packet(kind::SETSTAT, &[&number(5), &string(b"a"), &attributes]),
        ),
        (Node, status_of(5, 0)),
        (Client, two(6, kind::SYMLINK, "target", "link")),
        (Node, status_of(6, 0)),
        (
            Client,
            extended(
                7,
                "hardlink@openssh.com",
                &[&string(b"old"), &string(b"new")],
            ),
        ),
        (Node, status_of(7, 0)),
        (
            Client,
            extended(
                8,
                "posix-rename@openssh.com",
                &[&string(b"old"), &string(b"new")],
            ),
        ),
        (Node, status_of(8, 8)),
        (Client, on_path(kind::OPENDIR, 9, "d")),
        (Node, handle(9, b"dir")),
        (Client, on_handle(kind::READDIR, 10, b"dir")),
        (Node, names_of(10, &[".", "..", "x"])),
        (Client, on_handle(kind::READDIR, 10, b"dir")),
        (Node, status_of(10, 1)),
        (Client, on_handle(kind::CLOSE, 11, b"dir")),
        (Node, status_of(11, 0)),
        (Client, on_path(kind::REALPATH, 12, ".")),
        (Node, names_of(12, &["/home/a"])),
        (Client, on_path(kind::READLINK, 13, "link")),
        (Node, names_of(13, &["target"])),
        (Client, on_path(kind::LSTAT, 14, "link")),
        (Node, packet(kind::ATTRS, &[&number(14), &attributes])),
        (
            Client,
            extended(15, "statvfs@openssh.com", &[&string(b"/")]),
        ),
        (Node, packet(kind::EXTENDED_REPLY, &[&number(15), &[0; 88]])),
        (Client, extended(16, "limits@openssh.com", &[])),
        (Node, status_of(16, 8)),
    ]
}

/// `MEZITE_WRITE_CORPUS=1 cargo test -p mezite-proxy seeds` writes the seeds of the fuzz targets anew.
#[test]
fn the_seeds_of_the_corpus_are_streams_that_can_be_read() {
    use By::{Client, Node};
    let odd = vec![
        (Client, open(1, "f", 0x1b)),
        (Node, handle(1, b"h")),
        (
            Client,
            [
                write(2, b"h", u64::MAX, b"end"),
                write(3, b"h", 0, b"begin"),
            ]
            .concat(),
        ),
        (Node, [status_of(3, 0), status_of(2, 4)].concat()),
        (
            Client,
            [read(4, b"h", 0, 9), on_handle(kind::CLOSE, 5, b"h")].concat(),
        ),
        (Node, [data(4, b"begin"), status_of(5, 0)].concat()),
        (Client, on_path(kind::OPENDIR, 6, "never answered")),
    ];
    for (name, script) in [("copies", copies()), ("changes", changes()), ("odd", odd)] {
        let script: Script = greeted().into_iter().chain(script).collect();
        assert_eq!(observe(&script, true).2, Ok(()));
        let said = script
            .iter()
            .map(|(by, bytes)| (*by == Client, bytes.as_slice()));
        keep_seed("sftp", name, b"", said);
    }
}

#[test]
fn each_operation_is_told_with_its_outcome() {
    assert_eq!(
        lines(changes()),
        [
            "rename `a` -> `b`: permission denied (words)",
            "remove `a`: ok",
            "mkdir `d` mode=0755: ok",
            "rmdir `d\\nx`: no such file (words)",
            "setstat `a` mode=0755: ok",
            "symlink `link` -> `target`: ok",
            "link `old` -> `new`: ok",
            "rename `old` -> `new`: operation unsupported (words)",
            "opendir #1 `d`: ok",
            "close #1 `d`, 3 names: ok",
            "realpath `.` -> `/home/a`: ok",
            "readlink `link` -> `target`: ok",
            "stat `link`: ok",
            "query `/` -> `statvfs@openssh.com`: ok",
            "query -> `limits@openssh.com`: operation unsupported (words)",
        ]
    );
}

#[test]
fn what_a_lost_channel_leaves_is_told() {
    use By::{Client, Node};
    let script = [
        greeted(),
        vec![
            (Client, open(1, "f", 0x1a)),
            (Node, handle(1, b"h")),
            (Client, write(2, b"h", 0, b"half")),
            (Client, on_path(kind::REMOVE, 3, "g")),
            (Client, open(4, "later", 1)),
            (Client, b"\0\0".to_vec()),
        ],
    ]
    .concat();
    let (observer, _, read) = observe(&script, false);
    assert_eq!(read, Ok(()));
    let left = observer.finish();
    let remark = "the SFTP stream of the client ended within a packet";
    assert_eq!(left.last(), Some(&Seen::Remark(remark.into())));
    let told: Vec<String> = operations(left).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "remove `g`: not answered".to_owned(),
            "open `later` read: not answered".to_owned(),
            format!(
                "close #1 `f`, wrote 4 bytes SHA-256 {}: not answered",
                hex(b"half")
            ),
        ]
    );
}

#[test]
fn attack_70_streams_that_cannot_be_read_are_refused() {
    use By::{Client, Node};
    let first = |by, bytes: Vec<u8>| observe(&vec![(by, bytes)], false).2.unwrap_err();
    assert_eq!(
        first(Client, b"SSH-2.0".to_vec()),
        Unreadable::Length(0x5353_482d)
    );
    assert_eq!(first(Client, number(0).to_vec()), Unreadable::Length(0));
    assert_eq!(
        first(Client, number(256 * 1024 + 1).to_vec()),
        Unreadable::Length(256 * 1024 + 1)
    );
    assert_eq!(
        first(Client, on_path(kind::REMOVE, 1, "x")),
        Unreadable::Kind(kind::REMOVE)
    );
    assert_eq!(
        first(Client, packet(kind::INIT, &[&number(2)])),
        Unreadable::Version(2)
    );
    assert_eq!(
        first(Node, version()),
        Unreadable::Kind(kind::VERSION),
        "nobody asked"
    );
    let six = packet(kind::VERSION, &[&number(6)]);
    assert_eq!(
        observe(
            &vec![(Client, packet(kind::INIT, &[&number(6)])), (Node, six)],
            false
        )
        .2,
        Err(Unreadable::Version(6))
    );
    assert_eq!(
        refused(vec![(Client, init())]),
        Unreadable::Kind(kind::INIT)
    );
    for odd in [0, 21, 99, 101, 199, 255] {
        assert_eq!(
            refused(vec![(Client, on_path(odd, 1, "x"))]),
            Unreadable::Kind(odd)
        );
    }
    let unknown = extended(1, "shell@example.com", &[&string(b"id")]);
    assert_eq!(
        refused(vec![(Client, unknown)]),
        Unreadable::Extension("shell@example.com".into())
    );
    let trailing = packet(kind::REMOVE, &[&number(1), &string(b"x"), b"more"]);
    let broken = |kind| Unreadable::Body { kind };
    assert_eq!(refused(vec![(Client, trailing)]), broken(kind::REMOVE));
    let beyond = packet(kind::REMOVE, &[&number(1), &number(u32::MAX), b"x"]);
    assert_eq!(refused(vec![(Client, beyond)]), broken(kind::REMOVE));
    let odd_bits = packet(kind::SETSTAT, &[&number(1), &string(b"x"), &number(0x10)]);
    assert_eq!(refused(vec![(Client, odd_bits)]), broken(kind::SETSTAT));
    let asked = |bytes: Vec<u8>, answer: Vec<u8>| refused(vec![(Client, bytes), (Node, answer)]);
    let remove = || on_path(kind::REMOVE, 1, "x");
    let misfit = |kind, id| Unreadable::Answer { kind, id };
    assert_eq!(asked(remove(), status_of(2, 0)), misfit(kind::STATUS, 2));
    assert_eq!(asked(remove(), data(1, b"x")), misfit(kind::DATA, 1));
    assert_eq!(asked(remove(), handle(1, b"x")), misfit(kind::HANDLE, 1));
    assert_eq!(
        asked(open(1, "x", 1), status_of(1, 0)),
        misfit(kind::STATUS, 1)
    );
    assert_eq!(
        asked(open(1, "x", 1), handle(1, &[0; 257])),
        Unreadable::Handle
    );
    let many = packet(kind::NAME, &[&number(1), &number(u32::MAX)]);
    assert_eq!(
        asked(on_path(kind::REALPATH, 1, "."), many),
        broken(kind::NAME)
    );
    assert_eq!(
        refused(vec![(Client, remove()), (Client, remove())]),
        Unreadable::RequestTwice(1)
    );
    let long = "x".repeat(64 * 1024 + 1);
    assert_eq!(
        refused(vec![(Client, on_path(kind::REMOVE, 1, &long))]),
        Unreadable::Name(long.len())
    );
}

/// OpenSSH's server counts its handles up from zero and gives a closed one to the next file: a client that knows that
/// could write to one file under another's name.
#[test]
fn attack_70_a_handle_is_used_for_the_file_it_was_given_for() {
    use By::{Client, Node};
    let guessed = vec![
        (Client, open(1, "f", 2)),
        (Client, write(2, b"\0\0\0\0", 0, b"x")),
    ];
    assert_eq!(refused(guessed), Unreadable::NotOpen);
    let opened = vec![(Client, open(1, "f", 2)), (Node, handle(1, b"h"))];
    let reused = vec![
        (Client, on_handle(kind::CLOSE, 2, b"h")),
        (Client, open(3, "/etc/passwd", 2)),
        (Client, write(4, b"h", 0, b"x")),
    ];
    assert_eq!(
        refused([opened.clone(), reused].concat()),
        Unreadable::NotOpen
    );
    let closed = vec![
        (Client, on_handle(kind::CLOSE, 2, b"h")),
        (Node, status_of(2, 0)),
        (Client, on_handle(kind::READDIR, 3, b"h")),
    ];
    assert_eq!(
        refused([opened.clone(), closed].concat()),
        Unreadable::NotOpen
    );
    let twice = vec![(Client, open(2, "g", 2)), (Node, handle(2, b"h"))];
    assert_eq!(refused([opened, twice].concat()), Unreadable::HandleTwice);
}

#[test]
fn attack_33_a_million_handles_names_and_requests_are_bounded() {
    use By::{Client, Node};
    let (mut observer, _, _) = observe(&greeted(), false);
    let mut seen = Vec::new();
    let mut error = None;
    for id in 0..1_000_000_u32 {
        observer
            .from_client(open(id, "f", 1).into(), &mut seen)
            .unwrap();
        let opened = observer.from_node(handle(id, &number(id)).into(), &mut seen);
        if let Err(why) = opened {
            error = Some((id, why));
            break;
        }
    }
    assert_eq!(error, Some((4096, Unreadable::TooMany(MAX_OPEN))));
    let (mut observer, _, _) = observe(&greeted(), false);
    let asked = (0..1_000_000_u32).find_map(|id| {
        let read = observer.from_client(on_path(kind::STAT, id, "x").into(), &mut seen);
        read.err().map(|why| (id, why))
    });
    assert_eq!(asked, Some((16_384, Unreadable::TooMany(MAX_IN_FLIGHT))));
    let (mut observer, _, _) = observe(&greeted(), false);
    let name = "n".repeat(60_000);
    let asked = (0..1_000_000_u32).find_map(|id| {
        let read = observer.from_client(on_path(kind::STAT, id, &name).into(), &mut seen);
        read.err()
    });
    assert_eq!(asked, Some(Unreadable::TooMany(MAX_NAMES)));
    // A directory of a million names, and numbers of requests that are used again and again.
    let listing = names_of(2, &vec!["name"; 5000]);
    let mut script = [
        greeted(),
        vec![
            (Client, on_path(kind::OPENDIR, 1, "d")),
            (Node, handle(1, b"h")),
        ],
    ]
    .concat();
    for _ in 0..200 {
        script.push((Client, on_handle(kind::READDIR, 2, b"h")));
        script.push((Node, listing.clone()));
    }
    let (observer, _, read) = observe(&script, false);
    assert_eq!(read, Ok(()));
    assert_eq!(operations(observer.finish())[0].entries, 1_000_000);
}

#[test]
fn attack_33_offsets_beyond_4_gib_and_2_to_63_are_exact() {
    use By::{Client, Node};
    let at = |offset: u64| {
        let told = [
            greeted(),
            vec![
                (Client, open(1, "f", 2)),
                (Node, handle(1, b"h")),
                (Client, write(2, b"h", offset, b"ab")),
                (Node, status_of(2, 0)),
                (Client, on_handle(kind::CLOSE, 3, b"h")),
                (Node, status_of(3, 0)),
            ],
        ]
        .concat();
        let (_, seen, read) = observe(&told, false);
        assert_eq!(read, Ok(()));
        operations(seen).pop().unwrap().written.unwrap()
    };
    let digest: [u8; 32] = Sha256::digest(b"ab").into();
    for offset in [1 << 32, (1 << 63) + 5, u64::MAX - 2] {
        let expected = Transfer {
            bytes: 2,
            whole: false,
            sha256: Some(digest),
            ranges: vec![(offset, 2)],
            more: false,
        };
        assert_eq!(at(offset), expected);
    }
    assert_eq!((at(u64::MAX).sha256, at(u64::MAX).bytes), (None, 2));
}

#[test]
fn attributes_are_told_as_they_were_asked_for() {
    let all = [
        &number(0x0f)[..],
        &7_u64.to_be_bytes(),
        &number(1),
        &number(2),
        &number(0o4755),
        &number(3),
        &number(4),
    ]
    .concat();
    let request = packet(kind::SETSTAT, &[&number(1), &string(b"f"), &all]);
    let script = [
        greeted(),
        vec![(By::Client, request), (By::Node, status_of(1, 0))],
    ]
    .concat();
    let (_, seen, _) = observe(&script, false);
    assert_eq!(
        operations(seen)[0].attributes,
        FileAttributes {
            size: Some(7),
            owner: Some((1, 2)),
            permissions: Some(0o4755),
            times: Some((3, 4)),
        }
    );
}

/// The script with each message cut at the places, and the order kept.
fn cut(script: &Script, places: &[usize]) -> Script {
    let mut places = places.iter().cycle();
    let mut pieces = Vec::new();
    for (by, bytes) in script {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, behind) =
                rest.split_at(places.next().unwrap().min(&rest.len()).max(&1).to_owned());
            pieces.push((*by, piece.to_vec()));
            rest = behind;
        }
    }
    pieces
}

proptest! {
    #[test]
    fn any_pieces_give_the_same_operations(places in prop::collection::vec(1_usize..40, 1..20)) {
        let script: Script = greeted().into_iter().chain(copies()).collect();
        let (whole, expected, _) = observe(&script, false);
        let (observer, seen, read) = observe(&cut(&script, &places), false);
        prop_assert_eq!(read, Ok(()));
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(observer.finish(), whole.finish());
    }

    /// What copies say, edited anywhere: read or refused, and what was opened is closed in the end.
    #[test]
    fn edited_streams_are_read_or_refused_and_never_a_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut script: Script = greeted().into_iter().chain(copies()).collect();
        for (message, at, byte) in edits {
            let message = message.index(script.len());
            let at = at.index(script[message].1.len());
            script[message].1[at] = byte;
        }
        let (observer, mut seen, _) = observe(&script, true);
        seen.extend(observer.finish());
        let told = operations(seen);
        let count = |action, ok: bool| told.iter().filter(|it| it.action == action && it.file > 0 && (it.outcome.is_ok() || !ok)).count();
        prop_assert_eq!(count(FileAction::Open, true), count(FileAction::Close, false));
    }
}
