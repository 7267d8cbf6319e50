//! An open archived log.

use std::sync::Arc;

use piperoll_format::ids::Generation;
use piperoll_format::merkle::TileCache;

use crate::store::index::Index;
use crate::store::table::readers::Readers;
use crate::store::table::rows::Extent;

/// One of them, open.
#[derive(Clone)]
pub(in crate::store) struct Aside {
    pub(in crate::store) readers: Readers,
    pub(in crate::store) generation: Generation,
    pub(in crate::store) extent: Extent,
    pub(in crate::store) index: Arc<Index>,
    pub(in crate::store) tiles: Arc<TileCache>,
    /// What its files were like when it was opened.
    pub(in crate::store) stamp: Stamp,
}

/// Length and time of the last change of the database and its WAL. Rows are added to a log that was put aside only when an operator
/// erases or holds some of its rows.
pub(in crate::store) type Stamp = [Option<(u64, std::time::SystemTime)>; 2];
