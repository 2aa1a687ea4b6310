//! What the example prints is what its README would claim.

use std::process::Command;

#[test]
fn evaluate_policy_answers_every_question() {
    let output = Command::new(env!("CARGO_BIN_EXE_evaluate-policy"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for line in [
        "web-01: yes, for 8h",
        "web-02: no, your roles do not allow this login on this node",
        "alice: alice, deploy on web-01",
        "bob: `*` on db-01",
        "  + alice, deploy on web-02, db-01",
        "  + root on db-01",
        "on-call: deny.combined[0].node_labels: deny_never_matches: matches none of the present nodes: check keys and values",
        "5 cases, 7 questions, 0 failed",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}
