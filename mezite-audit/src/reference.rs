//! The page EVENTS.md, written from the catalogue.

use std::fmt::Write;

use mezite_core::UnixTime;

use crate::catalogue::{Entry, Field, LIST_BYTES, LONG_TEXT_BYTES, Stamp, TEXT_BYTES, all};

/// The text of EVENTS.md.
#[must_use]
pub fn events_page() -> String {
    let mut page = format!(
        "# Events\n\n\
         Written from the catalogue by `MEZITE_BLESS=1 cargo test -p mezite-audit events_page`; do not edit.\n\n\
         Each event is one line of flat JSON. Every event has `id`, `sequence` (from 1, without a gap), `event_type`,\n\
         `event_code`, `timestamp` (RFC 3339, UTC, milliseconds), `cluster_name` and `salt`, then the fields of its type.\n\n\
         Text from outside is at most {TEXT_BYTES} bytes long (commands, certificates, ranges and JSON text: {LONG_TEXT_BYTES});\n\
         if it was longer, `<field>_bytes` says its full length. The whole of a longer command or JSON text lies beside the event,\n\
         and `overflow` lists field, length and SHA-256 of each. Characters that control a terminal, break a line, turn\n\
         the reading direction or show nothing are written as `\\n`, `\\r`, `\\t` or `\\u{{…}}`; then every `\\` is written\n\
         `\\\\` and `<field>_escaped` is `true`. Lists hold at most {LIST_BYTES} bytes; if there were more items,\n\
         `<field>_count` says how many.\n\n\
         | type | code | severity | what happened |\n| --- | --- | --- | --- |\n"
    );
    for entry in all() {
        let Entry {
            event_type,
            event_code,
            severity,
            ..
        } = entry;
        let anchor = event_type.replace('.', "");
        let (severity, description) = (severity.as_str(), entry.description.trim());
        line(
            &mut page,
            format_args!(
                "| [`{event_type}`](#{anchor}) | {event_code} | {severity} | {description} |"
            ),
        );
    }
    for entry in all() {
        describe(&mut page, entry);
    }
    page
}

fn describe(page: &mut String, entry: &Entry) {
    let Entry {
        event_type,
        event_code,
        severity,
        ..
    } = entry;
    let (severity, description) = (severity.as_str(), entry.description.trim());
    line(
        page,
        format_args!(
            "\n## {event_type}\n\n{description} Code {event_code}, severity {severity}.\n"
        ),
    );
    line(
        page,
        format_args!("| field | kind | meaning |\n| --- | --- | --- |"),
    );
    for (name, value) in entry.constants {
        line(page, format_args!("| `{name}` | always `{value}` | |"));
    }
    for Field {
        name,
        kind,
        optional,
        doc,
        ..
    } in entry.fields
    {
        let optional = if *optional { ", may be absent" } else { "" };
        line(
            page,
            format_args!("| `{name}` | {kind}{optional} | {doc} |"),
        );
    }
    line(page, format_args!("\n```json\n{}\n```", example(entry)));
}

/// What an event of this type looks like in the log.
fn example(entry: &Entry) -> String {
    let Ok(cluster) = "example".parse() else {
        return String::new();
    };
    let stamp = Stamp {
        now: UnixTime::from_secs(1_769_846_400),
        random: [[0x5a; 16], [0xc3; 16]],
        cluster: &cluster,
    };
    String::from_utf8_lossy(&entry.example(&stamp).render(7)).into_owned()
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/EVENTS.md");
        if std::env::var_os("MEZITE_BLESS").is_some() {
            std::fs::write(path, events_page()).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap();
        assert!(
            found == events_page(),
            "EVENTS.md is stale: MEZITE_BLESS=1 cargo test -p mezite-audit events_page"
        );
    }
}
