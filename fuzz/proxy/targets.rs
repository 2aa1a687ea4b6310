//! What each fuzz target does with its input. The tests of mezite-proxy include this file too and feed it the corpora,
//! so that what was found once is found again without a fuzzer.
//!
//! An input is what both sides say, in order: who (`c` or anything else), two bytes of length, as many bytes.

use bytes::Bytes;
use mezite_proxy::session::files::Seen;
use mezite_proxy::session::{scp, sftp};

/// Both sides of an SFTP channel: in any pieces, the observer sees the same.
pub(crate) fn sftp(data: &[u8]) {
    let see = |step: usize| {
        let mut observer = sftp::Observer::new(true);
        let mut seen = Vec::new();
        let read = said(data, step).try_for_each(|(by_client, piece)| {
            if by_client {
                observer.from_client(piece, &mut seen)
            } else {
                observer.from_node(piece, &mut seen)
            }
        });
        seen.extend(observer.finish());
        (joined(seen), read)
    };
    let whole = see(usize::MAX);
    assert_eq!(see(1), whole);
    assert_eq!(see(7), whole);
}

/// Both sides of an scp channel in both directions, behind a line that holds the command.
pub(crate) fn scp(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    let (line, rest) = data.split_at(end.unwrap_or(data.len()));
    let Some(command) = scp::Command::read(line) else {
        return;
    };
    let rest = rest.get(1..).unwrap_or_default();
    let see = |step: usize| {
        let mut observer = scp::Observer::new(command.clone(), true);
        let mut seen = Vec::new();
        let read = said(rest, step).try_for_each(|(by_client, piece)| {
            if by_client {
                observer.from_client(piece, &mut seen)
            } else {
                observer.from_node(piece, &mut seen)
            }
        });
        seen.extend(observer.finish());
        (joined(seen), read)
    };
    let whole = see(usize::MAX);
    assert_eq!(see(1), whole);
    assert_eq!(see(7), whole);
}

/// Who says what, no piece longer than `step`.
fn said(mut data: &[u8], step: usize) -> impl Iterator<Item = (bool, Bytes)> {
    let mut pieces = Vec::new();
    while let Some(([who, high, low], rest)) = data.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (message, behind) = rest.split_at(length);
        pieces.extend(
            message
                .chunks(step)
                .map(|piece| (*who == b'c', Bytes::copy_from_slice(piece))),
        );
        data = behind;
    }
    pieces.into_iter()
}

/// Content in one piece, whatever pieces it came in.
fn joined(seen: Vec<Seen>) -> Vec<Seen> {
    let mut joined: Vec<Seen> = Vec::new();
    for one in seen {
        match (joined.last_mut(), one) {
            (
                Some(Seen::Content {
                    file,
                    to_node,
                    offset,
                    data,
                }),
                Seen::Content {
                    file: next_file,
                    to_node: next_to_node,
                    offset: next_offset,
                    data: next,
                },
            ) if *file == next_file
                && *to_node == next_to_node
                && offset.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX))
                    == next_offset =>
            {
                *data = [&data[..], &next[..]].concat().into();
            }
            (_, one) => joined.push(one),
        }
    }
    joined
}
