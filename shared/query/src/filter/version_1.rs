//! Parses version 1 of the language, which is the version of stored filters without a mark: no OR, no brackets, `*` only at the
//! end of an action. Its meaning never changes, because existing bundles and tokens are read with it.

use crate::column::Column;
use crate::zone::Now;
use piperoll_format::entry::{CATEGORIES, NODE_CATEGORY, OUTCOMES};
use piperoll_format::limits::{FILTER_BYTES_MAX, FILTER_TERMS_MAX, FILTER_VALUES_MAX};
use piperoll_format::time::Timestamp;

use super::expr::{Expr, Filter, Result};
use super::pattern::{Pattern, TextPattern};
use super::test::{EntityPattern, FIELDS, IpPattern, PROPERTIES, Property, Subject, Test};
use super::value;

/// Keys of version 1.
const KEYS: [&str; 26] = [
    "user",
    "actor",
    "subject",
    "user_type",
    "impersonator",
    "session",
    "credential",
    "auth_method",
    "action",
    "category",
    "outcome",
    "reason",
    "entity",
    "target",
    "domain",
    "ip",
    "agent",
    "request",
    "node",
    "flag",
    "via",
    "id",
    "seq",
    "occurred",
    "details",
    "is",
];

/// A value, and the position of its first character.
struct Word {
    text: String,
    at: usize,
    quoted: bool,
}

pub(super) fn parse(text: &str, now: Timestamp) -> Result<Filter> {
    Parser { chars: text.chars().collect(), at: 0, now }.filter(text.len())
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    now: Timestamp,
}

impl Parser {
    fn filter(&mut self, bytes: usize) -> Result<Filter> {
        if bytes > FILTER_BYTES_MAX {
            return Err((0, format!("{bytes} bytes, more than the limit of {FILTER_BYTES_MAX}")));
        }
        let mut terms = Vec::new();
        loop {
            while self.peek().is_some_and(char::is_whitespace) {
                self.at += 1;
            }
            if self.peek().is_none() {
                let filter = Filter { all: terms };
                filter.check_written_length()?;
                return Ok(filter);
            }
            if terms.len() == FILTER_TERMS_MAX {
                return Err((self.at, format!("more than {FILTER_TERMS_MAX} conditions")));
            }
            terms.push(self.term()?);
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn term(&mut self) -> Result<Expr> {
        let negated = self.peek() == Some('-');
        if negated {
            self.at += 1;
            if self.peek().is_none_or(char::is_whitespace) {
                return Err((self.at - 1, "a minus needs a condition directly after it".to_owned()));
            }
        }
        if self.peek() == Some('"') {
            let text = self.quoted()?;
            return Ok(part(negated, Test::Text(vec![needle(text)?])));
        }
        let start = self.at;
        while self.peek().is_some_and(|c| !c.is_whitespace() && c != ':' && c != '"') {
            self.at += 1;
        }
        let key: String = self.chars[start..self.at].iter().collect();
        if self.peek() != Some(':') {
            if self.peek() == Some('"') {
                return Err((self.at, "a quote cannot begin inside a word".to_owned()));
            }
            // A bare word is free text, as in every search box.
            return Ok(part(negated, Test::Text(vec![needle(Word { text: key, at: start, quoted: false })?])));
        }
        if !KEYS.contains(&key.as_str()) {
            return Err((start, format!("unknown key {key:?}; the keys are {}", KEYS.join(" "))));
        }
        self.at += 1;
        let values = self.values(&key)?;
        Ok(part(negated, self.test(&key, values)?))
    }

    fn values(&mut self, key: &str) -> Result<Vec<Word>> {
        let mut values = Vec::new();
        loop {
            let start = self.at;
            let value = if self.peek() == Some('"') { self.quoted()? } else { self.bare()? };
            if value.text.is_empty() {
                return Err((start, format!("the key {key:?} needs a value here")));
            }
            if values.len() == FILTER_VALUES_MAX {
                return Err((start, format!("more than {FILTER_VALUES_MAX} values")));
            }
            values.push(value);
            match self.peek() {
                Some(',') => self.at += 1,
                None => return Ok(values),
                Some(c) if c.is_whitespace() => return Ok(values),
                Some(_) => return Err((self.at, "a space or a comma is missing here".to_owned())),
            }
        }
    }

    fn bare(&mut self) -> Result<Word> {
        let at = self.at;
        while self.peek().is_some_and(|c| !c.is_whitespace() && c != ',') {
            if self.peek() == Some('"') {
                return Err((self.at, "a quote cannot begin inside a value; quote the whole value".to_owned()));
            }
            self.at += 1;
        }
        Ok(Word { text: self.chars[at..self.at].iter().collect(), at, quoted: false })
    }

    fn quoted(&mut self) -> Result<Word> {
        let at = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err((at, "this quote is never closed".to_owned())),
                Some('"') => break,
                Some('\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(c @ ('"' | '\\')) => text.push(c),
                        _ => return Err((self.at - 1, "only \\\" and \\\\ can be escaped".to_owned())),
                    }
                }
                Some(c) => text.push(c),
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(Word { text, at, quoted: true })
    }

    fn test(&self, key: &str, values: Vec<Word>) -> Result<Test> {
        fn each<T>(values: Vec<Word>, read: impl Fn(Word) -> Result<T>) -> Result<Vec<T>> {
            values.into_iter().map(read).collect()
        }
        let exactly = |values: Vec<Word>| values.into_iter().map(|word| Pattern::exactly(word.text)).collect();
        if let Some((_, field)) = FIELDS.iter().find(|(name, _)| *name == key && key != "action") {
            for value in &values {
                known_word(key, value)?;
            }
            return Ok(Test::Field(*field, exactly(values)));
        }
        Ok(match key {
            "actor" => Test::Actor(exactly(values)),
            "subject" => Test::Subject(each(values, subject)?),
            "action" => Test::Field(Column::Action, each(values, action)?),
            "entity" => Test::Entity(each(values, entity)?),
            "ip" => Test::Ip(each(values, ip)?),
            "agent" => Test::Agent(each(values, needle)?),
            "details" => Test::Details(each(values, stored_form)?),
            "flag" => Test::Flag(exactly(values)),
            "via" => Test::Via(exactly(values)),
            "id" => Test::Id(each(values, |v| v.text.parse().map_err(|e| (v.at, format!("{e}"))))?),
            "seq" => Test::Seq(each(values, |v| value::seq(&v.text).map_err(|e| (v.at, e)))?),
            "occurred" => {
                Test::Occurred(each(values, |v| value::occurred(&v.text, Now::from(self.now)).map_err(|e| (v.at, e)))?)
            }
            _ => Test::Is(each(values, |v| {
                Property::named(&v.text).ok_or_else(|| {
                    let names: Vec<_> = PROPERTIES.iter().map(|(name, _)| *name).collect();
                    (v.at, format!("is:{} is unknown; use one of {}", v.text, names.join(" ")))
                })
            })?),
        })
    }
}

fn part(negated: bool, test: Test) -> Expr {
    let part = Expr::Test(test);
    if negated { Expr::not(part) } else { part }
}

/// Checks fields with a closed list of values, because a misspelled value would silently match nothing.
fn known_word(key: &str, value: &Word) -> Result<()> {
    let known: Vec<&str> = match key {
        "category" => CATEGORIES.into_iter().chain([NODE_CATEGORY]).collect(),
        "outcome" => OUTCOMES.to_vec(),
        _ => return Ok(()),
    };
    if known.contains(&value.text.as_str()) {
        return Ok(());
    }
    Err((value.at, format!("{key} must be one of {}", known.join(" "))))
}

fn needle(word: Word) -> Result<TextPattern> {
    if word.text.is_empty() {
        return Err((word.at, "there is no text to look for".to_owned()));
    }
    Ok(TextPattern::new(vec![word.text]))
}

fn stored_form(word: Word) -> Result<TextPattern> {
    if word.text.is_empty() {
        return Err((word.at, "there is no text to look for".to_owned()));
    }
    Ok(TextPattern::of_version_1(word.text))
}

fn subject(word: Word) -> Result<Subject> {
    Ok(Subject { whole: Pattern::exactly(word.text.clone()), part: stored_form(word)? })
}

fn action(word: Word) -> Result<Pattern> {
    match word.text.strip_suffix('*') {
        Some(prefix) if prefix.contains('*') => {
            Err((word.at, "`*` is allowed only at the end of an action".to_owned()))
        }
        Some(prefix) => Ok(Pattern::new(vec![prefix.to_owned(), String::new()], false)),
        None if word.text.contains('*') => Err((word.at, "`*` is allowed only at the end of an action".to_owned())),
        None => Ok(Pattern::exactly(word.text)),
    }
}

fn entity(word: Word) -> Result<EntityPattern> {
    let (kind, id) = match word.text.split_once('/') {
        Some((_, "")) => return Err((word.at, "an entity id is missing after the '/'".to_owned())),
        Some((kind, id)) => (kind, Some(Pattern::exactly(id.to_owned()))),
        None => (word.text.as_str(), None),
    };
    if kind.is_empty() {
        return Err((word.at, "an entity is written type or type/id".to_owned()));
    }
    Ok(EntityPattern { kind: Pattern::exactly(kind.to_owned()), id, affected: false })
}

fn ip(word: Word) -> Result<IpPattern> {
    if let Some(net) = value::net(&word.text) {
        return Ok(IpPattern::Net(net));
    }
    // Text that looks like an address but is not one is a mistake. Any other text may be the name of a service.
    let looks_numeric = word.text.chars().all(|c| c.is_ascii_hexdigit() || ".:/".contains(c));
    if !word.quoted && (looks_numeric || word.text.contains('/')) {
        return Err((
            word.at,
            format!("{:?} is neither an address nor a range such as 10.0.0.0/8 or 2001:db8::/32", word.text),
        ));
    }
    Ok(IpPattern::Text(Pattern::exactly(word.text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::parse_rfc3339("2026-04-15T08:00:00Z").expect("a time")
    }

    #[test]
    fn canonical_text_parses_back_to_the_same_filter() {
        for text in [
            "",
            "user:alice,bob action:quarantine.* -outcome:success ip:10.0.0.0/8 entity:domain/example.org node:mx1",
            "is:flagged \"free text\"",
            "user:\"Alice B\",\"a\\\"b\\\\c\"",
            "ip:::1,2001:db8::/32,ec2.amazonaws.com",
            "seq:4,10..20,30..",
            "occurred:2026-04-15 occurred:7d..",
            "-details:\"x, y\"",
            "via:socket agent:curl",
            "id:0198c0de-0000-7000-8000-000000000001",
            "bare words",
            "entity:mail/a/b",
        ] {
            let filter = parse(text, now()).expect(text);
            assert_eq!(filter.in_version_1().as_deref(), Some(filter.to_string().as_str()), "{text}");
            let again = Filter::parse_stored(&filter.to_string(), now()).expect("its own text");
            assert_eq!(again, filter, "{text} -> {filter}");
        }
    }

    #[test]
    fn errors_point_at_the_character() {
        for (text, at) in [
            ("usr:bob", 0),
            ("user:alice usr:bob", 11),
            ("user:", 5),
            ("user:a,", 7),
            ("-", 0),
            ("- a", 0),
            ("\"open", 0),
            ("action:a*b", 7),
            ("ip:10.0.0", 3),
            ("ip:10.0.0.0/99", 3),
            ("is:new", 3),
            ("seq:x", 4),
            ("seq:9..3", 4),
            ("outcome:good", 8),
            ("entity:/x", 7),
            ("user:a\"b\"", 6),
            ("occurred:noon", 9),
            ("é usr:bob", 2),
            ("user:\"a\"b", 8),
            ("id:7", 3),
            ("\"\"", 0),
        ] {
            let error = Filter::parse_stored(text, now()).expect_err(text);
            assert_eq!(error.at, at, "{text}: {error}");
        }
        let shown = Filter::parse_stored("user:alice usr:bob", now()).expect_err("an unknown key").to_string();
        assert!(shown.ends_with("\n  user:alice usr:bob\n             ^"), "{shown}");
    }
}
