//! An open archived log.

use std::sync::Arc;

use piperoll_format::ids::Generation;
use piperoll_format::merkle::TileCache;

use crate::store::index::Index;
use crate::store::table::readers::Readers;
use crate::store::table::rows::Extent;

/// An archived log, open for reading.
#[derive(Clone)]
pub(in crate::store) struct ArchivedLog {
    pub(in crate::store) readers: Readers,
    pub(in crate::store) generation: Generation,
    pub(in crate::store) extent: Extent,
    pub(in crate::store) index: Arc<Index>,
    pub(in crate::store) tiles: Arc<TileCache>,
    /// State of the log's files when they were opened.
    pub(in crate::store) stamp: FileStamp,
}

/// Length and modification time of the database and its WAL. Rows are added to an archived log only when an operator erases some
/// of its rows or sets or releases a hold.
pub(in crate::store) type FileStamp = [Option<(u64, std::time::SystemTime)>; 2];
