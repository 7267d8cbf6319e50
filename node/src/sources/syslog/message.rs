//! Converts a syslog message (RFC 5424 or RFC 3164) to JSON for a mapping.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use piperoll_format::time::Timestamp;
use serde_json::{Map, Value, json};
use syslog_loose::{ProcId, Protocol, Variant, parse_message};

use crate::sources::record::Cut;
use crate::sources::text::{Decoded, decode};

/// Converts a message to JSON. Text that does not look like syslog is put into `message` as a whole.
pub(in crate::sources) fn take_apart(bytes: &[u8], cut: Option<&Cut>, peer: IpAddr) -> String {
    let decoded = decode(bytes);
    let (note, is_exact) = (decoded.note(), matches!(decoded, Decoded::Utf8(_) | Decoded::Latin1(_)));
    let mut record = match decoded {
        Decoded::Binary => Map::from_iter([("message".to_owned(), json!(STANDARD.encode(bytes)))]),
        text => fields_of(&text.into_text(bytes)),
    };
    let mut put = |name: &str, value: Value| record.insert(name.to_owned(), value);
    if let Some(note) = note {
        put("encoding", json!(note));
        // Keep the original bytes, because they could not be decoded exactly.
        if !is_exact {
            put("raw_base64", json!(STANDARD.encode(bytes)));
        }
    }
    if let Some(cut) = cut {
        put("message_bytes", json!(cut.bytes));
        put("message_sha256", json!(cut.sha256));
    }
    put("peer", json!(peer));
    Value::Object(record).to_string()
}

/// Converts a line from the log file of a syslog daemon to JSON.
pub(in crate::sources) fn line_apart(line: &str) -> String {
    Value::Object(fields_of(line)).to_string()
}

fn fields_of(text: &str) -> Map<String, Value> {
    let parsed = parse_message(text, Variant::Either);
    let is_modern = matches!(parsed.protocol, Protocol::RFC5424(_));
    let structured = structured_data(text);
    // Keep the original text if the data was not parsed completely: because an element violates RFC 5424, or because the parser
    // removed text that looks like structured data from a message in the form of RFC 3164.
    let is_whole = if is_modern { structured.is_some() } else { parsed.structured_data.is_empty() };
    let structured = structured.filter(|_| is_modern).unwrap_or_else(|| loose_data(&parsed));
    // A time in the form of RFC 3164 has no year and no zone, so it becomes `local_time`. Some relays write RFC 3339 times into
    // messages of RFC 3164; such a time is complete and becomes `timestamp`.
    let zoned =
        if is_modern { parsed.timestamp.map(|time| time.to_rfc3339()) } else { zoned_time(text).map(str::to_owned) };
    let local = parsed.timestamp.filter(|_| zoned.is_none()).map(|time| time.naive_local().to_string());
    let record = json!({
        "protocol": if is_modern { "RFC 5424" } else { "RFC 3164" },
        "facility": parsed.facility.map(|facility| facility.as_str()),
        "severity": parsed.severity.map(|severity| severity.as_str()),
        "timestamp": zoned,
        "local_time": local,
        "hostname": parsed.hostname,
        "app_name": parsed.appname,
        "process_id": parsed.procid.map(|id| match id { ProcId::PID(pid) => json!(pid), ProcId::Name(name) => json!(name) }),
        "message_id": parsed.msgid,
        "structured_data": (!structured.is_empty()).then_some(structured),
        "message": parsed.msg.trim_start_matches('\u{feff}'),
        "raw": (!is_whole).then_some(text),
    });
    match record {
        Value::Object(mut fields) => {
            fields.retain(|_, value| !value.is_null());
            fields
        }
        _ => Map::new(),
    }
}

/// Returns the time after the priority, if it has a zone.
fn zoned_time(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('<').and_then(|rest| rest.split_once('>')).map_or(text, |(_, rest)| rest);
    let time = rest.trim_start().split(' ').next()?;
    Timestamp::parse_rfc3339(time).ok().map(|_| time)
}

/// Extracts as much structured data as possible from malformed data; the original message is kept as well.
fn loose_data(parsed: &syslog_loose::Message<&str>) -> Map<String, Value> {
    let mut elements = Map::new();
    for element in &parsed.structured_data {
        let mut parameters = Map::new();
        for (name, value) in element.params() {
            add(&mut parameters, name, json!(value));
        }
        add(&mut elements, element.id, Value::Object(parameters));
    }
    elements
}

/// Adds a value under a name. If the name exists already, all of its values become a list, because a parameter may be repeated
/// (RFC 5424 section 6.3.3).
fn add(values: &mut Map<String, Value>, name: &str, value: Value) {
    match values.get_mut(name) {
        None => drop(values.insert(name.to_owned(), value)),
        Some(Value::Array(all)) => all.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

/// Parses the structured data of an RFC 5424 message (section 6.3) into objects by element and name. `None` if the message is
/// not in that form.
fn structured_data(text: &str) -> Option<Map<String, Value>> {
    // <PRI>VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID
    const FIELDS: usize = 6;
    let mut rest = text;
    for _ in 0..FIELDS {
        rest = rest.split_once(' ')?.1;
    }
    if rest == "-" || rest.starts_with("- ") {
        return Some(Map::new());
    }
    let mut elements = Map::new();
    while let Some(inner) = rest.strip_prefix('[') {
        let id_length = inner.find([' ', ']'])?;
        let (id, mut inner) = inner.split_at(id_length);
        let mut parameters = Map::new();
        while let Some(parameter) = inner.strip_prefix(' ') {
            let (name, value) = parameter.split_once("=\"")?;
            let mut text = String::new();
            let mut chars = value.char_indices();
            let end = loop {
                match chars.next()? {
                    (_, '\\') => match chars.next()?.1 {
                        escaped @ ('"' | '\\' | ']') => text.push(escaped),
                        other => text.extend(['\\', other]),
                    },
                    (at, '"') => break at,
                    (_, ']') => return None,
                    (_, other) => text.push(other),
                }
            };
            let is_name =
                (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && !b"=]\" ".contains(&b));
            if !is_name {
                return None;
            }
            add(&mut parameters, name, json!(text));
            inner = &value[end + 1..];
        }
        rest = inner.strip_prefix(']')?;
        if id.is_empty() {
            return None;
        }
        add(&mut elements, id, Value::Object(parameters));
    }
    (!elements.is_empty() && (rest.is_empty() || rest.starts_with(' '))).then_some(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apart_bytes(bytes: &[u8]) -> Value {
        let peer = "127.0.0.1".parse().expect("an address");
        serde_json::from_str(&take_apart(bytes, None, peer)).expect("JSON")
    }

    fn apart(text: &str) -> Value {
        apart_bytes(text.as_bytes())
    }

    #[test]
    fn both_kinds_of_messages_are_taken_apart() {
        let modern = apart(
            "<165>1 2026-10-11T22:14:15.003+02:00 host app 812 ID47 [x@32473 a=\"1\" b=\"q\\\"]\"] \u{feff}it happened",
        );
        for (name, value) in [
            ("facility", json!("local4")),
            ("severity", json!("notice")),
            ("hostname", json!("host")),
            ("app_name", json!("app")),
            ("timestamp", json!("2026-10-11T22:14:15.003+02:00")),
            ("message", json!("it happened")),
            ("message_id", json!("ID47")),
            ("process_id", json!(812)),
        ] {
            assert_eq!(modern[name], value, "{name}");
        }
        assert_eq!(modern["structured_data"]["x@32473"]["a"], "1");
        let old = apart("<34>Oct 11 22:14:15 host su[7]: 'su root' failed");
        assert_eq!(
            (&old["app_name"], &old["message"], old.get("timestamp")),
            (&json!("su"), &json!("'su root' failed"), None)
        );
        for (data, lost) in [
            (r#"[evil@1 user=root cmd="cat /etc/shadow"]"#, "cat /etc/shadow"),
            (r#"[x@1 a="unclosed] the rest"#, "unclosed"),
            (r#"[x@1 a="1" b]"#, " b]"),
        ] {
            let text = format!("<165>1 2026-10-11T22:14:15.003Z host app 812 ID47 {data} message");
            let record = apart(&text);
            assert_eq!(record["raw"], text, "{data}");
            assert!(record.to_string().contains(&lost.replace('"', "\\\"")), "{data}: {record}");
        }
        let nested = apart("<34>Oct 11 22:14:15 host su[7]: [x@1 a=\"1\"] 'su root' failed");
        assert!(nested.to_string().contains("x@1"), "{nested}");
        for odd in ["", "no syslog at all", "<999>1 x", "<13>", "{\"json\":true}", "<34>Oct 11", "\u{0}\u{1b}[31m"] {
            assert!(apart(odd).get("message").is_some(), "{odd:?}");
        }
    }

    #[test]
    fn repeated_parameters_and_elements_are_all_kept() {
        let data =
            |data: &str| apart(&format!("<13>1 2026-10-11T22:14:15Z h app 1 - {data} m"))["structured_data"].clone();
        assert_eq!(
            data(r#"[origin ip="192.0.2.1" ip="192.0.2.129" ip="x"]"#)["origin"]["ip"],
            json!(["192.0.2.1", "192.0.2.129", "x"])
        );
        assert_eq!(
            data(r#"[x@1 a="1"][y@1 b="2"][x@1 c="3"]"#),
            json!({ "x@1": [{ "a": "1" }, { "c": "3" }], "y@1": { "b": "2" } })
        );
    }

    #[test]
    fn a_time_with_a_zone_is_one_in_the_older_form_too() {
        for (time, wanted) in [
            ("2026-11-28T23:30:00.123456+05:00", Some("2026-11-28T23:30:00.123456+05:00")),
            ("2026-11-28T23:30:00Z", Some("2026-11-28T23:30:00Z")),
            ("2026-11-28T23:30:00", None),
            ("Nov 28 23:30:00", None),
        ] {
            let record = apart(&format!("<38>{time} web1 sshd[77]: Failed password"));
            assert_eq!(record.get("timestamp").and_then(Value::as_str), wanted, "{record}");
            assert_eq!(record.get("local_time").is_some(), wanted.is_none() && time.starts_with("Nov"), "{record}");
            if wanted.is_some() {
                assert_eq!((&record["hostname"], &record["app_name"]), (&json!("web1"), &json!("sshd")), "{record}");
                assert_eq!(record["message"], "Failed password");
            }
        }
    }

    #[test]
    fn what_is_not_utf_8_is_recognised_and_said() {
        let latin = apart_bytes(b"<13>Oct 11 22:14:15 h app: M\xfcller logged in");
        assert_eq!(
            (&latin["message"], &latin["encoding"]),
            (&json!("M\u{fc}ller logged in"), &json!("not UTF-8; read as ISO 8859-1"))
        );
        let broken = apart_bytes(b"<13>Oct 11 22:14:15 h app: M\xc3\xbcller\xff");
        assert_eq!(broken["message"], "M\u{fc}ller\u{fffd}");
        assert!(broken["raw_base64"].is_string());
        let binary = apart_bytes(b"\0\xff");
        assert_eq!((&binary["message"], binary["encoding"].is_string()), (&json!("AP8="), true));
    }
}
