//! A filter as a tree of tests, and its parse errors.

use super::test::Test;

/// The newest version of the language, which this program reads and writes.
pub const FILTER_VERSION: u32 = 2;

/// Marks at the beginning of a text that state its version of the language. Version 1 has no keys with these names, so a program
/// that knows only version 1 refuses marked text instead of misreading it.
pub(super) const VERSION_1_MARK: &str = "v1:";

pub(super) const VERSION_2_MARK: &str = "v2:";

/// A parsed filter; empty means every entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Parts that must all hold.
    pub(super) all: Vec<Expr>,
}

/// A part of a filter. Parts are kept in normal form: an `All` never directly contains an `All`, nor an `Any` an `Any`, nor a
/// `Not` a `Not`, and each `All` and `Any` has at least two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
    Test(Test),
}

impl Expr {
    pub(super) fn all(parts: Vec<Self>) -> Self {
        let flat = parts.into_iter().flat_map(|part| match part {
            Self::All(parts) => parts,
            part => vec![part],
        });
        one_or(flat.collect(), Self::All)
    }

    pub(super) fn any(parts: Vec<Self>) -> Self {
        let flat = parts.into_iter().flat_map(|part| match part {
            Self::Any(parts) => parts,
            part => vec![part],
        });
        one_or(flat.collect(), Self::Any)
    }

    pub(super) fn not(part: Self) -> Self {
        match part {
            Self::Not(part) => *part,
            part => Self::Not(Box::new(part)),
        }
    }

    /// Returns every test in this part.
    pub(super) fn tests(&self) -> Vec<&Test> {
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

/// A filter as it was typed, with hints for the person who typed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedFilter {
    pub filter: Filter,
    /// Parts that may have been read differently than intended, one sentence each.
    pub hints: Vec<String>,
}

/// Error for a filter that cannot be parsed, with the position.
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
    pub(super) fn new(text: &str, (at, problem): Problem) -> Self {
        Self { at, problem, text: text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() }
    }
}

/// Position, from 0, and error message.
pub(super) type Problem = (usize, String);

pub(super) type Result<T> = std::result::Result<T, Problem>;

impl Filter {
    pub(super) fn of(expr: Expr) -> Self {
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

    /// Combines two filters: an entry must match both.
    pub fn and(mut self, other: Self) -> Self {
        self.all.extend(other.all);
        self
    }

    /// Returns the filter that the same text expresses in version 2: text in JSON matches with and without escapes, and an entity
    /// also matches if a bulk entry lists it.
    pub(super) fn into_version_2(mut self) -> Self {
        self.all.iter_mut().for_each(Expr::lift);
        self
    }

    pub(super) fn tests(&self) -> impl Iterator<Item = &Test> {
        self.all.iter().flat_map(Expr::tests)
    }
}

impl Expr {
    pub(super) fn lift(&mut self) {
        match self {
            Self::Test(test) => test.lift(),
            Self::Not(part) => part.lift(),
            Self::All(parts) | Self::Any(parts) => parts.iter_mut().for_each(Self::lift),
        }
    }
}

/// Returns the number of characters in `text` before its suffix `rest`.
pub(super) fn chars_before(text: &str, rest: &str) -> usize {
    text.chars().count() - rest.chars().count()
}

/// An arbitrary time for tests that use only the stored form of a filter, which does not depend on the time.
#[cfg(test)]
pub(super) fn no_time() -> piperoll_format::time::Timestamp {
    piperoll_format::time::Timestamp::from_micros(0)
}
