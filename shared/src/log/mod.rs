//! The pure model of the log: what an entry is, how it is sealed, ordered, filtered and checked.
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
pub mod ids;
pub mod json;
pub mod limits;
pub mod note;
pub mod order;
pub mod row;
pub mod seal;
pub mod statement;
pub mod stats;
pub mod terminal;
pub mod time;
pub mod tree;
pub mod verify;
pub mod view;
