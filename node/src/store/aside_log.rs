//! An open archived log.

use std::sync::Arc;

use piperoll_format::ids::Generation;
use piperoll_format::merkle::TileCache;

use super::index::Index;
use super::readers::Readers;
use super::rows::Extent;

/// One of them, open.
#[derive(Clone)]
pub(super) struct Aside {
    pub(super) readers: Readers,
    pub(super) generation: Generation,
    pub(super) extent: Extent,
    pub(super) index: Arc<Index>,
    pub(super) tiles: Arc<TileCache>,
    /// What its files were like when it was opened.
    pub(super) stamp: Stamp,
}

/// Length and time of the last change of the database and its WAL. Rows are added to a log that was put aside only when an operator
/// erases or holds some of its rows.
pub(super) type Stamp = [Option<(u64, std::time::SystemTime)>; 2];
