//! The fuzz targets' corpora, replayed. Their seeds are written by the unit tests of `session::sftp` and `session::scp`:
//! `MEZITE_WRITE_CORPUS=1 cargo test -p mezite-proxy seeds`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../../fuzz/corpus.rs"]
#[expect(dead_code, reason = "the seeds are written elsewhere")]
mod corpora;
#[path = "../../fuzz/proxy/targets.rs"]
mod targets;

use corpora::Corpora;

const CORPORA: Corpora = Corpora("proxy");

#[test]
fn the_corpus_of_sftp_holds() {
    CORPORA.replay("sftp", targets::sftp);
}

#[test]
fn the_corpus_of_scp_holds() {
    CORPORA.replay("scp", targets::scp);
}
