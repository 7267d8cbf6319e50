//! Keeps entries on this machine's disk until the node records them (docs/recording.md, "Spool").
//!
//! A directory belongs to one process. It holds segments: files to which records are appended. A segment is read from its start and
//! removed when all of its records are in the log. An entry keeps its id, so an entry that is sent twice is recorded once; this is why
//! the read position within a segment is not stored.

mod extent;
mod folder;
mod record;
mod segment;
mod waiting;
mod writer;

pub(crate) use folder::Spool;
pub(crate) use record::SpooledEntry;
pub(crate) use segment::{Read, SegmentReader};
pub use waiting::SpoolError;
pub(crate) use waiting::Waiting;
