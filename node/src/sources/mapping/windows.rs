//! Converts Windows events in JSON from the formats of various shippers to a single form.
//!
//! The data of an event has the same names everywhere, but it is in different locations: winlogbeat (`winlog.event_data`),
//! Wazuh (`win.eventdata`, with a lowercase first letter), the XML as JSON (`Event.EventData`, an object, or `Data` with the
//! names in attributes), NXLog (at the top level).

use serde_json::{Map, Value, json};

use super::ordered::Pairs;

/// Bits of `Keywords` (winmeta.xml): audit success and audit failure.
const AUDIT_SUCCESS: u64 = 0x0020_0000_0000_0000;
const AUDIT_FAILURE: u64 = 0x0010_0000_0000_0000;

/// Half of the range of the low 32 bits of `Keywords`, which audit events do not use.
const LOW_BITS_HALF: u64 = 1 << 31;
/// Length of the date at the beginning of a time. Its hyphens must not be taken for the sign of an offset.
const DATE_CHARS: usize = 10;

/// Removes the wrapper that Wazuh puts around an event in its files.
fn without_wrapper(mut whole: Value) -> Value {
    match whole.pointer_mut("/data/win").map(Value::take) {
        Some(event) if event.is_object() => json!({ "win": event }),
        _ => whole,
    }
}

/// Converts an event to a single form with `id`, `time`, `computer`, `record`, `result`, `data`, and everything else in
/// `original`. Returns `None` for a record that is not a Windows event.
pub(super) fn event(record: &Pairs) -> Option<Pairs> {
    let whole: Value = serde_json::from_str(&record.to_text()).ok()?;
    let whole = without_wrapper(whole);
    let at = |pointers: &[&str]| pointers.iter().find_map(|pointer| text(whole.pointer(pointer)?));
    let id =
        at(&["/winlog/event_id", "/event/code", "/win/system/eventID", "/Event/System/EventID", "/EventID", "/Id"])?;
    if !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let time = at(&[
        "/Event/System/TimeCreated/#attributes/SystemTime",
        "/Event/System/TimeCreated/@SystemTime",
        "/win/system/systemTime",
        "/@timestamp",
        "/EventTime",
        "/TimeCreated",
    ]);
    let computer = at(&[
        "/winlog/computer_name",
        "/win/system/computer",
        "/Event/System/Computer",
        "/Hostname",
        "/MachineName",
        "/host/name",
    ]);
    let number = at(&[
        "/winlog/record_id",
        "/win/system/eventRecordID",
        "/Event/System/EventRecordID",
        "/RecordNumber",
        "/RecordId",
    ]);
    let keywords = at(&["/Event/System/Keywords", "/win/system/keywords", "/Keywords"]);
    let words = at(&[
        "/event/outcome",
        "/EventType",
        "/win/system/severityValue",
        "/winlog/keywords/0",
        "/KeywordsDisplayNames/0",
    ]);
    // Event ids are defined by their provider: other providers use the same numbers for other events.
    let provider = at(&[
        "/winlog/provider_name",
        "/event/provider",
        "/win/system/providerName",
        "/Event/System/Provider/#attributes/Name",
        "/Event/System/Provider/@Name",
        "/Event/System/Provider/Name",
        "/SourceName",
        "/ProviderName",
    ]);
    // The time is in UTC, although some programs that read the XML omit the zone.
    let time = at(&[
        "/Event/System/TimeCreated/#attributes/SystemTime",
        "/Event/System/TimeCreated/@SystemTime",
        "/win/system/systemTime",
    ])
    .filter(|time| time.len() > DATE_CHARS && !time[DATE_CHARS..].contains(['Z', '+', '-']))
    .map(|time| format!("{time}Z"))
    .or(time);
    let data = data_of(&whole);
    let mut original = record.clone();
    for path in
        [&["winlog", "event_data"][..], &["win", "eventdata"], &["data", "win", "eventdata"], &["Event", "EventData"]]
    {
        original.remove(&path.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    }
    let fields = json!({ "id": id, "time": time, "computer": computer, "record": number, "provider": provider, "result": result(keywords.as_deref(), words.as_deref()) });
    let Value::Object(mut fields) = fields else { return None };
    fields.retain(|_, value| !value.is_null());
    fields.insert("data".to_owned(), Value::Object(data));
    let mut event = Pairs::parse(&Value::Object(fields).to_string())?;
    if !original.0.is_empty() {
        event.0.push(("original".to_owned(), original.to_raw()?));
    }
    Some(event)
}

/// Returns a text or number; for an element with attributes, returns the text inside the element.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Object(element) => text(element.get("#text")?),
        _ => None,
    }
}

fn data_of(whole: &Value) -> Map<String, Value> {
    let mut data = Map::new();
    for pointer in [
        "/winlog/event_data",
        "/winlog/user_data",
        "/win/eventdata",
        "/win/logFileCleared",
        "/Event/EventData",
        "/Event/UserData",
    ] {
        if let Some(found) = whole.pointer(pointer) {
            collect(found, &mut data);
        }
    }
    if data.is_empty()
        && let Some(top) = whole.as_object()
    {
        collect(&Value::Object(top.clone()), &mut data);
    }
    data
}

/// Collects the members that are texts, the `Data` elements under the names in their attributes, and the members of the wrapper
/// elements `LogFileCleared` and `AuditEventsDropped`.
fn collect(value: &Value, data: &mut Map<String, Value>) {
    let Some(members) = value.as_object() else { return };
    for (name, value) in members {
        if name == "Data" {
            let elements = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
            for element in elements {
                let named = ["/@Name", "/Name", "/#attributes/Name"]
                    .iter()
                    .find_map(|at| element.pointer(at).and_then(Value::as_str));
                if let (Some(name), Some(text)) = (named, text(element)) {
                    data.insert(name.to_owned(), json!(text));
                }
            }
        } else if let Some(text) = text(value) {
            // Wazuh writes the first letter in lower case.
            let mut letters = name.chars();
            let name = letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>());
            data.insert(name.unwrap_or_default(), json!(text));
        } else if value.is_object() && (name == "LogFileCleared" || name == "AuditEventsDropped") {
            collect(value, data);
        }
    }
}

/// Returns `success` or `failure`. The bits in `keywords` take precedence over localized text.
fn result(keywords: Option<&str>, words: Option<&str>) -> Option<&'static str> {
    let bits = keywords.and_then(|keywords| match keywords.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => keywords.parse::<i64>().ok().map(i64::cast_unsigned),
    });
    // Shippers that read the event log themselves write these words, which are in English regardless of the system's language.
    match words {
        Some("AUDIT_FAILURE") => return Some("failure"),
        Some("AUDIT_SUCCESS") => return Some("success"),
        _ => {}
    }
    // Programs that parse the bits as a floating-point number change the low bits. Rounding to the nearest multiple of 2^32
    // restores the high bits.
    let bits = bits.map(|bits| bits.wrapping_add(LOW_BITS_HALF));
    match bits {
        Some(bits) if bits & AUDIT_FAILURE != 0 => return Some("failure"),
        Some(bits) if bits & AUDIT_SUCCESS != 0 => return Some("success"),
        _ => {}
    }
    let words = words?.to_lowercase();
    if words.contains("failure") {
        Some("failure")
    } else if words.contains("success") {
        Some("success")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_becomes_the_same_event() {
        for (record, result) in [
            (
                r#"{"@timestamp":"2026-11-03T09:14:02.117Z","event":{"code":"4625","outcome":"failure"},"winlog":{"event_id":4625,"computer_name":"DC1","record_id":7,"event_data":{"TargetUserName":"kim"}}}"#,
                "failure",
            ),
            (
                r#"{"EventTime":"2026-11-03 09:14:02","Hostname":"DC1","EventID":4625,"RecordNumber":7,"Keywords":"-9218868437227405312","TargetUserName":"kim"}"#,
                "failure",
            ),
            (
                r##"{"Event":{"System":{"EventID":{"#text":"4625","#attributes":{"Qualifiers":0}},"Keywords":"0x8010000000000000","Computer":"DC1","EventRecordID":7,"TimeCreated":{"#attributes":{"SystemTime":"2026-11-03T09:14:02.1173529Z"}}},"EventData":{"TargetUserName":"kim"}}}"##,
                "failure",
            ),
            (
                r##"{"Event":{"System":{"EventID":"4625","Keywords":"0x8010000000000000","Computer":"DC1","EventRecordID":"7","TimeCreated":{"@SystemTime":"2026-11-03T09:14:02Z"}},"EventData":{"Data":[{"@Name":"TargetUserName","#text":"kim"},{"@Name":"Empty"}]}}}"##,
                "failure",
            ),
            (
                r##"{"Event":{"System":{"EventID":"4625","Keywords":"0x8010000000000000","Computer":"DC1","EventRecordID":"7"},"EventData":{"Data":{"@Name":"TargetUserName","#text":"kim"}}}}"##,
                "failure",
            ),
            (
                r#"{"win":{"system":{"eventID":"4625","computer":"DC1","eventRecordID":"7","severityValue":"AUDIT_FAILURE"},"eventdata":{"targetUserName":"kim"}}}"#,
                "failure",
            ),
        ] {
            let event = event(&Pairs::parse(record).expect("JSON")).expect("an event");
            let event: Value = serde_json::from_str(&event.to_text()).expect("JSON");
            assert_eq!(
                (&event["id"], &event["computer"], &event["record"]),
                (&json!("4625"), &json!("DC1"), &json!("7")),
                "{event}"
            );
            assert_eq!(
                (&event["data"]["TargetUserName"], &event["result"]),
                (&json!("kim"), &json!(result)),
                "{event}"
            );
        }
        assert!(event(&Pairs::parse(r#"{"a":1}"#).expect("JSON")).is_none());
    }
}
