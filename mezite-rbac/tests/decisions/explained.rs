//! What explanations and denials say.

use mezite_rbac::{Decision, Explanation, Outcome, Request, explain};

use crate::{ask, node, policy, subject};

#[test]
fn an_explanation_names_role_rule_and_selector_and_comes_back_from_json() {
    let policy = policy(&[
        (
            "a",
            "  allow: { node_labels: { env: [dev, qa] }, logins: [x] }",
        ),
        (
            "b",
            "  deny: { combined: [ { node_labels: { team: \"{{external.team}}\" }, logins: [\"{{user.name}}\", x] } ] }",
        ),
    ]);
    let subject = subject(&["a", "b", "gone"], &[], &[]);
    let (node, login) = (node(&["env=dev"]), "x".parse().unwrap());
    let request = Request {
        subject: &subject,
        node: &node,
        login: &login,
        source: None,
    };
    let explanation = explain(&policy, &request);
    assert_eq!(
        explanation.to_string(),
        "alice as x on db1: denied, a role is not known and might deny it
decided by role gone
role a
  allow: matched
    + node_labels.env wants `dev, qa`, found `dev (operator)`
    + logins wants `x`, found `x`
role b
  deny.combined[0]: matched
    ? node_labels.team wants `{{external.team}}`, found nothing, and a template has no value for this user
    + logins wants `{{user.name}}, x`, found `x`
role gone: not known"
    );
    assert_eq!(
        explanation.roles[1].rules[0].selectors[0].outcome,
        Outcome::Unresolved
    );
    let json = serde_json::to_string(&explanation).unwrap();
    assert_eq!(
        serde_json::from_str::<Explanation>(&json).unwrap(),
        explanation
    );
}

#[test]
fn a_denial_tells_the_user_no_role_and_no_label() {
    let policy = policy(&[("secret-role", "  deny: { node_labels: { \"*\": \"*\" } }")]);
    let node = node(&["env=prod"]);
    let (denied, nobody) = (subject(&["secret-role"], &[], &[]), subject(&[], &[], &[]));
    let Decision::Deny(denial) = ask(&policy, &denied, &node, "x") else {
        panic!("denied");
    };
    let Decision::Deny(absent) = ask(&policy, &nobody, &node, "x") else {
        panic!("denied");
    };
    assert_eq!(denial.to_string(), absent.to_string());
    assert!(denial.explanation().to_string().contains("secret-role"));
}

#[test]
fn an_explanation_of_a_yes_names_the_rules_that_allow_and_no_others() {
    let policy = policy(&[
        (
            "a",
            "  options: { source_networks: [10.0.0.0/8] }
  allow: { node_labels: { env: dev }, logins: [x] }
  deny: { logins: [root] }",
        ),
        ("b", "  allow: { node_labels: { env: prod }, logins: [x] }"),
        ("c", "  allow: { logins: [x] }"),
    ]);
    let subject = subject(&["a", "b", "c"], &[], &[]);
    let (node, login) = (node(&["env=dev"]), "x".parse().unwrap());
    let request = Request {
        subject: &subject,
        node: &node,
        login: &login,
        source: Some("10.1.2.3".parse().unwrap()),
    };
    assert_eq!(
        explain(&policy, &request).to_string(),
        "alice as x on db1: allowed
decided by role a: allow
role a
  allow: matched
    + node_labels.env wants `dev`, found `dev (operator)`
    + logins wants `x`, found `x`
  deny.logins: not matched
    - logins wants `root`, found `x`
  options.source_networks: matched
    + source_networks wants `10.0.0.0/8`, found `10.1.2.3`
role b
  allow: not matched
    - node_labels.env wants `prod`, found `dev (operator)`
    + logins wants `x`, found `x`
role c
  allow: not matched
    + logins wants `x`, found `x`"
    );
}

#[test]
fn an_explanation_cuts_long_texts() {
    let values = |bytes: usize| {
        let value = "v".repeat(bytes);
        let spec = format!("  allow: {{ node_labels: {{ env: {value} }}, logins: [x] }}");
        let policy = policy(&[("a", &spec)]);
        let (subject, node) = (subject(&["a"], &[], &[]), node(&[]));
        let Decision::Deny(denial) = ask(&policy, &subject, &node, "x") else {
            panic!("allowed");
        };
        denial.explanation().roles[0].rules[0].selectors[0]
            .wanted
            .clone()
    };
    assert_eq!(values(200), "v".repeat(200));
    assert_eq!(values(201), format!("{}…", "v".repeat(200)));
}
