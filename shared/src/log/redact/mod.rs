//! Secrets in what a caller says: found by the names they stand under and by how they look, and masked before anything is
//! signed, kept or sent (docs/recording.md, "Secrets").

mod members;
mod names;
mod texts;
mod tree;
mod values;
mod walk;

use std::borrow::Cow;
use std::collections::HashSet;

use regex::{Regex, RegexBuilder};

use super::limits::{JSON_DEPTH_MAX, REDACTED_COUNT_MAX};
use names::Names;
use texts::Texts;
use tree::{Kind, Tree};
use walk::{Masked, Walk};

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
///
/// The time for an entry grows with its length and not with its shape: values are read once, each context reads a text once, and
/// nothing is read that is nested deeper than [`JSON_DEPTH_MAX`] or is the fourth JSON inside of another; that is masked whole.
#[derive(Debug, Clone)]
pub struct Redactor {
    /// Matches every entry that could hold something, and few others.
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
    /// The built-in names and looks, and `more` names, in which `*` matches anything.
    ///
    /// # Errors
    /// When one of them would match everything, nothing, or a path.
    pub fn new(more: &[String]) -> Result<Self, BadName> {
        let names = Names::new(more)?;
        let bad = |_| BadName(more.join(", "));
        // Behind an escape anything can hide.
        let trigger = format!(r"(?i)\\|piperoll_secret|{}", Texts::worth(more));
        let trigger = RegexBuilder::new(&trigger).size_limit(TRIGGER_BYTES_MAX).build().map_err(bad)?;
        Ok(Self { trigger, names, texts: Texts::new(more).map_err(bad)? })
    }

    /// The one without names of its own; made once.
    pub fn shared() -> &'static Self {
        static SHARED: std::sync::LazyLock<Redactor> = std::sync::LazyLock::new(Redactor::default);
        &SHARED
    }

    /// Masks the secrets in a caller's entry, compact JSON text; what was masked is named in `redacted`. Number text and the
    /// order of keys stay. Text that is no object comes back as it is; whoever parses it says what is wrong.
    pub fn entry<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.trigger.is_match(text) {
            return Cow::Borrowed(text);
        }
        self.looked_at(text)
    }

    /// The same, without asking first whether it is worth it.
    fn looked_at<'a>(&self, text: &'a str) -> Cow<'a, str> {
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
                    // Not a list of texts: said by whoever parses the entry.
                    Err(_) => return Cow::Borrowed(text),
                }
                continue;
            }
            let value = if UNTOUCHED.contains(&name.as_str()) {
                raw.to_owned()
            } else {
                walk.path.clear();
                walk.enter(&name);
                // What must be an object stays one.
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

    /// Whether a value under this name is a secret.
    pub fn is_secret_name(&self, name: &str) -> bool {
        self.names.class(name).is_secret()
    }

    /// The contexts in which secrets are known, by name.
    pub fn contexts() -> impl Iterator<Item = &'static str> {
        texts::CONTEXTS.iter().map(|(name, _)| *name)
    }
}

/// Whether two JSON objects say the same but for what is masked in either: the same entry, masked by different versions of the
/// rules. Number text, key order and the spelling of texts count; what `redacted` lists does not.
pub fn is_same_but_for_masks(one: &str, other: &str) -> bool {
    let (Ok(a), Ok(b)) = (Tree::parse(one, JSON_DEPTH_MAX), Tree::parse(other, JSON_DEPTH_MAX)) else { return false };
    let mut pairs = vec![(0, 0)];
    while let Some((at, to)) = pairs.pop() {
        let (x, y) = (a.node(at), b.node(to));
        if a.raw(at) == b.raw(to) {
            continue;
        }
        let (text, other_text) = (a.string(at), b.string(to));
        if [&text, &other_text].into_iter().flatten().any(|text| text == MASK) {
            continue;
        }
        match (text, other_text) {
            (Some(text), Some(other_text)) => {
                if !is_same_around_masks(&text, &other_text) {
                    return false;
                }
            }
            (None, None) if x.kind == y.kind && matches!(x.kind, Kind::Object | Kind::Array) => {
                let members = |tree: &Tree<'_>, place: usize| -> Vec<(usize, Option<String>)> {
                    let all = tree.children(place).map(|child| (child, tree.key(child)));
                    all.filter(|(_, key)| place != 0 || key.as_deref() != Some("redacted")).collect()
                };
                let (left, right) = (members(&a, at), members(&b, to));
                // `details` that were masked as a whole are an empty object.
                let key = x.key.and_then(|_| a.key(at));
                if key.as_deref() == Some("details")
                    && (left.is_empty() || right.is_empty())
                    && names_details(one, other)
                {
                    continue;
                }
                let is_like = |x: &Option<String>, y: &Option<String>| match (x, y) {
                    (Some(x), Some(y)) => x == y || is_same_around_masks(x, y),
                    (x, y) => x == y,
                };
                if left.len() != right.len() || !left.iter().zip(&right).all(|((_, x), (_, y))| is_like(x, y)) {
                    return false;
                }
                pairs.extend(left.into_iter().zip(right).map(|((x, _), (y, _))| (x, y)));
            }
            _ => return false,
        }
    }
    true
}

/// Whether texts are equal up to the first mask in either and behind the last one.
fn is_same_around_masks(one: &str, other: &str) -> bool {
    let first = [one.find(MASK), other.find(MASK)].into_iter().flatten().min();
    let Some(first) = first else { return one == other };
    let behind = |text: &str| text.rfind(MASK).map(|at| text.len() - at - MASK.len());
    let last = [behind(one), behind(other)].into_iter().flatten().min().unwrap_or_default();
    let ends = |text: &str| text.len() >= first + last;
    ends(one)
        && ends(other)
        && one.as_bytes()[..first] == other.as_bytes()[..first]
        && one.as_bytes()[one.len() - last..] == other.as_bytes()[other.len() - last..]
}

fn names_details(one: &str, other: &str) -> bool {
    [one, other].iter().any(|text| text.contains(r#""redacted":["details""#))
}

/// Masks other occurrences of what was masked: an entry that says `redacted` must not hold the secret elsewhere.
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
                // A key may have become another one's twin, and a number a text.
                let is_sound = super::json::compact(&copy).is_ok_and(|compact| compact.len() <= copy.len());
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

/// Every occurrence that does not begin in the middle of an escape.
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

/// RFC 3986: all but unreserved characters.
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

#[cfg(test)]
mod tests;
