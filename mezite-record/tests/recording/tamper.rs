//! Attack row 51: whatever is done to a file shows, with the key and without it.
use crate::common::{
    again, at, bulk, decode, header, record, seal, session, signer, trusted, whole,
};
use mezite_record::decode::{MAX_START, facts, unlock};
use mezite_record::sink::conformance::block_on;
use mezite_record::{Ending, Frame, Identity, Part, Timed, VerifyError, recover, verify};
use proptest::prelude::*;

const META: usize = 34;

/// Where each chunk of a file lies, read from the lengths alone.
fn chunks(file: &[u8]) -> Vec<std::ops::Range<usize>> {
    let long = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let facts = long(11);
    let mut at = 15 + facts + 4 + long(15 + facts);
    let mut found = Vec::new();
    while file[at] == 1 {
        let end = at + META + long(at + 14);
        found.push(at..end);
        at = end;
        if at == file.len() {
            break;
        }
    }
    found
}

/// A file of several chunks, finished by recovery, which keeps those of the journal.
fn recovered(number: u8, identity: &Identity) -> Vec<u8> {
    recovered_of(number, identity, &session())
}

fn recovered_of(number: u8, identity: &Identity, frames: &[Timed]) -> Vec<u8> {
    let (sink, _dead) = record(number, identity, frames);
    block_on(recover(
        sink.as_ref(),
        header(number).session_id,
        signer().as_ref(),
    ))
    .unwrap();
    whole(sink.as_ref(), number, Part::Sealed)
}

#[test]
fn attack_51_every_edit_of_one_byte_shows() {
    let identity = Identity::generate();
    for file in [
        seal(1, &identity, &session()).0,
        recovered(1, &identity),
        seal(1, &identity, &bulk()).0,
        recovered_of(1, &identity, &bulk()),
    ] {
        assert!(verify(&file[..], &[trusted()]).is_ok());
        for at in 0..file.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut edited = file.clone();
                edited[at] ^= mask;
                assert!(
                    verify(&edited[..], &[trusted()]).is_err(),
                    "byte {at} ^ {mask:x}"
                );
            }
        }
    }
}

#[test]
fn attack_51_edits_show_to_the_reader_too_who_gets_nothing_false() {
    let identity = Identity::generate();
    for session in [session(), bulk()] {
        let file = recovered_of(1, &identity, &session);
        let end = chunks(&file).last().unwrap().end;
        for at in 0..end {
            let mut edited = file.clone();
            edited[at] ^= 0x10;
            let (frames, ending) = decode(&edited, &identity, 4096);
            assert!(!matches!(ending, Ok(Ending::Recovered { .. })), "byte {at}");
            assert!(frames == session[..frames.len()], "byte {at}");
        }
    }
}

#[test]
fn attack_51_every_cut_shows_and_what_is_whole_reads() {
    let identity = Identity::generate();
    for (file, session) in [
        (seal(1, &identity, &session()).0, session()),
        (recovered(1, &identity), session()),
        (seal(1, &identity, &bulk()).0, bulk()),
        (recovered_of(1, &identity, &bulk()), bulk()),
    ] {
        for cut in 0..file.len() {
            assert!(verify(&file[..cut], &[trusted()]).is_err(), "{cut}");
            let (frames, ending) = decode(&file[..cut], &identity, 4096);
            assert!(
                matches!(ending, Ok(Ending::Open { .. })),
                "{cut}: {ending:?}"
            );
            assert!(frames == session[..frames.len()], "{cut}");
        }
        let longer = [&file[..], &[0]].concat();
        assert!(verify(&longer[..], &[trusted()]).is_err());
    }
}

#[test]
fn attack_51_chunks_that_are_swapped_removed_or_repeated_show() {
    let identity = Identity::generate();
    let file = recovered(1, &identity);
    let chunks = chunks(&file);
    assert_eq!(chunks.len(), session().len());
    let (head, footer) = (&file[..chunks[0].start], &file[chunks[7].end..]);
    let join = |order: &[usize]| {
        let body: Vec<u8> = order
            .iter()
            .flat_map(|it| file[chunks[*it].clone()].to_vec())
            .collect();
        [head, &body, footer].concat()
    };
    assert_eq!(join(&[0, 1, 2, 3, 4, 5, 6, 7]), file);
    for order in [
        // The last two have the same times: only the chain tells them apart.
        &[0, 1, 2, 3, 4, 5, 7, 6][..],
        &[0, 2, 1, 3, 4, 5, 6, 7],
        &[1, 2, 3, 4, 5, 6, 7],
        &[0, 1, 2, 3, 4, 5, 6],
        &[0, 1, 2, 3, 4, 5, 6, 7, 7],
        &[0, 1, 2, 3, 4, 5, 6, 6],
        &[],
    ] {
        let forged = join(order);
        assert!(verify(&forged[..], &[trusted()]).is_err(), "{order:?}");
        let (frames, ending) = decode(&forged, &identity, 4096);
        assert!(ending.is_err(), "{order:?}");
        assert_eq!(frames, session()[..frames.len()]);
    }
}

#[test]
fn attack_51_parts_of_another_recording_do_not_fit() {
    let identity = Identity::generate();
    let (one, two) = (recovered(1, &identity), recovered(2, &identity));
    let (ours, theirs) = (chunks(&one), chunks(&two));
    for number in 0..ours.len() {
        let (at, from) = (ours[number].clone(), theirs[number].clone());
        let spliced = [&one[..at.start], &two[from], &one[at.end..]].concat();
        assert!(verify(&spliced[..], &[trusted()]).is_err());
        assert!(decode(&spliced, &identity, 4096).1.is_err());
    }
    let other_head = [&two[..theirs[0].start], &one[ours[0].start..]].concat();
    assert!(verify(&other_head[..], &[trusted()]).is_err());
    assert!(decode(&other_head, &identity, 4096).1.is_err());
    // A whole other recording verifies, and says itself of which session it is.
    assert_ne!(
        verify(&two[..], &[trusted()]).unwrap().header.session_id,
        header(1).session_id
    );
}

#[test]
fn attack_51_a_footer_of_a_shorter_file_shows_to_a_reader_without_trusted_keys() {
    let identity = Identity::generate();
    let long: Vec<Timed> = (0..70)
        .map(|number| at(number, Frame::stdout(0, vec![b'x'; 32_768])))
        .collect();
    let file = seal(1, &identity, &long).0;
    let all = chunks(&file);
    assert!(all.len() > 2);
    // The last chunk is marked as such and authenticated: no end can be made before it.
    let cut = [&file[..all[0].end], &file[all[all.len() - 1].end..]].concat();
    assert!(decode(&cut, &identity, 4096).1.is_err());
}

#[test]
fn attack_53_a_header_that_names_another_user_lends_no_key() {
    let identity = Identity::generate();
    let (live, _recorder) = record(1, &identity, &session());
    let live = whole(live.as_ref(), 1, Part::Journal);
    for file in [seal(1, &identity, &session()).0, live] {
        let own = [again(&identity)];
        let (header, _) = unlock(&file[..file.len().min(MAX_START)], &own).unwrap();
        assert_eq!(header.user.as_str(), "alice");
        let at = file.windows(5).position(|it| it == b"alice").unwrap();
        let mut forged = file.clone();
        forged[at..at + 5].copy_from_slice(b"mallo");
        assert_eq!(facts(&forged).unwrap().user.as_str(), "mallo");
        assert!(unlock(&forged, &own).is_err());
        // Cut behind the header there is nothing that vouches for it.
        assert!(unlock(&forged[..chunks(&file)[0].start], &own).is_err());
        assert!(unlock(&file[..chunks(&file)[0].end - 1], &own).is_err());
    }
}

#[test]
fn attack_52_a_recording_signed_by_somebody_else_is_named() {
    let (file, _) = seal(1, &Identity::generate(), &session());
    let stranger = verify(&file[..], &[[1; 32]]);
    assert!(
        matches!(stranger, Err(VerifyError::Untrusted(key)) if key == data_encoding::HEXLOWER.encode(&trusted()))
    );
}

proptest! {
    #[test]
    fn attack_51_garbage_is_an_error_and_never_a_panic(garbage in prop::collection::vec(any::<u8>(), 0..600), keep in 0_usize..700) {
        let identity: Identity = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33".parse().unwrap();
        let file = include_bytes!("../vectors/sealed-v1.mzr");
        let forged = [&file[..keep.min(file.len())], &garbage].concat();
        prop_assert!(verify(&forged[..], &[trusted()]).is_err());
        let (_, ending) = decode(&forged, &identity, 64);
        let unfinished = !matches!(ending, Ok(Ending::Sealed { .. } | Ending::Recovered { .. }));
        prop_assert!(unfinished, "an end was made of garbage");
    }
}
