//! Secrets in what a caller says: found by the names they stand under and by how they look, and masked before anything is
//! signed, kept or sent (docs/recording.md, "Secrets").

mod names;
mod texts;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use regex::{Regex, RegexBuilder};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::limits::REDACTED_COUNT_MAX;
use names::{Kind, Names};
use texts::Texts;

/// What stands where a secret stood.
pub const MASK: &str = "***";

/// The only key of the object that stands for a value marked as secret by the application; never recorded, always masked.
pub const MARK: &str = "$piperoll_secret";

/// Memory of the pattern that says whether an entry is worth a closer look; own names make it larger.
const TRIGGER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Fields whose text has a meaning for verifying, searching or routing, and cannot hold running text.
const UNTOUCHED: [&str; 7] = ["id", "category", "action", "outcome", "occurred_at", "ip_address", "peer_address"];

/// A name that would hide everything, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name of a secret: write a key such as \"ssn\" or \"card_*\"")]
pub struct BadName(String);

/// Finds secrets and masks them.
#[derive(Debug, Clone)]
pub struct Redactor {
    /// Fits every entry without escapes that could hold something, and few others.
    trigger: Regex,
    names: Names,
    texts: Texts,
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new(&[]).expect("no name of its own")
    }
}

impl Redactor {
    /// The built-in names and looks, and `more` names, in which `*` stands for anything.
    pub fn new(more: &[String]) -> Result<Self, BadName> {
        let trigger = format!("(?i){}|piperoll_secret", Texts::loose(more));
        let trigger =
            RegexBuilder::new(&trigger).size_limit(TRIGGER_BYTES_MAX).build().map_err(|_| BadName(more.join(", ")))?;
        Ok(Self { trigger, names: Names::new(more)?, texts: Texts::new() })
    }

    /// The one without names of its own; made once.
    pub fn shared() -> &'static Self {
        static SHARED: std::sync::LazyLock<Redactor> = std::sync::LazyLock::new(Redactor::default);
        &SHARED
    }

    /// A caller's entry, compact JSON text, without its secrets; what was masked is named in `redacted`. Number text and the
    /// order of keys stay. Text that is no object comes back as it is; whoever parses it says what is wrong.
    pub fn entry<'a>(&self, text: &'a str) -> Cow<'a, str> {
        // Behind an escape anything can hide.
        if !text.contains('\\') && !self.trigger.is_match(text) {
            return Cow::Borrowed(text);
        }
        self.looked_at(text)
    }

    /// The same, without asking first whether it is worth it.
    fn looked_at<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Ok(members) = serde_json::from_str::<Members<'_>>(text) else { return Cow::Borrowed(text) };
        let mut walk = Walk { redactor: self, path: String::new(), masked: Masked::default(), depth: 0 };
        let mut out = String::with_capacity(text.len());
        out.push('{');
        let mut named_before: Vec<String> = Vec::new();
        for (name, value) in &members.0 {
            if name == "redacted" {
                match serde_json::from_str::<Option<Vec<String>>>(value.get()).map(Option::unwrap_or_default) {
                    Ok(before) => named_before = before,
                    // Not a list of texts: said by whoever parses the entry.
                    Err(_) => return Cow::Borrowed(text),
                }
                continue;
            }
            push_name(&mut out, name);
            if UNTOUCHED.contains(&name.as_ref()) {
                out.push_str(value.get());
            } else {
                walk.below(name, |walk| {
                    let before = out.len();
                    walk.value(value.get(), &mut out);
                    // What must be an object stays one.
                    if name == "details" && out.get(before..) == Some("\"***\"") {
                        out.replace_range(before.., "{}");
                    }
                });
            }
        }
        let masked = walk.masked;
        if masked.count == 0 {
            return Cow::Borrowed(text);
        }
        push_name(&mut out, "redacted");
        out.push_str(&json(&together(named_before, masked)));
        out.push('}');
        Cow::Owned(out)
    }

    /// Running text without its secrets.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.texts.mask(text)
    }

    /// Whether a value under this name is a secret.
    pub fn is_secret_name(&self, name: &str) -> bool {
        self.names.stands_for_secret(name)
    }
}

/// Bytes of one path; a longer one is cut, so that naming what was masked never takes more than a little room.
const PATH_BYTES_MAX: usize = 128;
/// JSON inside of JSON texts that is looked into.
const TEXTS_DEPTH_MAX: usize = 3;

/// The paths of what was masked, each once and in order; what is over their limit is counted.
#[derive(Default)]
struct Masked {
    paths: Vec<String>,
    known: HashSet<String>,
    count: usize,
}

impl Masked {
    fn add(&mut self, path: &str) {
        self.count += 1;
        let mut end = PATH_BYTES_MAX.min(path.len());
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        if self.paths.len() < REDACTED_COUNT_MAX && self.known.insert(path[..end].to_owned()) {
            self.paths.push(path[..end].to_owned());
        }
    }
}

/// At most as many paths as an entry may name.
fn together(mut before: Vec<String>, masked: Masked) -> Vec<String> {
    let known: HashSet<String> = before.iter().cloned().collect();
    before.extend(masked.paths.into_iter().filter(|path| !known.contains(path)));
    if before.len() >= REDACTED_COUNT_MAX {
        before.truncate(REDACTED_COUNT_MAX - 1);
        before.push("and more".to_owned());
    }
    before
}

struct Walk<'r> {
    redactor: &'r Redactor,
    path: String,
    masked: Masked,
    /// Texts inside texts.
    depth: usize,
}

impl Walk<'_> {
    fn below<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        // No more of it is ever shown.
        self.path.extend(name.chars().take(PATH_BYTES_MAX));
        let done = work(self);
        self.path.truncate(before);
        done
    }

    fn mask(&mut self, out: &mut String) {
        self.masked.add(&self.path);
        out.push_str("\"***\"");
    }

    fn value(&mut self, raw: &str, out: &mut String) {
        match raw.as_bytes().first() {
            Some(b'{') => self.object(raw, out),
            Some(b'[') => self.array(raw, out),
            Some(b'"') => self.string(raw, out),
            _ => out.push_str(raw),
        }
    }

    fn object(&mut self, raw: &str, out: &mut String) {
        let Ok(members) = serde_json::from_str::<Members<'_>>(raw) else {
            // It was valid as a part of the whole; nothing that cannot be read may pass unread.
            return self.mask(out);
        };
        if members.0.iter().any(|(name, _)| name == MARK) {
            return self.mask(out);
        }
        // `{"field":"password","old":…,"new":…}` and `{"name":"Authorization","value":…}` name the secret beside it.
        let subject = members.0.iter().find_map(|(name, value)| {
            let is_label = LABELS.iter().any(|label| name.eq_ignore_ascii_case(label));
            let label = is_label.then(|| serde_json::from_str::<String>(value.get()).ok()).flatten()?;
            self.redactor.names.stands_for_secret(&label).then_some(label)
        });
        out.push('{');
        for (name, value) in &members.0 {
            push_name(out, name);
            let beside = LABELLED.iter().any(|labelled| name.eq_ignore_ascii_case(labelled));
            if let Some(label) = subject.as_deref().filter(|_| beside) {
                // One path for old and new: `changes.password`.
                self.below(label, |walk| walk.secret(label, value.get(), out));
            } else if self.redactor.names.stands_for_secret(name) {
                self.below(name, |walk| walk.secret(name, value.get(), out));
            } else {
                self.below(name, |walk| walk.value(value.get(), out));
            }
        }
        out.push('}');
    }

    /// A value under the name of a secret. That there is none, or whether there is one, is no secret.
    fn secret(&mut self, name: &str, raw: &str, out: &mut String) {
        let is_number = raw.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        let is_count = is_number && self.redactor.names.kind(name) == Kind::Plural;
        let is_folder = name.eq_ignore_ascii_case("pwd") && (raw.starts_with("\"/") || raw.starts_with("\"~"));
        if is_count || is_folder || matches!(raw, "null" | "true" | "false" | "\"\"" | "[]" | "{}" | "\"***\"") {
            out.push_str(raw);
        } else {
            self.mask(out);
        }
    }

    fn array(&mut self, raw: &str, out: &mut String) {
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw) else { return self.mask(out) };
        // A header as a pair.
        if let [name, value] = items.as_slice()
            && let Ok(name) = serde_json::from_str::<String>(name.get())
            && HEADERS.iter().any(|header| name.eq_ignore_ascii_case(header))
        {
            out.push_str(&format!("[{},", json(&name)));
            self.below(&name, |walk| walk.secret(&name, value.get(), out));
            out.push(']');
            return;
        }
        out.push('[');
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            self.value(item.get(), out);
        }
        out.push(']');
    }

    fn string(&mut self, raw: &str, out: &mut String) {
        let Ok(text) = serde_json::from_str::<Cow<'_, str>>(raw) else { return self.mask(out) };
        match self.text(&text) {
            // As it was written, escapes included.
            None => out.push_str(raw),
            Some(masked) => out.push_str(&json(&masked)),
        }
    }

    /// Running text, or JSON as a text; nothing when there is nothing to mask.
    fn text(&mut self, text: &str) -> Option<String> {
        let trimmed = text.trim();
        if self.depth < TEXTS_DEPTH_MAX
            && trimmed.starts_with(['{', '['])
            && serde_json::from_str::<&RawValue>(trimmed).is_ok()
        {
            let (before, mut inside) = (self.masked.count, String::with_capacity(text.len()));
            self.depth += 1;
            self.value(trimmed, &mut inside);
            self.depth -= 1;
            return (self.masked.count > before).then_some(inside);
        }
        match self.redactor.texts.mask(text) {
            Cow::Borrowed(_) => None,
            Cow::Owned(masked) => {
                self.masked.add(&self.path);
                Some(masked)
            }
        }
    }
}

/// Keys whose text names what stands beside them, and keys that it stands under.
const LABELS: [&str; 8] = ["field", "name", "key", "header", "header_name", "property", "attribute", "path"];
const LABELLED: [&str; 9] = ["old", "new", "value", "values", "val", "from", "to", "before", "after"];
const HEADERS: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"];

fn push_name(out: &mut String, name: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push_str(&json(name));
    out.push(':');
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // Texts and lists of texts cannot fail to serialise.
    serde_json::to_string(value).unwrap_or_default()
}

/// An object's members in their order, values as text.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name.0, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests;
