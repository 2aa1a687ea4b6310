//! The search index: finds what was read, and tells nothing to whoever may not read the recording.
use crate::common::{again, at, files, header, record, seal, session, signer, whole};
use mezite_record::search::{self, Kind, Query, QueryError};
use mezite_record::sink::conformance::block_on;
use mezite_record::{ChannelEvent, Frame, Identity, Part, Timed, recover};
use rand::SeedableRng;
use rand::rngs::StdRng;

fn shell() -> Vec<Timed> {
    let mut frames = session();
    frames.truncate(3);
    frames.extend([
        at(
            10,
            Frame::channel(
                0,
                ChannelEvent::Env {
                    name: "LANG".into(),
                    value: "C.UTF-8".into(),
                },
            ),
        ),
        at(100, Frame::stdout(0, "\u{1b}[?2004hroot@db-1:~# ")),
        at(
            900,
            Frame::stdout(0, "cat /etc/shadoww\u{8}\u{1b}[K\r\n\u{1b}[?2004l\r"),
        ),
        at(
            950,
            Frame::stdout(0, "roo\u{1b}[31mt:Geheimnis\u{1b}[0m:19000:\r\n"),
        ),
        at(960, Frame::note("an administrator looks on")),
    ]);
    frames
}

#[test]
fn file_operations_are_found_and_content_is_not() {
    let identity = Identity::generate();
    let (file, _) = seal(1, &identity, &files());
    let index = built(&file, &identity, 1);
    let digest = "ab".repeat(32);
    let line = format!("close #1 `/srv/plan`, wrote 3 bytes SHA-256 {digest}: ok");
    for text in ["/srv/plan`,", &digest] {
        let found = hits(&index, &identity, text, false);
        assert_eq!(found, [(20, Kind::File, line.clone())]);
    }
    let renamed = "rename `/srv/plan` -> `/srv/b`: no such file (No such file)";
    assert_eq!(
        hits(&index, &identity, "-> `/srv/b", false),
        [(30, Kind::File, renamed.into())]
    );
    assert_eq!(hits(&index, &identity, "abc", false), []);
}

fn built(file: &[u8], identity: &Identity, seed: u64) -> Vec<u8> {
    let identities = [again(identity)];
    search::build(file, &identities, &mut StdRng::seed_from_u64(seed)).unwrap()
}

fn hits(
    index: &[u8],
    identity: &Identity,
    text: &str,
    ignore_case: bool,
) -> Vec<(u64, Kind, String)> {
    let query = Query::new(text, ignore_case).unwrap();
    let found = search::search(index, &[again(identity)], &query, 10).unwrap();
    assert!(!found.more && !found.clipped);
    found
        .hits
        .into_iter()
        .map(|it| (it.at.as_millis(), it.kind, it.line))
        .collect()
}

#[test]
fn what_was_read_is_found_and_what_was_not_shown_is_not() {
    let identity = Identity::generate();
    let (file, _) = seal(1, &identity, &shell());
    let index = built(&file, &identity, 1);
    assert_eq!(search::facts(&index).unwrap(), header(1));
    let line = (960, Kind::Output, "root:Geheimnis:19000:".to_owned());
    let shown = hits(&index, &identity, "root:Geheimnis", false);
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!((shown[0].1, &shown[0].2), (line.1, &line.2));
    assert_eq!(hits(&index, &identity, "geheim", false), []);
    assert_eq!(hits(&index, &identity, "geheim", true).len(), 1);
    assert_eq!(hits(&index, &identity, "shadoww", false), []);
    let command = hits(&index, &identity, "cat /etc/shadow", false);
    assert!(
        command.contains(&(900, Kind::Command, "root@db-1:~# cat /etc/shadow".into())),
        "{command:?}"
    );
    assert_eq!(hits(&index, &identity, "LANG=C", false)[0].1, Kind::Event);
    assert_eq!(hits(&index, &identity, "looks on", false)[0].1, Kind::Event);
}

#[test]
fn a_limit_says_that_there_is_more() {
    let identity = Identity::generate();
    let lines: String = (0..500).map(|number| format!("line {number}\n")).collect();
    let (file, _) = seal(1, &identity, &[at(1, Frame::stdout(0, lines))]);
    let index = built(&file, &identity, 1);
    let query = Query::new("line", false).unwrap();
    let found = search::search(&index, &[identity], &query, 3).unwrap();
    assert!(found.more);
    let lines: Vec<_> = found.hits.iter().map(|it| &*it.line).collect();
    assert_eq!(lines, ["line 0", "line 1", "line 2"]);
}

#[test]
fn bulk_in_several_blocks_is_searched_to_its_end() {
    let identity = Identity::generate();
    let bulk: Vec<Timed> = (0..60_u64)
        .map(|number| {
            at(
                number,
                Frame::stdout(0, format!("{number} {}\n", "x".repeat(60)).repeat(700)),
            )
        })
        .chain([at(100, Frame::stdout(0, "the needle\n"))])
        .collect();
    let (file, _) = seal(1, &identity, &bulk);
    let index = built(&file, &identity, 1);
    let found = hits(&index, &identity, "needle", false);
    assert_eq!(found, [(100, Kind::Output, "the needle".to_owned())]);
    assert!(
        index.len() < file.len() / 2 + 10_000,
        "{} of {}",
        index.len(),
        file.len()
    );
}

#[test]
fn a_recovered_recording_is_indexed_too() {
    let identity = Identity::generate();
    let (sink, _dead) = record(1, &identity, &shell());
    block_on(recover(
        sink.as_ref(),
        header(1).session_id,
        signer().as_ref(),
    ))
    .unwrap();
    let index = built(&whole(sink.as_ref(), 1, Part::Sealed), &identity, 1);
    assert_eq!(hits(&index, &identity, "Geheimnis", false).len(), 1);
}

#[test]
fn attack_53_an_index_tells_nothing_without_the_recordings_key() {
    let identity = Identity::generate();
    let (file, _) = seal(1, &identity, &shell());
    let index = built(&file, &identity, 1);
    for secret in [&b"Geheimnis"[..], b"shadow", b"LANG", b"administrator"] {
        assert!(!index.windows(secret.len()).any(|it| it == secret));
    }
    let query = Query::new("root", false).unwrap();
    assert!(search::search(&index, &[Identity::generate()], &query, 10).is_err());
    assert!(search::search(&index, &[], &query, 10).is_err());
    // The same content built twice shares no sealed byte run: every build has a key of its own.
    let other = built(&file, &identity, 2);
    let ours = &index[index.len() - 64..];
    assert!(
        !other
            .windows(16)
            .any(|it| ours.windows(16).any(|own| own == it))
    );
}

#[test]
fn attack_51_an_edited_or_cut_index_is_refused() {
    let identity = Identity::generate();
    let (file, _) = seal(1, &identity, &shell());
    let index = built(&file, &identity, 1);
    let query = Query::new("root", false).unwrap();
    let search = |bytes: &[u8]| search::search(bytes, &[again(&identity)], &query, 10);
    assert!(search(&index).is_ok());
    for place in 0..index.len() {
        let mut edited = index.clone();
        edited[place] ^= 0x20;
        assert!(search(&edited).is_err(), "byte {place}");
        assert!(search(&index[..place]).is_err(), "cut at {place}");
    }
    assert!(search(&[&index[..], &[0]].concat()).is_err());
    // Blocks of another session's index do not fit below this one's beginning.
    let (theirs, _) = seal(2, &identity, &shell());
    let theirs = built(&theirs, &identity, 1);
    let (ours, end) = (index.len() - 40, &theirs[theirs.len() - 40..]);
    assert!(search(&[&index[..ours], end].concat()).is_err());
}

#[test]
fn a_query_that_means_nothing_is_refused() {
    assert_eq!(Query::new("", true), Err(QueryError::Empty));
    assert_eq!(Query::new("a\nb", false), Err(QueryError::Control));
    let long = "x".repeat(2000);
    assert_eq!(Query::new(&long, false), Err(QueryError::TooLong(2000)));
}
