//! Converts keys and values to conditions.

use super::typed::{Comparison, Key, Piece, Value};
use crate::column::Column;
use crate::filter::expr::Result;
use crate::filter::keywords::{FLAG_WORDS, VIA_WORDS};
use crate::filter::path::{Bound, Number, PathValue, Root};
use crate::filter::pattern::{Pattern, TextPattern};
use crate::filter::suggest;
use crate::filter::test::{EntityPattern, FIELDS, IpPattern, PROPERTIES, Property, Subject, Test, TimeRange};
use crate::filter::value::{self, time_range};
use crate::human_time;
use crate::zone::Now;
use piperoll_format::entry::{CATEGORIES, NODE_CATEGORY, OUTCOMES, is_category};
use piperoll_format::time::Timestamp;

/// Fields that hold addresses and paths, in which `?`, `..` and `/` are ordinary characters.
const FREE_FIELDS: [&str; 5] = ["target", "request", "reason", "session", "credential"];

pub(super) fn test_of(key: &Key, values: &[Value], now: Now) -> Result<Test> {
    let name = match key {
        Key::Name(name) => *name,
        Key::Path(root, path) => {
            let root = if root == "changes" { Root::Changes } else { Root::Details };
            return Ok(Test::Path(root, path.clone(), each(values, path_value)?));
        }
    };
    if !matches!(name, "seq" | "occurred")
        && let Some(value) = values.iter().find(|value| value.comparison.is_some())
    {
        return Err((
            value.at,
            format!("{name} cannot be compared with < and >; only seq, occurred and numbers in details can"),
        ));
    }
    let whole = |value: &Value| whole_value(name, value);
    if let Some((_, column)) = FIELDS.iter().find(|(field, _)| *field == name) {
        return Ok(Test::Field(*column, each(values, |value| known_word(*column, value).and_then(|()| whole(value)))?));
    }
    Ok(match name {
        "actor" => Test::Actor(each(values, whole)?),
        "verb" => Test::Verb(each(values, whole)?),
        "subject" => Test::Subject(each(values, subject)?),
        "entity" => Test::Entity(each(values, entity)?),
        "ip" => Test::Ip(each(values, ip)?),
        "agent" => Test::Agent(each(values, needle)?),
        "details" => Test::Details(each(values, needle)?),
        "description" => Test::Text(each(values, needle)?),
        "flag" => Test::Flag(each(values, |value| closed("flag", &FLAG_WORDS, value).and_then(|()| whole(value)))?),
        "via" => Test::Via(each(values, |value| closed("via", &VIA_WORDS, value).and_then(|()| whole(value)))?),
        "id" => Test::Id(each(values, |value| plain(value)?.parse().map_err(|e| (value.at, format!("{e}"))))?),
        "seq" => Test::Seq(each(values, seq)?),
        "occurred" => Test::Occurred(each(values, |value| occurred(value, now))?),
        _ => Test::Is(each(values, |value| {
            let word = plain(value)?;
            let names = PROPERTIES.map(|(name, _)| name);
            Property::named(&word).ok_or_else(|| (value.at, suggest::not_in_list("is", &word, &names)))
        })?),
    })
}

fn each<T>(values: &[Value], read: impl Fn(&Value) -> Result<T>) -> Result<Vec<T>> {
    values.iter().map(read).collect()
}

/// Returns the text of a value in which neither `*` nor `~` has a meaning.
fn plain(value: &Value) -> Result<String> {
    value.text().filter(|_| !value.ignore_case).ok_or_else(|| (value.at, "neither * nor ~ is allowed here".to_owned()))
}

/// Parses a value that is compared as a whole.
fn whole_value(key: &str, value: &Value) -> Result<Pattern> {
    let bare = value.bare();
    if !FREE_FIELDS.contains(&key) && !value.is_quoted() {
        let word = bare.as_str();
        let problem = if matches!(word, "AND" | "OR" | "NOT") {
            Some(format!("{word} joins conditions; quote it to use it as a value"))
        } else if bare.contains(['|', '&', ';']) && !bare.contains('@') {
            Some(
                "write a comma or OR between values, as in user:alice,bob; quote a value that contains this character"
                    .to_owned(),
            )
        } else if let Some(left_out) = bare.strip_prefix('-') {
            Some(format!("to exclude a value, write -{key}:{left_out}; quote a value that begins with a minus"))
        } else if bare.contains('%') {
            Some("* matches any characters; quote a value that contains a percent sign".to_owned())
        } else if bare.contains(['~', '^']) {
            Some("fuzzy distances and boosts are not supported; quote a value that contains this character".to_owned())
        } else if key == "verb" && bare.contains(['.', ':', '/']) {
            Some("a verb is the last word of an action; write action:mailbox.delete, or verb:delete".to_owned())
        } else if bare.contains("..") {
            Some(
                "only seq, occurred, ip and numbers in details accept ranges; quote a value that contains two dots"
                    .to_owned(),
            )
        } else if bare.contains('?') {
            Some("* matches any characters, and ? has no special meaning; quote a value that contains ?".to_owned())
        } else if bare.len() > 2 && bare.starts_with('/') && bare.ends_with('/') {
            Some(suggest::NO_REGEX.to_owned())
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err((value.at, problem));
        }
    }
    Ok(value.pattern())
}

/// Parses a person or thing. Its pattern is compared with whole values, and the pieces of the pattern are searched for in texts.
fn subject(value: &Value) -> Result<Subject> {
    needle(value)?;
    let whole = value.pattern();
    Ok(Subject { part: TextPattern::new(whole.pieces().to_vec()), whole })
}

/// Returns a hint if the condition may not mean what its author intended.
pub(super) fn hint(key: &Key, values: &[Value]) -> Option<String> {
    let Key::Name(name) = key else { return None };
    let words: Vec<String> = values.iter().filter_map(unquoted_word).collect();
    match *name {
        "category" => words.iter().find_map(|word| {
            let meant = suggest::near(word, &CATEGORIES).filter(|meant| meant != word)?;
            Some(format!("{word} is treated as a custom category; did you mean category:{meant}?"))
        }),
        "entity" => words.iter().find(|word| !word.contains('/') && word.contains(['.', ':', '@'])).map(|word| {
            format!("{word} is searched for as an entity type; write type/id for one entity, as in entity:domain/example.org")
        }),
        "details" => words.iter().find_map(|word| {
            let (path, value) = word.split_once(':')?;
            let is_name = !path.is_empty() && path.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
            is_name.then(|| format!("{word:?} is searched for as text; write details.{path}:{value} to match a value inside details"))
        }),
        _ => None,
    }
}

/// Parses text to search for anywhere in a longer text, ignoring case.
fn needle(value: &Value) -> Result<TextPattern> {
    let needle = value.needle();
    if needle.pieces.iter().all(String::is_empty) && !value.bare().contains('*') {
        return Err((value.at, "there is no text to look for".to_owned()));
    }
    Ok(needle)
}

/// Checks fields with known values, because a misspelled value would silently match nothing.
fn known_word(column: Column, value: &Value) -> Result<()> {
    match column {
        Column::Outcome => closed("outcome", &OUTCOMES, value),
        Column::Category => {
            let Some(word) = unquoted_word(value) else { return Ok(()) };
            if word == NODE_CATEGORY || is_category(&word) {
                return Ok(());
            }
            Err((value.at, format!("{word:?} is not a category; use a lower-case word such as auth or payment")))
        }
        _ => Ok(()),
    }
}

fn closed(key: &str, known: &[&str], value: &Value) -> Result<()> {
    let pattern = value.pattern();
    if value.is_quoted() || known.iter().any(|word| pattern.matches(word)) {
        return Ok(());
    }
    Err((value.at, suggest::not_in_list(key, &pattern.pieces().join("*"), known)))
}

/// Returns the text of an unquoted value that is compared as a whole. A quoted value need not be in the list of its key.
fn unquoted_word(value: &Value) -> Option<String> {
    value.text().filter(|_| !value.is_quoted() && !value.ignore_case)
}

fn entity(value: &Value) -> Result<EntityPattern> {
    whole_value("entity", value)?;
    let missing = |word| Err((value.at, format!("write an entity as type or type/id; its {word} is missing")));
    let at = |quoted: bool| {
        value
            .pieces
            .iter()
            .position(|piece| matches!(piece, Piece::Text { text, quoted: q } if *q == quoted && text.contains('/')))
    };
    // Prefer a slash outside quotes, because the type may contain a quoted slash.
    let Some((at, Piece::Text { text, quoted })) = at(false).or_else(|| at(true)).map(|at| (at, &value.pieces[at]))
    else {
        return Ok(EntityPattern { kind: value.pattern(), id: None, affected: false });
    };
    let (before, after) = text.split_once('/').unwrap_or((text, ""));
    let piece = |text: &str| Piece::Text { text: text.to_owned(), quoted: *quoted };
    let part = |pieces: Vec<Piece>| Value { pieces, ..value.clone() };
    let kind = part(value.pieces[..at].iter().cloned().chain([piece(before)]).collect());
    let id = part([piece(after)].into_iter().chain(value.pieces[at + 1..].iter().cloned()).collect());
    let is_empty = |part: &Value| part.text().is_some_and(|text| text.is_empty());
    match (is_empty(&kind), is_empty(&id)) {
        (true, _) => missing("type"),
        (_, true) => missing("id"),
        _ => Ok(EntityPattern { kind: kind.pattern(), id: Some(id.pattern()), affected: true }),
    }
}

fn ip(value: &Value) -> Result<IpPattern> {
    let at = value.at;
    if let Some((from, to)) = value.range() {
        return value::ip_range(&from, &to)
            .map(|(from, to)| IpPattern::Range(from, to))
            .map_err(|problem| (at, problem));
    }
    if let Some(net) = value.text().and_then(|text| value::net(&text)).or_else(|| value.net_of_wildcard()) {
        return Ok(IpPattern::Net(net));
    }
    let bare = value.bare();
    let host = bare.chars().all(|c| c.is_ascii_alphanumeric() || "._-*".contains(c));
    let has_name = bare.chars().any(|c| c.is_ascii_alphabetic() && !c.is_ascii_hexdigit()) || bare == "*";
    // Text that looks like an address but is not one is a mistake. Any other text may be the name of a service.
    if !(value.is_quoted() || (host && has_name)) {
        let words = if let Some((from, to)) =
            bare.split_once('-').filter(|(from, to)| value::ip_range(from, to).is_ok())
        {
            format!("write a range as {from}..{to}")
        } else if let Some((address, _)) =
            bare.rsplit_once(':').filter(|(address, _)| address.parse::<std::net::Ipv4Addr>().is_ok())
        {
            format!("an address cannot have a port here; write {address}")
        } else if bare.contains('*') {
            "write whole parts of an address, as in 10.1.*, or a range, as in 10.1.0.0/16 or 10.1.2.20..10.1.2.29; quote a value that is not an address, such as a service name".to_owned()
        } else {
            format!(
                "{bare:?} is neither an address nor a range such as 10.0.0.0/8, 10.0.0.1..10.0.0.9 or 203.0.113.*; quote a value that is not an address, such as a service name"
            )
        };
        return Err((at, words));
    }
    Ok(IpPattern::Text(value.pattern()))
}

fn seq(value: &Value) -> Result<(u64, u64)> {
    let text = plain(value)?;
    let problem = |problem: String| (value.at, problem);
    let Some(comparison) = value.comparison else { return value::seq(&text).map_err(problem) };
    let number: u64 = text.parse().map_err(|_| problem("seq must be a number".to_owned()))?;
    let none = || problem("no row number satisfies this comparison".to_owned());
    Ok(match comparison {
        Comparison::Less => (0, number.checked_sub(1).ok_or_else(none)?),
        Comparison::LessOrEqual => (0, number),
        Comparison::Greater => (number.checked_add(1).ok_or_else(none)?, u64::MAX),
        Comparison::GreaterOrEqual => (number, u64::MAX),
    })
}

fn occurred(value: &Value, now: Now) -> Result<TimeRange> {
    let text = plain(value)?;
    let problem = |problem: String| (value.at, problem);
    let Some(comparison) = value.comparison else { return value::occurred(&text, now).map_err(problem) };
    // A day is a range, so "later than a day" means after its end.
    let (from, to) = match human_time::day_range_in(&text, now.zone) {
        Some(day) => day,
        None => {
            let time = human_time::parse(&text, now).map_err(|e| problem(e.to_string()))?;
            (time, time.plus_micros(1))
        }
    };
    Ok(match comparison {
        Comparison::Less => time_range(Timestamp::MIN, from),
        Comparison::LessOrEqual => time_range(Timestamp::MIN, to),
        Comparison::Greater => time_range(to, Timestamp::MAX),
        Comparison::GreaterOrEqual => time_range(from, Timestamp::MAX),
    })
}

fn path_value(value: &Value) -> Result<PathValue> {
    let number = |text: &str| {
        Number::parse(text)
            .map(|_| text.to_owned())
            .ok_or_else(|| (value.at, format!("{text:?} is not a number; quote a value that is text")))
    };
    let bound = |text: &str, inclusive| Ok(Some(Bound { text: number(text)?, inclusive }));
    if let Some(comparison) = value.comparison {
        let text = plain(value)?;
        return Ok(match comparison {
            Comparison::Less => PathValue::Range(None, bound(&text, false)?),
            Comparison::LessOrEqual => PathValue::Range(None, bound(&text, true)?),
            Comparison::Greater => PathValue::Range(bound(&text, false)?, None),
            Comparison::GreaterOrEqual => PathValue::Range(bound(&text, true)?, None),
        });
    }
    if let Some((from, to)) = value.range().filter(|_| !value.ignore_case) {
        let end = |text: &str| if text.is_empty() { Ok(None) } else { bound(text, true) };
        let (from, to) = (end(&from)?, end(&to)?);
        let ends = from
            .as_ref()
            .and_then(|from| Number::parse(&from.text))
            .zip(to.as_ref().and_then(|to| Number::parse(&to.text)));
        if ends.is_some_and(|(from, to)| from.compare(to).is_gt()) {
            return Err((value.at, "the start of this range is after its end".to_owned()));
        }
        return match (&from, &to) {
            (None, None) => Err((value.at, "a range needs a number on at least one side".to_owned())),
            _ => Ok(PathValue::Range(from, to)),
        };
    }
    match value.text().filter(|text| !value.is_quoted() && !value.ignore_case && Number::parse(text).is_some()) {
        Some(number) => Ok(PathValue::Number(number)),
        None => Ok(PathValue::Text(value.pattern())),
    }
}
