//! Builds one answer from all nodes in time order, as a page, stream, tail or export, with the outcome of every node.

pub(crate) mod archived;
pub(crate) mod export;
pub(crate) mod fanout;
pub(crate) mod merge;
pub(crate) mod outcome;
pub(crate) mod page;
pub(crate) mod prefetch;
pub(crate) mod stream;
pub(crate) mod tail;
