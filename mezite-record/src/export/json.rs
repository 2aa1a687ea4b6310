//! JSON lines: every frame of every channel, exact. Data is `text` where it is UTF-8 and `base64` where it is not.

use std::io::Write;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Map, Value, json};

use super::{ExportError, Options};
use crate::file::{FileOperation, FileProtocol, Outcome, Transfer};
use crate::format::Header;
use crate::frame::{ChannelEvent, Frame, Stream, Timed};
use crate::read::ReadError;

/// Writes the header and then each frame as one line of JSON. `at_ms` counts from the start of the session.
///
/// # Errors
/// [`ExportError`].
pub fn json(
    header: &Header,
    frames: impl IntoIterator<Item = Result<Timed, ReadError>>,
    options: Options,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let mut facts = serde_json::to_value(header).map_err(std::io::Error::from)?;
    if let Some(facts) = facts.as_object_mut() {
        facts.insert("type".to_owned(), "header".into());
        facts.insert("started".to_owned(), header.started.to_string().into());
    }
    writeln!(out, "{facts}")?;
    for timed in frames {
        let Timed { at, frame } = timed?;
        let (channel, mut line) = describe(&frame);
        if options.channel.is_some() && channel.is_some() && channel != options.channel {
            continue;
        }
        line.insert("at_ms".to_owned(), at.as_millis().into());
        if let Some(channel) = channel {
            line.insert("channel".to_owned(), channel.into());
        }
        writeln!(out, "{}", Value::Object(line))?;
    }
    Ok(out.flush()?)
}

fn describe(frame: &Frame) -> (Option<u32>, Map<String, Value>) {
    let (channel, value) = match frame {
        Frame::Output {
            channel,
            stream,
            data,
        } => {
            let stream = match stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            };
            let mut value = json!({ "type": "output", "stream": stream });
            put(&mut value, "text", data);
            (Some(*channel), value)
        }
        Frame::Input { channel, data } => {
            let mut value = json!({ "type": "input" });
            put(&mut value, "text", data);
            (Some(*channel), value)
        }
        Frame::Resize {
            channel,
            cols,
            rows,
        } => (
            Some(*channel),
            json!({ "type": "resize", "cols": cols, "rows": rows }),
        ),
        Frame::Channel { channel, what } => (Some(*channel), event(what)),
        Frame::File { channel, operation } => (Some(*channel), file(operation)),
        Frame::Content {
            channel,
            file,
            to_node,
            offset,
            data,
        } => {
            let direction = if *to_node { "written" } else { "read" };
            let mut value = json!({ "type": "content", "file": file, "direction": direction, "offset": offset });
            put(&mut value, "text", data);
            (Some(*channel), value)
        }
        Frame::Note { text } => (None, json!({ "type": "note", "text": text })),
    };
    let Value::Object(map) = value else {
        return (channel, Map::new());
    };
    (channel, map)
}

fn event(what: &ChannelEvent) -> Value {
    match what {
        ChannelEvent::Opened { kind } => json!({ "type": "opened", "kind": kind }),
        ChannelEvent::Pty { term, cols, rows } => {
            json!({ "type": "pty", "term": term, "cols": cols, "rows": rows })
        }
        ChannelEvent::Shell => json!({ "type": "shell" }),
        ChannelEvent::Exec { command } => {
            let mut value = json!({ "type": "exec" });
            put(&mut value, "command", command);
            value
        }
        ChannelEvent::Subsystem { name } => json!({ "type": "subsystem", "name": name }),
        ChannelEvent::Env { name, value: bytes } => {
            let mut value = json!({ "type": "env", "name": name });
            put(&mut value, "value", bytes);
            value
        }
        ChannelEvent::Exit { status } => json!({ "type": "exit", "status": status }),
        ChannelEvent::Signal { name } => json!({ "type": "signal", "name": name }),
        ChannelEvent::Eof => json!({ "type": "eof" }),
        ChannelEvent::Closed => json!({ "type": "closed" }),
    }
}

fn file(operation: &FileOperation) -> Value {
    let protocol = match operation.protocol {
        FileProtocol::Sftp => "sftp",
        FileProtocol::Scp => "scp",
    };
    let action = operation.action.as_str();
    let mut value = json!({ "type": "file", "protocol": protocol, "action": action });
    put(&mut value, "path", &operation.path);
    if !operation.target.is_empty() {
        put(&mut value, "target", &operation.target);
    }
    let mut set = |name: &str, it: Value| {
        if let Some(map) = value.as_object_mut() {
            map.insert(name.to_owned(), it);
        }
    };
    if operation.file > 0 {
        set("file", operation.file.into());
    }
    if operation.flags != 0 {
        set("flags", operation.flag_words().into());
    }
    let attributes = &operation.attributes;
    if let Some(size) = attributes.size {
        set("size", size.into());
    }
    if let Some((user, group)) = attributes.owner {
        set("owner", json!([user, group]));
    }
    if let Some(permissions) = attributes.permissions {
        set("permissions", format!("{permissions:04o}").into());
    }
    if let Some((accessed, modified)) = attributes.times {
        set("times", json!([accessed, modified]));
    }
    if operation.entries > 0 {
        set("entries", operation.entries.into());
    }
    for (name, transfer) in [("read", &operation.read), ("written", &operation.written)] {
        if let Some(transfer) = transfer {
            set(name, passed(transfer));
        }
    }
    if let Outcome::Status { code, message } = &operation.outcome {
        set("status", (*code).into());
        if !message.is_empty() {
            set("message", message.as_str().into());
        }
    }
    value
}

fn passed(transfer: &Transfer) -> Value {
    let digest = transfer.sha256.map(|digest| HEXLOWER.encode(&digest));
    json!({
        "bytes": transfer.bytes,
        "whole": transfer.whole,
        "sha256": digest,
        "ranges": transfer.ranges,
        "more_ranges": transfer.more,
    })
}

/// Sets `name` to exact bytes: as they are, or as `<name>_base64` where they are not UTF-8; for
/// `text` that is `base64` alone.
fn put(value: &mut Value, name: &str, bytes: &[u8]) {
    let (name, text) = match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_owned(), text.to_owned()),
        Err(_) if name == "text" => ("base64".to_owned(), BASE64.encode(bytes)),
        Err(_) => (format!("{name}_base64"), BASE64.encode(bytes)),
    };
    if let Some(map) = value.as_object_mut() {
        map.insert(name, text.into());
    }
}
