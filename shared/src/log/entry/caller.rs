//! A validated entry as received from a client.

use super::facts::Facts;
use super::prefix::{ID_FIELD_BYTES, Prefix};
use super::spoken::{Spoken, push_json};
use super::terms::EntryError;
use crate::log::ids::EntryId;
use crate::log::json::compact;
use crate::log::limits;

/// Fields that only the node writes; naming one is a caller's mistake worth its own words.
const NODE_FIELDS: [&str; 9] = ["v", "node_id", "generation", "seq", "era", "salt", "timestamp", "flags", "via"];

/// A caller's entry after every check, as the text that goes into the body.
#[derive(Debug, Clone, PartialEq)]
pub struct CallerEntry {
    /// The caller's idempotency key; the node makes one when absent.
    pub id: Option<EntryId>,
    /// `,"user":"alice",…,"details":{…}`: the caller's fields in the format's order.
    pub(super) fields: String,
    /// `,"redacted":[…]` or nothing; stands behind `flags` in a body.
    pub(super) redacted: String,
    pub(super) facts: Facts,
}

impl CallerEntry {
    /// Reads one JSON object as a caller sends it.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > limits::CALLER_ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge { bytes: bytes.len(), max: limits::CALLER_ENTRY_BYTES_MAX });
        }
        Self::parse_compact(&compact_text(bytes)?)
    }

    fn parse_compact(text: &str) -> Result<Self, EntryError> {
        let spoken: Spoken<'_> = serde_json::from_str(text).map_err(|e| schema_error(&e))?;
        spoken.check()?;
        let mut fields = String::with_capacity(text.len());
        spoken.write_fields(&mut fields);
        let mut redacted = String::new();
        if let Some(paths) = spoken.redacted.as_ref().filter(|paths| !paths.is_empty()) {
            push_json(&mut redacted, "redacted", paths);
        }
        Ok(Self { id: spoken.id, fields, redacted, facts: spoken.facts() })
    }

    /// The same without the secrets that can be recognised.
    #[cfg(feature = "api")]
    pub fn parse_redacted(bytes: &[u8], redactor: &crate::log::redact::Redactor) -> Result<Self, EntryError> {
        if bytes.len() > limits::CALLER_ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge { bytes: bytes.len(), max: limits::CALLER_ENTRY_BYTES_MAX });
        }
        let text = compact_text(bytes)?;
        Self::parse_compact(&redactor.entry(&text))
    }

    /// Whether it fits into a body, whatever a node puts around it.
    pub fn check_size(&self) -> Result<(), EntryError> {
        let bytes = self.fields.len() + self.redacted.len() + AROUND_BYTES_MAX;
        let max = limits::BODY_AND_MAC_BYTES_MAX - limits::FLAGS_BYTES_MAX;
        if bytes > max { Err(EntryError::TooLarge { bytes, max }) } else { Ok(()) }
    }

    /// What rules look at.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether `body`, an entry already stored under the same id, holds the same caller's fields. What one of them has masked
    /// and the other has not, or elsewhere, counts as the same: it may have been stored under earlier rules of masking.
    pub fn same_content(&self, body: &str) -> bool {
        self.is_same_text(body) || self.is_same_but_for_masks(body)
    }

    #[cfg(not(feature = "api"))]
    fn is_same_but_for_masks(&self, _body: &str) -> bool {
        false
    }

    #[cfg(feature = "api")]
    fn is_same_but_for_masks(&self, body: &str) -> bool {
        use crate::log::redact::{MASK, is_same_but_for_masks};
        if !body.contains(MASK) && !self.fields.contains(MASK) {
            return false;
        }
        let Some(prefix) = Prefix::parse(body.as_bytes()) else { return false };
        let Some(stored) = body.get(prefix.len + ID_FIELD_BYTES..).and_then(|rest| rest.strip_prefix(',')) else {
            return false;
        };
        // What the node wrote around the caller's fields is no part of the comparison.
        let Some(end) = stored.rfind(",\"via\":") else { return false };
        let stored = without_flags(&stored[..end]);
        let own = format!("{{{}{}}}", self.fields.trim_start_matches(','), self.redacted);
        is_same_but_for_masks(&format!("{{{stored}}}"), &own)
    }

    fn is_same_text(&self, body: &str) -> bool {
        let Some(prefix) = Prefix::parse(body.as_bytes()) else { return false };
        let Some(after_id) = body.get(prefix.len + ID_FIELD_BYTES..) else { return false };
        let Some(rest) = after_id.strip_prefix(self.fields.as_str()) else { return false };
        // `flags` may stand between; what they say is the node's, not the caller's.
        let rest = skip_flags(rest).unwrap_or(rest);
        rest.strip_prefix(self.redacted.as_str()).is_some_and(|rest| rest.starts_with(",\"via\":"))
    }
}

fn compact_text(bytes: &[u8]) -> Result<String, EntryError> {
    let text = std::str::from_utf8(bytes).map_err(|e| EntryError::Utf8(e.valid_up_to()))?;
    let text = compact(text)?;
    if !text.starts_with('{') {
        return Err(EntryError::Schema("an entry is a JSON object".to_owned()));
    }
    Ok(text)
}

/// What the node's own fields and the mac take at most: the longest node id and `via`.
const AROUND_BYTES_MAX: usize = 512;

/// What follows a list of flags at the beginning of `text`.
fn skip_flags(text: &str) -> Option<&str> {
    let list = text.strip_prefix(",\"flags\":")?;
    let mut values = serde_json::Deserializer::from_str(list).into_iter::<&serde_json::value::RawValue>();
    values.next()?.ok()?;
    list.get(values.byte_offset()..)
}

/// The fields without `flags`, which are only ever the node's, behind the caller's own.
#[cfg(feature = "api")]
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
    use crate::log::entry::{Stamp, write_body};
    use crate::log::ids::{Generation, NodeId};
    use crate::log::time::Timestamp;

    fn parse(text: &str) -> Result<CallerEntry, EntryError> {
        CallerEntry::parse(text.as_bytes())
    }

    fn stamped(entry: &CallerEntry) -> String {
        let node_id: NodeId = "mx1".parse().expect("a node id");
        let stamp = Stamp {
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
    fn same_content_means_the_callers_fields() {
        let entry = parse(r#"{"category":"auth","action":"auth.login","user":"alice"}"#).expect("an entry");
        let body = stamped(&entry);
        assert!(entry.same_content(&body));
        for other in [
            r#"{"category":"auth","action":"auth.login","user":"bob"}"#,
            r#"{"category":"auth","action":"auth.login"}"#,
            r#"{"category":"auth","action":"auth.login","user":"alice","reason":"x"}"#,
            r#"{"category":"auth","action":"auth.login","user":"alice","redacted":["a"]}"#,
        ] {
            assert!(!parse(other).expect("an entry").same_content(&body), "{other}");
        }
        // Nothing may hide between the caller's fields and the list of redacted paths.
        let long = r#"{"category":"auth","action":"a","description":"d","redacted":["x"]}"#;
        let short = parse(r#"{"category":"auth","action":"a","redacted":["x"]}"#).expect("an entry");
        assert!(!short.same_content(&stamped(&parse(long).expect("an entry"))));
        let flagged = stamped(&short).replace(",\"redacted\"", ",\"flags\":[{\"rule\":\"r\"}],\"redacted\"");
        assert!(short.same_content(&flagged));
        let masked = parse(r#"{"category":"auth","action":"a","redacted":["details.pw"]}"#).expect("an entry");
        assert!(masked.same_content(&stamped(&masked)));
        assert!(!parse(r#"{"category":"auth","action":"a"}"#).expect("an entry").same_content(&stamped(&masked)));
    }

    #[test]
    #[cfg(feature = "api")]
    fn an_entry_stored_under_earlier_rules_of_masking_is_the_same() {
        let entry = |text: &str| parse(text).expect("an entry");
        let earlier = r#"{"category":"auth","action":"a","description":"password=***,S3cr3t x","details":{"secret":"***","n":1.50},"redacted":["description","details.secret"]}"#;
        for later in [
            r#"{"category":"auth","action":"a","description":"password=*** x","details":{"secret":{"secretName":"db"},"n":1.50},"redacted":["description"]}"#,
            r#"{"category":"auth","action":"a","description":"*** x","details":{"secret":"***","n":1.50},"redacted":["description","details.secret"]}"#,
        ] {
            assert!(entry(later).same_content(&stamped(&entry(earlier))), "{later}");
            let flagged =
                stamped(&entry(earlier)).replace(",\"redacted\"", ",\"flags\":[{\"rule\":\"r\"}],\"redacted\"");
            assert!(entry(later).same_content(&flagged), "{later}");
        }
        for other in [
            r#"{"category":"auth","action":"b","description":"password=*** x","details":{"secret":"***","n":1.50}}"#,
            r#"{"category":"auth","action":"a","description":"password=*** y","details":{"secret":"***","n":1.50}}"#,
            r#"{"category":"auth","action":"a","description":"password=*** x","details":{"secret":"***","n":1.5}}"#,
            r#"{"category":"auth","action":"a","description":"password=*** x","details":{"secret":"***"}}"#,
            r#"{"category":"auth","action":"a","description":"password=*** x","details":{}}"#,
        ] {
            assert!(!entry(other).same_content(&stamped(&entry(earlier))), "{other}");
        }
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
