//! What the example prints is what its README would claim.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::process::Command;

fn run(words: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_verify-audit-log"))
        .args(words)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn verify_audit_log_finds_an_edit_and_a_cut() {
    let (success, text) = run(&[]);
    assert!(success, "{text}");
    for words in [
        "verified: 3 events, 3 of them vouched for by a signature, 0 removed by rule",
        "signed by example/mezite-audit+",
        "somebody edited it: an event from 1 to 3 was changed",
        "somebody cut its end: events 3 to 3 are missing from the end",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
}

#[test]
fn verify_audit_log_reads_a_bundle_as_a_hub_exports_it() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/audit/corpus/bundle/");
    let (success, text) = run(&[&format!("{corpus}pruned")]);
    assert!(success && text.contains("2 removed by rule"), "{text}");
    let (success, text) = run(&[&format!("{corpus}deleted")]);
    assert!(!success && text.contains("Deleted"), "{text}");
}
