//! Maps records of other systems to entries, as described in a TOML file (docs/intake.md, "Mappings").
//!
//! Nothing in a record is lost: a value that is copied unchanged to a field is kept there, and everything else is kept in
//! `details`, including the text of numbers and the order of keys. If a value is too large for a field or an entry, its length
//! and hash are kept.

mod auditd;
mod built_in;
mod error;
mod fit;
mod input;
mod map;
mod ordered;
mod pointer;
mod rule;
#[cfg(test)]
mod tests;
mod times;
mod windows;

pub use error::MapError;
pub use input::Join;
pub use map::{BuiltIn, Mapped, Mapping, Outcome};
pub use ordered::Pairs;
