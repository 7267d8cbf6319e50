//! Parses filters in every version of the language, and prints them for programs of each version.

use super::expr::{Expr, Filter, FilterError, TypedFilter, VERSION_1_MARK, VERSION_2_MARK, chars_before};
use super::{print, version_1, version_2};
use crate::zone::Now;
use piperoll_format::time::Timestamp;

impl Filter {
    /// Parses text typed by a person. The text is in the newest version of the language, unless it begins with the mark of
    /// another version. `now` is used to resolve ages (`occurred:7d..`) and dates without a zone.
    pub fn parse(text: &str, now: impl Into<Now>) -> Result<Self, FilterError> {
        Self::parse_typed(text, now).map(|typed| typed.filter)
    }

    /// Like [`Self::parse`], with hints.
    pub fn parse_typed(text: &str, now: impl Into<Now>) -> Result<TypedFilter, FilterError> {
        let now = now.into();
        let read = match text.trim_start().strip_prefix(VERSION_1_MARK) {
            Some(rest) => version_1::parse(rest, now.at)
                .map(|filter| TypedFilter { filter, hints: Vec::new() })
                .map_err(|(at, problem)| (at + chars_before(text, rest), problem)),
            None => {
                let rest = text.trim_start().strip_prefix(VERSION_2_MARK).unwrap_or(text);
                version_2::parse(rest, now, false).map_err(|(at, problem)| (at + chars_before(text, rest), problem))
            }
        };
        read.map_err(|problem| FilterError::new(text, problem))
    }

    /// Parses text from bundles, tokens, and an aggregator's requests to nodes. Text without a version mark is version 1.
    pub fn parse_stored(text: &str, now: impl Into<Now>) -> Result<Self, FilterError> {
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

    /// Parses a filter from a hand-written configuration file, which may predate version 2 of the filter language. If the two
    /// versions give the text different meanings, it must begin with the mark of a version.
    pub fn parse_config(text: &str, now: impl Into<Now>) -> Result<Self, FilterError> {
        let now = now.into();
        let is_marked = [VERSION_1_MARK, VERSION_2_MARK].iter().any(|mark| text.trim_start().starts_with(mark));
        let old = version_1::parse(text, now.at).ok().filter(|_| !is_marked);
        match (old, Self::parse(text, now)) {
            (Some(old), Ok(new)) if old.clone().into_version_2() != new => Err(FilterError::new(
                text,
                (
                    0,
                    format!(
                        "this filter means different things in versions 1 and 2 of the filter language; begin it with {VERSION_2_MARK} for the current meaning, or with {VERSION_1_MARK} for the old one"
                    ),
                ),
            )),
            // Either the versions differ at most in where they search, or only version 1 accepts the text. In both cases, keep
            // the meaning of version 1, in which the text may have been written.
            (Some(old), _) => Ok(old),
            (None, new) => new,
        }
    }

    /// Parses one `key=value` pair of a query string. The pair means the same as the condition `key:value`, in which commas
    /// separate values. A space is part of the value, because a pair ends with its value.
    pub fn parse_pair(key: &str, value: &str, now: impl Into<Now>) -> Result<Self, FilterError> {
        let value = if value.contains('"') { value.to_owned() } else { quote_spaces(value) };
        let text = format!("{key}:{value}");
        let filter = Self::parse(&text, now)?;
        if !matches!(filter.all[..], [Expr::Test(_)]) {
            let problem =
                format!("the value of {key} contains more than one condition; quote a value that contains spaces");
            return Err(FilterError::new(&text, (key.chars().count() + 1, problem)));
        }
        Ok(filter)
    }

    /// Like [`Self::parse_pair`], for a query with a cursor that was issued by a release that knew only version 1 of the
    /// language.
    pub fn parse_stored_pair(key: &str, value: &str, now: impl Into<Now>) -> Result<Self, FilterError> {
        let quoted = |part: &str| if part.contains(char::is_whitespace) { quote_piece(part) } else { part.to_owned() };
        let value = if value.contains('"') {
            value.to_owned()
        } else {
            value.split(',').map(quoted).collect::<Vec<_>>().join(",")
        };
        Self::parse_stored(&format!("{key}:{value}"), now)
    }

    /// Prepares typed text for a program that may know only version 1. The text is unchanged if version 1 gives it the same
    /// meaning; otherwise it gets the mark of version 2, which such a program refuses. Invalid text is returned unchanged.
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

    /// Returns text that [`Filter::parse_config`] parses as this filter, for a hand-written configuration file.
    pub fn config_text(&self) -> String {
        let texts = self.in_version_1().into_iter().chain([self.typed()]);
        let mut read =
            texts.filter(|text| Self::parse_config(text, Timestamp::MIN).is_ok_and(|filter| filter == *self));
        read.next().unwrap_or_else(|| format!("{VERSION_2_MARK} {}", self.typed().trim_start_matches("v2: ")))
    }

    /// Converts text that was stored without a mark to text that has the same meaning when a person types it now.
    pub fn retyped(stored: &str, now: impl Into<Now>) -> String {
        let now = now.into();
        let same = version_1::parse(stored, now.at).ok() == Self::parse(stored, now).ok();
        if same || stored.starts_with(VERSION_2_MARK) {
            stored.to_owned()
        } else {
            format!("{VERSION_1_MARK} {stored}")
        }
    }

    /// Returns hints for a filter that matched nothing: values that are compared case-sensitively.
    pub fn hints_when_empty(&self) -> Vec<String> {
        let mut values = self.tests().flat_map(print::values_with_case);
        let hint =
            |(key, value): (String, String)| format!("{key}:{value} is case-sensitive; {key}:~{value} ignores case");
        values.next().map(hint).into_iter().collect()
    }

    /// Returns a filter that version 1 can express and that selects at least what this one selects, to query a
    /// program that knows only version 1.
    pub fn widened_to_version_1(&self) -> Self {
        // In version 1, the case folding of a sigma depended on its position in the word.
        let has_sigma = |text: &str| text.contains(['Σ', 'σ', 'ς']);
        let expressible = |part: &&Expr| {
            let text = Self { all: vec![(*part).clone()] }.in_version_1();
            text.is_some_and(|text| !has_sigma(&text))
        };
        Self { all: self.all.iter().filter(expressible).cloned().collect() }
    }
}

fn quote_spaces(value: &str) -> String {
    // Brackets contain a list of values, as in a filter.
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
    // Leave stars outside the quotes, so that they keep their meaning.
    part.split('*').map(quote_piece).collect::<Vec<_>>().join("*")
}

fn quote_piece(piece: &str) -> String {
    if piece.is_empty() { String::new() } else { format!("\"{}\"", piece.replace('\\', "\\\\")) }
}
