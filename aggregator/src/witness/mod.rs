//! Runs the witness: asks a node for its newest checkpoint and proofs, and decides whether to cosign it.
//!
//! The witness never delays an append: nodes do not wait for it, and it polls each of them separately.

pub(crate) mod accept;
pub(crate) mod earlier;
pub(crate) mod log_start_check;
pub(crate) mod poll;
