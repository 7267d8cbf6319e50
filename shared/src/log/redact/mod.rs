//! Secrets in what a caller says: found by the names they stand under and by how they look, and masked before anything is
//! signed, kept or sent (docs/recording.md, "Secrets").

mod names;
mod texts;

use std::borrow::Cow;
use std::fmt;

use regex::Regex;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::limits::REDACTED_COUNT_MAX;
use names::Names;
use texts::Texts;

/// What stands where a secret stood.
pub const MASK: &str = "***";

/// The only key of the object that stands for a value marked as secret by the application; never recorded, always masked.
pub const MARK: &str = "$piperoll_secret";

/// Fields whose text has a meaning for verifying, searching or routing, and cannot hold running text.
const UNTOUCHED: [&str; 7] = ["id", "category", "action", "outcome", "occurred_at", "ip_address", "peer_address"];

/// A name that would hide everything, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name of a secret: write a key such as \"ssn\" or \"card_*\"")]
pub struct BadName(String);

/// Finds secrets and masks them.
#[derive(Debug, Clone)]
pub struct Redactor {
    /// Fits every entry that could hold something, and few others.
    trigger: Regex,
    names: Names,
    texts: Texts,
    has_own_names: bool,
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new(&[]).expect("no name of its own")
    }
}

impl Redactor {
    /// The built-in names and looks, and `more` names, in which `*` stands for anything.
    pub fn new(more: &[String]) -> Result<Self, BadName> {
        let trigger = format!("(?i){}|piperoll_secret", Texts::loose());
        let trigger = Regex::new(&trigger).map_err(|_| BadName(more.join(", ")))?;
        Ok(Self { trigger, names: Names::new(more)?, texts: Texts::new(), has_own_names: !more.is_empty() })
    }

    /// The one without names of its own; made once.
    pub fn shared() -> &'static Self {
        static SHARED: std::sync::LazyLock<Redactor> = std::sync::LazyLock::new(Redactor::default);
        &SHARED
    }

    /// A caller's entry, compact JSON text, without its secrets; what was masked is named in `redacted`. Number text and the
    /// order of keys stay. Text that is no object comes back as it is; whoever parses it says what is wrong.
    pub fn entry<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.has_own_names && !self.trigger.is_match(text) {
            return Cow::Borrowed(text);
        }
        let Ok(members) = serde_json::from_str::<Members<'_>>(text) else { return Cow::Borrowed(text) };
        let mut walk = Walk { redactor: self, path: String::new(), masked: Vec::new() };
        let mut out = String::with_capacity(text.len());
        out.push('{');
        let mut named_before: Vec<String> = Vec::new();
        for (name, value) in &members.0 {
            if name == "redacted" && value.get().starts_with('[') {
                match serde_json::from_str(value.get()) {
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
                walk.below(name, |walk| walk.value(value.get(), &mut out));
            }
        }
        let masked = walk.masked;
        if masked.is_empty() {
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

/// At most as many paths as an entry may name; what is over it is counted.
fn together(mut before: Vec<String>, masked: Vec<String>) -> Vec<String> {
    for path in masked {
        if !before.contains(&path) {
            before.push(path);
        }
    }
    if before.len() > REDACTED_COUNT_MAX {
        let left = before.len() - (REDACTED_COUNT_MAX - 1);
        before.truncate(REDACTED_COUNT_MAX - 1);
        before.push(format!("and {left} more"));
    }
    before
}

struct Walk<'r> {
    redactor: &'r Redactor,
    path: String,
    masked: Vec<String>,
}

impl Walk<'_> {
    fn below<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let done = work(self);
        self.path.truncate(before);
        done
    }

    fn mask(&mut self, out: &mut String) {
        self.masked.push(self.path.clone());
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
            let is_label = ["field", "name", "key", "header"].contains(&name.as_ref());
            let label = is_label.then(|| serde_json::from_str::<String>(value.get()).ok()).flatten()?;
            self.redactor.names.stands_for_secret(&label).then_some(label)
        });
        out.push('{');
        for (name, value) in &members.0 {
            push_name(out, name);
            let beside = ["old", "new", "value", "values"].contains(&name.as_ref());
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
        let is_count =
            raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && name.to_ascii_lowercase().ends_with('s');
        if is_count || matches!(raw, "null" | "true" | "false" | "\"\"" | "[]" | "{}" | "\"***\"") {
            out.push_str(raw);
        } else {
            self.mask(out);
        }
    }

    fn array(&mut self, raw: &str, out: &mut String) {
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw) else { return self.mask(out) };
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
        match self.redactor.texts.mask(&text) {
            // As it was written, escapes included.
            Cow::Borrowed(_) => out.push_str(raw),
            Cow::Owned(masked) => {
                self.masked.push(self.path.clone());
                out.push_str(&json(&masked));
            }
        }
    }
}

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
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        Redactor::default().entry(text).into_owned()
    }

    #[test]
    fn secrets_go_and_the_rest_stays_as_written() {
        for (text, expected) in [
            (
                r#"{"category":"user","action":"user.update","details":{"n":1.50,"new":{"apiKey":"k","a":"\u0041"},"password":"x"}}"#,
                r#"{"category":"user","action":"user.update","details":{"n":1.50,"new":{"apiKey":"***","a":"\u0041"},"password":"***"},"redacted":["details.new.apiKey","details.password"]}"#,
            ),
            (
                r#"{"category":"user","action":"a","changes":[{"field":"password","old":"a","new":"b"},{"field":"quota","old":1,"new":2}]}"#,
                r#"{"category":"user","action":"a","changes":[{"field":"password","old":"***","new":"***"},{"field":"quota","old":1,"new":2}],"redacted":["changes.password"]}"#,
            ),
            (
                r#"{"category":"auth","action":"a","path":"/x?token=abc","details":{"headers":[{"name":"Cookie","value":"s=1"}]},"redacted":["details.pan"]}"#,
                r#"{"category":"auth","action":"a","path":"/x?token=***","details":{"headers":[{"name":"Cookie","value":"***"}]},"redacted":["details.pan","path","details.headers.Cookie"]}"#,
            ),
            (
                r#"{"category":"auth","action":"a","details":{"v":{"$piperoll_secret":"77"}}}"#,
                r#"{"category":"auth","action":"a","details":{"v":"***"},"redacted":["details.v"]}"#,
            ),
        ] {
            assert_eq!(masked(text), expected);
            assert_eq!(masked(expected), expected, "masking again changes nothing");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            r#"{"category":"auth","action":"token.create","details":{"token_id":"7","max_tokens":100,"has_password":true,"password":null}}"#,
            r#"{"category":"auth","action":"auth.login","description":"changed the password of bob","user":"token"}"#,
            r#"{"redacted":"x","details":{"password":"x"}"#,
            "[1]",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn own_names_are_added() {
        let own = Redactor::new(&["ssn".to_owned()]).expect("good names");
        assert_eq!(
            own.entry(r#"{"category":"data","action":"a","details":{"SSN":"1"}}"#),
            r#"{"category":"data","action":"a","details":{"SSN":"***"},"redacted":["details.SSN"]}"#
        );
        assert!(own.is_secret_name("password") && own.is_secret_name("ssn"));
    }
}
