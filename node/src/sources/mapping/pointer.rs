//! Pointers into records: JSON pointers (RFC 6901) with two additions for lists.
//!
//! `/a/-1` is the last item of a list, and `/a/-2` the item before it. `/a/?name=IP/value` looks for the first item of a list
//! whose member `name` is the text `IP`; some systems write such lists of names and values.

use serde_json::value::RawValue;

use super::ordered::Pairs;

/// One step of a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A member of an object, or an index of a list.
    Name(String),
    /// The nth item from the end of a list, counted from 1.
    FromEnd(usize),
    /// The first item of a list in which the member `member` has this text.
    Where { member: String, text: String },
}

/// A pointer that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer {
    steps: Vec<Step>,
}

impl Pointer {
    /// Parses a pointer; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("{text:?} is not a JSON pointer; it must begin with '/'"));
        }
        let steps = text.split('/').skip(1).map(|step| {
            if let Some(condition) = step.strip_prefix('?') {
                let (member, text) = condition.split_once('=')?;
                return Some(Step::Where { member: unescape(member), text: unescape(text) });
            }
            match step.strip_prefix('-').and_then(|count| count.parse().ok()) {
                Some(count) if count > 0 => Some(Step::FromEnd(count)),
                _ => Some(Step::Name(unescape(step))),
            }
        });
        let steps = steps.collect::<Option<Vec<_>>>();
        steps.map(|steps| Self { steps }).ok_or_else(|| format!("{text:?}: write a condition as ?member=text"))
    }

    /// Returns the value that the pointer leads to.
    pub(super) fn get(&self, record: &Pairs) -> Option<Box<RawValue>> {
        let (first, rest) = self.steps.split_first()?;
        let Step::Name(name) = first else { return None };
        follow(record.member(name)?.to_owned(), rest)
    }

    /// Returns the value that the pointer leads to as text, if it is not empty: strings without quotes, numbers and booleans as
    /// they are written in the record.
    pub(super) fn text(&self, record: &Pairs) -> Option<String> {
        text_of(&self.get(record)?)
    }

    /// Removes the value that the pointer leads to, and every object that becomes empty as a result. Lists are not changed.
    pub(super) fn remove(&self, record: &mut Pairs) {
        let names: Option<Vec<String>> = self
            .steps
            .iter()
            .map(|step| match step {
                Step::Name(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        if let Some(names) = names {
            record.remove(&names);
        }
    }

    /// Replaces the value that the pointer leads to; does nothing if there is no such value.
    pub(super) fn replace(&self, record: &mut Pairs, value: Box<RawValue>) {
        let names: Option<Vec<&str>> = self
            .steps
            .iter()
            .map(|step| match step {
                Step::Name(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        if let Some(names) = names {
            record.replace(&names, value);
        }
    }
}

/// Unescapes a step (RFC 6901): `~1` is a slash, `~0` a tilde.
fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

fn follow(value: Box<RawValue>, steps: &[Step]) -> Option<Box<RawValue>> {
    let Some((first, rest)) = steps.split_first() else { return Some(value) };
    if value.get().starts_with('[') {
        let items: Vec<Box<RawValue>> = serde_json::from_str(value.get()).ok()?;
        let at = match first {
            Step::Name(index) => index.parse().ok()?,
            Step::FromEnd(count) => items.len().checked_sub(*count)?,
            Step::Where { member, text } => items.iter().position(|item| {
                let found = Pairs::parse(item.get()).and_then(|item| text_of(item.member(member)?));
                found.as_deref() == Some(text)
            })?,
        };
        return follow(items.into_iter().nth(at)?, rest);
    }
    let Step::Name(name) = first else { return None };
    follow(Pairs::parse(value.get())?.member(name)?.to_owned(), rest)
}

/// Converts a value to text: strings without quotes, numbers and booleans as they are written in the record. `None` for other
/// values and for empty strings.
pub(super) fn text_of(raw: &RawValue) -> Option<String> {
    let text = match raw.get().as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(raw.get()).ok()?,
        b'0'..=b'9' | b'-' | b't' | b'f' => raw.get().to_owned(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_lead_through_objects_and_lists() {
        let record = Pairs::parse(
            r#"{"a":{"b/c":1.50,"~":true},"ips":["192.0.2.1","192.0.2.2","192.0.2.3"],"p":[{"name":"X","value":"x"},{"name":"IP","value":"192.0.2.9"}],"e":"","n":null}"#,
        )
        .expect("an object");
        for (pointer, wanted) in [
            ("/a/b~1c", Some("1.50")),
            ("/a/~0", Some("true")),
            ("/ips/0", Some("192.0.2.1")),
            ("/ips/-1", Some("192.0.2.3")),
            ("/ips/-3", Some("192.0.2.1")),
            ("/ips/-4", None),
            ("/ips/3", None),
            ("/p/?name=IP/value", Some("192.0.2.9")),
            ("/p/?name=none/value", None),
            ("/a/?name=IP", None),
            ("/e", None),
            ("/n", None),
            ("/none/a", None),
        ] {
            assert_eq!(Pointer::parse(pointer).expect(pointer).text(&record).as_deref(), wanted, "{pointer}");
        }
        for wrong in ["a", "", "/a/?name"] {
            assert!(Pointer::parse(wrong).is_err(), "{wrong}");
        }
    }
}
