//! Witness memory of one node: the cosigned checkpoint of the largest log seen, and the verdict on the node (docs/format.md,
//! "Witness"; the rules are those of C2SP tlog-witness).
//!
//! A node can lose, truncate or rewrite its log, but it cannot make a witness forget a checkpoint that the witness cosigned.

pub(crate) mod archived;
pub(crate) mod aside;
pub(crate) mod compare;
pub(crate) mod day_checkpoint;
pub(crate) mod gone;
pub(crate) mod log_start;
pub(crate) mod memory;
pub(crate) mod pinned;
pub(crate) mod status;
pub(crate) mod watch;
