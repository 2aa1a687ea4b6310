//! `status`: the hub at a glance.

use mezite_api::v1::{StatusRequest, WhoAmIRequest};
use mezite_core::UnixTime;
use serde_json::json;

use crate::fail::Failure;
use crate::hub::{Hub, within};
use crate::out::{self, Format, Table};

pub(crate) async fn run(format: Format, hub: &mut Hub) -> Result<(), Failure> {
    let own = within(hub.client.who_am_i(WhoAmIRequest {})).await?;
    let status = within(hub.client.status(StatusRequest {})).await?;
    let now = UnixTime::from_millis(status.now_ms);
    let value = json!({
        "cluster": status.cluster, "version": status.version, "now": now.to_string(), "nodes": status.nodes,
        "nodes_online": status.nodes_online, "sessions": status.sessions, "users": status.users,
        "events": status.events, "sealed_events": status.sealed_events,
        "disk_full": status.disk_full,
        "sinks": status.sinks.iter().map(|sink| json!({
            "name": sink.name, "delivered": sink.delivered, "waiting": sink.waiting,
            "trouble": (!sink.trouble.is_empty()).then_some(&sink.trouble),
        })).collect::<Vec<_>>(),
        "hubs": status.hubs.iter().map(|hub| json!({
            "name": hub.name, "tunnel": hub.tunnel, "sessions": hub.sessions, "silent_ms": hub.silent_ms,
        })).collect::<Vec<_>>(),
        "caller": { "kind": own.kind, "name": own.name, "roles": own.roles },
    });
    out::show(format, &value, || {
        let mut table = Table::new(&["CLUSTER", &out::plain(&status.cluster)]);
        for (name, value) in [
            ("version", status.version.clone()),
            ("clock", now.to_string()),
            (
                "nodes",
                format!("{} ({} online)", status.nodes, status.nodes_online),
            ),
            ("sessions", status.sessions.to_string()),
            ("users", status.users.to_string()),
            (
                "events",
                format!("{} ({} sealed)", status.events, status.sealed_events),
            ),
            ("you are", format!("{} ({})", own.name, own.kind)),
        ] {
            table.row(&[name.to_owned(), value]);
        }
        for hub in &status.hubs {
            let silent = match hub.silent_ms {
                None => "this one".to_owned(),
                Some(silent) => format!("seen {} s ago", silent / 1000),
            };
            let standing = format!("{} sessions, {silent}", hub.sessions);
            table.row(&[format!("hub {}", out::plain(&hub.name)), standing]);
        }
        for sink in &status.sinks {
            let trouble = match sink.trouble.as_str() {
                "" => String::new(),
                why => format!(": {why}"),
            };
            let standing = format!("{} delivered, {} waiting", sink.delivered, sink.waiting);
            table.row(&[format!("sink {}", sink.name), standing + &trouble]);
        }
        if status.disk_full {
            table.row(&["disk".to_owned(), "full: no new sessions".to_owned()]);
        }
        table
    })
}
