//! The search index: finds the entries that match a filter without reading the other entries (docs/index.md).
//!
//! The log is divided into blocks, each with as many rows as one tile of the tree's second level covers. A full block is a file
//! that never changes and contains the root of its rows. Two blocks are kept in memory and rebuilt at startup: the newest
//! block, which is not full, and the oldest block, if some of its rows were pruned. One thread builds all blocks from committed
//! rows. Rows that are in no block are read directly.

mod block;
mod blocks;
mod builder;
mod check;
mod count;
mod dictionary;
mod encode;
mod fresh;
mod indexer;
mod layout;
mod set;
mod stored;
mod text;

pub(super) use block::IndexQuery;
pub(super) use blocks::{BLOCK_LEVEL, Index, Lookup};
pub(super) use check::{IndexCheck, RowSource as CheckedRows};
pub(super) use fresh::PendingRows;
pub(super) use indexer::Indexer;
pub use indexer::{Made, make_index};
