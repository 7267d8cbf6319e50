//! The log format: how entries are encoded, sealed, ordered, proven and verified (docs/format.md).
//!
//! Contains pure functions of bytes and plain values only: no clock, file, socket or runtime. Everything that two sides must agree on bit
//! for bit is here, so that a node, an aggregator and an offline verifier share one implementation.

pub mod address;
pub mod checkpoint;
pub mod completeness;
pub mod cursor;
pub mod digest;
pub mod entry;
pub mod ids;
pub mod json;
pub mod limits;
pub mod mac;
pub mod merkle;
pub mod note;
pub mod order;
pub mod row;
pub mod statement;
pub mod terminal;
pub mod time;
pub mod verify;
pub mod view;
