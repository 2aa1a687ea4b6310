//! Events as syslog messages: RFC 5424, framed by octet counting (RFC 6587 section 3.4.1).

use mezite_core::event::Facts;

use crate::catalogue::{self, Severity};

/// The facility "log audit" (RFC 5424 section 6.2.1).
const FACILITY: u8 = 13;

/// Most bytes of a HOSTNAME (RFC 5424 section 6).
const HOSTNAME_BYTES: usize = 255;

/// Most bytes of a MSGID.
const MSGID_BYTES: usize = 32;

/// One event, as `hostname` sends it: the type is the MSGID, the severity that of the catalogue, the message the exact
/// stored bytes. A body that is no event is sent as an error, not left out.
#[must_use]
pub fn event(hostname: &str, body: &[u8]) -> Vec<u8> {
    let facts = Facts::parse(body).ok();
    let severity = facts
        .as_ref()
        .and_then(|facts| catalogue::find(&facts.event_type))
        .map_or(Severity::Error, |entry| entry.severity);
    let (time, id) = facts.map_or_else(
        || ("-".to_owned(), "unreadable".to_owned()),
        |facts| (facts.timestamp.to_string(), facts.event_type),
    );
    frame(severity, &time, hostname, &id, body)
}

/// A signed checkpoint, on one line: a JSON text whose one field `checkpoint` is the note.
#[must_use]
pub fn checkpoint(hostname: &str, note: &str) -> Vec<u8> {
    let message = serde_json::json!({ "checkpoint": note }).to_string();
    frame(
        Severity::Info,
        "-",
        hostname,
        "checkpoint",
        message.as_bytes(),
    )
}

fn frame(severity: Severity, time: &str, hostname: &str, id: &str, message: &[u8]) -> Vec<u8> {
    let priority = FACILITY * 8
        + match severity {
            Severity::Error => 3,
            Severity::Warning => 4,
            Severity::Info => 6,
        };
    let hostname = printable(hostname, HOSTNAME_BYTES);
    let id = printable(id, MSGID_BYTES);
    let head = format!("<{priority}>1 {time} {hostname} mezhub - {id} - ");
    let mut frame = format!("{} ", head.len() + message.len()).into_bytes();
    frame.extend_from_slice(head.as_bytes());
    frame.extend_from_slice(message);
    frame
}

/// Header fields are printable ASCII without spaces.
fn printable(text: &str, limit: usize) -> String {
    let kept: String = text
        .chars()
        .filter(char::is_ascii_graphic)
        .take(limit)
        .collect();
    if kept.is_empty() {
        "-".to_owned()
    } else {
        kept
    }
}

#[cfg(test)]
mod tests {
    use mezite_core::{Event, UnixTime};

    use super::*;

    #[test]
    fn a_message_has_the_form_of_rfc_5424() {
        let body = Event::new(
            "authz.denied",
            "MZ1020",
            UnixTime::from_secs(1),
            [[1; 16]; 2],
        )
        .render(7);
        let sent = String::from_utf8(event("hub 1\n", &body)).unwrap();
        let (length, message) = sent.split_once(' ').unwrap();
        assert_eq!(length.parse(), Ok(message.len()));
        let head = "<108>1 1970-01-01T00:00:01.000Z hub1 mezhub - authz.denied - {";
        assert!(message.starts_with(head), "{message}");
        assert!(message.ends_with(std::str::from_utf8(&body).unwrap()));
    }

    #[test]
    fn attack_56_no_byte_of_an_event_ends_its_frame() {
        let body = b"not an event\n<0>1 - evil - - - -";
        let sent = event("", body);
        let text = String::from_utf8(sent).unwrap();
        let (length, message) = text.split_once(' ').unwrap();
        assert_eq!(length.parse(), Ok(message.len()), "counted, not terminated");
        assert!(message.starts_with("<107>1 - - mezhub - unreadable - not an event"));
    }

    #[test]
    fn a_checkpoint_is_one_line() {
        let sent = String::from_utf8(checkpoint("hub", "a\n1\nx\n\n\u{2014} k s\n")).unwrap();
        assert!(!sent.contains('\n') && sent.contains("checkpoint - {\"checkpoint\":\"a\\n1"));
    }
}
