//! The bytes that are signed: writing them, and reading the node's fields back.

use std::fmt::Write as _;

use super::spoken::push_json;
use super::{CallerEntry, EntryError, FORMAT_VERSION, Facts, NODE_CATEGORY};
use crate::log::ids::{EntryId, Generation, NodeId};
use crate::log::limits;
use crate::log::time::Timestamp;

/// The node's own lifecycle entry (`log.*`), built without a caller.
pub fn lifecycle(action: &str, description: &str, details: &serde_json::Value) -> CallerEntry {
    let mut fields = String::new();
    push_json(&mut fields, "category", NODE_CATEGORY);
    push_json(&mut fields, "action", action);
    push_json(&mut fields, "outcome", "success");
    push_json(&mut fields, "description", description);
    push_json(&mut fields, "details", details);
    // Nobody's rules are about what the node says itself.
    CallerEntry { id: None, fields, redacted: String::new(), facts: Facts::default() }
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

/// Writes the bytes that are signed, stored, sent and exported (docs/format.md, "Body"). `flags` is a JSON list of at most
/// [`limits::FLAGS_BYTES_MAX`] bytes, or nothing.
pub fn write_body(stamp: &Stamp<'_>, caller: &CallerEntry, flags: &str) -> Result<String, EntryError> {
    let mut body = String::with_capacity(336 + caller.fields.len() + caller.redacted.len() + flags.len());
    let mut salt = [0; 32];
    let _ = hex::encode_to_slice(stamp.salt, &mut salt);
    // Writing to a String cannot fail.
    let _ = write!(
        body,
        "{{\"v\":{FORMAT_VERSION},\"node_id\":\"{}\",\"generation\":\"{}\",\"seq\":{},\"era\":{},\"salt\":\"{}\",\
         \"timestamp\":\"{}\",\"id\":\"{}\"",
        stamp.node_id,
        stamp.generation,
        stamp.seq,
        stamp.era,
        std::str::from_utf8(&salt).unwrap_or_default(),
        stamp.timestamp,
        stamp.id
    );
    body.push_str(&caller.fields);
    let before_flags = body.len();
    if !flags.is_empty() {
        body.push_str(",\"flags\":");
        body.push_str(flags);
    }
    let flags_bytes = body.len() - before_flags;
    body.push_str(&caller.redacted);
    push_json(&mut body, "via", stamp.via);
    body.push('}');
    // Whether an entry fits does not depend on what the rules say about it.
    let bytes = body.len() - flags_bytes + limits::MAC_BYTES;
    let max = limits::BODY_AND_MAC_BYTES_MAX - limits::FLAGS_BYTES_MAX;
    if bytes > max {
        return Err(EntryError::TooLarge { bytes, max });
    }
    debug_assert!(flags_bytes <= limits::FLAGS_BYTES_MAX, "{flags}");
    Ok(body)
}

/// Bytes of `,"id":"…36…"`.
pub(super) const ID_FIELD_BYTES: usize = 6 + EntryId::TEXT_BYTES + 2;

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
