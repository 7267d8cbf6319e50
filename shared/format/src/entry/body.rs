//! Writes the signed bytes of an entry.

use std::fmt::Write as _;

use super::caller::CallerEntry;
use super::caller_fields::push_json;
use super::rule_input::RuleInput;
use super::terms::{EntryError, FORMAT_VERSION, NODE_CATEGORY};
use crate::ids::{EntryId, Generation, NodeId};
use crate::limits;
use crate::time::Timestamp;

/// Builds one of the node's own lifecycle entries (`log.*`), which have no caller.
pub fn lifecycle(action: &str, description: &str, details: &serde_json::Value) -> CallerEntry {
    let mut fields = String::new();
    push_json(&mut fields, "category", NODE_CATEGORY);
    push_json(&mut fields, "action", action);
    push_json(&mut fields, "outcome", "success");
    push_json(&mut fields, "description", description);
    push_json(&mut fields, "details", details);
    // Detection rules do not apply to the node's own entries.
    CallerEntry { id: None, fields, redacted: String::new(), rule_input: RuleInput::default() }
}

/// The node's own fields of a body.
#[derive(Debug, Clone, Copy)]
pub struct NodeFields<'a> {
    pub node_id: &'a NodeId,
    pub generation: &'a Generation,
    pub seq: u64,
    pub era: u32,
    /// Random bytes that prevent guessing the content of an erased or withheld row from its leaf.
    pub salt: [u8; 16],
    pub timestamp: Timestamp,
    pub id: EntryId,
    /// How the entry arrived, for example `socket uid=1000`; contains no quotes or control characters.
    pub via: &'a str,
}

/// Writes the bytes that are signed, stored, sent and exported (docs/format.md, "Body"). `flags` is a JSON list of at most
/// [`limits::FLAGS_BYTES_MAX`] bytes, or empty.
pub fn write_body(stamp: &NodeFields<'_>, caller: &CallerEntry, flags: &str) -> Result<String, EntryError> {
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
    // The size limit must not depend on the flags, so they are not counted.
    let bytes = body.len() - flags_bytes + limits::MAC_BYTES;
    let max = limits::BODY_AND_MAC_BYTES_MAX - limits::FLAGS_BYTES_MAX;
    if bytes > max {
        return Err(EntryError::TooLarge { bytes, max });
    }
    debug_assert!(flags_bytes <= limits::FLAGS_BYTES_MAX, "{flags}");
    Ok(body)
}
