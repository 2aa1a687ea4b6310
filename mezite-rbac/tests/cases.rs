//! Cases of `roles test`: read, run, reported.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use mezite_rbac::budget::MAX_DOCUMENT_BYTES;
use mezite_rbac::{Cases, CasesError, PolicySet, Report, Role};

const ROLES: &str = r#"
kind: role
version: v1
metadata: { name: backend-dev }
spec:
  options: { max_session_ttl: 8h, record: { input: true } }
  allow:
    node_labels: { env: dev, team: "{{external.team}}" }
    logins: ["{{internal.logins}}", deploy]
    rules: [ { resources: [recording], verbs: [read], where: own } ]
  deny:
    logins: [root]
"#;

const HEAD: &str = "kind: role-cases
version: v1
users:
  alice: { roles: [backend-dev], internal: { logins: [alice] }, external: { team: [payments] } }
nodes:
  web-01: { labels: { env: dev, team: payments } }
  web-02: { labels: { env: dev }, token_labels: { team: payments } }
  web-03: { labels: { env: dev }, agent_labels: { team: payments } }
cases:
";

fn run(cases: &str) -> Report {
    let policy = PolicySet::compile(Role::parse(ROLES, "roles").unwrap()).unwrap();
    let mut report = Report::default();
    for cases in parse(cases).unwrap_or_else(|error| panic!("{error}")) {
        report.add(cases.run(&policy));
    }
    report
}

fn parse(cases: &str) -> Result<Vec<Cases>, CasesError> {
    Cases::parse(&format!("{HEAD}{cases}"), "cases.yaml")
}

#[test]
fn what_is_as_expected_passes() {
    let report = run("
  - name: logins of one's own
    reach: { user: alice, node: web-01, logins: [alice, deploy] }
    expect: allow
    obligations: { max_session_ttl: 480m, port_forwarding: false, record: { input: true } }
  - name: labels of the token
    reach: { user: alice, node: web-02, logins: [deploy], source: 10.1.2.3 }
    expect: allow
  - name: labels of the agent
    reach: { user: alice, node: web-03, logins: [deploy] }
    expect: deny
    reason: not_allowed
  - name: nobody is root
    reach: { user: alice, node: web-01, logins: [root] }
    expect: deny
    reason: denied
  - name: recordings of one's own
    call: { user: alice, verb: read, resource: recording, owner: alice }
    expect: allow
  - name: recordings of others
    call: { user: alice, verb: read, resource: recording, owner: bob }
    expect: deny
");
    assert!(report.is_passed(), "{report}");
    assert_eq!(report.to_string(), "6 cases, 7 questions, 0 failed");
}

#[test]
fn what_is_not_as_expected_is_shown_as_a_difference() {
    let report = run("
  - name: deploys
    reach: { user: alice, node: web-01, logins: [deploy, root] }
    expect: allow
    obligations: { port_forwarding: true, record: { input: false } }
  - name: is denied by a rule
    reach: { user: alice, node: web-03, logins: [deploy] }
    expect: deny
    reason: denied
  - name: sees recordings
    call: { user: alice, verb: list, resource: recording }
    expect: allow
");
    assert!(!report.is_passed());
    assert_eq!(
        report.to_string(),
        "FAILED deploys: alice as deploy on web-01
  - port_forwarding: true
  + port_forwarding: false
  - record.input: false
  + record.input: true
    alice as deploy on web-01: allowed
    decided by role backend-dev: allow
    role backend-dev
      allow: matched
        + node_labels.env wants `dev`, found `dev (operator)`
        + node_labels.team wants `{{external.team}}`, found `payments (operator)`
        + logins wants `{{internal.logins}}, deploy`, found `deploy`
      deny.logins: not matched
        - logins wants `root`, found `deploy`

FAILED deploys: alice as root on web-01
  - answer: allow
  + answer: deny
    alice as root on web-01: denied, a role denies it
    decided by role backend-dev: deny.logins
    role backend-dev
      allow: not matched
        + node_labels.env wants `dev`, found `dev (operator)`
        + node_labels.team wants `{{external.team}}`, found `payments (operator)`
        - logins wants `{{internal.logins}}, deploy`, found `root`
      deny.logins: matched
        + logins wants `root`, found `root`

FAILED is denied by a rule: alice as deploy on web-03
  - reason: denied
  + reason: not_allowed
    alice as deploy on web-03: denied, no role allows it
    role backend-dev
      allow: not matched
        + node_labels.env wants `dev`, found `dev (operator)`
        - node_labels.team wants `{{external.team}}`, found `payments (agent)`
        + logins wants `{{internal.logins}}, deploy`, found `deploy`
      deny.logins: not matched
        - logins wants `root`, found `deploy`

FAILED sees recordings: alice: list recording
  - answer: allow
  + answer: deny

3 cases, 4 questions, 4 failed"
    );
}

#[test]
fn a_case_that_could_check_nothing_is_refused() {
    let one = |case: &str| {
        parse(&format!("  - {{ name: x, {case} }}\n"))
            .unwrap_err()
            .to_string()
    };
    let reach = "reach: { user: alice, node: web-01, logins: [deploy] }";
    let call = "call: { user: alice, verb: read, resource: role }";
    for (case, message) in [
        (
            "expect: allow".to_owned(),
            "cases.yaml: case `x`: write either `reach` or `call`",
        ),
        (
            format!("{reach}, {call}, expect: allow"),
            "cases.yaml: case `x`: write either `reach` or `call`",
        ),
        (
            format!("{call}, expect: deny, reason: denied"),
            "cases.yaml: case `x`: `reason` belongs to `reach` with `expect: deny`",
        ),
        (
            format!("{reach}, expect: allow, reason: denied"),
            "cases.yaml: case `x`: `reason` belongs to `reach` with `expect: deny`",
        ),
        (
            format!("{reach}, expect: deny, obligations: {{ }}"),
            "cases.yaml: case `x`: `obligations` belong to `reach` with `expect: allow`",
        ),
        (
            format!("{call}, expect: allow, obligations: {{ }}"),
            "cases.yaml: case `x`: `obligations` belong to `reach` with `expect: allow`",
        ),
        (
            "reach: { user: bob, node: web-01, logins: [a] }, expect: deny".to_owned(),
            "cases.yaml: case `x` names the user `bob`, who is not there: describe it under `users`",
        ),
        (
            "reach: { user: alice, node: db9, logins: [a] }, expect: deny".to_owned(),
            "cases.yaml: case `x` names the node `db9`, who is not there: describe it under `nodes`",
        ),
        (
            "call: { user: bob, verb: read, resource: role }, expect: deny".to_owned(),
            "cases.yaml: case `x` names the user `bob`, who is not there: describe it under `users`",
        ),
    ] {
        assert_eq!(one(&case), message, "{case}");
    }
}

#[test]
fn mistakes_have_a_place() {
    let one = |case: &str| match parse(&format!("  - {{ name: x, {case} }}\n")) {
        Err(CasesError::Document { line, message, .. }) => {
            assert!(line >= 9, "{line}: {message}");
            message
        }
        other => panic!("{case}: {other:?}"),
    };
    let reach = "reach: { user: alice, node: web-01, logins: [deploy] }, expect: allow";
    for (case, part) in [
        (
            "reach: { user: alice, node: web-01, logins: [] }, expect: allow".to_owned(),
            "empty",
        ),
        (
            "reach: { user: alice, node: web-01, login: [a] }, expect: allow".to_owned(),
            "login",
        ),
        (
            "reach: { user: alice, node: web-01, logins: [\"*\"] }, expect: allow".to_owned(),
            "is not a valid login",
        ),
        (reach.replace("allow", "maybe"), "maybe"),
        (
            format!("{reach}, obligations: {{ port_fwd: true }}"),
            "`port_fwd` is not an obligation",
        ),
        (
            format!("{reach}, obligations: {{ record: {{ inputs: true }} }}"),
            "`record.inputs` is not an obligation",
        ),
        (
            format!("{reach}, obligations: {{ port_forwarding: 3 }}"),
            "boolean",
        ),
        (format!("{reach}, because: y"), "because"),
    ] {
        let message = one(&case);
        assert!(message.contains(part), "{case}: {message}");
    }
}

#[test]
fn no_cases_are_not_a_pass() {
    for text in [
        "",
        "---\n",
        "kind: role-cases\nversion: v1\nusers: {}\ncases: []\n",
        ROLES,
    ] {
        assert!(Cases::parse(text, "x").is_err(), "{text}");
    }
    let long = format!("{HEAD}{}", "#".repeat(300_000));
    assert!(matches!(
        Cases::parse(&long, "x"),
        Err(CasesError::TooLong { .. })
    ));
    let case = "  - { name: x, call: { user: alice, verb: read, resource: role }, expect: deny }\n";
    let rest = MAX_DOCUMENT_BYTES - HEAD.len() - case.len();
    assert!(parse(&format!("{case}{}", "#".repeat(rest))).is_ok());
}
