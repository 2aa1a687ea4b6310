//! Texts that are too long for a leaf. The event has the beginning of the text, and says length and SHA-256 of the whole in
//! its field `overflow`, which the leaf covers; the whole lies in a row of its own, written and removed with the event.

use data_encoding::HEXLOWER;
use mezite_core::Event;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use crate::catalogue::whole;

/// The field that names such texts.
pub const FIELD: &str = "overflow";

/// Most of them in one event.
const MAX_TEXTS: usize = 8;

/// A text that an event only begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what the event says of it")]
pub struct Overflow {
    /// Which field it is the whole of.
    pub field: String,
    /// How long it is.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

impl Overflow {
    /// Whether `text` is the one.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        u64::try_from(text.len()) == Ok(self.bytes) && digest(text) == self.sha256
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let found = Self {
            field: words.next()?.to_owned(),
            bytes: words.next()?.parse().ok()?,
            sha256: words.next()?.to_owned(),
        };
        let plain = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        let digest = HEXLOWER.decode(found.sha256.as_bytes()).ok();
        let good = plain(&found.field) && digest.is_some_and(|digest| digest.len() == 32);
        (good && words.next().is_none()).then_some(found)
    }
}

fn digest(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}

/// Lays the whole of a text beside an event that only begins it.
pub(crate) fn lay_beside(event: &mut Event, field: &'static str, text: &str) {
    let line = format!("{field} {} {}", text.len(), digest(text));
    let mut lines = match event.field(FIELD) {
        Some(Value::Array(lines)) => lines.clone(),
        Some(_) | None => Vec::new(),
    };
    lines.push(line.into());
    event.set(FIELD, lines);
    event.set_text(field, text.to_owned());
}

/// The texts that an event says lie beside it.
///
/// # Errors
/// What is wrong with the event's bytes.
pub fn of_event(body: &[u8]) -> Result<Vec<Overflow>, String> {
    #[derive(Deserialize)]
    struct Told {
        #[serde(default)]
        overflow: Vec<String>,
    }
    // Few events have any, and most are looked at only for this.
    if !body.windows(11).any(|part| part == b"\"overflow\":") {
        return Ok(Vec::new());
    }
    let told: Told = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    parse(&told.overflow)
}

/// The same of the field's value.
pub(crate) fn parse(lines: &[impl AsRef<str>]) -> Result<Vec<Overflow>, String> {
    if lines.len() > MAX_TEXTS {
        return Err(format!("`{FIELD}` has more than {MAX_TEXTS} items"));
    }
    let parsed = lines.iter().map(|line| Overflow::parse(line.as_ref()));
    let parsed: Option<Vec<_>> = parsed.collect();
    parsed.ok_or_else(|| format!("`{FIELD}` is not a list of field, length and SHA-256"))
}

#[cfg(test)]
mod tests {
    use mezite_core::{NodeId, SessionId, UnixTime};

    use super::*;
    use crate::catalogue::{LONG_TEXT_BYTES, SessionExec, Stamp};

    fn exec(command: &str) -> Event {
        let cluster = "example".parse().unwrap();
        let stamp = Stamp {
            now: UnixTime::from_secs(1),
            random: [[1; 16]; 2],
            cluster: &cluster,
        };
        let (user, node, login) = (
            "alice".parse().unwrap(),
            "db1".parse().unwrap(),
            "deploy".parse().unwrap(),
        );
        let exec = SessionExec {
            user_name: &user,
            session_id: SessionId::new(UnixTime::from_secs(1), [3; 16]),
            server_id: &NodeId::new([2; 16]),
            server_hostname: &node,
            login: &login,
            client_ip: None,
            channel: 0,
            command,
            pty: false,
        };
        exec.event(&stamp)
    }

    #[test]
    fn a_text_that_is_too_long_for_a_leaf_lies_beside_its_event() {
        let command = format!("{}\u{1b}", "x".repeat(LONG_TEXT_BYTES));
        let event = exec(&command);
        assert_eq!(event.text("command").unwrap().len(), LONG_TEXT_BYTES);
        assert_eq!(event.texts().collect::<Vec<_>>(), [("command", &*command)]);
        let told = of_event(&event.render(7)).unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!((&*told[0].field, told[0].bytes), ("command", 16_385));
        assert!(told[0].is(&command) && !told[0].is(&command.replacen('x', "y", 1)));
        assert_eq!(of_event(&exec("true").render(7)), Ok(Vec::new()));
        let (shown, escaped) = whole("command", &command);
        assert!(escaped && shown.ends_with("\\u{1b}"), "{shown}");
        assert_eq!(
            whole("document", "{\"a\":\"\u{202e}\"}").0,
            "{\"a\":\"\\u202e\"}"
        );
    }

    #[test]
    fn what_is_no_such_list_is_refused() {
        for bad in [
            "",
            "command",
            "command 1",
            "command x ab",
            "Command 1 ab",
            "command 1 ab c",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
        let good = format!("command 1 {}", "ab".repeat(32));
        assert!(parse(&[good.as_str()]).is_ok());
        assert!(parse(&[good.as_str(); 9]).is_err());
        assert!(of_event(b"{\"overflow\":7}").is_err());
    }
}
