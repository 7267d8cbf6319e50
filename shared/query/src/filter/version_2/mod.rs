//! Version 2 of the language: AND, OR, NOT and brackets, `*` anywhere, ranges, values inside `details`.
//!
//! NOT binds tightest, then AND, which can also be written as a space, then OR. Text that could be read differently than its author
//! meant is refused with a suggestion, or read with a hint.

mod keys;
mod parser;
#[cfg(test)]
mod tests;
mod typed;
mod values;

pub(super) use parser::parse;
pub(super) use typed::is_hidden;
