//! Every call by every kind of caller: the table is the expectation, and a call without a row fails.

use std::collections::BTreeSet;
use std::sync::Arc;

use mezite_api::request::{RotateKey, RotationStep};
use mezite_api::v1::access_client::AccessClient;
use mezite_api::v1::hub_client::HubClient;
use mezite_api::{METHODS, v1};
use mezite_auth::NoRecordings;
use mezite_auth::grpc::{self, Caller};
use mezite_ca::rotation::Force;
use mezite_ca::{KeyKind, PeerKind};
use tonic::{Code, Request};

use crate::rig::{Rig, session, ssh_key};

/// `x`: refused for who calls. `.`: let through to the work itself.
/// Callers: anonymous, user with `access`, auditor, admin, local administrator, node.
const TABLE: &[(&str, &str)] = &[
    ("WhoAmI", "x....."),
    ("ListNodes", "x....x"),
    ("GetResource", "xx...x"),
    ("ListResources", "xxx..x"),
    ("ApplyResource", "xxx..x"),
    ("RemoveResource", "xxx..x"),
    ("CreateUser", "xxx..x"),
    ("SetPassword", "xxx..x"),
    ("CreateToken", "xxx..x"),
    ("AddOpenSshNode", "xxx..x"),
    ("SignHost", "xxx..x"),
    ("RenewNode", "xxxxx."),
    ("CreateLock", "xxx..x"),
    ("Can", "xx...x"),
    ("WhoCan", "xx...x"),
    ("DiffRoles", "xx...x"),
    ("LintRoles", "xx...x"),
    ("Explain", "x....x"),
    ("ListEvents", "xx...x"),
    ("ExportLog", "xx...x"),
    ("ReadTiles", "xx...x"),
    ("FollowEvents", "xx...x"),
    ("PruneLog", "xxx..x"),
    ("Backup", "xxxx.x"),
    ("ListRecordings", "x....x"),
    ("ReadRecording", "xx...x"),
    ("SearchRecordings", "x....x"),
    ("HoldRecording", "xxx..x"),
    ("ReleaseRecording", "xxx..x"),
    ("PruneRecordings", "xxx..x"),
    ("ListSessions", "x....x"),
    ("EndSession", "xxx..x"),
    ("GetTrust", "x....."),
    ("GetRevocationList", "x....."),
    ("Status", "xxx..x"),
    ("ListKeys", "xxx..x"),
    ("RotateKey", "xxx..x"),
    ("StateAdoption", "xxx..x"),
];

/// The answers to one request of each call, by name.
async fn answers(rig: &Rig, caller: &Caller) -> Vec<(&'static str, Code)> {
    let mut hub = HubClient::new(grpc::hub(rig.auth.clone(), Arc::new(NoRecordings)));
    let mut answers = Vec::new();
    macro_rules! ask {
        ($($name:literal $method:ident $message:expr;)+) => {$(
            let mut request = Request::new($message);
            request.extensions_mut().insert(caller.clone());
            let code = hub.$method(request).await.map_or_else(|status| status.code(), |_| Code::Ok);
            answers.push(($name, code));
        )+};
    }
    let key = || ssh_key().to_openssh().unwrap();
    ask! {
        "WhoAmI" who_am_i v1::WhoAmIRequest {};
        "ListNodes" list_nodes v1::ListNodesRequest::default();
        "GetResource" get_resource v1::GetResourceRequest { kind: "role".into(), name: "admin".into() };
        "ListResources" list_resources v1::ListResourcesRequest { kind: "token".into() };
        "ApplyResource" apply_resource v1::ApplyResourceRequest {
            document: "{kind: user, version: v1, metadata: {name: eve}, spec: {}}".into(), create_only: false };
        "RemoveResource" remove_resource v1::RemoveResourceRequest { kind: "user".into(), name: "eve".into() };
        "CreateUser" create_user v1::CreateUserRequest { name: "eve".into(), ..Default::default() };
        "SetPassword" set_password v1::SetPasswordRequest { user: "eve".into(), password: String::new() };
        "CreateToken" create_token v1::CreateTokenRequest::default();
        "AddOpenSshNode" add_open_ssh_node v1::AddOpenSshNodeRequest {
            name: "web1".into(), address: "web1:22".into(), ..Default::default() };
        "SignHost" sign_host v1::SignHostRequest { node: "web1".into(), public_key: key(), ttl_seconds: 0 };
        "RenewNode" renew_node v1::RenewNodeRequest {
            host_public_key: key(),
            tls_public_key: mezite_ca::Signer::public_key(&crate::rig::key()).to_vec(),
            client_time_ms: crate::rig::START.as_millis(),
            ..Default::default() };
        "CreateLock" create_lock v1::CreateLockRequest {
            target_kind: "user".into(), target_name: "nobody".into(), ..Default::default() };
        "Can" can v1::CanRequest {
            user: "ada".into(), login: "root".into(), node: "db1".into(), ..Default::default() };
        "WhoCan" who_can v1::WhoCanRequest::default();
        "DiffRoles" diff_roles v1::DiffRolesRequest::default();
        "LintRoles" lint_roles v1::LintRolesRequest {};
        "Explain" explain v1::ExplainRequest { event_id: session(1).to_string() };
        "ListEvents" list_events v1::ListEventsRequest::default();
        "ExportLog" export_log v1::ExportLogRequest::default();
        "ReadTiles" read_tiles v1::ReadTilesRequest::default();
        "FollowEvents" follow_events v1::ListEventsRequest::default();
        "PruneLog" prune_log v1::PruneLogRequest { dry_run: false };
        "Backup" backup v1::BackupRequest {};
        "ListRecordings" list_recordings v1::ListRecordingsRequest::default();
        "ReadRecording" read_recording v1::ReadRecordingRequest { session_id: session(1).to_string(), follow: false };
        "SearchRecordings" search_recordings v1::SearchRecordingsRequest { text: "x".into(), ..Default::default() };
        "HoldRecording" hold_recording v1::HoldRecordingRequest {
            session_id: session(1).to_string(), reason: "case 1".into() };
        "ReleaseRecording" release_recording v1::ReleaseRecordingRequest {
            session_id: session(1).to_string(), reason: "case 1".into() };
        "PruneRecordings" prune_recordings v1::PruneRecordingsRequest { dry_run: false };
        "ListSessions" list_sessions v1::ListSessionsRequest {};
        "EndSession" end_session v1::EndSessionRequest { session_id: session(1).to_string(), reason: String::new() };
        "GetTrust" get_trust v1::GetTrustRequest {};
        "GetRevocationList" get_revocation_list v1::GetRevocationListRequest {};
        "Status" status v1::StatusRequest {};
        "ListKeys" list_keys v1::ListKeysRequest {};
        "RotateKey" rotate_key v1::RotateKeyRequest {
            kind: "identity".into(), step: "rollback".into(), force: false };
        "StateAdoption" state_adoption v1::StateAdoptionRequest { node: "nobody".into() };
    }
    answers
}

async fn user(rig: &Rig, name: &str, role: &str) -> Caller {
    let password = rig.user(name, &[role], &[]).await;
    let identity = rig.login(name, &password).await.unwrap();
    Caller::Peer(rig.peer(&identity.tls_chain, PeerKind::User))
}

#[tokio::test]
async fn attack_42_every_call_by_every_kind_of_caller() {
    let rig = Rig::new().await;
    let node = rig.node("db1").await;
    let callers = [
        Caller::Anonymous,
        user(&rig, "alice", "access").await,
        user(&rig, "otto", "auditor").await,
        user(&rig, "ada", "admin").await,
        Caller::Local { uid: 0 },
        Caller::Peer(rig.peer(&node.tls_chain, PeerKind::Node)),
    ];
    let mut found: Vec<(&str, String)> = TABLE
        .iter()
        .map(|(name, _)| (*name, String::new()))
        .collect();
    for caller in &callers {
        let answers = answers(&rig, caller).await;
        assert_eq!(answers.len(), found.len());
        for ((name, code), (row, marks)) in answers.into_iter().zip(&mut found) {
            assert_eq!(name, *row);
            assert_ne!(code, Code::Internal, "{name}");
            assert_ne!(code, Code::InvalidArgument, "{name} was not asked rightly");
            let refused = matches!(code, Code::Unauthenticated | Code::PermissionDenied);
            marks.push(if refused { 'x' } else { '.' });
        }
    }
    let expected: Vec<(&str, String)> = TABLE
        .iter()
        .map(|(name, row)| (*name, (*row).to_owned()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn attack_42_no_call_is_without_a_row() {
    let rows: BTreeSet<&str> = TABLE.iter().map(|(name, _)| *name).collect();
    let calls = METHODS
        .iter()
        .filter(|(service, _)| *service == "mezite.v1.Hub");
    assert_eq!(rows, calls.map(|(_, name)| *name).collect());
}

#[tokio::test]
async fn attack_42_anonymous_is_unauthenticated_everywhere() {
    let rig = Rig::new().await;
    for (name, code) in answers(&rig, &Caller::Anonymous).await {
        assert_eq!(code, Code::Unauthenticated, "{name}");
    }
    let mut hub = HubClient::new(grpc::hub(rig.auth.clone(), Arc::new(NoRecordings)));
    let unmarked = hub.who_am_i(v1::WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(
        unmarked.code(),
        Code::Unauthenticated,
        "a request without a caller is anonymous"
    );
}

#[tokio::test]
async fn attack_63_a_certificate_is_checked_again_at_every_call() {
    let rig = Rig::new().await;
    let ada = user(&rig, "ada", "admin").await;
    let code = async || answers(&rig, &ada).await[0].1;
    assert_eq!(code().await, Code::Ok);
    let lock = rig.lock("user", "ada").await;
    assert_eq!(code().await, Code::PermissionDenied);
    rig.auth.remove(&rig.local, "lock", &lock).await.unwrap();
    assert_eq!(code().await, Code::Ok);
    rig.clock
        .set(crate::rig::START.plus(mezite_core::Span::from_secs(12 * 3600 + 1)));
    assert_eq!(code().await, Code::Unauthenticated);
}

#[tokio::test]
async fn attack_16_a_connection_from_before_a_rotation_is_nobody_after_it() {
    let rig = Rig::new().await;
    let ada = user(&rig, "ada", "admin").await;
    let code = async || answers(&rig, &ada).await[0].1;
    let begin = RotateKey::new(KeyKind::UserTls, RotationStep::Begin);
    rig.auth.rotate(&rig.local, begin).await.unwrap();
    for _ in 0..3 {
        assert_eq!(code().await, Code::Ok);
        let force = RotateKey::new(KeyKind::UserTls, RotationStep::Advance(Force::Yes));
        rig.auth.rotate(&rig.local, force).await.unwrap();
    }
    assert_eq!(code().await, Code::Unauthenticated);
}

#[tokio::test]
async fn attack_65_login_and_join_answer_without_a_certificate() {
    let rig = Rig::new().await;
    let mut access = AccessClient::new(grpc::access(rig.auth.clone()));
    let ping = access.ping(v1::PingRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (ping.cluster.as_str(), ping.now_ms),
        ("example", crate::rig::START.as_millis())
    );
    let password = rig.user("alice", &["access"], &[]).await;
    let message = v1::LoginRequest {
        user: "alice".into(),
        password,
        ssh_public_key: ssh_key().to_openssh().unwrap(),
        tls_public_key: mezite_ca::Signer::public_key(&crate::rig::key()).to_vec(),
        client_time_ms: ping.now_ms,
        ..Default::default()
    };
    let answer = access.login(message).await.unwrap().into_inner();
    let trust: mezite_ca::TrustBundle = serde_json::from_str(&answer.trust).unwrap();
    assert_eq!(trust.gateway.len(), 1);
    assert!(trust.identity.is_empty() && trust.session.is_empty() && trust.node.is_empty());
    assert!(
        answer
            .ssh_certificate
            .starts_with("ssh-ed25519-cert-v01@openssh.com ")
    );
}

/// What a call of the local administrator leaves in the log; those that are not named leave nothing.
const LEAVES: &[(&str, &[&str])] = &[
    ("ApplyResource", &["user.created"]),
    ("RemoveResource", &["user.deleted"]),
    ("CreateUser", &["user.created"]),
    ("SetPassword", &["user.updated"]),
    ("CreateToken", &["token.created"]),
    ("AddOpenSshNode", &["node.created"]),
    ("SignHost", &["host.cert.issued"]),
    ("CreateLock", &["lock.created"]),
    ("ListEvents", &["audit.read"]),
    ("ExportLog", &["audit.read"]),
    ("ReadTiles", &["audit.read"]),
    ("FollowEvents", &["audit.read"]),
    ("Backup", &["backup.created"]),
];

#[tokio::test]
async fn attack_57_every_call_that_changes_or_reads_the_log_leaves_its_event() {
    let rig = Rig::new().await;
    let before = rig.events("").await.len();
    answers(&rig, &Caller::Local { uid: 0 }).await;
    let query = mezite_core::store::LogQuery::after(0, 10_000);
    let log = mezite_core::store::Store::log(&*rig.store, &query)
        .await
        .unwrap();
    assert_eq!(before, 0, "no type is the empty text");
    let local = log.iter().filter_map(|event| {
        let event: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
        let by_hub = event["event_type"] == "host.cert.issued";
        let own = event["user_name"] == "local:0" || by_hub;
        own.then(|| event["event_type"].as_str().unwrap().to_owned())
    });
    let mut found: Vec<String> = local.collect();
    for (call, types) in LEAVES {
        for event_type in *types {
            let place = found.iter().position(|found| found == event_type);
            let place = place.unwrap_or_else(|| panic!("{call} left no {event_type}"));
            found.remove(place);
        }
    }
}
