//! The witness at work: asks a node for its newest checkpoint and proofs, and decides what is accepted.
//!
//! It never delays an append: nodes do not wait for it, and it looks at each of them on its own.

pub(crate) mod accept;
pub(crate) mod earlier;
pub(crate) mod floor_look;
pub(crate) mod look;
