//! Finds values inside `details` and `changes` by their path.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::pattern::Pattern;
use piperoll_format::view::EntryView;

/// Maximum number of keys in a path.
pub(super) const PATH_KEYS_MAX: usize = 16;

/// The field at the start of a path: `details.a.b` or `changes.field`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    Details,
    Changes,
}

impl Root {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Details => "details",
            Self::Changes => "changes",
        }
    }
}

/// Condition on the value at the end of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathValue {
    /// A string that the pattern matches, or a number, `true`, `false` or `null` whose JSON text it
    /// matches. `*` alone matches any value.
    Text(Pattern),
    /// A number in any notation, or a string with the same text.
    Number(String),
    /// A number, or a string that contains one, between two bounds.
    Range(Option<Bound>, Option<Bound>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) text: String,
    pub(super) inclusive: bool,
}

/// A JSON number. Integers of up to 128 bits are represented exactly.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Whole(i128),
    Float(f64),
}

impl Number {
    /// Parses the JSON notation (RFC 8259, section 6).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if !digits.starts_with(|c: char| c.is_ascii_digit())
            || (digits.len() > 1 && digits.starts_with("0") && !digits[1..].starts_with(['.', 'e', 'E']))
        {
            return None;
        }
        if let Ok(whole) = text.parse() {
            return Some(Self::Whole(whole));
        }
        let is_number = digits.chars().all(|c| c.is_ascii_digit() || ".eE+-".contains(c)) && !digits.ends_with('.');
        text.parse().ok().filter(|float: &f64| is_number && float.is_finite()).map(Self::Float)
    }

    pub(super) fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => a.cmp(&b),
            (a, b) => a.float().total_cmp(&b.float()),
        }
    }

    fn float(self) -> f64 {
        match self {
            // Adding 0.0 makes -0.0 equal to 0.0.
            Self::Whole(whole) => whole as f64,
            Self::Float(float) => float + 0.0,
        }
    }
}

impl PathValue {
    /// Whether this condition matches one value, given as JSON text.
    fn matches(&self, json: &str) -> bool {
        if let Self::Text(pattern) = self
            && pattern.is_anything()
        {
            return true;
        }
        let is_text = json.starts_with('"');
        let text = if is_text {
            serde_json::from_str::<Text<'_>>(json).map(|text| text.0).unwrap_or_default()
        } else {
            Cow::Borrowed(json)
        };
        if json.starts_with(['{', '[']) {
            return false;
        }
        match self {
            Self::Text(pattern) => pattern.matches(&text),
            Self::Number(wanted) => *text == **wanted || (!is_text && equal(&text, wanted)),
            Self::Range(from, to) => Number::parse(&text).is_some_and(|number| {
                from.as_ref().is_none_or(|from| from.holds(number, Ordering::Greater))
                    && to.as_ref().is_none_or(|to| to.holds(number, Ordering::Less))
            }),
        }
    }
}

fn equal(a: &str, b: &str) -> bool {
    Number::parse(a).zip(Number::parse(b)).is_some_and(|(a, b)| a.compare(b) == Ordering::Equal)
}

impl Bound {
    fn holds(&self, number: Number, wanted: Ordering) -> bool {
        Number::parse(&self.text).is_some_and(|bound| {
            let order = number.compare(bound);
            order == wanted || (self.inclusive && order == Ordering::Equal)
        })
    }
}

/// Whether a value at the end of the path matches one of `values`.
pub(super) fn holds(entry: &EntryView<'_>, root: Root, path: &[String], values: &[PathValue]) -> bool {
    let mut fits = |json: &str| values.iter().any(|value| value.matches(json));
    match root {
        Root::Details => entry.details.is_some_and(|details| at_path(details.get(), path, &mut fits)),
        Root::Changes => entry.changes.is_some_and(|changes| changed(changes.get(), path, &mut fits)),
    }
}

/// Whether a change matches. Each element of `changes` contains the name of the changed field as the value of `field`.
fn changed(changes: &str, path: &[String], fits: &mut dyn FnMut(&str) -> bool) -> bool {
    let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(changes) else { return false };
    let mut fits_change = |change: &RawValue| {
        let Ok(Members(members)) = serde_json::from_str(change.get()) else { return false };
        let name = members
            .iter()
            .find(|(key, _)| key == "field")
            .and_then(|(_, name)| serde_json::from_str::<Text<'_>>(name.get()).ok());
        let Some(Text(name)) = name else { return false };
        splits(path).any(|(field, rest)| {
            let (side, rest) = match rest.split_first() {
                Some((side, rest)) if side == "old" || side == "new" => (Some(side.as_str()), rest),
                _ => (None, rest),
            };
            field == *name
                && members
                    .iter()
                    .filter(|(key, _)| side.map_or(key == "old" || key == "new", |side| key == side))
                    .any(|(_, value)| at_path(value.get(), rest, fits))
        })
    };
    list.into_iter().any(&mut fits_change)
}

/// Returns every way to read the first keys of a path as one key that contains dots.
fn splits(path: &[String]) -> impl Iterator<Item = (String, &[String])> {
    (1..=path.len()).map(|at| (path[..at].join("."), &path[at..]))
}

/// Whether any value at the path matches. Every element of a list is tried; the nesting depth was limited when the entry was
/// recorded.
fn at_path(json: &str, path: &[String], fits: &mut dyn FnMut(&str) -> bool) -> bool {
    if path.is_empty() && fits(json) {
        return true;
    }
    if json.starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
        return elements.into_iter().any(|element| at_path(element.get(), path, fits));
    }
    if path.is_empty() || !json.starts_with('{') {
        return false;
    }
    let Ok(Members(members)) = serde_json::from_str(json) else { return false };
    splits(path).any(|(key, rest)| {
        members.iter().filter(|(name, _)| *name == key).any(|(_, value)| at_path(value.get(), rest, fits))
    })
}

/// Whether a list or a string under `details.affected` names this entity.
pub(super) fn affects(entry: &EntryView<'_>, mut names: impl FnMut(&str) -> bool) -> bool {
    let path = ["affected".to_owned()];
    let mut fits =
        |json: &str| json.starts_with('"') && serde_json::from_str::<Text<'_>>(json).is_ok_and(|text| names(&text.0));
    entry.details.is_some_and(|details| details.get().contains("affected") && at_path(details.get(), &path, &mut fits))
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members of an object, in order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some((Text(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Read).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_json_and_compare_by_value() {
        for text in ["0", "-0", "5", "5.0", "5e0", "1.50", "123456789012345678901234567890", "-1e-3"] {
            assert!(Number::parse(text).is_some(), "{text}");
        }
        for text in ["", "-", "+5", ".5", "5.", "05", "0x5", "1_000", "inf", "nan", "5a", "1e400"] {
            assert!(Number::parse(text).is_none(), "{text}");
        }
        assert!(
            equal("5", "5.0") && equal("-0", "0") && equal("0.0", "-0.0") && equal("1e3", "1000") && !equal("5", "6")
        );
        // The difference is beyond the precision of a float.
        assert!(!equal("12345678901234567890", "12345678901234567891"));
    }

    #[test]
    fn a_path_leads_through_objects_lists_and_keys_with_dots() {
        let body = r#"{"details":{"subject":"Hello","n":5,"items":[{"id":"a"},{"id":"b","tags":["x","y"]}],"a.b":{"c":true},"none":null,"affected":["7","mail/8"]},
            "changes":[{"field":"price","old":1.50,"new":2},{"field":"address.city","old":null,"new":{"name":"Bonn"}}]}"#;
        let entry = EntryView::parse(body.as_bytes()).expect("an entry");
        let text = |text: &str| PathValue::Text(Pattern::new(text.split('*').map(str::to_owned).collect(), false));
        let number = |text: &str| PathValue::Number(text.to_owned());
        let bound = |text: &str, inclusive| Some(Bound { text: text.to_owned(), inclusive });
        for (root, path, value, expected) in [
            (Root::Details, "subject", text("Hello"), true),
            (Root::Details, "subject", text("hello"), false),
            (Root::Details, "subject", text("H*o"), true),
            (Root::Details, "n", number("5.0"), true),
            (Root::Details, "n", text("5"), true),
            (Root::Details, "n", PathValue::Range(bound("5", false), None), false),
            (Root::Details, "n", PathValue::Range(bound("5", true), bound("9", true)), true),
            (Root::Details, "items.id", text("b"), true),
            (Root::Details, "items.tags", text("y"), true),
            (Root::Details, "items", text("*"), true),
            (Root::Details, "a.b.c", text("true"), true),
            (Root::Details, "none", text("null"), true),
            (Root::Details, "none", text("*"), true),
            (Root::Details, "other", text("*"), false),
            (Root::Changes, "price", number("2"), true),
            (Root::Changes, "price", number("1.5"), true),
            (Root::Changes, "price.new", number("1.5"), false),
            (Root::Changes, "price", text("*"), true),
            (Root::Changes, "address.city.new.name", text("Bonn"), true),
            (Root::Changes, "address.city", text("null"), true),
            (Root::Changes, "field", text("price"), false),
        ] {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            assert_eq!(
                holds(&entry, root, &path, std::slice::from_ref(&value)),
                expected,
                "{root:?} {path:?} {value:?}"
            );
        }
        assert!(
            affects(&entry, |name| name == "7")
                && affects(&entry, |name| name == "mail/8")
                && !affects(&entry, |name| name == "9")
        );
    }
}
