//! Text to [`Filter`]. Every error points at the character it is about.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{ActionPattern, EntityPattern, FIELDS, Filter, IpPattern, KEYS, Needle, PROPERTIES, Term, Test, TimeRange};
use crate::log::entry::{CATEGORIES, NODE_CATEGORY, OUTCOMES};
use crate::log::limits::{FILTER_BYTES_MAX, FILTER_TERMS_MAX, FILTER_VALUES_MAX};
use crate::log::time::Timestamp;

/// A filter that cannot be read, with the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter: {problem}, at character {position}\n  {text}\n  {caret:>width$}", position = .at + 1, caret = "^", width = .at + 1)]
pub struct FilterError {
    /// Index of the character, from 0.
    pub at: usize,
    pub problem: String,
    /// The filter on one line, as it was read.
    pub text: String,
}

/// A value with the character position it began at.
struct Word {
    text: String,
    at: usize,
    quoted: bool,
}

type Result<T> = std::result::Result<T, (usize, String)>;

impl Filter {
    /// Parses a filter string; `now` gives ages (`occurred:7d..`) their meaning.
    pub fn parse(text: &str, now: Timestamp) -> std::result::Result<Self, FilterError> {
        let mut parser = Parser { chars: text.chars().collect(), at: 0, now };
        parser.filter(text.len()).map_err(|(at, problem)| FilterError {
            at,
            problem,
            text: text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        })
    }

    /// One `key=value` pair of a query string: the same as the term `key:value`, commas included. A space belongs
    /// to the value here, because nothing else follows it.
    pub fn parse_pair(key: &str, value: &str, now: Timestamp) -> std::result::Result<Self, FilterError> {
        let value = if value.contains('"') { value.to_owned() } else { quote_spaces(value) };
        let text = format!("{key}:{value}");
        let filter = Self::parse(&text, now)?;
        if filter.terms.len() != 1 {
            let problem = format!("the value of {key} holds more than one condition; quote a value with spaces");
            return Err(FilterError { at: key.chars().count() + 1, problem, text });
        }
        Ok(filter)
    }
}

fn quote_spaces(value: &str) -> String {
    let quoted = |part: &str| format!("\"{}\"", part.replace('\\', "\\\\"));
    let parts =
        value.split(',').map(|part| if part.contains(char::is_whitespace) { quoted(part) } else { part.to_owned() });
    parts.collect::<Vec<_>>().join(",")
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    now: Timestamp,
}

impl Parser {
    fn filter(&mut self, bytes: usize) -> Result<Filter> {
        if bytes > FILTER_BYTES_MAX {
            return Err((0, format!("it is {bytes} bytes long, more than {FILTER_BYTES_MAX}")));
        }
        let mut terms = Vec::new();
        loop {
            while self.peek().is_some_and(char::is_whitespace) {
                self.at += 1;
            }
            if self.peek().is_none() {
                let filter = Filter { terms };
                // Nodes, cursors and manifests get it written out, with quotes: that has to be a filter too.
                let written = filter.to_string().len();
                if written > FILTER_BYTES_MAX {
                    return Err((
                        0,
                        format!("written out with its quotes it is {written} bytes long, more than {FILTER_BYTES_MAX}"),
                    ));
                }
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

    fn term(&mut self) -> Result<Term> {
        let negated = self.peek() == Some('-');
        if negated {
            self.at += 1;
            if self.peek().is_none_or(char::is_whitespace) {
                return Err((self.at - 1, "a minus needs a condition right behind it".to_owned()));
            }
        }
        if self.peek() == Some('"') {
            let text = self.quoted()?;
            return Ok(Term { negated, test: Test::Text(needle(text)?) });
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
            return Ok(Term { negated, test: Test::Text(needle(Word { text: key, at: start, quoted: false })?) });
        }
        if !KEYS.contains(&key.as_str()) {
            return Err((start, format!("unknown key {key:?}; the keys are {}", KEYS.join(" "))));
        }
        self.at += 1;
        let values = self.values(&key)?;
        Ok(Term { negated, test: self.test(&key, values)? })
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
        if let Some((_, field)) = FIELDS.iter().find(|(name, _)| *name == key) {
            for value in &values {
                known_word(key, value)?;
            }
            return Ok(Test::Field(*field, values.into_iter().map(|v| v.text).collect()));
        }
        fn each<T>(values: Vec<Word>, read: impl Fn(Word) -> Result<T>) -> Result<Vec<T>> {
            values.into_iter().map(read).collect()
        }
        Ok(match key {
            "actor" => Test::Actor(values.into_iter().map(|v| v.text).collect()),
            "subject" => Test::Subject(each(values, needle)?),
            "action" => Test::Action(each(values, action)?),
            "entity" => Test::Entity(each(values, entity)?),
            "ip" => Test::Ip(each(values, ip)?),
            "agent" => Test::Agent(each(values, needle)?),
            "details" => Test::Details(each(values, needle)?),
            "flag" => Test::Flag(values.into_iter().map(|v| v.text).collect()),
            "via" => Test::Via(values.into_iter().map(|v| v.text).collect()),
            "id" => Test::Id(each(values, |v| v.text.parse().map_err(|e| (v.at, format!("{e}"))))?),
            "seq" => Test::Seq(each(values, seq)?),
            "occurred" => Test::Occurred(each(values, |v| occurred(v, self.now))?),
            _ => Test::Is(each(values, |v| {
                PROPERTIES.iter().find(|(name, _)| *name == v.text).map(|(_, p)| *p).ok_or_else(|| {
                    let names: Vec<_> = PROPERTIES.iter().map(|(name, _)| *name).collect();
                    (v.at, format!("is:{} is unknown; it is one of {}", v.text, names.join(" ")))
                })
            })?),
        })
    }
}

/// Fields with a closed list of values: a misspelt one would silently match nothing.
fn known_word(key: &str, value: &Word) -> Result<()> {
    let known: Vec<&str> = match key {
        "category" => CATEGORIES.into_iter().chain([NODE_CATEGORY]).collect(),
        "outcome" => OUTCOMES.to_vec(),
        _ => return Ok(()),
    };
    if known.contains(&value.text.as_str()) {
        return Ok(());
    }
    Err((value.at, format!("{key} is one of {}", known.join(" "))))
}

fn needle(word: Word) -> Result<Needle> {
    if word.text.is_empty() {
        return Err((word.at, "there is no text to look for".to_owned()));
    }
    Ok(Needle::new(word.text))
}

fn action(word: Word) -> Result<ActionPattern> {
    match word.text.strip_suffix('*') {
        Some(prefix) if prefix.contains('*') => Err((word.at, "`*` may stand only at the end of an action".to_owned())),
        Some(prefix) => Ok(ActionPattern::Prefix(prefix.to_owned())),
        None if word.text.contains('*') => Err((word.at, "`*` may stand only at the end of an action".to_owned())),
        None => Ok(ActionPattern::Exact(word.text)),
    }
}

fn entity(word: Word) -> Result<EntityPattern> {
    let (kind, id) = match word.text.split_once('/') {
        Some((_, "")) => return Err((word.at, "an entity id is missing behind the '/'".to_owned())),
        Some((kind, id)) => (kind, Some(id.to_owned())),
        None => (word.text.as_str(), None),
    };
    if kind.is_empty() {
        return Err((word.at, "an entity is written type or type/id".to_owned()));
    }
    Ok(EntityPattern { kind: kind.to_owned(), id })
}

fn ip(word: Word) -> Result<IpPattern> {
    if let Ok(address) = word.text.parse::<IpAddr>() {
        return Ok(IpPattern::Net(IpNet::from(address.to_canonical())));
    }
    if let Ok(net) = word.text.parse::<IpNet>() {
        return Ok(IpPattern::Net(net.trunc()));
    }
    // What looks like an address but is none is a slip; anything else may be a service's name.
    let looks_numeric = word.text.chars().all(|c| c.is_ascii_hexdigit() || ".:/".contains(c));
    if !word.quoted && (looks_numeric || word.text.contains('/')) {
        return Err((
            word.at,
            format!("{:?} is neither an address nor a range such as 10.0.0.0/8 or 2001:db8::/32", word.text),
        ));
    }
    Ok(IpPattern::Text(word.text))
}

fn seq(word: Word) -> Result<(u64, u64)> {
    let number = |text: &str, open: u64| match text {
        "" => Ok(open),
        text => text.parse().map_err(|_| (word.at, "a seq is a number or a range such as 10..20".to_owned())),
    };
    let (from, to) = match word.text.split_once("..") {
        Some((a, b)) => (number(a, 0)?, number(b, u64::MAX)?),
        None => (number(&word.text, 0)?, number(&word.text, 0)?),
    };
    if from > to {
        return Err((word.at, "this range runs backwards".to_owned()));
    }
    Ok((from, to))
}

fn occurred(word: Word, now: Timestamp) -> Result<TimeRange> {
    let at = word.at;
    let time = |text: &str| Timestamp::parse_human(text, now).map_err(|e| (at, e.to_string()));
    let (from, to) = match word.text.split_once("..") {
        Some((a, b)) => {
            (if a.is_empty() { Timestamp::MIN } else { time(a)? }, if b.is_empty() { Timestamp::MAX } else { time(b)? })
        }
        None => Timestamp::day_range(&word.text).ok_or_else(|| {
            (at, "occurred is a day (2026-04-15) or a range (2026-04-15T08:00:00Z..2026-04-15T09:00:00Z)".to_owned())
        })?,
    };
    if from > to {
        return Err((at, "this range runs backwards".to_owned()));
    }
    // Ages become absolute, so that a printed filter means the same a day later.
    let text = match (word.text.contains(".."), from == Timestamp::MIN, to == Timestamp::MAX) {
        (false, ..) => word.text,
        (true, true, true) => "..".to_owned(),
        (true, true, false) => format!("..{to}"),
        (true, false, true) => format!("{from}.."),
        (true, false, false) => format!("{from}..{to}"),
    };
    Ok(TimeRange { text, from, to })
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
            let filter = Filter::parse(text, now()).expect(text);
            assert_eq!(Filter::parse(&filter.to_string(), now()).expect("its own text"), filter, "{text} -> {filter}");
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
            let error = Filter::parse(text, now()).expect_err(text);
            assert_eq!(error.at, at, "{text}: {error}");
        }
        let shown = Filter::parse("user:alice usr:bob", now()).expect_err("an unknown key").to_string();
        assert!(shown.ends_with("\n  user:alice usr:bob\n             ^"), "{shown}");
    }
}
