//! A filter as a tree of tests, and its parse errors.

use super::test::Test;

/// The newest version of the language, which this program reads and writes.
pub const FILTER_VERSION: u32 = 2;

/// What begins text of a version. Version 1 knew no key of these names, so a program of that time refuses such text instead of
/// reading something else.
pub(super) const VERSION_1_MARK: &str = "v1:";

pub(super) const VERSION_2_MARK: &str = "v2:";

/// A parsed filter; empty means every entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Each holds.
    pub(super) all: Vec<Expr>,
}

/// A part of a filter. Parts are kept in one form: no `All` directly in an `All`, no `Any` directly in an `Any`, neither with fewer
/// than two parts, and no `Not` directly in a `Not`.
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

    /// Every test below it.
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
    pub(super) fn new(text: &str, (at, problem): Problem) -> Self {
        Self { at, problem, text: text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() }
    }
}

/// Where, from 0, and what is wrong.
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

    /// Both filters must hold.
    pub fn and(mut self, other: Self) -> Self {
        self.all.extend(other.all);
        self
    }

    /// The same with what version 2 knows by the same words: text in JSON is found with escapes and without, an entity also where a bulk
    /// entry lists it.
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

/// Characters of `text` before `rest`, which is its end.
pub(super) fn chars_before(text: &str, rest: &str) -> usize {
    text.chars().count() - rest.chars().count()
}

/// A moment that no filter of a stored form depends on.
#[cfg(test)]
pub(super) fn no_time() -> piperoll_format::time::Timestamp {
    piperoll_format::time::Timestamp::from_micros(0)
}
