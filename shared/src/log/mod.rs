//! The pure model of the log: entries, and how they are sealed, ordered, filtered and verified.
//!
//! Nothing here reads a clock, a file or a socket, so every rule can be tested with plain values.

pub mod bundle;
pub mod checkpoint;
pub mod column;
pub mod completeness;
pub mod csv;
pub mod cursor;
mod digest;
pub mod entry;
pub mod filter;
// Not for the verifier: it judges nothing, and brings no time zones along.
#[cfg(feature = "api")]
pub mod flags;
mod human_time;
pub mod ids;
pub mod json;
pub mod limits;
pub mod note;
pub mod order;
// Not for the verifier, which masks nothing and brings no regular expressions along.
#[cfg(feature = "api")]
pub mod redact;
pub mod row;
pub mod seal;
#[cfg(feature = "api")]
pub mod siem;
pub mod statement;
pub mod stats;
pub mod terminal;
pub mod time;
pub mod tree;
pub mod verify;
pub mod view;
pub mod zone;
