//! Events as CSV (RFC 4180).

use serde_json::Value;

/// The first line, with its line feed. The last column is the whole event.
pub(super) const HEAD: &str = "sequence,timestamp,event_type,event_code,success,user_name,client_ip,server_hostname,login,session_id,error_message,id,event\n";

/// One event, without its line feed.
pub(super) fn row(event: &Value) -> String {
    let columns = HEAD.trim_end().split(',');
    let cells: Vec<String> = columns
        .map(|name| match (name, event.get(name)) {
            ("event", _) => quoted(&event.to_string()),
            (_, None | Some(Value::Null)) => String::new(),
            (_, Some(Value::String(text))) => quoted(text),
            (_, Some(other)) => quoted(&other.to_string()),
        })
        .collect();
    cells.join(",")
}

/// In quotes where it must be. A text that a spreadsheet would take for a formula gets an apostrophe before it.
fn quoted(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let apostrophe = if formula { "'" } else { "" };
    if !formula && !text.contains([',', '"', '\n', '\r']) {
        return text.to_owned();
    }
    format!("\"{apostrophe}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_has_as_many_cells_as_the_head() {
        let row = row(&json!({ "sequence": 7, "user_name": "alice", "success": true }));
        assert_eq!(
            row,
            "7,,,,true,alice,,,,,,,\"{\"\"sequence\"\":7,\"\"success\"\":true,\"\"user_name\"\":\"\"alice\"\"}\""
        );
    }

    #[test]
    fn attack_56_a_cell_is_no_formula_and_no_second_cell() {
        assert_eq!(quoted("=HYPERLINK(1)"), "\"'=HYPERLINK(1)\"");
        assert_eq!(quoted("a\",b\nc"), "\"a\"\",b\nc\"");
        assert_eq!(quoted("@x"), "\"'@x\"");
        assert_eq!(quoted("plain"), "plain");
    }
}
