//! Decides which bytes are a valid entry: those that [`super::write_body`] can write, with or without additional fields of a
//! later version.

use std::borrow::Cow;

use super::prefix::Prefix;
use crate::limits::{BODY_AND_MAC_BYTES_MAX, JSON_DEPTH_MAX, MAC_BYTES};

/// Fields that the node writes and whose value is a string.
const NODE_TEXTS: [&str; 4] = ["node_id", "generation", "salt", "timestamp"];
/// Fields that a caller may set and whose value is a string, in the order of the format.
pub const CALLER_TEXTS: [&str; 24] = [
    "id",
    "occurred_at",
    "user",
    "user_type",
    "impersonator",
    "session",
    "auth_method",
    "credential",
    "category",
    "action",
    "outcome",
    "reason",
    "entity_type",
    "entity_id",
    "entity_name",
    "target",
    "domain",
    "ip_address",
    "peer_address",
    "user_agent",
    "method",
    "path",
    "request_id",
    "description",
];
/// Objects with up to this many keys are checked for duplicates by comparing the keys pairwise; the keys of larger objects are
/// sorted.
const KEYS_COMPARED_MAX: usize = 24;

/// Message for bytes that have a valid mac but are not one entry.
pub const NOT_ONE_ENTRY: &str = "the sealed bytes are not one entry on one line";

/// Returns whether bytes are exactly one entry: one JSON object on one line without insignificant white space, which begins with
/// the prefix of the format, has no duplicate key at any depth, and whose fields have the types of the format. Additional fields
/// of a later version are allowed. A holder of the node's secret can seal arbitrary other bytes. They must not be accepted as a
/// row, because they could end a line, an answer or an object early and begin another one.
pub fn is_one_entry(body: &[u8]) -> bool {
    body.len() + MAC_BYTES <= BODY_AND_MAC_BYTES_MAX && Prefix::parse(body).is_some() && is_one_object(body)
}

/// Like [`is_one_entry`], but without checking the prefix and the length. Returns whether the bytes can be embedded as a JSON
/// value in a line without affecting the surrounding text, and whether every parser reads them as the same value.
pub fn is_one_object(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    if !text.starts_with('{') {
        return false;
    }
    let mut reader = Reader { text, bytes: body, at: 0 };
    reader.read().is_some() && reader.at == body.len()
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

/// An open object or list: for an object, the index of its first key in the list of all keys; `None` for a list.
type OpenContainer = Option<usize>;

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Reads one value without recursion. Returns `None` if the value is not strict JSON without white space.
    fn read(&mut self) -> Option<()> {
        let mut open: Vec<OpenContainer> = Vec::with_capacity(JSON_DEPTH_MAX);
        let mut keys: Vec<Cow<'a, str>> = Vec::with_capacity(32);
        loop {
            let mut must_be_text = false;
            let mut shape = None;
            if let Some(Some(first)) = open.last() {
                let key = self.string()?;
                self.take(b':')?;
                if open.len() == 1 {
                    must_be_text = NODE_TEXTS.contains(&key.as_ref()) || CALLER_TEXTS.contains(&key.as_ref());
                    shape = match key.as_ref() {
                        "details" => Some(b'{'),
                        "changes" | "flags" | "redacted" => Some(b'['),
                        "via" => Some(b'"'),
                        _ => None,
                    };
                }
                if keys.len() - first < KEYS_COMPARED_MAX && keys[*first..].contains(&key) {
                    return None;
                }
                keys.push(key);
            }
            let begin = self.peek()?;
            if must_be_text && begin != b'"' || shape.is_some_and(|shape| shape != begin) {
                return None;
            }
            match begin {
                b'{' | b'[' => {
                    if open.len() >= JSON_DEPTH_MAX {
                        return None;
                    }
                    self.at += 1;
                    let is_object = begin == b'{';
                    if self.take(if is_object { b'}' } else { b']' }).is_none() {
                        open.push(is_object.then_some(keys.len()));
                        continue;
                    }
                }
                b'"' => drop(self.string()?),
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                _ => self.number()?,
            }
            // Close the objects and lists that end after this value.
            loop {
                let Some(of) = open.last().copied() else { return Some(()) };
                if self.take(b',').is_some() {
                    break;
                }
                self.take(if of.is_some() { b'}' } else { b']' })?;
                if let Some(first) = of {
                    if keys.len() - first > KEYS_COMPARED_MAX {
                        keys[first..].sort_unstable();
                        if keys[first..].windows(2).any(|pair| pair[0] == pair[1]) {
                            return None;
                        }
                    }
                    keys.truncate(first);
                }
                open.pop();
            }
        }
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at;
        self.take(b'"')?;
        let mut escaped = false;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                0..=0x1f => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        let source = self.text.get(start..self.at)?;
        if escaped {
            // serde_json validates the escapes, including lone surrogates.
            return serde_json::from_str::<String>(source).ok().map(Cow::Owned);
        }
        Some(Cow::Borrowed(&source[1..source.len() - 1]))
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text.get(self.at..)?.starts_with(word).then(|| self.at += word.len())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::compact;
    use proptest::prelude::*;

    #[test]
    fn one_object_on_one_line_without_a_key_twice() {
        for good in [
            "{}",
            r#"{"a":1,"b":[{"a":2},{"a":3}]}"#,
            r#"{"user":"x","further":{"of":["a","later",1.5e3,null]}}"#,
            r#"{"details":{},"changes":[]}"#,
        ] {
            assert!(is_one_object(good.as_bytes()), "{good}");
        }
        let many: Vec<String> = (0..100).map(|n| format!("\"k{n}\":1")).collect();
        assert!(is_one_object(format!("{{{}}}", many.join(",")).as_bytes()));
        assert!(!is_one_object(format!("{{{},\"k3\":2}}", many.join(",")).as_bytes()));
        for bad in [
            "",
            "[]",
            "{} ",
            "{\"a\": 1}",
            "{\"a\":1}\n{}",
            "{\"a\":1},{}",
            "{\"a\":\"x\ny\"}",
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"d":{"a":1,"a":2}}"#,
            r#"{"user":1}"#,
            r#"{"user":null}"#,
            r#"{"details":[]}"#,
            r#"{"changes":{}}"#,
            r#"{"a":01}"#,
            r#"{"a":"\ud800"}"#,
        ] {
            assert!(!is_one_object(bad.as_bytes()), "{bad}");
        }
        assert!(!is_one_object(b"{\"a\":\"\xff\"}"));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(!is_one_object(deep.as_bytes()));
    }

    proptest! {
        /// `is_one_object` accepts exactly the JSON that `compact` accepts from callers and leaves unchanged.
        #[test]
        fn agrees_with_what_is_recorded(inner in "[\\[\\]{}:,\" \\\\0-9a-eE.+\\-tnul]{0,24}") {
            let text = format!("{{\"x\":{inner}}}");
            let recorded = compact(&text).is_ok_and(|compact| compact == text);
            prop_assert_eq!(is_one_object(text.as_bytes()), recorded, "{}", text);
        }
    }
}
