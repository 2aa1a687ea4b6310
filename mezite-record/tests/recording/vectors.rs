//! Files of every version of the format that was ever written stay readable.
use crate::common::{decode, header, session, trusted};
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
