//! Files of every version of the format that was ever written stay readable.
use crate::common::{bulk, decode, files, header, record, seal, session, trusted, whole};
use mezite_record::{Ending, Identity, Part, verify};

/// A published test key of the age project.
const IDENTITY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

#[test]
fn version_1_reads_and_verifies() {
    let identity: Identity = IDENTITY.parse().unwrap();
    for (file, recovered) in [
        (&include_bytes!("../vectors/sealed-v1.mzr")[..], false),
        (include_bytes!("../vectors/recovered-v1.mzr"), true),
    ] {
        let verified = verify(file, &[trusted()]).unwrap();
        assert_eq!(
            (verified.recovered, verified.header),
            (recovered, header(1))
        );
        assert_eq!(decode(file, &identity, 50).0, session());
    }
}

/// `MEZITE_WRITE_CORPUS=1 cargo test -p mezite-record file_operations` writes the vector anew.
#[test]
fn file_operations_read_and_verify() {
    let identity: Identity = IDENTITY.parse().unwrap();
    if std::env::var_os("MEZITE_WRITE_CORPUS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/files-v1.mzr");
        std::fs::write(path, seal(1, &identity, &files()).0).unwrap();
    }
    let file = include_bytes!("../vectors/files-v1.mzr");
    let verified = verify(&file[..], &[trusted()]).unwrap();
    assert!(!verified.recovered);
    assert_eq!(decode(file, &identity, 50).0, files());
}

/// `MEZITE_WRITE_CORPUS=1 cargo test -p mezite-record packed_chunks` writes the vectors anew.
#[test]
fn packed_chunks_read_and_verify() {
    let identity: Identity = IDENTITY.parse().unwrap();
    if std::env::var_os("MEZITE_WRITE_CORPUS").is_some() {
        let (sink, _live) = record(1, &identity, &bulk());
        for (name, file) in [
            ("packed", seal(1, &identity, &bulk()).0),
            ("journal", whole(sink.as_ref(), 1, Part::Journal)),
        ] {
            let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
            std::fs::write(format!("{directory}/{name}-v1.mzr"), file).unwrap();
        }
    }
    let file = include_bytes!("../vectors/packed-v1.mzr");
    assert!(!verify(&file[..], &[trusted()]).unwrap().recovered);
    assert_eq!(decode(file, &identity, 50).0, bulk());
    let (frames, ending) = decode(include_bytes!("../vectors/journal-v1.mzr"), &identity, 50);
    assert_eq!((frames, ending), (bulk(), Ok(Ending::Open { left: 0 })));
}
