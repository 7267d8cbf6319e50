//! Parses the node's fields at the beginning of a body.

use crate::ids::{EntryId, Generation};
use crate::time::Timestamp;

/// Bytes of `,"id":"…36…"`.
pub(super) const ID_FIELD_BYTES: usize = 6 + EntryId::TEXT_BYTES + 2;

/// The node's fields at the beginning of a body, parsed without the rest of the body.
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
    /// Accepts exactly the form that [`super::write_body`] writes; returns `None` for anything else.
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
