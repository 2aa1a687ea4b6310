//! Files of every version of the format that was ever written stay readable.
use crate::common::{decode, files, header, seal, session, trusted};
use mezite_record::{Identity, verify};

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
