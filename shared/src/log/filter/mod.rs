//! The filter language (docs/filters.md): parsers of its versions, one evaluation, used by every room.
//!
//! A filter is a tree of tests under AND, OR and NOT. Text that is stored carries the version of the language that it is written
//! in; text without one is of version 1.

mod conditions;
mod erased;
mod evaluate;
mod fold;
mod nodes;
mod path;
mod pattern;
mod print;
#[cfg(test)]
mod round_trip;
mod suggest;
mod test;
mod value;
mod version_1;
mod version_2;
mod words;

use super::time::Timestamp;
use super::zone::Now;

pub use conditions::{Atom, Condition, TRIGRAM_CHARS};
pub use erased::ErasedFit;
pub use evaluate::{net_contains, net_has};
pub use fold::{fold, unescaped};
pub use nodes::NodeName;
pub use test::verb;
pub use words::{IS_WORDS, KEY_WORDS, KEYS, canonical_key, is_key};

use test::Test;

/// The newest version of the language, which this program reads and writes.
pub const FILTER_VERSION: u32 = 2;
/// What begins text of a version. Version 1 knew no key of these names, so a program of that time refuses such text instead of
/// reading something else.
const VERSION_1_MARK: &str = "v1:";
const VERSION_2_MARK: &str = "v2:";

/// A parsed filter; empty means every entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Each holds.
    all: Vec<Expr>,
}

/// A part of a filter. Parts are kept in one form: no `All` directly in an `All`, no `Any` directly in an `Any`, neither with fewer
/// than two parts, and no `Not` directly in a `Not`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
    Test(Test),
}

impl Expr {
    fn all(parts: Vec<Self>) -> Self {
        let flat = parts.into_iter().flat_map(|part| match part {
            Self::All(parts) => parts,
            part => vec![part],
        });
        one_or(flat.collect(), Self::All)
    }

    fn any(parts: Vec<Self>) -> Self {
        let flat = parts.into_iter().flat_map(|part| match part {
            Self::Any(parts) => parts,
            part => vec![part],
        });
        one_or(flat.collect(), Self::Any)
    }

    fn not(part: Self) -> Self {
        match part {
            Self::Not(part) => *part,
            part => Self::Not(Box::new(part)),
        }
    }

    /// Every test below it.
    fn tests(&self) -> Vec<&Test> {
        match self {
            Self::Test(test) => vec![test],
            Self::Not(part) => part.tests(),
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::tests).collect(),
        }
    }
}

fn one_or(mut parts: Vec<Expr>, several: impl Fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            several(parts)
        }
        None => several(parts),
    }
}

/// Whether a text is one that a pattern of a filter means: `*` stands for any characters, and nothing else is special.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    pattern::Pattern::new(pattern.split('*').map(str::to_owned).collect(), false).matches(text)
}

/// A filter as it was typed, and what its author may want to know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    pub filter: Filter,
    /// What was read in a way that may not have been meant, one sentence each.
    pub hints: Vec<String>,
}

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

impl FilterError {
    fn new(text: &str, (at, problem): Problem) -> Self {
        Self { at, problem, text: text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() }
    }
}

/// Where, from 0, and what is wrong.
type Problem = (usize, String);
type Result<T> = std::result::Result<T, Problem>;

impl Filter {
    /// Parses what somebody types now, in the newest version of the language unless it begins with the mark of another. `now` gives ages
    /// (`occurred:7d..`) and dates without a zone their meaning.
    pub fn parse(text: &str, now: impl Into<Now>) -> std::result::Result<Self, FilterError> {
        Self::parse_typed(text, now).map(|typed| typed.filter)
    }

    /// The same with hints.
    pub fn parse_typed(text: &str, now: impl Into<Now>) -> std::result::Result<Typed, FilterError> {
        let now = now.into();
        let read = match text.trim_start().strip_prefix(VERSION_1_MARK) {
            Some(rest) => version_1::parse(rest, now.at)
                .map(|filter| Typed { filter, hints: Vec::new() })
                .map_err(|(at, problem)| (at + chars_before(text, rest), problem)),
            None => {
                let rest = text.trim_start().strip_prefix(VERSION_2_MARK).unwrap_or(text);
                version_2::parse(rest, now, false).map_err(|(at, problem)| (at + chars_before(text, rest), problem))
            }
        };
        read.map_err(|problem| FilterError::new(text, problem))
    }

    /// Parses text that was kept: of bundles, tokens, requests between nodes. Without a mark it is of version 1.
    pub fn parse_stored(text: &str, now: impl Into<Now>) -> std::result::Result<Self, FilterError> {
        let is_marked = [VERSION_1_MARK, VERSION_2_MARK].iter().any(|mark| text.starts_with(mark));
        let now = now.into();
        if let Some(rest) = text.strip_prefix(VERSION_2_MARK) {
            let read = version_2::parse(rest, now, true).map(|typed| typed.filter);
            return read.map_err(|(at, problem)| FilterError::new(text, (at + chars_before(text, rest), problem)));
        }
        if is_marked {
            return Self::parse(text, now);
        }
        version_1::parse(text, now.at).map_err(|problem| FilterError::new(text, problem))
    }

    /// Parses text of a file that people write and that may be older than version 2. Where the versions read it differently, it must say
    /// which one it is of.
    pub fn parse_config(text: &str, now: impl Into<Now>) -> std::result::Result<Self, FilterError> {
        let now = now.into();
        let is_marked = [VERSION_1_MARK, VERSION_2_MARK].iter().any(|mark| text.trim_start().starts_with(mark));
        let old = version_1::parse(text, now.at).ok().filter(|_| !is_marked);
        match (old, Self::parse(text, now)) {
            (Some(old), Ok(new)) if old.clone().into_version_2() != new => Err(FilterError::new(
                text,
                (
                    0,
                    format!(
                        "versions 1 and 2 of the filter language read this differently; begin it with {VERSION_2_MARK} for the present meaning, or with {VERSION_1_MARK} for what it meant before"
                    ),
                ),
            )),
            // They differ in where they look, if at all: what was written keeps its meaning.
            (Some(old), _) => Ok(old),
            (None, new) => new,
        }
    }

    /// One `key=value` pair of a query string: the same as the condition `key:value`, commas included. A space belongs
    /// to the value here, because nothing else follows it.
    pub fn parse_pair(key: &str, value: &str, now: impl Into<Now>) -> std::result::Result<Self, FilterError> {
        let value = if value.contains('"') { value.to_owned() } else { quote_spaces(value) };
        let text = format!("{key}:{value}");
        let filter = Self::parse(&text, now)?;
        if !matches!(filter.all[..], [Expr::Test(_)]) {
            let problem = format!("the value of {key} holds more than one condition; quote a value with spaces");
            return Err(FilterError::new(&text, (key.chars().count() + 1, problem)));
        }
        Ok(filter)
    }

    /// The same for a pair whose query began before version 2.
    pub fn parse_stored_pair(key: &str, value: &str, now: impl Into<Now>) -> std::result::Result<Self, FilterError> {
        let quoted = |part: &str| if part.contains(char::is_whitespace) { quote_piece(part) } else { part.to_owned() };
        let value = if value.contains('"') {
            value.to_owned()
        } else {
            value.split(',').map(quoted).collect::<Vec<_>>().join(",")
        };
        Self::parse_stored(&format!("{key}:{value}"), now)
    }

    /// Typed text for a program that may know version 1 only: as it is where that version reads the same in it, otherwise with the mark
    /// of version 2, which such a program refuses. The text is not checked.
    pub fn portable(text: &str, now: impl Into<Now>) -> String {
        let now = now.into();
        let old = version_1::parse(text, now.at).map(Self::into_version_2);
        match (old, Self::parse(text, now)) {
            (_, Ok(_))
                if text.trim_start().starts_with(VERSION_1_MARK) || text.trim_start().starts_with(VERSION_2_MARK) =>
            {
                text.to_owned()
            }
            (Ok(old), Ok(new)) if old == new => text.to_owned(),
            (_, Ok(_)) => format!("{VERSION_2_MARK} {text}"),
            (_, Err(_)) => text.to_owned(),
        }
    }

    /// Text for a file that people write, which [`Filter::parse_config`] reads as this filter.
    pub fn config_text(&self) -> String {
        let texts = self.in_version_1().into_iter().chain([self.typed()]);
        let mut read =
            texts.filter(|text| Self::parse_config(text, Timestamp::MIN).is_ok_and(|filter| filter == *self));
        read.next().unwrap_or_else(|| format!("{VERSION_2_MARK} {}", self.typed().trim_start_matches("v2: ")))
    }

    /// Text that was kept without a mark, as somebody would have to type it today.
    pub fn retyped(stored: &str, now: impl Into<Now>) -> String {
        let now = now.into();
        let same = version_1::parse(stored, now.at).ok() == Self::parse(stored, now).ok();
        if same || stored.starts_with(VERSION_2_MARK) {
            stored.to_owned()
        } else {
            format!("{VERSION_1_MARK} {stored}")
        }
    }

    /// What could be tried when nothing matched: values in which case counts.
    pub fn hints_when_empty(&self) -> Vec<String> {
        let mut values = self.tests().flat_map(print::values_with_case);
        let hint = |(key, value): (String, String)| format!("{key}:{value} respects case; {key}:~{value} ignores it");
        values.next().map(hint).into_iter().collect()
    }

    fn of(expr: Expr) -> Self {
        Self {
            all: match expr {
                Expr::All(parts) => parts,
                expr => vec![expr],
            },
        }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Both filters must hold.
    pub fn and(mut self, other: Self) -> Self {
        self.all.extend(other.all);
        self
    }

    /// Every entry that a program of version 1 could be asked for instead: a filter of that version that selects at least what this
    /// one selects.
    pub fn widened_to_version_1(&self) -> Self {
        // Of capital and final sigma that version knew the place in the word.
        let has_sigma = |text: &str| text.contains(['Σ', 'σ', 'ς']);
        let expressible = |part: &&Expr| {
            let text = Self { all: vec![(*part).clone()] }.in_version_1();
            text.is_some_and(|text| !has_sigma(&text))
        };
        Self { all: self.all.iter().filter(expressible).cloned().collect() }
    }

    /// The same with what version 2 knows by the same words: text in JSON is found with escapes and without, an entity also where a bulk
    /// entry lists it.
    fn into_version_2(mut self) -> Self {
        self.all.iter_mut().for_each(Expr::lift);
        self
    }

    fn tests(&self) -> impl Iterator<Item = &Test> {
        self.all.iter().flat_map(Expr::tests)
    }
}

impl Expr {
    fn lift(&mut self) {
        match self {
            Self::Test(test) => test.lift(),
            Self::Not(part) => part.lift(),
            Self::All(parts) | Self::Any(parts) => parts.iter_mut().for_each(Self::lift),
        }
    }
}

fn chars_before(text: &str, rest: &str) -> usize {
    text.chars().count() - rest.chars().count()
}

fn quote_spaces(value: &str) -> String {
    // A list in brackets is one of values, as in a filter.
    if value.starts_with('(') {
        return value.to_owned();
    }
    let needs_quotes = |part: &str| part.contains(|c: char| c.is_whitespace() || "()\\".contains(c));
    let quoted = |part: &str| match part.strip_prefix('~') {
        Some(rest) => format!("~{}", quoted_value(rest)),
        None => quoted_value(part),
    };
    let parts = value.split(',').map(|part| if needs_quotes(part) { quoted(part) } else { part.to_owned() });
    parts.collect::<Vec<_>>().join(",")
}

fn quoted_value(part: &str) -> String {
    // A star keeps its meaning.
    part.split('*').map(quote_piece).collect::<Vec<_>>().join("*")
}

fn quote_piece(piece: &str) -> String {
    if piece.is_empty() { String::new() } else { format!("\"{}\"", piece.replace('\\', "\\\\")) }
}

/// The text of a moment that no filter of a stored form depends on.
#[cfg(test)]
fn no_time() -> Timestamp {
    Timestamp::from_micros(0)
}
