//! The table itself. To add an event, add a row; for a new field, say once in `field_doc!` what it means.
//! Codes are never given twice, nor again: MZ1 who and may they, MZ2 sessions, MZ3 nodes, MZ4 administration,
//! MZ5 reading, MZ9 hubs.

use std::net::IpAddr;

use mezite_core::{
    Event, Labels, Login, NodeId, NodeName, RoleName, Serial, SessionId, UnixTime, UserName,
};
use serde_json::Value;

use super::field::{Json, Names, Put};
use super::{Entry, Field, Severity, Stamp, start};

/// What a field means, wherever it appears.
macro_rules! field_doc {
    (action) => {
        "What was asked for or done, as one word or two."
    };
    (agent_version) => {
        "The version that the node's agent tells."
    };
    (attempts) => {
        "How many alike this one event stands for: a burst from one source, or in one session, is one event."
    };
    (authority_fingerprint) => {
        "SHA-256 fingerprint of the key that signed the certificate."
    };
    (bytes_read) => {
        "Content of files that came from the node."
    };
    (bytes_to_client) => {
        "Bytes that the session's channels, or this one, carried towards the user."
    };
    (bytes_to_node) => {
        "Bytes that the session's channels, or this one, carried towards the node."
    };
    (bytes_written) => {
        "Content of files that went to the node."
    };
    (certificate) => {
        "The certificate that was shown, in base64."
    };
    (certificate_fingerprint) => {
        "SHA-256 fingerprint of the certificate or key that was shown."
    };
    (certificate_type) => {
        "`ssh` or `x509`."
    };
    (channel) => {
        "The channel's number within the session."
    };
    (client_ip) => {
        "Where the request came from."
    };
    (client_version) => {
        "The identification that the client sent (RFC 4253 section 4.2), or its user agent."
    };
    (claimed_users) => {
        "The names that were claimed, each once."
    };
    (command) => {
        "The command as the client sent it."
    };
    (content_sha256) => {
        "SHA-256, in hex, of the content that passed; only where that was one piece of one file, in order."
    };
    (count) => {
        "How many records it is about."
    };
    (delivered) => {
        "The sequence up to which the receiver has the log."
    };
    (destination) => {
        "Where the forward leads: host and port, or a socket."
    };
    (direction) => {
        "`local` (from the client), `remote` (from the node), `agent` or `x11`."
    };
    (document) => {
        "The resource as it now is, without secrets."
    };
    (duration_ms) => {
        "From start to end, in milliseconds."
    };
    (error_message) => {
        "Why it failed or was refused."
    };
    (evidence) => {
        "How it is known: `reported` by the hub or agent itself, `measured` by a hub, or `stated` by an operator."
    };
    (events) => {
        "How many events the log has, or the backup holds."
    };
    (exit_code) => {
        "The exit status of the last command or shell that told one."
    };
    (explanation) => {
        "Which role, rule and selector decided: what `mezctl explain` shows."
    };
    (forced) => {
        "Whether it was done although somebody was cut off by it."
    };
    (generation) => {
        "Number of the generation of the key that signs now."
    };
    (decided_by) => {
        "The rules that allowed it, each with its role."
    };
    (found_in) => {
        "What carried it: `forward`, `exec` or `shell`."
    };
    (free_bytes) => {
        "Room left on the disk."
    };
    (handover) => {
        "What both keys signed, in base64: a checkpoint (C2SP signed note) that names the new key. README of \
         `mezite-audit`, `handover`."
    };
    (hub_id) => {
        "The hub process that it is about."
    };
    (identification) => {
        "The identification string (RFC 4253 section 4.2), as far as it came at once."
    };
    (key_id) => {
        "The certificate's key id, as stock tools show it."
    };
    (key_kind) => {
        "What the key is for: `identity`, `session`, `gateway`, `node`, `user-tls`, `host-tls` or `audit`."
    };
    (list_number) => {
        "The number of the revocation list that says so first."
    };
    (login) => {
        "The Unix account on the node."
    };
    (method) => {
        "How somebody proved, or tried to prove, who they are."
    };
    (mode) => {
        "How the node serves logins: `builtin` or `openssh`."
    };
    (obligations) => {
        "The conditions of the yes."
    };
    (operation) => {
        "What was done: `open` is the channel itself where there is no path; the others as `mezctl recordings export` names them."
    };
    (origin) => {
        "Where the forwarded connection came from."
    };
    (passed_over) => {
        "Who was cut off, a sentence each."
    };
    (phase) => {
        "Phase of the rotation from now on: `standby`, `init`, `update_clients`, `update_servers` or `rollback`."
    };
    (phase_before) => {
        "Phase of the rotation until now."
    };
    (path) => {
        "Which file or directory it is about."
    };
    (principal) => {
        "The one principal that the certificate names."
    };
    (principals) => {
        "The principals that the certificate names."
    };
    (pty) => {
        "Whether it ran in a terminal."
    };
    (new_key) => {
        "The audit key that signs checkpoints from this event on, as auditors are given it."
    };
    (old_key) => {
        "The audit key that signed until now. It counts for nothing that covers this event."
    };
    (public_key_fingerprint) => {
        "SHA-256 fingerprint of the public key."
    };
    (query) => {
        "What was asked."
    };
    (ranges) => {
        "The sequences of the events, as `1-9,12`."
    };
    (reason) => {
        "Why it ended, was made or was removed."
    };
    (recorded) => {
        "Whether a recording was opened before the session began."
    };
    (recorded_user) => {
        "Whose session the recording shows."
    };
    (recording_bytes) => {
        "Length of the sealed recording."
    };
    (recording_sha256) => {
        "SHA-256 of the sealed recording, in hex: `mezctl audit verify` compares it."
    };
    (removed_generation) => {
        "Number of the generation whose private key was removed."
    };
    (resource_labels) => {
        "The labels of the resource."
    };
    (resource_name) => {
        "The name of the resource."
    };
    (resource_type) => {
        "What kind of resource it is."
    };
    (retention_rule) => {
        "The rule of retention that no longer keeps it."
    };
    (rule) => {
        "The rule that says so."
    };
    (sent_by) => {
        "Which side sent it: `client` or `node`."
    };
    (serial) => {
        "Serial number of the certificate."
    };
    (server_address) => {
        "Where the node was reached."
    };
    (server_hostname) => {
        "The node's name."
    };
    (server_id) => {
        "The node's id, which no other node ever gets."
    };
    (services) => {
        "Which services the hub runs."
    };
    (session_id) => {
        "The session."
    };
    (session_ids) => {
        "The sessions whose recordings lines were given out of."
    };
    (sessions) => {
        "How many sessions were running."
    };
    (subsystem) => {
        "The subsystem's name (RFC 4254 section 6.5)."
    };
    (success) => {
        "Whether it worked."
    };
    (target_name) => {
        "Who or what the lock stops, or what is revoked."
    };
    (target_type) => {
        "What the lock stops: `user`, `role`, `node`, `login` or `session`; or how it is revoked: by `authority`, \
         `fingerprint`, `key`, `key_id` or `serial`."
    };
    (target_path) => {
        "The second name, where an operation has two."
    };
    (token_id) => {
        "The public id of the join token, never the token."
    };
    (user_known) => {
        "Whether there is such a user."
    };
    (used_at) => {
        "When it happened, by the clock of whoever tells it."
    };
    (user_name) => {
        "Who acted; in a failed attempt, who they claimed to be; `local:<uid>` on the hub's own socket."
    };
    (user_roles) => {
        "The roles that the user had at that moment."
    };
    (valid_after) => {
        "From when it is good."
    };
    (valid_before) => {
        "Until when it is good."
    };
    (whole) => {
        "Whether the content that passed is the whole file."
    };
    (version) => {
        "The program's version."
    };
}

macro_rules! catalogue {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident<$life:lifetime> = $event_type:literal, $code:literal, $severity:ident, [$($constant:ident = $value:literal),*] {
            $($field:ident: $type:ty = $example:tt,)+
        }
    )+) => {
        $(
            #[doc = concat!("`", $event_type, "` (", $code, "): ")]
            $(#[doc = $doc])+
            #[derive(Clone, Debug)]
            pub struct $name<$life> {
                $(#[doc = field_doc!($field)] pub $field: $type,)+
            }

            impl<$life> $name<$life> {
                const FIELDS: &'static [Field] = &[$(Field {
                    name: stringify!($field),
                    kind: <$type as Put>::KIND,
                    optional: <$type as Put>::OPTIONAL,
                    doc: field_doc!($field),
                    example: stringify!($example),
                }),+];

                /// Dotted type.
                pub const TYPE: &'static str = $event_type;

                /// The record, with long text cut and odd characters escaped.
                #[must_use]
                pub fn event(&self, stamp: &Stamp<'_>) -> Event {
                    #[allow(unused_mut, clippy::allow_attributes, reason = "some types have no constant")]
                    let mut event = start($event_type, $code, stamp);
                    $(event.set(stringify!($constant), Value::from($value));)*
                    $(self.$field.put(
                        Names {
                            name: stringify!($field),
                            bytes: concat!(stringify!($field), "_bytes"),
                            count: concat!(stringify!($field), "_count"),
                            escaped: concat!(stringify!($field), "_escaped"),
                        },
                        &mut event,
                    );)+
                    event
                }
            }

            #[cfg(test)]
            impl<$life> super::tests::Sample<$life> for $name<$life> {
                fn sample(pool: &$life super::tests::Pool) -> Self {
                    Self { $($field: super::tests::Sample::sample(pool),)+ }
                }
            }
        )+

        /// Every event type, in the order of the table.
        #[must_use]
        pub fn all() -> &'static [Entry] {
            ALL
        }

        const ALL: &[Entry] = &[$(Entry {
            event_type: $event_type,
            event_code: $code,
            constructor: stringify!($name),
            severity: Severity::$severity,
            description: concat!($($doc),+),
            constants: &[$((stringify!($constant), stringify!($value))),*],
            fields: $name::FIELDS,
        }),+];

        /// One event of every type, with values from `pool`.
        #[cfg(test)]
        pub(super) fn samples(pool: &super::tests::Pool, stamp: &Stamp<'_>) -> Vec<Event> {
            use super::tests::Sample;
            vec![$($name::sample(pool).event(stamp)),+]
        }
    };
}

catalogue! {
    /// Somebody logged in.
    UserLogin<'a> = "user.login", "MZ1001", Info, [success = true] {
        user_name: &'a UserName = "alice",
        user_roles: &'a [RoleName] = ["access"],
        client_ip: Option<IpAddr> = "203.0.113.7",
        client_version: Option<&'a str> = "msh/0.1.0",
        method: &'a str = "password",
    }

    /// A login was refused, whether or not there is such a user.
    UserLoginFailed<'a> = "user.login.failed", "MZ1002", Warning, [success = false] {
        user_name: &'a str = "alice",
        user_known: bool = true,
        client_ip: Option<IpAddr> = "203.0.113.7",
        client_version: Option<&'a str> = "msh/0.1.0",
        method: &'a str = "password",
        error_message: &'a str = "the password is wrong",
        attempts: u64 = 1,
        claimed_users: Option<&'a [String]> = ["alice", "root"],
    }

    /// A user's certificate was signed.
    UserCertIssued<'a> = "user.cert.issued", "MZ1010", Info, [success = true] {
        user_name: &'a UserName = "alice",
        user_roles: &'a [RoleName] = ["access"],
        client_ip: Option<IpAddr> = "203.0.113.7",
        certificate_type: &'a str = "ssh",
        serial: Serial = "3791283412",
        key_id: &'a str = "alice",
        principal: &'a str = "mezite:example:alice",
        valid_after: UnixTime = "2026-01-31T08:00:00.000Z",
        valid_before: UnixTime = "2026-01-31T16:00:00.000Z",
        public_key_fingerprint: &'a str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
    }

    /// A certificate of a node, a gateway or a hub was signed.
    HostCertIssued<'a> = "host.cert.issued", "MZ1011", Info, [success = true] {
        server_id: Option<&'a NodeId> = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: Option<&'a str> = "db1",
        hub_id: Option<&'a str> = "hub-1",
        certificate_type: &'a str = "ssh",
        serial: Serial = "3791283413",
        key_id: &'a str = "node a4dqobyha4dqobyha4dqobyha4",
        principals: &'a [String] = ["a4dqobyha4dqobyha4dqobyha4.example"],
        valid_after: UnixTime = "2026-01-31T08:00:00.000Z",
        valid_before: UnixTime = "2026-02-01T08:00:00.000Z",
        public_key_fingerprint: &'a str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
    }

    /// The certificate for one session was signed, against a permit.
    SessionCertIssued<'a> = "session.cert.issued", "MZ1012", Info, [success = true] {
        user_name: &'a UserName = "alice",
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        login: &'a Login = "deploy",
        serial: Serial = "3791283414",
        key_id: &'a str = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        principal: &'a str = "mezite:a4dqobyha4dqobyha4dqobyha4:deploy",
        valid_after: UnixTime = "2026-01-31T08:00:00.000Z",
        valid_before: UnixTime = "2026-01-31T08:10:00.000Z",
        public_key_fingerprint: &'a str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
    }

    /// Somebody failed to prove to a gateway or a hub who they are.
    AuthAttemptFailed<'a> = "auth.attempt.failed", "MZ1020", Warning, [success = false] {
        user_name: Option<&'a str> = "alice",
        login: Option<&'a str> = "deploy",
        server_hostname: Option<&'a str> = "db1",
        client_ip: Option<IpAddr> = "203.0.113.7",
        client_version: Option<&'a str> = "SSH-2.0-OpenSSH_10.0",
        method: &'a str = "publickey",
        error_message: &'a str = "the certificate expired at 2026-01-30T16:00:00.000Z",
        serial: Option<Serial> = "3791283412",
        certificate_fingerprint: Option<&'a str> = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
        certificate: Option<&'a str> = "AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t",
        attempts: u64 = 1,
        claimed_users: Option<&'a [String]> = ["alice", "root"],
    }

    /// The rules allowed a subject to reach a node as a login.
    AccessGranted<'a> = "access.granted", "MZ1021", Info, [success = true] {
        user_name: &'a UserName = "alice",
        user_roles: &'a [RoleName] = ["access"],
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        login: &'a Login = "deploy",
        client_ip: Option<IpAddr> = "203.0.113.7",
        serial: Option<Serial> = "3791283412",
        obligations: Json = "{\"port_forwarding\":false}",
        decided_by: &'a [String] = ["role access: allow"],
    }

    /// The rules refused: a node, a login, or an administrative request.
    AuthzDenied<'a> = "authz.denied", "MZ1022", Warning, [success = false] {
        user_name: &'a str = "alice",
        user_roles: &'a [RoleName] = ["access"],
        action: &'a str = "session",
        resource_type: Option<&'a str> = "node",
        resource_name: Option<&'a str> = "db1",
        session_id: Option<SessionId> = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        server_id: Option<&'a NodeId> = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: Option<&'a str> = "db1",
        login: Option<&'a str> = "root",
        client_ip: Option<IpAddr> = "203.0.113.7",
        serial: Option<Serial> = "3791283412",
        error_message: &'a str = "a deny rule of role `access` names this login",
        explanation: Json = "{\"role\":\"access\",\"deny\":{\"login\":\"root\"}}",
        attempts: u64 = 1,
    }

    /// A session began: the node let it in and the recording is open.
    SessionStart<'a> = "session.start", "MZ2001", Info, [success = true] {
        user_name: &'a UserName = "alice",
        user_roles: &'a [RoleName] = ["access"],
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        login: &'a Login = "deploy",
        client_ip: Option<IpAddr> = "203.0.113.7",
        client_version: Option<&'a str> = "SSH-2.0-OpenSSH_10.0",
        server_address: Option<&'a str> = "tunnel",
        recorded: bool = true,
    }

    /// A session ended; its recording is sealed.
    SessionEnd<'a> = "session.end", "MZ2002", Info, [] {
        user_name: &'a UserName = "alice",
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        login: &'a Login = "deploy",
        client_ip: Option<IpAddr> = "203.0.113.7",
        success: bool = true,
        reason: &'a str = "the client closed the connection",
        exit_code: Option<u32> = 0,
        duration_ms: u64 = 61250,
        bytes_to_client: u64 = 18204,
        bytes_to_node: u64 = 512,
        recording_sha256: Option<&'a str> = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        recording_bytes: Option<u64> = 20480,
    }

    /// A command was asked for in a session.
    SessionExec<'a> = "session.exec", "MZ2010", Info, [] {
        user_name: &'a UserName = "alice",
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        login: &'a Login = "deploy",
        client_ip: Option<IpAddr> = "203.0.113.7",
        channel: u32 = 0,
        command: &'a str = "systemctl restart app",
        pty: bool = false,
    }

    /// A file transfer was opened in a session, or something was changed or copied by it.
    SessionSftp<'a> = "session.sftp", "MZ2011", Info, [] {
        user_name: &'a UserName = "alice",
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        login: &'a Login = "deploy",
        client_ip: Option<IpAddr> = "203.0.113.7",
        channel: u32 = 0,
        subsystem: Option<&'a str> = "sftp",
        operation: &'a str = "close",
        path: Option<&'a str> = "/srv/app/config.yaml",
        target_path: Option<&'a str> = "/srv/app/config.old",
        bytes_read: Option<u64> = 0,
        bytes_written: Option<u64> = 4096,
        content_sha256: Option<&'a str> = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        whole: Option<bool> = true,
        success: bool = true,
        error_message: Option<&'a str> = "no such file",
        attempts: u64 = 1,
    }

    /// A forward in a session was opened, is over, or was refused.
    SessionForward<'a> = "session.forward", "MZ2012", Info, [] {
        user_name: &'a UserName = "alice",
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        login: &'a Login = "deploy",
        client_ip: Option<IpAddr> = "203.0.113.7",
        channel: Option<u32> = 1,
        action: &'a str = "closed",
        direction: &'a str = "local",
        destination: &'a str = "127.0.0.1:5432",
        origin: Option<&'a str> = "127.0.0.1:50123",
        success: bool = true,
        error_message: Option<&'a str> = "your roles do not allow port forwarding",
        attempts: u64 = 1,
        bytes_to_client: Option<u64> = 18204,
        bytes_to_node: Option<u64> = 512,
        duration_ms: Option<u64> = 61250,
    }

    /// Another SSH connection was found inside a session, where no recording could follow it.
    SessionNestedSsh<'a> = "session.nested_ssh", "MZ2013", Warning, [] {
        user_name: &'a UserName = "alice",
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        login: &'a Login = "deploy",
        client_ip: Option<IpAddr> = "203.0.113.7",
        channel: u32 = 1,
        action: &'a str = "refused",
        success: bool = false,
        found_in: &'a str = "forward",
        sent_by: &'a str = "node",
        identification: &'a str = "SSH-2.0-OpenSSH_10.0",
    }

    /// A recording could not be opened, written or sealed, and the session was `terminated` or `suspended`; or it goes on,
    /// and so does the session: `resumed`.
    SessionRecordingFailed<'a> = "session.recording.failed", "MZ2020", Error, [] {
        user_name: &'a UserName = "alice",
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        login: &'a Login = "deploy",
        client_ip: Option<IpAddr> = "203.0.113.7",
        action: &'a str = "terminated",
        success: bool = false,
        error_message: Option<&'a str> = "no space left on device",
    }

    /// A recording that a crash had left open was found and sealed.
    SessionRecordingRecovered<'a> = "session.recording.recovered", "MZ2021", Warning, [success = true] {
        user_name: Option<&'a str> = "alice",
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        server_id: Option<&'a NodeId> = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: Option<&'a str> = "db1",
        login: Option<&'a str> = "deploy",
        recording_sha256: &'a str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        recording_bytes: u64 = 16384,
    }

    /// Somebody came into a node with a break-glass certificate, past the hub. The node wrote it down before, and tells it
    /// when it has a hub again; what happened in the session is not recorded.
    NodeBreakGlassUsed<'a> = "node.break_glass.used", "MZ3011", Error, [success = true, resource_type = "node"] {
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        login: &'a Login = "root",
        client_ip: Option<IpAddr> = "198.51.100.20",
        mode: &'a str = "builtin",
        serial: Serial = "0",
        key_id: &'a str = "carol: hub down, INC-4711",
        public_key_fingerprint: &'a str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
        authority_fingerprint: &'a str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
        used_at: UnixTime = "2026-01-31T12:00:00.000Z",
    }

    /// A node joined with a token.
    NodeJoined<'a> = "node.joined", "MZ3001", Info, [success = true, resource_type = "node"] {
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        resource_labels: &'a Labels = {"env": "prod"},
        client_ip: Option<IpAddr> = "198.51.100.20",
        method: &'a str = "token",
        token_id: &'a str = "tk-7f3a",
        agent_version: Option<&'a str> = "0.1.0",
    }

    /// A node was refused when it wanted to join.
    NodeJoinFailed<'a> = "node.join.failed", "MZ3002", Warning, [success = false, resource_type = "node"] {
        server_hostname: Option<&'a str> = "db1",
        client_ip: Option<IpAddr> = "198.51.100.20",
        method: &'a str = "token",
        token_id: Option<&'a str> = "tk-7f3a",
        error_message: &'a str = "the token was already used",
        attempts: u64 = 1,
        claimed_users: Option<&'a [String]> = ["db1", "db2"],
    }

    /// A node was removed, or went away.
    NodeLeft<'a> = "node.left", "MZ3003", Info, [resource_type = "node"] {
        user_name: Option<&'a str> = "admin",
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        reason: &'a str = "removed",
    }

    /// A node's agent opened its control connection.
    NodeConnected<'a> = "node.connected", "MZ3004", Info, [success = true, resource_type = "node"] {
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        client_ip: Option<IpAddr> = "198.51.100.20",
        hub_id: &'a str = "hub-1",
        agent_version: Option<&'a str> = "0.1.0",
    }

    /// An administrator added a node that does not join by itself.
    NodeCreated<'a> = "node.created", "MZ3005", Info, [success = true, resource_type = "node"] {
        user_name: &'a str = "admin",
        server_id: &'a NodeId = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: &'a NodeName = "db1",
        resource_labels: &'a Labels = {"env": "prod"},
        client_ip: Option<IpAddr> = "203.0.113.9",
        mode: &'a str = "openssh",
        server_address: Option<&'a str> = "192.0.2.14:22",
    }

    /// A user was created.
    UserCreated<'a> = "user.created", "MZ4001", Info, [success = true, resource_type = "user"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a UserName = "alice",
        document: Json = "{\"roles\":[\"access\"]}",
    }

    /// A user was changed.
    UserUpdated<'a> = "user.updated", "MZ4002", Info, [success = true, resource_type = "user"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a UserName = "alice",
        document: Json = "{\"roles\":[\"access\",\"auditor\"]}",
    }

    /// A user was deleted.
    UserDeleted<'a> = "user.deleted", "MZ4003", Info, [success = true, resource_type = "user"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a UserName = "alice",
    }

    /// A role was created.
    RoleCreated<'a> = "role.created", "MZ4011", Warning, [success = true, resource_type = "role"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a RoleName = "backend-dev",
        document: Json = "{\"allow\":{\"logins\":[\"deploy\"]}}",
    }

    /// A role was changed.
    RoleUpdated<'a> = "role.updated", "MZ4012", Warning, [success = true, resource_type = "role"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a RoleName = "backend-dev",
        document: Json = "{\"allow\":{\"logins\":[\"deploy\"]}}",
    }

    /// A role was deleted.
    RoleDeleted<'a> = "role.deleted", "MZ4013", Warning, [success = true, resource_type = "role"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a RoleName = "backend-dev",
    }

    /// A join token was created.
    TokenCreated<'a> = "token.created", "MZ4021", Info, [success = true, resource_type = "token"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a str = "tk-7f3a",
        resource_labels: &'a Labels = {"env": "prod"},
        valid_before: UnixTime = "2026-01-31T09:00:00.000Z",
    }

    /// A join token was removed or has expired.
    TokenDeleted<'a> = "token.deleted", "MZ4022", Info, [success = true, resource_type = "token"] {
        user_name: Option<&'a str> = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a str = "tk-7f3a",
        reason: &'a str = "removed",
    }

    /// Somebody or something was locked.
    LockCreated<'a> = "lock.created", "MZ4031", Warning, [success = true, resource_type = "lock"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a str = "lk-19c2",
        target_type: &'a str = "user",
        target_name: &'a str = "alice",
        reason: &'a str = "laptop lost",
        valid_before: Option<UnixTime> = "2026-02-01T08:00:00.000Z",
    }

    /// A lock was lifted.
    LockDeleted<'a> = "lock.deleted", "MZ4032", Warning, [success = true, resource_type = "lock"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a str = "lk-19c2",
        target_type: &'a str = "user",
        target_name: &'a str = "alice",
    }

    /// A key of a certificate authority, or the audit key, was made.
    CaCreated<'a> = "ca.created", "MZ4041", Warning, [success = true, resource_type = "ca"] {
        hub_id: &'a str = "hub-1",
        key_kind: &'a str = "identity",
        public_key_fingerprint: &'a str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
    }

    /// The cluster's private keys at rest were sealed with another sealing key; the old one opens none of them any more.
    CaResealed<'a> = "ca.resealed", "MZ4044", Warning, [success = true, resource_type = "ca"] {
        hub_id: &'a str = "hub-1",
        count: u64 = 8,
    }

    /// An offline key was added, whose certificates open nodes while the hub is down.
    CaBreakGlassAdded<'a> = "ca.break_glass.added", "MZ4053", Warning, [success = true, resource_type = "ca"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a str = "night-shift",
        public_key_fingerprint: &'a str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
    }

    /// An offline key was taken back.
    CaBreakGlassRemoved<'a> = "ca.break_glass.removed", "MZ4054", Warning, [success = true, resource_type = "ca"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a str = "night-shift",
        public_key_fingerprint: &'a str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
    }

    /// A certificate, a key or an authority was revoked.
    CaRevoked<'a> = "ca.revoked", "MZ4051", Warning, [success = true, resource_type = "revocation"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a str = "rv-41d7",
        target_type: &'a str = "serial",
        target_name: &'a str = "4711",
        reason: &'a str = "laptop lost",
        list_number: u64 = 7,
    }

    /// A revocation was taken back.
    CaRevocationRemoved<'a> = "ca.revocation.removed", "MZ4052", Warning, [success = true, resource_type = "revocation"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        resource_name: &'a str = "rv-41d7",
        target_type: &'a str = "serial",
        target_name: &'a str = "4711",
        list_number: u64 = 8,
    }

    /// The rotation of an authority's key began, took a step, went back or ended.
    CaRotation<'a> = "ca.rotation", "MZ4042", Warning, [success = true, resource_type = "ca"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        key_kind: &'a str = "session",
        action: &'a str = "advance",
        phase_before: &'a str = "update_servers",
        phase: &'a str = "standby",
        generation: u64 = 2,
        public_key_fingerprint: &'a str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
        removed_generation: Option<u64> = 1,
        forced: bool = true,
        passed_over: &'a [String] = ["node `db2` does not trust it yet"],
        document: Json = "{\"kind\":\"session\",\"phase\":\"standby\"}",
    }

    /// It became known which keys a hub or node trusts, and which signed what it holds.
    CaAdopted<'a> = "ca.adopted", "MZ4043", Info, [success = true, resource_type = "ca"] {
        user_name: Option<&'a str> = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        hub_id: Option<&'a str> = "hub-1",
        server_id: Option<&'a NodeId> = "a4dqobyha4dqobyha4dqobyha4",
        server_hostname: Option<&'a NodeName> = "db1",
        evidence: &'a str = "reported",
        document: Json = "{\"trusts\":{\"session\":[\"SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU\"]},\"holds\":{}}",
    }

    /// Somebody read the event log.
    AuditRead<'a> = "audit.read", "MZ5001", Info, [success = true, resource_type = "audit"] {
        user_name: &'a str = "carol",
        client_ip: Option<IpAddr> = "203.0.113.9",
        action: &'a str = "list",
        query: Json = "{\"user_name\":\"alice\"}",
        count: u64 = 100,
    }

    /// Somebody read a recording.
    RecordingRead<'a> = "recording.read", "MZ5002", Info, [success = true, resource_type = "recording"] {
        user_name: &'a str = "carol",
        client_ip: Option<IpAddr> = "203.0.113.9",
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        action: &'a str = "play",
        recorded_user: Option<&'a str> = "alice",
    }

    /// Somebody asked what the rules allow: whether a user may, who can, what a change would do, what looks odd.
    PolicyRead<'a> = "policy.read", "MZ5011", Info, [success = true, resource_type = "role"] {
        user_name: &'a str = "carol",
        client_ip: Option<IpAddr> = "203.0.113.9",
        action: &'a str = "who_can",
        query: Json = "{\"login\":\"root\",\"node\":\"db1\",\"user\":null}",
    }

    /// Somebody looked for text in recordings; lines of those that are named were given out.
    RecordingSearched<'a> = "recording.searched", "MZ5003", Info, [success = true, resource_type = "recording"] {
        user_name: &'a str = "carol",
        client_ip: Option<IpAddr> = "203.0.113.9",
        query: Json = "{\"text\":\"DROP TABLE\"}",
        count: u64 = 120,
        session_ids: &'a [String] = ["018bcfe5-6800-7fff-bfff-ffffffffffff"],
    }

    /// A recording was put on legal hold: retention leaves it alone.
    RecordingHeld<'a> = "recording.held", "MZ4071", Warning, [success = true, resource_type = "recording"] {
        user_name: &'a str = "carol",
        client_ip: Option<IpAddr> = "203.0.113.9",
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        recorded_user: Option<&'a str> = "alice",
        reason: &'a str = "case 2026-17",
    }

    /// A legal hold was lifted.
    RecordingReleased<'a> = "recording.released", "MZ4072", Warning, [success = true, resource_type = "recording"] {
        user_name: &'a str = "carol",
        client_ip: Option<IpAddr> = "203.0.113.9",
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        recorded_user: Option<&'a str> = "alice",
        reason: &'a str = "case closed",
    }

    /// A recording is deleted because no rule of retention keeps it any longer. Its digest stays here.
    RecordingDeleted<'a> = "recording.deleted", "MZ4073", Warning, [success = true, resource_type = "recording"] {
        user_name: &'a str = "hub:hub-1",
        client_ip: Option<IpAddr> = "203.0.113.9",
        session_id: SessionId = "018bcfe5-6800-7fff-bfff-ffffffffffff",
        recorded_user: Option<&'a str> = "alice",
        recording_sha256: Option<&'a str> = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        recording_bytes: u64 = 20480,
        retention_rule: &'a str = "keep 90d",
    }

    /// Another key signs the log's checkpoints from this event on; the old private key is removed. Never pruned.
    AuditKeyRotated<'a> = "audit.key.rotated", "MZ5016", Warning, [success = true, resource_type = "audit"] {
        user_name: &'a str = "admin",
        client_ip: Option<IpAddr> = "203.0.113.9",
        generation: u64 = 2,
        old_key: &'a str = "example/mezite-audit+d1d5f1d9+AYqI49302mDxlJuWa25QT2+9rCqECj6ULS8XBZTy/qcs",
        new_key: &'a str = "example/mezite-audit+a35fdf82+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs",
        handover: &'a str = "ZXhhbXBsZS9tZXppdGUtYXVkaXQK",
    }

    /// Events were removed because they were old enough. Their hashes stay.
    AuditPruned<'a> = "audit.pruned", "MZ5015", Warning, [success = true, resource_type = "audit"] {
        user_name: &'a str = "hub:hub-1",
        rule: &'a str = "node.connected after 90d",
        count: u64 = 10,
        ranges: &'a str = "1-9,12",
    }

    /// Somebody made a backup of the whole database.
    BackupCreated<'a> = "backup.created", "MZ5021", Warning, [success = true, resource_type = "backup"] {
        user_name: &'a str = "local:0",
        events: u64 = 1234,
    }

    /// The database was made anew from a backup. What happened between the backup and this event is gone.
    BackupRestored<'a> = "backup.restored", "MZ5022", Error, [success = true, resource_type = "backup"] {
        hub_id: &'a str = "hub-1",
        user_name: &'a str = "local:0",
        events: u64 = 1234,
        path: &'a str = "/var/backups/mezite.backup",
    }

    /// A receiver of the log takes nothing. Nothing is lost: it is tried again until it does.
    SinkFailed<'a> = "audit.sink.failed", "MZ9011", Error, [success = false, resource_type = "sink"] {
        hub_id: &'a str = "hub-1",
        resource_name: &'a str = "siem",
        error_message: &'a str = "cannot reach siem.example:6514: connection refused",
        delivered: u64 = 1200,
        count: u64 = 34,
    }

    /// A receiver of the log that had failed takes events again.
    SinkRecovered<'a> = "audit.sink.recovered", "MZ9012", Info, [success = true, resource_type = "sink"] {
        hub_id: &'a str = "hub-1",
        resource_name: &'a str = "siem",
        duration_ms: u64 = 65000,
    }

    /// A receiver has events that the log does not have: the database was rolled back.
    LogRolledBack<'a> = "audit.rollback", "MZ9013", Error, [success = false, resource_type = "audit"] {
        hub_id: &'a str = "hub-1",
        resource_name: &'a str = "archive",
        delivered: u64 = 1300,
        events: u64 = 1234,
    }

    /// The disk is filling up.
    DiskLow<'a> = "disk.low", "MZ9021", Warning, [resource_type = "disk"] {
        hub_id: &'a str = "hub-1",
        path: &'a str = "/var/lib/mezite",
        free_bytes: u64 = 1000000000,
    }

    /// The disk is full: the reserve was released, and there are no new sessions until there is room again.
    DiskFull<'a> = "disk.full", "MZ9022", Error, [success = false, resource_type = "disk"] {
        hub_id: &'a str = "hub-1",
        path: &'a str = "/var/lib/mezite",
        free_bytes: u64 = 60000000,
        sessions: u64 = 3,
    }

    /// There is room on the disk again.
    DiskRecovered<'a> = "disk.recovered", "MZ9023", Info, [success = true, resource_type = "disk"] {
        hub_id: &'a str = "hub-1",
        path: &'a str = "/var/lib/mezite",
        free_bytes: u64 = 5000000000,
    }

    /// A hub process started.
    HubStarted<'a> = "hub.started", "MZ9001", Info, [success = true] {
        hub_id: &'a str = "hub-1",
        version: &'a str = "0.1.0",
        services: &'a [String] = ["auth", "proxy"],
    }

    /// A hub process stopped, in order.
    HubStopped<'a> = "hub.stopped", "MZ9002", Info, [] {
        hub_id: &'a str = "hub-1",
        success: bool = true,
        reason: &'a str = "SIGTERM",
        sessions: u64 = 0,
    }

    /// A hub did not stop in order and gives no sign of life: another hub counts it no more. Agents stop to look for it, and
    /// no rotation waits for it.
    HubLost<'a> = "hub.lost", "MZ9003", Warning, [success = false, resource_type = "hub"] {
        hub_id: &'a str = "hub-1",
        resource_name: &'a str = "hub-2",
    }

    /// A hub that was counted as lost has its database again.
    HubReturned<'a> = "hub.returned", "MZ9004", Info, [success = true] {
        hub_id: &'a str = "hub-2",
    }
}
