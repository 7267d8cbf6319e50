//! The single writer: it appends rows and tiles, signs checkpoints, and recovers after a crash.

pub(super) mod ages;
mod detector;
pub(super) mod integrator;
pub(super) mod open_writer;
mod recovery;
pub(super) mod signer;
pub(super) mod start_entries;
mod transaction;
mod write_error;
pub(super) mod writer;
