//! One answer from all nodes: pages, streams, tails and exports in time order, with what every node contributed.

pub(crate) mod export;
pub(crate) mod fanout;
pub(crate) mod merge;
pub(crate) mod page;
pub(crate) mod prefetch;
pub(crate) mod stream;
pub(crate) mod tail;
