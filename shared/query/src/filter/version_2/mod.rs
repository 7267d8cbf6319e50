//! Version 2 of the language: AND, OR, NOT and brackets, `*` anywhere, ranges, values inside `details`.
//!
//! NOT binds tightest, then AND, which can also be written as a space, then OR. Text that its author may have meant differently
//! is either refused with a suggestion or accepted with a hint.

mod keys;
mod parser;
#[cfg(test)]
mod tests;
mod typed;
mod values;

pub(super) use parser::parse;
pub(super) use typed::is_hidden;
