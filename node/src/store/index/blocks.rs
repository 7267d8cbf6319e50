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

use super::block::{Ask, Block, Candidates};
use super::builder::Builder;
use super::fresh::{self, FreshRows};
use super::layout::Head;
use super::stored::Stored;
use super::{block, count};
use crate::store::table::log_dir::LogDir;
use crate::store::table::tiles::stored_roots;

/// The level of the tiles that blocks go with: 65,536 rows. Small enough to be built in memory, large enough that five million
/// rows are asked in 77 pieces.
pub(in crate::store) const BLOCK_LEVEL: u32 = 1;
/// Files kept open: seventeen million rows, and a quarter of the descriptors that a process has without asking.
const OPEN_BLOCKS_MAX: usize = 256;
/// Rows a block may wait for the indexer: a reader reads them in less time than it takes to wake a thread for each commit.
pub(super) const BACKLOG_ROWS: u64 = 128;

/// The index of one log.
pub(in crate::store) struct Index {
    pub(super) dir: PathBuf,
    pub(super) generation: Generation,
    pub(super) level: u32,
    pub(super) state: RwLock<State>,
    /// Files that were asked before, to be asked again.
    pub(super) open: Mutex<BTreeMap<u64, Arc<Stored>>>,
    /// Rows that were committed just now.
    pub(super) waiting: fresh::Waiting,
    /// Rows committed, as the writer says.
    pub(super) head: AtomicU64,
    /// Rows below this are in the index, but for gaps left by blocks that are made anew.
    pub(super) reached: AtomicU64,
    /// The indexer sleeps until it is woken.
    pub(super) asleep: AtomicBool,
    pub(super) thread: OnceLock<std::thread::Thread>,
}

#[derive(Default)]
pub(super) struct State {
    /// Blocks that have a file.
    pub(super) whole: BTreeSet<u64>,
    /// Blocks in memory: the newest one, one whose first rows were pruned, and one that is just being made.
    pub(super) parts: BTreeMap<u64, Arc<RwLock<Builder>>>,
    /// Blocks that could not be made, and when.
    pub(super) failed: BTreeMap<u64, Instant>,
    /// The first row of the log.
    pub(super) floor: u64,
    /// Counts what made blocks out of date: what was begun before is thrown away.
    pub(super) changes: u64,
    /// Somebody is changing rows; nothing is finished meanwhile.
    pub(super) held: u32,
}

/// What the index says about the beginning of one block.
pub(in crate::store) struct Look {
    /// Row 0 of the candidates.
    pub(in crate::store) first: u64,
    /// Rows from here on are not in it.
    pub(in crate::store) end: u64,
    pub(in crate::store) candidates: Candidates,
}

impl Index {
    /// Knows which files there are; nothing is read or changed. A log without an index has an empty one.
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

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows of one block.
    pub(in crate::store) fn block_rows(&self) -> u64 {
        TILE_WIDTH << (TILE_LEVELS * self.level)
    }

    pub(super) fn path(&self, block: u64) -> PathBuf {
        self.dir.join(format!("{:012}.block", block * self.block_rows()))
    }

    /// The blocks whose files are there.
    pub(super) fn files(&self) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let named = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let first: u64 = name.strip_suffix(".block")?.parse().ok()?;
            first.is_multiple_of(self.block_rows()).then_some(first / self.block_rows())
        });
        named.collect()
    }

    /// Which rows of the block that `seq` stands in are worth reading. `None` when all of it must be read, because there is
    /// nothing, or nothing that fits the rows.
    pub(in crate::store) fn look(&self, conn: &Connection, seq: u64, ask: &Ask<'_>) -> Option<Look> {
        let block = seq / self.block_rows();
        self.ask(conn, block, |known| block::candidates(known, block * self.block_rows(), ask))
    }

    pub(super) fn ask(
        &self,
        conn: &Connection,
        block: u64,
        answer: impl FnOnce(&dyn Block) -> io::Result<Candidates>,
    ) -> Option<Look> {
        let first = block * self.block_rows();
        let (whole, part) = {
            let state = self.read();
            (state.whole.contains(&block), state.parts.get(&block).cloned())
        };
        if let Some(part) = part {
            let part = part.read().unwrap_or_else(PoisonError::into_inner);
            let candidates = answer(&*part).ok()?;
            return Some(Look { first, end: part.next(), candidates });
        }
        if !whole {
            return None;
        }
        let looked = self.stored(conn, block).and_then(|stored| answer(&*stored));
        match looked {
            Ok(candidates) => Some(Look { first, end: first + self.block_rows(), candidates }),
            Err(error) => {
                tracing::warn!(%error, file = %self.path(block).display(), "an index block is damaged; reading its rows instead");
                self.make_again(block);
                None
            }
        }
    }

    /// Removes a damaged block, so that the indexer makes it again. Without an indexer the file stays as it is.
    pub(super) fn make_again(&self, block: u64) {
        if self.thread.get().is_none() {
            return;
        }
        let mut state = self.write();
        // Readers that found the same damage meanwhile have nothing left to do.
        if state.whole.contains(&block)
            && let Err(error) = self.remove(&mut state, block)
        {
            tracing::warn!(%error, file = %self.path(block).display(), "cannot remove a damaged index block");
        }
        drop(state);
        self.wake();
    }

    /// The same, for whoever counts: what the index can count of the rows `range` is counted, and is no candidate any more.
    pub(in crate::store) fn count(
        &self,
        conn: &Connection,
        seq: u64,
        ask: &Ask<'_>,
        range: &Range<u64>,
        times: &Range<Timestamp>,
        counter: &mut Counter,
    ) -> Option<Look> {
        let block = seq / self.block_rows();
        let first = block * self.block_rows();
        let place = |seq: u64| usize::try_from(seq.saturating_sub(first)).unwrap_or(usize::MAX);
        let part = count::Part { rows: place(range.start)..place(range.end), times: times.clone() };
        self.ask(conn, block, |known: &dyn Block| {
            let candidates = block::candidates(known, first, ask)?;
            let counted = count::count(known, &candidates, &part, counter)?;
            let rows = if counted { candidates.odd.clone() } else { candidates.rows };
            Ok(Candidates { rows, ..candidates })
        })
    }

    /// Opens the file of a block, if it is of the rows that are there.
    pub(super) fn stored(&self, conn: &Connection, block: u64) -> io::Result<Arc<Stored>> {
        let known = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&block).cloned();
        if let Some(known) = known.filter(|known| known.is_unchanged()) {
            return Ok(known);
        }
        let stored = Arc::new(Stored::open(&self.path(block))?);
        let expected = self.expected_head(conn, block).map_err(io::Error::other)?;
        // A head that says more rows than a block has would have sets of that size made for it.
        if stored.head != expected || stored.rows() as u64 != self.block_rows() {
            return Err(io::Error::other("it was made of other rows"));
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

    /// Puts the file of a block into its place. A crash leaves it whole or not at all.
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

    /// The writer has committed these rows, and so many in all.
    pub(in crate::store) fn grew(&self, rows: u64, fresh: &FreshRows) {
        // Without the indexer nobody would take them.
        if self.thread.get().is_some() {
            self.waiting.add(fresh);
        }
        // In one order with what the indexer does before it sleeps: one of the two sees the other.
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

    /// Takes the block of a row out of the index, its content out of the file, and lets nothing be finished until the guard
    /// is dropped: whoever empties a row holds it over the commit.
    pub(in crate::store) fn forget(self: &Arc<Self>, seq: u64) -> io::Result<Held> {
        let mut state = self.write();
        state.held += 1;
        let removed = self.remove(&mut state, seq / self.block_rows());
        // Before the guard is there: where nothing could be removed it is dropped at once, and takes the same lock.
        drop(state);
        let held = Held(Arc::clone(self));
        removed.map(|()| held)
    }

    /// The log begins at `floor` now: no block knows of rows below it any more.
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
        // Last: what could not be removed is tried again the next time.
        state.floor = floor;
        drop(state);
        self.wake();
        Ok(())
    }

    /// Throws the whole index away; the indexer makes it again.
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

    pub(super) fn remove(&self, state: &mut State, block: u64) -> io::Result<()> {
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
        // Last: a file that could not be removed is still one that is here.
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

/// What was said in the file is gone from the disk's blocks too, as far as a file system overwrites in place.
pub(super) fn overwrite_and_remove(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let bytes = file.metadata()?.len();
    io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file)?;
    file.sync_data()?;
    fs::remove_file(path)
}

/// Keeps blocks from being finished; see [`Index::forget`].
pub(in crate::store) struct Held(Arc<Index>);

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.0.write();
        state.held -= 1;
        // What was read before the rows changed must not be taken after it.
        state.changes += 1;
        self.0.waiting.clear();
        drop(state);
        self.0.wake();
    }
}
