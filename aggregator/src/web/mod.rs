//! The web UI, embedded into the binary.

pub(crate) mod assets;
