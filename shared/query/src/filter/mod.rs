//! The filter language (docs/filters.md): a parser for each of its versions and one evaluator for all callers.
//!
//! A filter is a tree of tests under AND, OR and NOT. Stored text carries the version of the language that it is written in; text
//! without a version is version 1.

mod conditions;
mod erased;
mod evaluate;
mod expr;
mod fold;
mod keywords;
mod nodes;
mod parse;
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

pub use conditions::{Atom, Condition, TRIGRAM_CHARS};
pub use erased::ErasedFit;
pub use evaluate::{net_contains, net_has};
pub use expr::{FILTER_VERSION, Filter, FilterError, TypedFilter};
pub use fold::{fold, unescaped};
pub use keywords::{IS_WORDS, KEY_WORDS, KEYS, canonical_key, is_key};
pub use nodes::NodeName;
pub use pattern::matches_pattern;
pub use test::verb;
