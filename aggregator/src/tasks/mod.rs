//! What the aggregator does without being asked: polls nodes as their witness, exchanges pins with other aggregators, and records
//! changes of the roster.

pub(crate) mod pin_exchange;
pub(crate) mod roster_changes;
pub(crate) mod witness_poll;
