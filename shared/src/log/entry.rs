//! One entry: what a caller may say, what the node adds, and the exact bytes that are signed.
//!
//! The body is written once. Everything after that reads the stored bytes; nobody re-serialises them.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ids::{EntryId, Generation, NodeId};
use super::json::{JsonError, compact};
use super::limits;
use super::time::Timestamp;

/// Version of the body format, the field `v`.
pub const FORMAT_VERSION: u8 = 1;
/// Category of the node's own lifecycle entries; a caller who uses it is refused.
pub const NODE_CATEGORY: &str = "log";
/// The categories a caller may use.
pub const CATEGORIES: [&str; 8] = ["auth", "user", "config", "data", "cluster", "security", "integration", "audit"];
pub const OUTCOMES: [&str; 4] = ["success", "failure", "denied", "unknown"];

/// Fields that only the node writes; naming one is a caller's mistake worth its own words.
const NODE_FIELDS: [&str; 9] = ["v", "node_id", "generation", "seq", "era", "salt", "timestamp", "flags", "via"];

/// Why a caller's entry was refused. Nothing of it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("the entry is not valid JSON: {0}")]
    Json(#[from] JsonError),
    #[error("the entry is not valid UTF-8 from byte {0} on")]
    Utf8(usize),
    #[error("the entry does not fit the schema: {0}")]
    Schema(String),
    #[error("field `{0}` is set by the node; leave it out")]
    NodeField(&'static str),
    #[error("field `{field}`: {problem}")]
    Field { field: &'static str, problem: String },
    #[error("the entry is {bytes} bytes, more than the {max} that fit; shorten `details` or `changes`")]
    TooLarge { bytes: usize, max: usize },
    #[error("category `log` and actions `log.*` are written by the node itself only; use another category and action")]
    Reserved,
}

impl EntryError {
    /// Refused for what it tries, not for how it is written.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Reserved)
    }

    fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field { field, problem: problem.into() }
    }
}

/// A caller's entry after every check, as the text that goes into the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerEntry {
    /// The caller's idempotency key; the node makes one when absent.
    pub id: Option<EntryId>,
    /// `,"user":"alice",…,"details":{…}`: the caller's fields in the format's order.
    fields: String,
    /// `,"redacted":[…]` or nothing; stands behind `flags` in a body.
    redacted: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spoken<'a> {
    id: Option<EntryId>,
    #[serde(borrow)]
    occurred_at: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    impersonator: Option<Cow<'a, str>>,
    #[serde(borrow)]
    session: Option<Cow<'a, str>>,
    #[serde(borrow)]
    auth_method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    credential: Option<Cow<'a, str>>,
    #[serde(borrow)]
    category: Option<Cow<'a, str>>,
    #[serde(borrow)]
    action: Option<Cow<'a, str>>,
    #[serde(borrow)]
    outcome: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    entity_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    entity_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    entity_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    target: Option<Cow<'a, str>>,
    #[serde(borrow)]
    domain: Option<Cow<'a, str>>,
    #[serde(borrow)]
    ip_address: Option<Cow<'a, str>>,
    #[serde(borrow)]
    peer_address: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user_agent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow)]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    description: Option<Cow<'a, str>>,
    #[serde(borrow)]
    changes: Option<&'a RawValue>,
    #[serde(borrow)]
    details: Option<&'a RawValue>,
    redacted: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change<'a> {
    #[serde(borrow)]
    #[expect(dead_code, reason = "only its presence and type are checked; the text is kept as given")]
    field: Cow<'a, str>,
    #[serde(borrow)]
    #[expect(dead_code, reason = "only its presence is allowed; the text is kept as given")]
    old: Option<&'a RawValue>,
    #[serde(borrow)]
    #[expect(dead_code, reason = "only its presence is allowed; the text is kept as given")]
    new: Option<&'a RawValue>,
}

impl CallerEntry {
    /// Reads one JSON object as a caller sends it.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > limits::CALLER_ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge { bytes: bytes.len(), max: limits::CALLER_ENTRY_BYTES_MAX });
        }
        let text = std::str::from_utf8(bytes).map_err(|e| EntryError::Utf8(e.valid_up_to()))?;
        let text = compact(text)?;
        if !text.starts_with('{') {
            return Err(EntryError::Schema("an entry is a JSON object".to_owned()));
        }
        let spoken: Spoken<'_> = serde_json::from_str(&text).map_err(|e| schema_error(&e))?;
        spoken.check()?;
        let mut fields = String::with_capacity(text.len());
        spoken.write_fields(&mut fields);
        let mut redacted = String::new();
        if let Some(paths) = spoken.redacted.as_ref().filter(|paths| !paths.is_empty()) {
            push_json(&mut redacted, "redacted", paths);
        }
        Ok(Self { id: spoken.id, fields, redacted })
    }

    /// Whether `body`, an entry already stored under the same id, holds the same caller's fields.
    pub fn same_content(&self, body: &str) -> bool {
        let Some(prefix) = Prefix::parse(body.as_bytes()) else { return false };
        let Some(after_id) = body.get(prefix.len + ID_FIELD_BYTES..) else { return false };
        let Some(mut rest) = after_id.strip_prefix(self.fields.as_str()) else { return false };
        if !self.redacted.is_empty() {
            // `flags` may stand between; what they say is the node's, not the caller's.
            let Some(at) = rest.rfind(self.redacted.as_str()) else { return false };
            rest = &rest[at + self.redacted.len()..];
        } else if !rest.starts_with(",\"flags\":") && !rest.starts_with(",\"via\":") {
            return false;
        }
        rest.starts_with(",\"via\":") || rest.starts_with(",\"flags\":")
    }
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

fn check_text(field: &'static str, value: Option<&str>, max: usize, one_line: bool) -> Result<(), EntryError> {
    let Some(value) = value else { return Ok(()) };
    if value.len() > max {
        return Err(EntryError::field(field, format!("{} bytes, more than the {max} that fit", value.len())));
    }
    if one_line && value.is_empty() {
        return Err(EntryError::field(field, "it is empty; leave it out instead"));
    }
    if one_line && let Some(bad) = value.chars().find(|c| c.is_control()) {
        return Err(EntryError::field(
            field,
            format!("control character U+{:04X} is not allowed here", u32::from(bad)),
        ));
    }
    Ok(())
}

impl Spoken<'_> {
    fn check(&self) -> Result<(), EntryError> {
        let id_max = limits::IDENTIFIER_BYTES_MAX;
        for (field, value, max) in [
            ("user", &self.user, id_max),
            ("user_type", &self.user_type, limits::SHORT_WORD_BYTES_MAX),
            ("impersonator", &self.impersonator, id_max),
            ("session", &self.session, id_max),
            ("auth_method", &self.auth_method, limits::SHORT_WORD_BYTES_MAX),
            ("credential", &self.credential, id_max),
            ("category", &self.category, limits::SHORT_WORD_BYTES_MAX),
            ("action", &self.action, limits::ACTION_BYTES_MAX),
            ("outcome", &self.outcome, limits::SHORT_WORD_BYTES_MAX),
            ("reason", &self.reason, limits::ACTION_BYTES_MAX),
            ("entity_type", &self.entity_type, limits::SHORT_WORD_BYTES_MAX),
            ("entity_id", &self.entity_id, limits::ENTITY_BYTES_MAX),
            ("entity_name", &self.entity_name, limits::ENTITY_BYTES_MAX),
            ("target", &self.target, limits::TARGET_BYTES_MAX),
            ("domain", &self.domain, limits::DOMAIN_BYTES_MAX),
            ("ip_address", &self.ip_address, limits::ADDRESS_BYTES_MAX),
            ("peer_address", &self.peer_address, limits::ADDRESS_BYTES_MAX),
            ("method", &self.method, limits::METHOD_BYTES_MAX),
            ("request_id", &self.request_id, id_max),
        ] {
            check_text(field, value.as_deref(), max, true)?;
        }
        for (field, value) in
            [("user_agent", &self.user_agent), ("path", &self.path), ("description", &self.description)]
        {
            check_text(field, value.as_deref(), limits::LONG_TEXT_BYTES_MAX, false)?;
        }
        self.check_words()?;
        self.check_objects()
    }

    fn check_words(&self) -> Result<(), EntryError> {
        let Some(action) = self.action.as_deref() else {
            return Err(EntryError::field("action", "it is required, for example \"auth.login\""));
        };
        let Some(category) = self.category.as_deref() else {
            return Err(EntryError::field("category", format!("it is required, one of {}", CATEGORIES.join(", "))));
        };
        if category == NODE_CATEGORY || action == "log" || action.starts_with("log.") {
            return Err(EntryError::Reserved);
        }
        if !CATEGORIES.contains(&category) {
            return Err(EntryError::field("category", format!("{category:?} is not one of {}", CATEGORIES.join(", "))));
        }
        if !action.chars().all(|c| c.is_ascii_alphanumeric() || "._-:/".contains(c)) {
            return Err(EntryError::field(
                "action",
                "use letters, digits and . _ - : /, verb last, such as \"quarantine.release\"",
            ));
        }
        if let Some(outcome) = self.outcome.as_deref()
            && !OUTCOMES.contains(&outcome)
        {
            return Err(EntryError::field("outcome", format!("{outcome:?} is not one of {}", OUTCOMES.join(", "))));
        }
        if let Some(time) = self.occurred_at.as_deref() {
            Timestamp::parse_rfc3339(time).map_err(|e| EntryError::field("occurred_at", e.to_string()))?;
            check_text("occurred_at", Some(time), limits::SHORT_WORD_BYTES_MAX, true)?;
        }
        Ok(())
    }

    fn check_objects(&self) -> Result<(), EntryError> {
        if let Some(changes) = self.changes {
            let list: Vec<Change<'_>> = serde_json::from_str(changes.get()).map_err(|e| {
                EntryError::field("changes", format!("it must be a list of {{\"field\",\"old\",\"new\"}}: {e}"))
            })?;
            if list.len() > limits::CHANGES_COUNT_MAX {
                return Err(EntryError::field("changes", format!("more than {} changes", limits::CHANGES_COUNT_MAX)));
            }
        }
        if self.details.is_some_and(|details| !details.get().starts_with('{')) {
            return Err(EntryError::field("details", "it must be a JSON object"));
        }
        if self.redacted.as_ref().is_some_and(|paths| paths.len() > limits::REDACTED_COUNT_MAX) {
            return Err(EntryError::field("redacted", format!("more than {} paths", limits::REDACTED_COUNT_MAX)));
        }
        Ok(())
    }

    fn write_fields(&self, out: &mut String) {
        for (field, value) in [
            ("occurred_at", &self.occurred_at),
            ("user", &self.user),
            ("user_type", &self.user_type),
            ("impersonator", &self.impersonator),
            ("session", &self.session),
            ("auth_method", &self.auth_method),
            ("credential", &self.credential),
            ("category", &self.category),
            ("action", &self.action),
            ("outcome", &self.outcome),
            ("reason", &self.reason),
            ("entity_type", &self.entity_type),
            ("entity_id", &self.entity_id),
            ("entity_name", &self.entity_name),
            ("target", &self.target),
            ("domain", &self.domain),
            ("ip_address", &self.ip_address),
            ("peer_address", &self.peer_address),
            ("user_agent", &self.user_agent),
            ("method", &self.method),
            ("path", &self.path),
            ("request_id", &self.request_id),
            ("description", &self.description),
        ] {
            if let Some(value) = value {
                push_json(out, field, value);
            }
        }
        for (field, value) in [("changes", self.changes), ("details", self.details)] {
            if let Some(value) = value {
                push_json(out, field, value);
            }
        }
    }
}

fn push_json<T: serde::Serialize + ?Sized>(out: &mut String, field: &str, value: &T) {
    // Strings, lists of strings and raw values cannot fail to serialise.
    let text = serde_json::to_string(value).unwrap_or_default();
    out.push_str(",\"");
    out.push_str(field);
    out.push_str("\":");
    out.push_str(&text);
}

/// The node's own lifecycle entry (`log.*`), built without a caller.
pub fn lifecycle(action: &str, description: &str, details: &serde_json::Value) -> CallerEntry {
    let mut fields = String::new();
    push_json(&mut fields, "category", NODE_CATEGORY);
    push_json(&mut fields, "action", action);
    push_json(&mut fields, "outcome", "success");
    push_json(&mut fields, "description", description);
    push_json(&mut fields, "details", details);
    CallerEntry { id: None, fields, redacted: String::new() }
}

/// What the node knows when it writes a body.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    pub node_id: &'a NodeId,
    pub generation: &'a Generation,
    pub seq: u64,
    pub era: u32,
    /// Keeps the leaf of an erased or withheld row from being guessed.
    pub salt: [u8; 16],
    pub timestamp: Timestamp,
    pub id: EntryId,
    /// How the entry arrived, for example `socket uid=1000`; no quotes or control characters.
    pub via: &'a str,
}

/// Writes the bytes that are signed, stored, sent and exported (docs/format.md, "Body").
pub fn write_body(stamp: &Stamp<'_>, caller: &CallerEntry) -> Result<String, EntryError> {
    let mut body = String::with_capacity(256 + caller.fields.len() + caller.redacted.len());
    // Writing to a String cannot fail.
    let _ = write!(
        body,
        "{{\"v\":{FORMAT_VERSION},\"node_id\":\"{}\",\"generation\":\"{}\",\"seq\":{},\"era\":{},\"salt\":\"{}\",\
         \"timestamp\":\"{}\",\"id\":\"{}\"",
        stamp.node_id,
        stamp.generation,
        stamp.seq,
        stamp.era,
        hex::encode(stamp.salt),
        stamp.timestamp,
        stamp.id
    );
    body.push_str(&caller.fields);
    body.push_str(&caller.redacted);
    push_json(&mut body, "via", stamp.via);
    body.push('}');
    let bytes = body.len() + limits::MAC_BYTES;
    if bytes > limits::BODY_AND_MAC_BYTES_MAX {
        return Err(EntryError::TooLarge { bytes, max: limits::BODY_AND_MAC_BYTES_MAX });
    }
    Ok(body)
}

/// Bytes of `,"id":"…36…"`.
const ID_FIELD_BYTES: usize = 6 + EntryId::TEXT_BYTES + 2;

/// The node's fields at the beginning of a body, read without parsing the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix<'a> {
    pub node_id: &'a str,
    pub generation: &'a str,
    pub seq: u64,
    pub era: u32,
    pub timestamp: Timestamp,
    pub id: EntryId,
    /// Bytes up to and including the quote that closes `timestamp`.
    pub len: usize,
}

impl<'a> Prefix<'a> {
    /// Accepts exactly what [`write_body`] writes; `None` for anything else.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let mut rest = body;
        take(&mut rest, b"{\"v\":1,\"node_id\":\"")?;
        let node_id = take_until_quote(&mut rest)?;
        take(&mut rest, b",\"generation\":\"")?;
        let generation = take_until_quote(&mut rest)?;
        take(&mut rest, b",\"seq\":")?;
        let seq = take_number(&mut rest)?;
        take(&mut rest, b",\"era\":")?;
        let era = u32::try_from(take_number(&mut rest)?).ok()?;
        take(&mut rest, b",\"salt\":\"")?;
        let salt = take_until_quote(&mut rest)?;
        take(&mut rest, b",\"timestamp\":\"")?;
        let timestamp = Timestamp::parse_exact(take_until_quote(&mut rest)?.as_bytes())?;
        let len = body.len() - rest.len();
        take(&mut rest, b",\"id\":\"")?;
        let id = take_until_quote(&mut rest)?.parse().ok()?;
        (salt.len() == 32 && generation.len() == Generation::TEXT_BYTES).then_some(Self {
            node_id,
            generation,
            seq,
            era,
            timestamp,
            id,
            len,
        })
    }
}

fn take(rest: &mut &[u8], expected: &[u8]) -> Option<()> {
    *rest = rest.strip_prefix(expected)?;
    Some(())
}

fn take_until_quote<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = rest.iter().take(128).position(|b| *b == b'"')?;
    let text = std::str::from_utf8(&rest[..end]).ok()?;
    *rest = &rest[end + 1..];
    Some(text)
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let digits = rest.iter().take(20).take_while(|b| b.is_ascii_digit()).count();
    let text = std::str::from_utf8(&rest[..digits]).ok()?;
    if digits > 1 && text.starts_with('0') {
        return None;
    }
    *rest = &rest[digits..];
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        write_body(&stamp, entry).expect("a body")
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
        let masked = parse(r#"{"category":"auth","action":"a","redacted":["details.pw"]}"#).expect("an entry");
        assert!(masked.same_content(&stamped(&masked)));
        assert!(!parse(r#"{"category":"auth","action":"a"}"#).expect("an entry").same_content(&stamped(&masked)));
    }

    #[test]
    fn refusals_name_the_field() {
        let long = format!(r#"{{"category":"auth","action":"a","user":"{}"}}"#, "u".repeat(257));
        for (text, part) in [
            (r#"{"category":"auth"}"#, "`action`"),
            (r#"{"action":"auth.login"}"#, "`category`"),
            (r#"{"category":"nope","action":"a"}"#, "`category`"),
            (r#"{"category":"auth","action":"a b"}"#, "`action`"),
            (r#"{"category":"auth","action":"a","seq":1}"#, "`seq`"),
            (r#"{"category":"auth","action":"a","usr":"x"}"#, "`usr`"),
            (r#"{"category":"auth","action":"a","user":"x\u0000y"}"#, "`user`"),
            (r#"{"category":"auth","action":"a","outcome":"fine"}"#, "`outcome`"),
            (r#"{"category":"auth","action":"a","occurred_at":"today"}"#, "`occurred_at`"),
            (r#"{"category":"auth","action":"a","details":[1]}"#, "`details`"),
            (r#"{"category":"auth","action":"a","changes":[{"old":1}]}"#, "`changes`"),
            (r#"{"category":"auth","action":"a","id":"7"}"#, "UUID"),
            (&long, "`user`"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!(parse(r#"{"category":"log","action":"a"}"#), Err(EntryError::Reserved));
        assert_eq!(parse(r#"{"category":"auth","action":"log.started"}"#), Err(EntryError::Reserved));
        assert!(matches!(CallerEntry::parse(b"{\"user\":\"\xff\"}"), Err(EntryError::Utf8(9))));
    }
}
