//! The observer against streams as OpenSSH's scp speaks them, against hostile ones, and in any pieces.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::session::files::tests::keep_seed;

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Sender,
    Receiver,
}

type Script = Vec<(By, Vec<u8>)>;

fn script(said: &[(By, &[u8])]) -> Script {
    said.iter()
        .map(|(by, bytes)| (*by, bytes.to_vec()))
        .collect()
}

fn observe(
    line: &str,
    said: &Script,
    content: bool,
) -> (Observer, Vec<Seen>, Result<(), Unreadable>) {
    let command = Command::read(line.as_bytes()).unwrap();
    let from_node = command.from_node;
    let mut observer = Observer::new(command, content);
    let mut seen = Vec::new();
    for (by, bytes) in said {
        let bytes = Bytes::copy_from_slice(bytes);
        let read = if (*by == Sender) == from_node {
            observer.from_node(bytes, &mut seen)
        } else {
            observer.from_client(bytes, &mut seen)
        };
        if read.is_err() {
            return (observer, seen, read);
        }
    }
    (observer, seen, Ok(()))
}

fn told(seen: &[Seen]) -> Vec<String> {
    seen.iter()
        .filter_map(|one| match one {
            Seen::Operation(operation) => Some(operation.to_string()),
            Seen::Content { .. } | Seen::Remark(_) => None,
        })
        .collect()
}

fn lines(line: &str, said: &[(By, &[u8])]) -> Vec<String> {
    let (observer, mut seen, read) = observe(line, &script(said), false);
    assert_eq!(read, Ok(()));
    seen.extend(observer.finish());
    told(&seen)
}

fn hex(data: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(data))
}

use By::{Receiver, Sender};

/// `scp -O -rp`: a directory with a file, and an empty file.
const TREE: &[(By, &[u8])] = &[
    (Receiver, b"\0"),
    (Sender, b"T1700000000 0 1600000000 0\n"),
    (Receiver, b"\0"),
    (Sender, b"D0755 0 tree\n"),
    (Receiver, b"\0"),
    (Sender, b"T1700000001 0 1600000001 0\n"),
    (Receiver, b"\0"),
    (Sender, b"C0644 5 plan with spaces\n"),
    (Receiver, b"\0"),
    (Sender, b"hello"),
    (Sender, b"\0"),
    (Receiver, b"\0"),
    (Sender, b"C0600 0 empty\n"),
    (Receiver, b"\0"),
    (Sender, b"\0"),
    (Receiver, b"\0"),
    (Sender, b"E\n"),
    (Receiver, b"\0"),
];

/// A file that the receiver does not take, and one that the sender cannot read.
const FAILED: &[(By, &[u8])] = &[
    (Receiver, b"\0"),
    (Sender, b"C0644 3 a\n"),
    (Receiver, b"\x01scp: x: Permission denied\n"),
    (Sender, b"C0644 1 b\n"),
    (Receiver, b"\0"),
    (Sender, b"b"),
    (Sender, b"\x01a: Input/output error\n"),
    (Receiver, b"\0"),
];

#[test]
fn copies_have_path_size_digest_and_outcome() {
    let expected = |word: &str| {
        vec![
            "mkdir `tree` -> `/srv` mode=0755 atime=1600000000 mtime=1700000000: ok".to_owned(),
            format!(
                "copy #1 `tree/plan with spaces` -> `/srv` size=5 mode=0644 atime=1600000001 mtime=1700000001, {word} 5 bytes SHA-256 {}: ok",
                hex(b"hello")
            ),
            format!(
                "copy #2 `tree/empty` -> `/srv` size=0 mode=0600, {word} 0 bytes SHA-256 {}: ok",
                hex(b"")
            ),
        ]
    };
    assert_eq!(lines("scp -r -p -t /srv", TREE), expected("wrote"));
    assert_eq!(lines("scp -rpf /srv", TREE), expected("read"));
}

/// `MEZITE_WRITE_CORPUS=1 cargo test -p mezite-proxy seeds` writes the seeds of the fuzz targets anew.
#[test]
fn the_seeds_of_the_corpus_are_streams_that_can_be_read() {
    for (name, line, said) in [
        ("to", "scp -rpt /srv", TREE),
        ("from", "scp -rpf /srv", TREE),
        ("failed", "scp -t x", FAILED),
    ] {
        assert_eq!(observe(line, &script(said), true).2, Ok(()));
        let by_client = if line.contains('f') { Receiver } else { Sender };
        let said = said.iter().map(|(by, bytes)| (*by == by_client, *bytes));
        keep_seed("scp", name, format!("{line}\n").as_bytes(), said);
    }
}

#[test]
fn content_is_yielded_where_it_is_wanted() {
    let (_, seen, _) = observe("scp -r -p -t /srv", &script(TREE), true);
    let content: Vec<&Seen> = seen
        .iter()
        .filter(|it| matches!(it, Seen::Content { .. }))
        .collect();
    let hello = Seen::Content {
        file: 1,
        to_node: true,
        offset: 0,
        data: Bytes::from_static(b"hello"),
    };
    assert_eq!(content, [&hello]);
}

#[test]
fn what_fails_is_told() {
    let missing = lines(
        "scp -f x",
        &[(Receiver, b"\0"), (Sender, b"\x01scp: x: No such file\n")],
    );
    assert_eq!(missing, ["error `x`: failed with 1 (scp: x: No such file)"]);
    let refused = lines("scp -t x", FAILED);
    assert_eq!(
        refused,
        [
            "copy #1 `a` -> `x` size=3 mode=0644: failed with 1 (scp: x: Permission denied)",
            "copy #2 `b` -> `x` size=1 mode=0644, wrote 1 bytes (in part: 0+1) out of order: failed with 1 (a: Input/output error)",
        ]
    );
    let lost = lines(
        "scp -t x",
        &[
            (Receiver, b"\0"),
            (Sender, b"C0644 9 a\n"),
            (Receiver, b"\0"),
            (Sender, b"half"),
        ],
    );
    assert_eq!(
        lost,
        [format!(
            "copy #1 `a` -> `x` size=9 mode=0644, wrote 4 bytes (in part: 0+4) SHA-256 {}: not answered",
            hex(b"half")
        )]
    );
    let not_ready = lines("scp -t x", &[(Receiver, b"\x02no\n")]);
    assert_eq!(not_ready, ["error `x`: failed with 2 (no)"]);
}

/// OpenSSH's receiver may complain of a directory's times after it has answered its end: its sender takes that for the answer
/// to what it says next.
#[test]
fn an_answer_out_of_turn_is_the_next_one() {
    let told = lines(
        "scp -r -t x",
        &[
            (Receiver, b"\0"),
            (Sender, b"D0755 0 d\n"),
            (Receiver, b"\0"),
            (Sender, b"E\n"),
            (Receiver, b"\0\x01scp: d: set times\n"),
            (Sender, b"C0644 1 a\n"),
            (Receiver, b"\0"),
            (Sender, b"C0644 1 b\n"),
            (Sender, b"b\0"),
            (Receiver, b"\0"),
        ],
    );
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[1].ends_with("failed with 1 (scp: d: set times)"),
        "{told:?}"
    );
    assert!(
        told[2].starts_with("copy #2 `b`") && told[2].ends_with(": ok"),
        "{told:?}"
    );
}

#[test]
fn attack_45_a_stream_that_is_no_copy_is_refused() {
    let refused =
        |line: &str, said: &[(By, &[u8])]| observe(line, &script(said), false).2.unwrap_err();
    let message = |text: &str| Unreadable::Message(text.into());
    let ready: (By, &[u8]) = (Receiver, b"\0");
    assert_eq!(refused("scp -t x", &[(Sender, b"id\n")]), Unreadable::Early);
    assert_eq!(
        refused("scp -t x", &[(Receiver, b"$ ")]),
        Unreadable::Answer
    );
    assert_eq!(
        refused("scp -f x", &[(Sender, b"Welcome\n")]),
        Unreadable::Early
    );
    for odd in [
        "id",
        "",
        "C0644 5",
        "C0644 x a",
        "C0644 -5 a",
        "C9 5 a",
        "C0644 99999999999999999999 a",
        "T1 2 3",
        "T1 2 3 x",
        "Ex",
        "\u{3}",
    ] {
        let line = format!("{odd}\n");
        assert_eq!(
            refused("scp -t x", &[ready, (Sender, line.as_bytes())]),
            message(&odd.escape_default().to_string().replace("\\u{3}", "\\x03")),
            "{odd:?}"
        );
    }
    assert_eq!(
        refused("scp -t x", &[ready, (Sender, b"E\n")]),
        Unreadable::Depth
    );
    assert_eq!(
        refused("scp -t x", &[ready, (Sender, b"C0644 1 a\nx")]),
        Unreadable::Early
    );
    let file: [(By, &[u8]); 3] = [ready, (Sender, b"C0644 1 a\n"), ready];
    assert_eq!(
        refused("scp -t x", &[&file[..], &[(Sender, b"xid\n")]].concat()),
        message("id")
    );
    assert_eq!(
        refused("scp -t x", &[&file[..], &[(Sender, b"x\0id\n")]].concat()),
        Unreadable::Early
    );
    let long = vec![b'C'; MAX_LINE + 1];
    assert_eq!(
        refused("scp -t x", &[ready, (Sender, &long)]),
        Unreadable::Line
    );
    let deep: Vec<(By, &[u8])> = (0..=MAX_DEPTH)
        .flat_map(|_| [(Sender, &b"D0755 0 d\n"[..]), ready])
        .collect();
    assert_eq!(
        refused("scp -r -t x", &[&[ready][..], &deep].concat()),
        Unreadable::Depth
    );
    let chatty = vec![0; MAX_EARLY + 2];
    assert_eq!(
        refused("scp -t x", &[(Receiver, &chatty)]),
        Unreadable::Answer
    );
}

#[test]
fn attack_33_a_file_of_2_to_63_bytes_is_counted() {
    let said: Vec<(By, &[u8])> = vec![
        (Receiver, b"\0"),
        (Sender, b"C0644 9223372036854775813 a\n"),
        (Receiver, b"\0"),
        (Sender, b"ab"),
    ];
    let told = lines("scp -t x", &said);
    assert!(told[0].contains("size=9223372036854775813"), "{told:?}");
    assert!(told[0].contains("(in part: 0+2)"), "{told:?}");
}

proptest! {
    #[test]
    fn any_pieces_give_the_same_operations(places in prop::collection::vec(1_usize..20, 1..20)) {
        let (_, expected, _) = observe("scp -rpt /srv", &script(TREE), false);
        let mut places = places.iter().cycle();
        let mut pieces = Vec::new();
        for (by, bytes) in TREE {
            let mut rest = *bytes;
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at((*places.next().unwrap()).min(rest.len()));
                pieces.push((*by, piece.to_vec()));
                rest = behind;
            }
        }
        let (_, seen, read) = observe("scp -rpt /srv", &pieces, false);
        prop_assert_eq!(read, Ok(()));
        prop_assert_eq!(seen, expected);
    }

    /// What copies say, edited anywhere: read or refused, never a panic, never more files than lines that name one.
    #[test]
    fn edited_streams_are_read_or_refused_and_never_a_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut said = script(TREE);
        for (message, at, byte) in edits {
            let message = message.index(said.len());
            let at = at.index(said[message].1.len());
            said[message].1[at] = byte;
        }
        let (observer, mut seen, _) = observe("scp -rpt /srv", &said, true);
        seen.extend(observer.finish());
        prop_assert!(told(&seen).len() <= said.len());
    }
}
