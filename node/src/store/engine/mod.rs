//! The single writer: it appends rows and tiles, signs checkpoints, and recovers after a crash.

pub(super) mod ages;
pub(super) mod detector;
pub(super) mod integrator;
pub(super) mod key_rotation;
pub(super) mod open_writer;
pub(super) mod recovery;
pub(super) mod signer;
pub(super) mod start_entries;
pub(super) mod transaction;
pub(super) mod writer;
