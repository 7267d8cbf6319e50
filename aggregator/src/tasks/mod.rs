//! Background tasks: poll nodes as their witness, archive their rows, exchange pins with other aggregators, and record changes of the roster.

pub(crate) mod archive_rounds;
pub(crate) mod pin_exchange;
pub(crate) mod roster_changes;
pub(crate) mod witness_poll;
