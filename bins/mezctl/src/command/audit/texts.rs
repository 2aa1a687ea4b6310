//! Events with the texts that are too long for them, put back in their place.

use mezite_api::v1::{EventText, ListEventsRequest, StoredEvent};
use mezite_audit::overflow::{self, Overflow};
use serde_json::Value;

use crate::fail::Failure;
use crate::hub::{Hub, within};

/// The event as it would be if no text were too long for it. Each is checked against the digest that the event has of it.
pub(super) async fn resolved(
    event: &StoredEvent,
    mut body: Value,
    texts: &[EventText],
    hub: &mut Hub,
) -> Result<Value, Failure> {
    let sequence = event.sequence;
    let beside = overflow::of_event(&event.body).map_err(|error| wrong(sequence, &error))?;
    if beside.is_empty() {
        return Ok(body);
    }
    let mut own: Vec<EventText> = texts
        .iter()
        .filter(|text| text.sequence == sequence)
        .cloned()
        .collect();
    if own.is_empty() {
        // They did not fit into the answer with the others.
        let request = ListEventsRequest {
            after: sequence.saturating_sub(1),
            before: sequence + 1,
            texts: true,
            ..ListEventsRequest::default()
        };
        own = within(hub.client.list_events(request)).await?.texts;
    }
    for told in beside {
        put(&mut body, &told, &own).ok_or_else(|| {
            let what = format!("the text of `{}` is missing or was changed", told.field);
            wrong(sequence, &what)
        })?;
    }
    Ok(body)
}

fn put(body: &mut Value, told: &Overflow, texts: &[EventText]) -> Option<()> {
    let found = texts
        .iter()
        .find(|text| text.field == told.field && told.is(&text.text))?;
    let (whole, escaped) = overflow::whole(&told.field, &found.text);
    let fields = body.as_object_mut()?;
    fields.insert(told.field.clone(), whole.into());
    if escaped {
        fields.insert(format!("{}_escaped", told.field), true.into());
    }
    Some(())
}

fn wrong(sequence: u64, what: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format_args!(
        "event {sequence}: {what}; run `mezctl audit verify`"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_takes_its_place_if_it_is_the_one() {
        let text = "x\u{1b}".repeat(10_000);
        let cluster = "example".parse().unwrap();
        let stamp = mezite_audit::Stamp {
            now: mezite_core::UnixTime::from_secs(1),
            random: [[1; 16]; 2],
            cluster: &cluster,
        };
        let read = mezite_audit::catalogue::AuditRead {
            user_name: "carol",
            client_ip: None,
            action: "list",
            query: mezite_audit::catalogue::Json::of(&text),
            count: 1,
        };
        let event = read.event(&stamp).render(7);
        let told = overflow::of_event(&event).unwrap();
        let quoted = json!(text).to_string();
        let answer = |text: &str| EventText {
            sequence: 7,
            field: "query".into(),
            text: text.into(),
        };
        let mut body: Value = serde_json::from_slice(&event).unwrap();
        assert!(put(&mut body, &told[0], &[answer("\"y\"")]).is_none());
        assert!(put(&mut body, &told[0], &[]).is_none());
        put(&mut body, &told[0], &[answer("other"), answer(&quoted)]).unwrap();
        let whole: String = serde_json::from_str(body["query"].as_str().unwrap()).unwrap();
        assert_eq!(whole, text);
    }
}
