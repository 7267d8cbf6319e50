//! Prints a filter in canonical form.

use std::fmt;

use super::expr::{Expr, Filter, VERSION_1_MARK, VERSION_2_MARK};
use super::keywords::{FLAG_WORDS, VIA_WORDS};
use super::path::{Bound, Number, PathValue, Root};
use super::pattern::{Pattern, TextPattern};
use super::test::{EntityPattern, FIELDS, IpPattern, PROPERTIES, Test};
use super::version_2::is_hidden;
use crate::column::Column;
use piperoll_format::entry::{CATEGORIES, NODE_CATEGORY, OUTCOMES};

/// Writes the text that is stored and sent: version 1 if it can express the filter, otherwise version 2 with its mark. The
/// text parses back to an equal filter.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.in_version_1() {
            Some(text) => f.write_str(&text),
            None => {
                let text = self.typed();
                let mark = if text.starts_with(VERSION_2_MARK) { "" } else { "v2: " };
                write!(f, "{mark}{text}")
            }
        }
    }
}

impl Filter {
    /// Returns the filter as a person would type it in version 2.
    pub fn typed(&self) -> String {
        let text = match &self.all[..] {
            [Expr::Any(parts)] => alternatives(parts),
            parts => conditions(parts),
        };
        // A quoted condition of version 1 at the beginning must not be read as the mark that declares the whole text to be
        // version 1.
        if text.starts_with(VERSION_1_MARK) { format!("{VERSION_2_MARK} {text}") } else { text }
    }

    /// Returns the filter in version 1, if that version can express it.
    pub fn in_version_1(&self) -> Option<String> {
        let terms: Option<Vec<String>> = self.all.iter().map(term_of_version_1).collect();
        terms.map(|terms| terms.join(" "))
    }
}

fn alternatives(parts: &[Expr]) -> String {
    parts.iter().map(part).collect::<Vec<_>>().join(" OR ")
}

fn conditions(parts: &[Expr]) -> String {
    parts.iter().map(part).collect::<Vec<_>>().join(" ")
}

fn part(part: &Expr) -> String {
    match part {
        Expr::All(parts) => format!("({})", conditions(parts)),
        Expr::Any(parts) => format!("({})", alternatives(parts)),
        Expr::Not(inner) => format!("-{}", self::part(inner)),
        Expr::Test(test) => condition(test),
    }
}

/// Writes a condition as its key and values; free text has no key. A condition whose text would mean something else in version 2
/// is written as a quoted condition of version 1.
fn condition(test: &Test) -> String {
    if test.is_of_version_1_only()
        && let Some(term) = term_of_version_1(&Expr::Test(test.clone()))
    {
        return format!("{VERSION_1_MARK}{}", quoted(&term));
    }
    let (key, values): (&str, Vec<String>) = match test {
        Test::Field(column, patterns) => {
            (name_of(*column), patterns.iter().map(|pattern| field_value(*column, pattern)).collect())
        }
        Test::Actor(patterns) => ("actor", patterns.iter().map(value).collect()),
        Test::Verb(patterns) => ("verb", patterns.iter().map(verb_value).collect()),
        Test::Subject(subjects) => ("subject", subjects.iter().map(|subject| value(&subject.whole)).collect()),
        Test::Entity(patterns) => ("entity", patterns.iter().map(entity).collect()),
        Test::Ip(patterns) => ("ip", patterns.iter().map(ip).collect()),
        Test::Agent(needles) => ("agent", needles.iter().map(needle).collect()),
        Test::Details(needles) => ("details", needles.iter().map(needle).collect()),
        Test::Text(needles) if needles.len() > 1 => ("description", needles.iter().map(needle).collect()),
        Test::Text(needles) => return needles.iter().map(needle).collect(),
        Test::Flag(patterns) => ("flag", patterns.iter().map(|pattern| listed(&FLAG_WORDS, pattern)).collect()),
        Test::Via(patterns) => ("via", patterns.iter().map(|pattern| listed(&VIA_WORDS, pattern)).collect()),
        Test::Path(root, path, values) => return path_condition(*root, path, values),
        Test::Id(ids) => ("id", ids.iter().map(ToString::to_string).collect()),
        Test::Seq(ranges) => ("seq", ranges.iter().map(seq).collect()),
        Test::Occurred(ranges) => ("occurred", ranges.iter().map(|range| range.text.clone()).collect()),
        Test::Is(properties) => (
            "is",
            properties
                .iter()
                .filter_map(|property| PROPERTIES.iter().find(|(_, known)| known == property))
                .map(|(name, _)| (*name).to_owned())
                .collect(),
        ),
    };
    format!("{key}:{}", values.join(","))
}

/// Returns the values of a condition that are compared as a whole and case-sensitively, each with its key.
pub(super) fn values_with_case(test: &Test) -> Vec<(String, String)> {
    let (key, patterns): (String, Vec<&Pattern>) = match test {
        Test::Field(Column::Outcome | Column::Category | Column::Node, _) => return Vec::new(),
        Test::Field(column, patterns) => (name_of(*column).to_owned(), patterns.iter().collect()),
        Test::Actor(patterns) => ("actor".to_owned(), patterns.iter().collect()),
        Test::Verb(patterns) => ("verb".to_owned(), patterns.iter().collect()),
        Test::Path(root, path, values) => {
            let texts = values.iter().filter_map(|value| match value {
                PathValue::Text(pattern) => Some(pattern),
                _ => None,
            });
            (path_key(*root, path), texts.collect())
        }
        _ => return Vec::new(),
    };
    let has_letters = |pattern: &&Pattern| {
        !pattern.ignores_case() && pattern.pieces().iter().any(|piece| piece.chars().any(char::is_alphabetic))
    };
    patterns.into_iter().filter(has_letters).map(|pattern| (key.clone(), value(pattern))).collect()
}

fn name_of(column: Column) -> &'static str {
    FIELDS.iter().find(|(_, field)| *field == column).map_or("", |(name, _)| name)
}

fn seq((from, to): &(u64, u64)) -> String {
    if from == to { from.to_string() } else { format!("{from}..{to}") }
}

/// Quotes text that the grammar could read as something else.
fn piece(text: &str) -> String {
    let is_plain = text.chars().all(|c| c.is_alphanumeric() || "_.@/+:-".contains(c))
        && !text.contains("..")
        && !text.starts_with(['-', ':', '/', '+'])
        && !matches!(text, "AND" | "OR" | "NOT")
        && !text.chars().any(is_hidden);
    if is_plain { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}

fn stars(pieces: &[String], piece: impl Fn(&str) -> String) -> String {
    if matches!(pieces, [only] if only.is_empty()) {
        return "\"\"".to_owned();
    }
    pieces.iter().map(|text| piece(text)).collect::<Vec<_>>().join("*")
}

fn case(pattern: &Pattern) -> &'static str {
    if pattern.ignores_case() { "~" } else { "" }
}

fn value(pattern: &Pattern) -> String {
    format!("{}{}", case(pattern), stars(pattern.pieces(), piece))
}

/// Writes a value of a closed list; a value that is not in the list is quoted.
fn listed(known: &[&str], pattern: &Pattern) -> String {
    match pattern.literal() {
        Some(word) if known.contains(&word) => word.to_owned(),
        Some(word) => quoted(word),
        None if known.iter().any(|word| pattern.matches(word)) => value(pattern),
        None => format!("{}{}", case(pattern), stars(pattern.pieces(), quoted)),
    }
}

/// Writes a verb. Separators of an action are quoted, because the parser refuses them in a verb without quotes.
fn verb_value(pattern: &Pattern) -> String {
    let part = |text: &str| if text.contains(['.', ':', '/']) { quoted(text) } else { piece(text) };
    format!("{}{}", case(pattern), stars(pattern.pieces(), part))
}

fn field_value(column: Column, pattern: &Pattern) -> String {
    match column {
        Column::Outcome => listed(&OUTCOMES, pattern),
        Column::Category => match pattern.literal() {
            Some(word) if !piperoll_format::entry::is_category(word) && word != NODE_CATEGORY => quoted(word),
            _ => value(pattern),
        },
        _ => value(pattern),
    }
}

fn needle(needle: &TextPattern) -> String {
    if needle.pieces.iter().all(String::is_empty) { "*".to_owned() } else { stars(&needle.pieces, quoted) }
}

fn entity(pattern: &EntityPattern) -> String {
    match &pattern.id {
        None => value(&pattern.kind),
        Some(id) => {
            // The first slash outside quotes ends the type.
            let kind = stars(pattern.kind.pieces(), |text| if text.contains('/') { quoted(text) } else { piece(text) });
            format!("{}{kind}/{}", case(&pattern.kind), stars(id.pieces(), piece))
        }
    }
}

fn ip(pattern: &IpPattern) -> String {
    match pattern {
        IpPattern::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
        IpPattern::Net(net) => net.to_string(),
        IpPattern::Range(from, to) => format!("{from}..{to}"),
        // A name is quoted, because it could otherwise be read as an address.
        IpPattern::Text(pattern) if pattern.is_anything() => value(pattern),
        IpPattern::Text(pattern) => format!("{}{}", case(pattern), stars(pattern.pieces(), quoted)),
    }
}

fn path_key(root: Root, path: &[String]) -> String {
    let is_plain = |key: &str| key.chars().all(|c| c.is_alphanumeric() || "_-".contains(c));
    let keys: Vec<String> = path.iter().map(|key| if is_plain(key) { key.clone() } else { quoted(key) }).collect();
    format!("{}.{}", root.word(), keys.join("."))
}

fn path_condition(root: Root, path: &[String], values: &[PathValue]) -> String {
    let bound = |bound: &Option<Bound>| bound.as_ref().map(|bound| bound.text.clone()).unwrap_or_default();
    let is_inclusive = |bound: &Option<Bound>| bound.as_ref().is_none_or(|bound| bound.inclusive);
    let values: Vec<String> = values
        .iter()
        .map(|value| match value {
            PathValue::Number(number) => number.clone(),
            PathValue::Text(pattern) if pattern.literal().is_some_and(|text| Number::parse(text).is_some()) => {
                stars(pattern.pieces(), quoted)
            }
            PathValue::Text(pattern) => self::value(pattern),
            PathValue::Range(from, to) if is_inclusive(from) && is_inclusive(to) => {
                format!("{}..{}", bound(from), bound(to))
            }
            PathValue::Range(from, None) => format!(">{}", bound(from)),
            PathValue::Range(_, to) => format!("<{}", bound(to)),
        })
        .collect();
    format!("{}:{}", path_key(root, path), values.join(","))
}

fn term_of_version_1(part: &Expr) -> Option<String> {
    let (minus, test) = match part {
        Expr::Test(test) => ("", test),
        Expr::Not(inner) => match &**inner {
            Expr::Test(test) => ("-", test),
            _ => return None,
        },
        Expr::All(_) | Expr::Any(_) => return None,
    };
    let (key, values) = values_of_version_1(test)?;
    let is_name = matches!(test, Test::Ip(_)).then(|| test_names(test)).unwrap_or_default();
    let written = values.iter().enumerate().map(|(at, value)| {
        let special = value.chars().any(|c| c.is_whitespace() || "\",\\".contains(c));
        let plain = key.is_some() && !value.is_empty() && !special && !is_name.get(at).copied().unwrap_or_default();
        if plain { value.clone() } else { format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")) }
    });
    let written: Vec<String> = written.collect();
    Some(format!("{minus}{}{}", key.map(|key| format!("{key}:")).unwrap_or_default(), written.join(",")))
}

/// Returns, for each pattern of an address test, whether it is a name; for other tests, returns an empty list. Names are quoted,
/// because they would otherwise be read as addresses.
fn test_names(test: &Test) -> Vec<bool> {
    match test {
        Test::Ip(patterns) => patterns.iter().map(|pattern| matches!(pattern, IpPattern::Text(_))).collect(),
        _ => Vec::new(),
    }
}

fn values_of_version_1(test: &Test) -> Option<(Option<&'static str>, Vec<String>)> {
    fn literals(patterns: &[Pattern]) -> Option<Vec<String>> {
        patterns.iter().map(|pattern| pattern.literal().map(str::to_owned)).collect()
    }
    fn one_piece(needle: &TextPattern) -> Option<String> {
        match &needle.pieces[..] {
            [one] if !one.is_empty() => Some(one.clone()),
            _ => None,
        }
    }
    fn stored_form(needle: &TextPattern) -> Option<String> {
        one_piece(needle).filter(|_| needle.stored_form_only)
    }
    let action = |pattern: &Pattern| match (pattern.literal(), pattern.prefix()) {
        (Some(text), _) if !text.contains('*') => Some(text.to_owned()),
        (_, Some(prefix)) if !prefix.contains('*') => Some(format!("{prefix}*")),
        _ => None,
    };
    let values = match test {
        Test::Field(Column::Action, patterns) => patterns.iter().map(action).collect::<Option<Vec<_>>>()?,
        Test::Field(column, patterns) => {
            let words = literals(patterns)?;
            let known = |word: &String| match column {
                Column::Outcome => OUTCOMES.contains(&word.as_str()),
                Column::Category => CATEGORIES.contains(&word.as_str()) || word == NODE_CATEGORY,
                _ => true,
            };
            words.iter().all(known).then_some(words)?
        }
        Test::Actor(patterns) | Test::Flag(patterns) | Test::Via(patterns) => literals(patterns)?,
        Test::Subject(subjects) => subjects
            .iter()
            .map(|subject| stored_form(&subject.part).and(subject.whole.literal()).map(str::to_owned))
            .collect::<Option<_>>()?,
        Test::Entity(patterns) => patterns.iter().map(entity_of_version_1).collect::<Option<_>>()?,
        Test::Ip(patterns) => patterns
            .iter()
            .map(|pattern| match pattern {
                IpPattern::Net(_) => Some(ip(pattern)),
                IpPattern::Text(pattern) => pattern.literal().map(str::to_owned),
                IpPattern::Range(..) => None,
            })
            .collect::<Option<_>>()?,
        Test::Agent(needles) => needles.iter().map(one_piece).collect::<Option<_>>()?,
        Test::Details(needles) => needles.iter().map(stored_form).collect::<Option<_>>()?,
        Test::Text(needles) => match &needles[..] {
            [needle] => vec![one_piece(needle)?],
            _ => return None,
        },
        Test::Id(ids) => ids.iter().map(ToString::to_string).collect(),
        Test::Seq(ranges) => ranges.iter().map(seq).collect(),
        Test::Occurred(ranges) => ranges.iter().map(|range| range.text.clone()).collect(),
        Test::Is(properties) => {
            let named = properties.iter().filter_map(|property| PROPERTIES.iter().find(|(_, known)| known == property));
            named.map(|(name, _)| (*name).to_owned()).collect()
        }
        Test::Verb(_) | Test::Path(..) => return None,
    };
    Some((key_of_version_1(test), values))
}

fn key_of_version_1(test: &Test) -> Option<&'static str> {
    Some(match test {
        Test::Field(column, _) => name_of(*column),
        Test::Actor(_) => "actor",
        Test::Subject(_) => "subject",
        Test::Entity(_) => "entity",
        Test::Ip(_) => "ip",
        Test::Agent(_) => "agent",
        Test::Flag(_) => "flag",
        Test::Via(_) => "via",
        Test::Id(_) => "id",
        Test::Seq(_) => "seq",
        Test::Occurred(_) => "occurred",
        Test::Details(_) => "details",
        Test::Is(_) => "is",
        Test::Text(_) | Test::Verb(_) | Test::Path(..) => return None,
    })
}

fn entity_of_version_1(pattern: &EntityPattern) -> Option<String> {
    let kind = pattern.kind.literal().filter(|kind| !kind.contains('/'))?;
    match &pattern.id {
        // A type alone means the same in both versions, whichever of them parsed it.
        None => Some(kind.to_owned()),
        Some(id) if !pattern.affected => Some(format!("{kind}/{}", id.literal()?)),
        Some(_) => None,
    }
}
