//! The blocks of one log, in files and in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use piperoll_format::ids::Generation;
use piperoll_format::merkle::{TILE_LEVELS, TILE_WIDTH};
use piperoll_format::time::Timestamp;
use piperoll_protocol::node::IndexExtent;
use piperoll_query::stats::Counter;
use rusqlite::Connection;

use super::block::{Block, Candidates, IndexQuery};
use super::builder::Builder;
use super::fresh::{self, PendingRows};
use super::layout::Head;
use super::stored::Stored;
use super::{block, count};
use crate::store::table::log_dir::LogDir;
use crate::store::table::tiles::stored_roots;

/// Tree level whose tiles correspond to blocks of 65,536 rows. A block is small enough to build in memory, and large enough
/// that a search over five million rows covers only 77 blocks.
pub(in crate::store) const BLOCK_LEVEL: u32 = 1;
/// Maximum number of open files: enough for seventeen million rows, and a quarter of the default limit of file descriptors.
const OPEN_BLOCKS_MAX: usize = 256;
/// Number of rows that may wait for the indexer: reading up to this many rows directly takes less time than waking the thread
/// for each commit.
pub(super) const BACKLOG_ROWS: u64 = 128;

/// The index of one log.
pub(in crate::store) struct Index {
    pub(super) dir: PathBuf,
    pub(super) generation: Generation,
    pub(super) level: u32,
    pub(super) state: RwLock<LoadedBlocks>,
    /// Files opened by earlier queries, kept for reuse.
    pub(super) open: Mutex<BTreeMap<u64, Arc<Stored>>>,
    /// Rows committed recently.
    pub(super) waiting: fresh::Waiting,
    /// Number of committed rows that the writer has reported.
    pub(super) head: AtomicU64,
    /// Rows below this seq are in the index, except for rows whose blocks are being rebuilt.
    pub(super) reached: AtomicU64,
    /// Whether the indexer sleeps until it is woken.
    pub(super) asleep: AtomicBool,
    pub(super) thread: OnceLock<std::thread::Thread>,
}

#[derive(Default)]
pub(super) struct LoadedBlocks {
    /// Blocks that have a file.
    pub(super) whole: BTreeSet<u64>,
    /// Blocks in memory: the newest block, a block some of whose rows were pruned, and a block that is being built.
    pub(super) parts: BTreeMap<u64, Arc<RwLock<Builder>>>,
    /// Blocks that could not be built, and the time of the last attempt.
    pub(super) failed: BTreeMap<u64, Instant>,
    /// Log start: the seq of the first row that was not pruned.
    pub(super) floor: u64,
    /// Number of times that blocks were invalidated; work that began before the last time is discarded.
    pub(super) changes: u64,
    /// Number of [`Held`] guards that exist. While there is one, rows are being changed, and no block may be finished.
    pub(super) held: u32,
}

/// The index's answer for the indexed rows of one block. The indexed rows are the first rows of the block.
pub(in crate::store) struct Lookup {
    /// Seq of the first row of the block, which is row 0 of the candidates.
    pub(in crate::store) first: u64,
    /// Seq after the last indexed row: rows from this seq on are not in the index.
    pub(in crate::store) end: u64,
    pub(in crate::store) candidates: Candidates,
}

impl Index {
    /// Lists the existing files without reading or changing them. A log without index files results in an empty index.
    pub(in crate::store) fn open(dir: &LogDir, generation: Generation, level: u32) -> Self {
        let dir = dir.path().join("index");
        let index = Self {
            dir,
            generation,
            level,
            state: RwLock::default(),
            open: Mutex::default(),
            waiting: fresh::Waiting::default(),
            head: AtomicU64::new(0),
            reached: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            thread: OnceLock::new(),
        };
        index.write().whole = index.files().into_iter().collect();
        index
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, LoadedBlocks> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, LoadedBlocks> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of rows in one block.
    pub(in crate::store) fn block_rows(&self) -> u64 {
        TILE_WIDTH << (TILE_LEVELS * self.level)
    }

    pub(super) fn path(&self, block: u64) -> PathBuf {
        self.dir.join(format!("{:012}.block", block * self.block_rows()))
    }

    /// Returns the blocks whose files exist.
    pub(super) fn files(&self) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let named = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let first: u64 = name.strip_suffix(".block")?.parse().ok()?;
            first.is_multiple_of(self.block_rows()).then_some(first / self.block_rows())
        });
        named.collect()
    }

    /// Determines which rows of the block containing `seq` must be read. Returns `None` if the whole block must be read,
    /// because the index has no block for these rows, or its block was built from other rows.
    pub(in crate::store) fn candidates(&self, conn: &Connection, seq: u64, ask: &IndexQuery<'_>) -> Option<Lookup> {
        let block = seq / self.block_rows();
        self.ask(conn, block, |known| block::candidates(known, block * self.block_rows(), ask))
    }

    pub(super) fn ask(
        &self,
        conn: &Connection,
        block: u64,
        answer: impl FnOnce(&dyn Block) -> io::Result<Candidates>,
    ) -> Option<Lookup> {
        let first = block * self.block_rows();
        let (whole, part) = {
            let state = self.read();
            (state.whole.contains(&block), state.parts.get(&block).cloned())
        };
        if let Some(part) = part {
            let part = part.read().unwrap_or_else(PoisonError::into_inner);
            let candidates = answer(&*part).ok()?;
            return Some(Lookup { first, end: part.next(), candidates });
        }
        if !whole {
            return None;
        }
        let looked = self.stored(conn, block).and_then(|stored| answer(&*stored));
        match looked {
            Ok(candidates) => Some(Lookup { first, end: first + self.block_rows(), candidates }),
            Err(error) => {
                tracing::warn!(%error, file = %self.path(block).display(), "an index block is damaged; reading its rows instead");
                self.make_again(block);
                None
            }
        }
    }

    /// Removes a damaged block, so that the indexer rebuilds it. Without an indexer, the file is left unchanged.
    pub(super) fn make_again(&self, block: u64) {
        if self.thread.get().is_none() {
            return;
        }
        let mut state = self.write();
        // Another query may have found the same damage and already removed the block.
        if state.whole.contains(&block)
            && let Err(error) = self.remove(&mut state, block)
        {
            tracing::warn!(%error, file = %self.path(block).display(), "cannot remove a damaged index block");
        }
        drop(state);
        self.wake();
    }

    /// Does the same as [`Index::candidates`], for counting: rows of `range` that the index can count are added to `counter`
    /// and are no longer candidates.
    pub(in crate::store) fn count(
        &self,
        conn: &Connection,
        seq: u64,
        ask: &IndexQuery<'_>,
        range: &Range<u64>,
        times: &Range<Timestamp>,
        counter: &mut Counter,
    ) -> Option<Lookup> {
        let block = seq / self.block_rows();
        let first = block * self.block_rows();
        let place = |seq: u64| usize::try_from(seq.saturating_sub(first)).unwrap_or(usize::MAX);
        let part = count::BlockPart { rows: place(range.start)..place(range.end), times: times.clone() };
        self.ask(conn, block, |known: &dyn Block| {
            let candidates = block::candidates(known, first, ask)?;
            let counted = count::count(known, &candidates, &part, counter)?;
            let rows = if counted { candidates.odd.clone() } else { candidates.rows };
            Ok(Candidates { rows, ..candidates })
        })
    }

    /// Opens the file of a block; fails if the file was built from other rows than those of this log.
    pub(super) fn stored(&self, conn: &Connection, block: u64) -> io::Result<Arc<Stored>> {
        let known = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&block).cloned();
        if let Some(known) = known.filter(|known| known.is_unchanged()) {
            return Ok(known);
        }
        let stored = Arc::new(Stored::open(&self.path(block))?);
        let expected = self.expected_head(conn, block).map_err(io::Error::other)?;
        // A damaged head may state more rows than a block has; sets of that size would then be allocated.
        if stored.head != expected || stored.rows() as u64 != self.block_rows() {
            return Err(io::Error::other("it was built from other rows"));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_BLOCKS_MAX {
            open.pop_first();
        }
        open.insert(block, Arc::clone(&stored));
        Ok(stored)
    }

    pub(super) fn expected_head(
        &self,
        conn: &Connection,
        block: u64,
    ) -> Result<Head, crate::store::table::tiles::TreeError> {
        let roots = stored_roots(conn, self.level, block, block + 1)?;
        let root = roots.first().copied().unwrap_or_default();
        Ok(Head { generation: self.generation, first: block * self.block_rows(), root })
    }

    /// Writes the file of a block under a temporary name and syncs it. The caller then renames it, so that a crash leaves
    /// either the complete file or no file.
    pub(super) fn write_file(&self, block: u64, bytes: &[u8]) -> io::Result<PathBuf> {
        if !self.dir.exists() {
            fs::DirBuilder::new().mode(0o700).create(&self.dir)?;
        }
        let temporary = self.path(block).with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(temporary)
    }

    /// Notifies the index that the writer has committed these rows; `rows` is the total number of committed rows.
    pub(in crate::store) fn grew(&self, rows: u64, fresh: &PendingRows) {
        // Without an indexer, nothing would ever remove the rows from the queue.
        if self.thread.get().is_some() {
            self.waiting.add(fresh);
        }
        // Sequentially consistent with what the indexer does before it sleeps (it sets `asleep` and then reads `head`), so that
        // at least one of the two threads sees the other's store.
        self.head.store(rows, Ordering::SeqCst);
        let backlog = rows.saturating_sub(self.reached.load(Ordering::Acquire));
        if backlog >= BACKLOG_ROWS || self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Removes the block of a row from the index, overwrites the content of its file, and returns a guard. Until the guard is
    /// dropped, no block can be finished. `erase` in `lifecycle/erase.rs` holds the guard across its commit.
    pub(in crate::store) fn forget(self: &Arc<Self>, seq: u64) -> io::Result<Held> {
        let mut state = self.write();
        state.held += 1;
        let removed = self.remove(&mut state, seq / self.block_rows());
        // Release the lock before the guard is created: if the removal failed, the guard is dropped at once, which takes the
        // same lock.
        drop(state);
        let held = Held(Arc::clone(self));
        removed.map(|()| held)
    }

    /// Sets the log start to `floor`: removes every block that contains rows below it.
    pub(in crate::store) fn cut(&self, floor: u64) -> io::Result<()> {
        let mut state = self.write();
        if state.floor >= floor {
            return Ok(());
        }
        let ends_at = floor.div_ceil(self.block_rows());
        let gone: Vec<u64> =
            state.whole.range(..ends_at).chain(state.parts.range(..ends_at).map(|(b, _)| b)).copied().collect();
        for block in gone {
            self.remove(&mut state, block)?;
        }
        // Set this last, so that a removal that failed is retried in the next call.
        state.floor = floor;
        drop(state);
        self.wake();
        Ok(())
    }

    /// Discards the whole index; the indexer rebuilds it.
    pub(in crate::store) fn reset(&self) -> io::Result<()> {
        let mut state = self.write();
        let all: Vec<u64> = state.whole.iter().chain(state.parts.keys()).copied().chain(self.files()).collect();
        for block in all {
            self.remove(&mut state, block)?;
        }
        self.reached.store(state.floor, Ordering::Release);
        drop(state);
        self.wake();
        Ok(())
    }

    pub(super) fn remove(&self, state: &mut LoadedBlocks, block: u64) -> io::Result<()> {
        state.changes += 1;
        self.waiting.clear();
        state.parts.remove(&block);
        state.failed.remove(&block);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&block);
        for path in [self.path(block), self.path(block).with_extension("new")] {
            match overwrite_and_remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Remove the block last, because a file that could not be removed still counts as present.
        state.whole.remove(&block);
        Ok(())
    }

    pub(in crate::store) fn extent(&self) -> IndexExtent {
        let state = self.read();
        let parts: u64 = state.parts.values().map(|part| rows_in(part)).sum();
        let bytes =
            state.whole.iter().filter_map(|block| fs::metadata(self.path(*block)).ok()).map(|meta| meta.len()).sum();
        let blocks = state.whole.len() as u64;
        let of = self.head.load(Ordering::Acquire).saturating_sub(state.floor);
        IndexExtent { rows: (blocks * self.block_rows() + parts).min(of), of, blocks, bytes }
    }
}

fn rows_in(part: &RwLock<Builder>) -> u64 {
    let part = part.read().unwrap_or_else(PoisonError::into_inner);
    (part.rows() - part.pruned()) as u64
}

/// Overwrites the file's content with zeros before removing it, so that the content is gone from the disk as well. This works
/// only on file systems that overwrite in place.
pub(super) fn overwrite_and_remove(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let bytes = file.metadata()?.len();
    io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file)?;
    file.sync_data()?;
    fs::remove_file(path)
}

/// Guard that keeps blocks from being finished; see [`Index::forget`].
pub(in crate::store) struct Held(Arc<Index>);

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.0.write();
        state.held -= 1;
        // Rows read before the change must not be added to the index after it.
        state.changes += 1;
        self.0.waiting.clear();
        drop(state);
        self.0.wake();
    }
}
