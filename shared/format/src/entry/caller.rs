//! Parses and validates an entry as received from a client.

use std::borrow::Cow;

use super::caller_fields::{CallerFields, push_json};
use super::prefix::{ID_FIELD_BYTES, Prefix};
use super::rule_input::RuleInput;
use super::terms::EntryError;
use crate::ids::EntryId;
use crate::json::compact;
use crate::limits;

/// Fields that only the node writes; a caller that sets one gets a specific error message.
const NODE_FIELDS: [&str; 9] = ["v", "node_id", "generation", "seq", "era", "salt", "timestamp", "flags", "via"];

/// A caller's entry after all checks, as the text that is written into the body.
#[derive(Debug, Clone, PartialEq)]
pub struct CallerEntry {
    /// The caller's idempotency key; the node generates one if absent.
    pub id: Option<EntryId>,
    /// `,"user":"alice",…,"details":{…}`: the caller's fields in the format's order.
    pub(super) fields: String,
    /// `,"redacted":[…]` or empty; written after `flags` in a body.
    pub(super) redacted: String,
    pub(super) rule_input: RuleInput,
}

impl CallerEntry {
    /// Parses one JSON object as sent by a caller.
    ///
    /// # Errors
    /// Returns an error if the entry is too large, is not UTF-8 or JSON, or violates a rule of docs/format.md.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        Self::parse_with(bytes, |text| Cow::Borrowed(text))
    }

    /// Parses an entry after `rewrite` has changed its compact JSON text, which is how secrets are redacted.
    ///
    /// # Errors
    /// Returns the same errors as [`CallerEntry::parse`]. The size is checked before `rewrite` is called.
    pub fn parse_with(bytes: &[u8], rewrite: impl FnOnce(&str) -> Cow<'_, str>) -> Result<Self, EntryError> {
        if bytes.len() > limits::CALLER_ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge { bytes: bytes.len(), max: limits::CALLER_ENTRY_BYTES_MAX });
        }
        Self::parse_compact(&rewrite(&compact_text(bytes)?))
    }

    fn parse_compact(text: &str) -> Result<Self, EntryError> {
        let typed: CallerFields<'_> = serde_json::from_str(text).map_err(|e| schema_error(&e))?;
        typed.check()?;
        let mut fields = String::with_capacity(text.len());
        typed.write_fields(&mut fields);
        let mut redacted = String::new();
        if let Some(paths) = typed.redacted.as_ref().filter(|paths| !paths.is_empty()) {
            push_json(&mut redacted, "redacted", paths);
        }
        Ok(Self { id: typed.id, fields, redacted, rule_input: typed.rule_input() })
    }

    /// Checks that the entry does not exceed the size limit of a body, even with the longest possible fields of the node.
    pub fn check_size(&self) -> Result<(), EntryError> {
        let bytes = self.fields.len() + self.redacted.len() + AROUND_BYTES_MAX;
        let max = limits::BODY_AND_MAC_BYTES_MAX - limits::FLAGS_BYTES_MAX;
        if bytes > max { Err(EntryError::TooLarge { bytes, max }) } else { Ok(()) }
    }

    /// Properties of the entry for detection rules.
    pub fn rule_input(&self) -> &RuleInput {
        &self.rule_input
    }

    /// Returns the caller's fields and the list of redacted paths as one JSON object.
    pub fn to_object(&self) -> String {
        format!("{{{}{}}}", self.fields.trim_start_matches(','), self.redacted)
    }

    /// Returns whether the caller's fields in the stored `body` are the same as those of this entry, byte for byte.
    pub fn is_same_text(&self, body: &str) -> bool {
        let Some(prefix) = Prefix::parse(body.as_bytes()) else { return false };
        let Some(after_id) = body.get(prefix.len + ID_FIELD_BYTES..) else { return false };
        let Some(rest) = after_id.strip_prefix(self.fields.as_str()) else { return false };
        // `flags` may be in between; the node writes them, so they are not part of the caller's fields.
        let rest = skip_flags(rest).unwrap_or(rest);
        rest.strip_prefix(self.redacted.as_str()).is_some_and(|rest| rest.starts_with(",\"via\":"))
    }
}

/// Returns the caller's fields of a stored body as one JSON object, without the fields that the node added.
pub fn caller_object(body: &str) -> Option<String> {
    let prefix = Prefix::parse(body.as_bytes())?;
    let stored = body.get(prefix.len + ID_FIELD_BYTES..)?.strip_prefix(',')?;
    let end = stored.rfind(",\"via\":")?;
    Some(format!("{{{}}}", without_flags(&stored[..end])))
}

fn compact_text(bytes: &[u8]) -> Result<String, EntryError> {
    let text = std::str::from_utf8(bytes).map_err(|e| EntryError::Utf8(e.valid_up_to()))?;
    let text = compact(text)?;
    if !text.starts_with('{') {
        return Err(EntryError::Schema("an entry must be a JSON object".to_owned()));
    }
    Ok(text)
}

/// Upper bound for the bytes of the node's own fields and the mac, with the longest node id and `via`.
const AROUND_BYTES_MAX: usize = 512;

/// Returns the text after a list of flags at the beginning of `text`, or `None` if there is no such list.
fn skip_flags(text: &str) -> Option<&str> {
    let list = text.strip_prefix(",\"flags\":")?;
    let mut values = serde_json::Deserializer::from_str(list).into_iter::<&serde_json::value::RawValue>();
    values.next()?.ok()?;
    list.get(values.byte_offset()..)
}

/// Returns the fields without `flags`, the list that the node writes after the caller's own fields.
fn without_flags(fields: &str) -> String {
    for (at, _) in fields.match_indices(",\"flags\":[") {
        if let Some(rest) = skip_flags(&fields[at..])
            && (rest.is_empty() || rest.starts_with(",\"redacted\":"))
        {
            return format!("{}{rest}", &fields[..at]);
        }
    }
    fields.to_owned()
}

fn schema_error(error: &serde_json::Error) -> EntryError {
    let text = error.to_string();
    for field in NODE_FIELDS {
        if text.starts_with(&format!("unknown field `{field}`")) {
            return EntryError::NodeField(field);
        }
    }
    EntryError::Schema(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{NodeFields, write_body};
    use crate::ids::{Generation, NodeId};
    use crate::time::Timestamp;

    fn parse(text: &str) -> Result<CallerEntry, EntryError> {
        CallerEntry::parse(text.as_bytes())
    }

    fn stamped(entry: &CallerEntry) -> String {
        let node_id: NodeId = "mx1".parse().expect("a node id");
        let stamp = NodeFields {
            node_id: &node_id,
            generation: &Generation::from_bytes([7; 16]),
            seq: 42,
            era: 0,
            salt: [9; 16],
            timestamp: Timestamp::from_micros(1_776_240_000_000_001),
            id: "0198c0de-0000-7000-8000-000000000001".parse().expect("an id"),
            via: "socket uid=1000",
        };
        write_body(&stamp, entry, "").expect("a body")
    }

    #[test]
    fn body_has_fixed_order_and_keeps_number_text() {
        let entry = parse(
            r#"{ "details": {"z": 1.50, "a": 123456789012345678901234567890}, "action": "auth.login",
                 "category": "auth", "user": "alice" }"#,
        )
        .expect("an entry");
        assert_eq!(
            stamped(&entry),
            "{\"v\":1,\"node_id\":\"mx1\",\"generation\":\"07070707070707070707070707070707\",\"seq\":42,\"era\":0,\
             \"salt\":\"09090909090909090909090909090909\",\"timestamp\":\"2026-04-15T08:00:00.000001Z\",\
             \"id\":\"0198c0de-0000-7000-8000-000000000001\",\"user\":\"alice\",\"category\":\"auth\",\
             \"action\":\"auth.login\",\"details\":{\"z\":1.50,\"a\":123456789012345678901234567890},\
             \"via\":\"socket uid=1000\"}"
        );
    }

    #[test]
    fn prefix_reads_back_and_refuses_other_spellings() {
        let body = stamped(&parse(r#"{"category":"auth","action":"auth.login"}"#).expect("an entry"));
        let prefix = Prefix::parse(body.as_bytes()).expect("a prefix");
        assert_eq!((prefix.node_id, prefix.seq, prefix.era), ("mx1", 42, 0));
        for (from, to) in
            [("\"seq\":42", "\"seq\":042"), ("\"v\":1", "\"v\":2"), ("00001Z", "00001z"), (":42,", ": 42,")]
        {
            assert_eq!(Prefix::parse(body.replace(from, to).as_bytes()), None, "{from} -> {to}");
        }
    }

    #[test]
    fn the_same_text_means_the_callers_fields() {
        let entry = parse(r#"{"category":"auth","action":"auth.login","user":"alice"}"#).expect("an entry");
        let body = stamped(&entry);
        assert!(entry.is_same_text(&body));
        for other in [
            r#"{"category":"auth","action":"auth.login","user":"bob"}"#,
            r#"{"category":"auth","action":"auth.login"}"#,
            r#"{"category":"auth","action":"auth.login","user":"alice","reason":"x"}"#,
            r#"{"category":"auth","action":"auth.login","user":"alice","redacted":["a"]}"#,
        ] {
            assert!(!parse(other).expect("an entry").is_same_text(&body), "{other}");
        }
        // Other fields between the caller's fields and the list of redacted paths must be detected.
        let long = r#"{"category":"auth","action":"a","description":"d","redacted":["x"]}"#;
        let short = parse(r#"{"category":"auth","action":"a","redacted":["x"]}"#).expect("an entry");
        assert!(!short.is_same_text(&stamped(&parse(long).expect("an entry"))));
        let flagged = stamped(&short).replace(",\"redacted\"", ",\"flags\":[{\"rule\":\"r\"}],\"redacted\"");
        assert!(short.is_same_text(&flagged));
        let masked = parse(r#"{"category":"auth","action":"a","redacted":["details.pw"]}"#).expect("an entry");
        assert!(masked.is_same_text(&stamped(&masked)));
        assert!(!parse(r#"{"category":"auth","action":"a"}"#).expect("an entry").is_same_text(&stamped(&masked)));
    }

    #[test]
    fn refusals_name_the_field() {
        let long = format!(r#"{{"category":"auth","action":"a","user":"{}"}}"#, "u".repeat(257));
        for (text, part) in [
            (r#"{"category":"auth"}"#, "`action`"),
            (r#"{"action":"auth.login"}"#, "`category`"),
            (r#"{"category":"Payment","action":"a"}"#, "`category`"),
            (r#"{"category":"door event","action":"a"}"#, "`category`"),
            (r#"{"category":"1st","action":"a"}"#, "`category`"),
            (r#"{"category":"","action":"a"}"#, "`category`"),
            (r#"{"category":"auth","action":"a b"}"#, "`action`"),
            (r#"{"category":"auth","action":"a","seq":1}"#, "`seq`"),
            (r#"{"category":"auth","action":"a","usr":"x"}"#, "`usr`"),
            (r#"{"category":"auth","action":"a","user":"x\u0000y"}"#, "`user`"),
            (r#"{"category":"auth","action":"a","outcome":"fine"}"#, "`outcome`"),
            (r#"{"category":"auth","action":"a","occurred_at":"today"}"#, "`occurred_at`"),
            (r#"{"category":"auth","action":"a","details":[1]}"#, "`details`"),
            (r#"{"category":"auth","action":"a","changes":[{"old":1}]}"#, "`changes`"),
            (r#"{"category":"auth","action":"a","changes":[["f",1,2]]}"#, "`changes`"),
            (r#"{"category":"auth","action":"a","id":"7"}"#, "UUID"),
            (&long, "`user`"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(parse(r#"{"category":"door_event-2","action":"door.open"}"#).is_ok());
        assert_eq!(parse(r#"{"category":"log","action":"a"}"#), Err(EntryError::Reserved));
        assert_eq!(parse(r#"{"category":"auth","action":"log.started"}"#), Err(EntryError::Reserved));
        assert!(matches!(CallerEntry::parse(b"{\"user\":\"\xff\"}"), Err(EntryError::Utf8(9))));
    }
}
