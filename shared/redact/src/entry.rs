//! Redacts entries and running text.

use std::borrow::Cow;
use std::collections::HashSet;

use super::mask::{MASK, json};
use super::redactor::Redactor;
use super::tree::{Kind, Tree};
use super::walk::{Masked, Walk};
use piperoll_format::entry::{CallerEntry, EntryError};
use piperoll_format::json::compact;
use piperoll_format::limits::{JSON_DEPTH_MAX, REDACTED_COUNT_MAX};

/// Fields that are never redacted: their text matters for verifying, searching or routing, and they cannot contain running text.
const UNTOUCHED: [&str; 7] = ["id", "category", "action", "outcome", "occurred_at", "ip_address", "peer_address"];

impl Redactor {
    /// Parses one JSON object as sent by a caller, and masks all recognized secrets in it.
    ///
    /// # Errors
    /// Returns the same errors as [`CallerEntry::parse`].
    pub fn parse_entry(&self, bytes: &[u8]) -> Result<CallerEntry, EntryError> {
        CallerEntry::parse_with(bytes, |text| self.entry(text))
    }

    /// Masks the secrets in a caller's entry, given as compact JSON, and lists the masked paths in `redacted`. The text of
    /// numbers and the order of keys are kept. Text that is not an object is returned unchanged; [`CallerEntry::parse`] reports
    /// the error.
    pub fn entry<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.trigger.is_match(text) {
            return Cow::Borrowed(text);
        }
        self.looked_at(text)
    }

    /// Masks the secrets as [`Redactor::entry`] does, without testing the trigger pattern first.
    pub(super) fn looked_at<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Ok(tree) = Tree::parse(text, JSON_DEPTH_MAX) else { return Cow::Borrowed(text) };
        if tree.node(0).kind != Kind::Object {
            return Cow::Borrowed(text);
        }
        let mut walk = Walk::new(self);
        let mut members: Vec<(String, String)> = Vec::new();
        let mut named_before: Vec<String> = Vec::new();
        for member in tree.children(0) {
            // `CallerEntry::parse` refuses a key that cannot be read.
            let Some(name) = tree.key(member) else { return Cow::Borrowed(text) };
            let raw = tree.raw(member);
            if name == "redacted" {
                match serde_json::from_str::<Option<Vec<String>>>(raw).map(Option::unwrap_or_default) {
                    Ok(before) => named_before = before,
                    // Not a list of strings: `CallerEntry::parse` reports the error.
                    Err(_) => return Cow::Borrowed(text),
                }
                continue;
            }
            let value = if UNTOUCHED.contains(&name.as_str()) {
                raw.to_owned()
            } else {
                walk.path.clear();
                walk.enter(&name);
                // `details` must remain an object.
                Some(walk.value(&tree, member))
                    .filter(|value| name != "details" || value != "\"***\"")
                    .unwrap_or("{}".to_owned())
            };
            members.push((name, value));
        }
        let mut masked = walk.masked;
        if masked.count == 0 {
            return Cow::Borrowed(text);
        }
        mask_copies(&mut members, &mut masked);
        let mut out = String::with_capacity(text.len());
        out.push('{');
        for (name, value) in &members {
            push_name(&mut out, name);
            out.push_str(value);
        }
        push_name(&mut out, "redacted");
        out.push_str(&json(&together(named_before, masked)));
        out.push('}');
        Cow::Owned(out)
    }

    /// Masks the secrets in running text.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        Walk::new(self).text(text).map_or(Cow::Borrowed(text), Cow::Owned)
    }
}

/// Masks copies of masked secrets elsewhere in the entry. If an entry lists `redacted` paths, none of its other fields may
/// contain one of these secrets.
fn mask_copies(members: &mut [(String, String)], masked: &mut Masked) {
    let secrets = std::mem::take(&mut masked.secrets);
    for secret in &secrets {
        let quoted = json(secret);
        let forms = [quoted[1..quoted.len() - 1].to_owned(), percent_encoded(secret)];
        for (name, value) in members.iter_mut().filter(|(name, _)| !UNTOUCHED.contains(&name.as_str())) {
            for form in &forms {
                if !value.contains(form.as_str()) {
                    continue;
                }
                let copy = replaced(value, form);
                // Masking can make two keys equal, or replace a number by the mask; `compact` refuses both.
                let is_sound = compact(&copy).is_ok_and(|compact| compact.len() <= copy.len());
                if copy != *value && is_sound {
                    *value = copy;
                } else if copy != *value {
                    *value = if name == "details" { "{}".to_owned() } else { "\"***\"".to_owned() };
                }
                masked.add(name, "");
            }
        }
    }
}

/// Replaces every occurrence of a secret with the mask. If an occurrence begins in the middle of an escape, the whole escape is
/// removed.
fn replaced(text: &str, secret: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(secret) {
        let slashes = rest[..at].bytes().rev().take_while(|b| *b == b'\\').count();
        let begin = if slashes % 2 == 1 { at - 1 } else { at };
        out.push_str(&rest[..begin]);
        out.push_str(MASK);
        rest = &rest[at + secret.len()..];
    }
    out.push_str(rest);
    out
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Combines both lists of paths, up to the maximum number that an entry may list.
fn together(mut before: Vec<String>, masked: Masked) -> Vec<String> {
    let known: HashSet<String> = before.iter().cloned().collect();
    before.extend(masked.paths.into_iter().filter(|path| !known.contains(path)));
    if before.len() >= REDACTED_COUNT_MAX {
        before.truncate(REDACTED_COUNT_MAX - 1);
        before.push("and more".to_owned());
    }
    before
}

fn push_name(out: &mut String, name: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push_str(&json(name));
    out.push(':');
}
