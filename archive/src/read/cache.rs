//! Parts of objects that several reads need: footers, hashes and Bloom filters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hashlink::LruCache;
use parquet::bloom_filter::Sbbf;
use tokio::sync::Semaphore;

use super::error::ReadError;
use super::remote_file::FileMeta;
use crate::record::Trees;
use crate::row::{ArchivedRow, LogId};
use crate::store::Store;

/// Maximum number of footers kept. A footer takes up to a megabyte.
const FOOTERS_MAX: usize = 32;
/// Maximum number of steps whose hashes are kept. The hashes of a step take up to 500 KiB.
const TREES_MAX: usize = 32;

/// Maximum bytes of the Bloom filters that are kept. That of one column of a row group takes up to 128 KiB.
const BLOOMS_BYTES_MAX: u64 = 24 * 1024 * 1024;

/// Estimated memory of a Bloom filter in addition to its bytes and the name of its file.
const BLOOM_OVERHEAD_BYTES: u64 = 256;

/// Bytes of rows that all scans together read ahead. Each scan has at least one tile.
const WINDOWS_BYTES: u64 = 64 * 1024 * 1024;
/// Entries that declare erasures, by the seq of the erased row.
pub type Erasures = BTreeMap<u64, Arc<ArchivedRow>>;

/// Row groups whose columns may be in memory at the same time. The columns of a row group that a filter needs take up to 32 MiB.
const COLUMNS_AT_ONCE: usize = 3;

/// Footers, hashes and Bloom filters that were read last, and the permission to hold whole columns in memory. Objects never change, so nothing in a cache becomes stale; a file that is replaced gets another name.
pub struct Caches {
    footers: Mutex<LruCache<String, Arc<FileMeta>>>,
    trees: Mutex<LruCache<String, Arc<Trees>>>,
    blooms: Mutex<Blooms>,
    /// Held by scans while they select the rows of a row group.
    pub(super) slots: Semaphore,
    /// Erasures of each log, and the end of the rows that were searched for them.
    erasures: Mutex<BTreeMap<LogId, (u64, Arc<Erasures>)>>,
    /// Number of scans that share the memory for rows.
    scans: AtomicU64,
    /// Files that readers with an earlier state may look for in vain.
    removed: Mutex<BTreeSet<String>>,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            footers: Mutex::new(LruCache::new(FOOTERS_MAX)),
            trees: Mutex::new(LruCache::new(TREES_MAX)),
            blooms: Mutex::default(),
            slots: Semaphore::new(COLUMNS_AT_ONCE),
            erasures: Mutex::default(),
            scans: AtomicU64::new(0),
            removed: Mutex::default(),
        }
    }
}

/// Bloom filters by file and offset, with their sizes.
struct Blooms {
    by_place: LruCache<(String, u64), (u64, Arc<Sbbf>)>,
    bytes: u64,
}

impl Default for Blooms {
    fn default() -> Self {
        Self { by_place: LruCache::new_unbounded(), bytes: 0 }
    }
}

impl Blooms {
    fn keep(&mut self, place: (String, u64), bytes: u64, bloom: Arc<Sbbf>) {
        self.bytes += bytes;
        if let Some((before, _)) = self.by_place.insert(place, (bytes, bloom)) {
            self.bytes -= before;
        }
        while self.bytes > BLOOMS_BYTES_MAX {
            let Some((_, (bytes, _))) = self.by_place.remove_lru() else { break };
            self.bytes -= bytes;
        }
    }
}

impl std::fmt::Debug for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caches").finish_non_exhaustive()
    }
}

impl Caches {
    pub(super) fn note_removed(&self, names: &BTreeSet<String>) {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).extend(names.iter().cloned());
    }

    /// An error about a file that was replaced meanwhile does not mean that the archive was changed.
    pub(super) fn explain(&self, error: ReadError) -> ReadError {
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        match error.object().filter(|name| removed.contains(*name)) {
            Some(name) => ReadError::Replaced(name.to_owned()),
            None => error,
        }
    }

    pub(super) fn footer(&self, name: &str) -> Option<Arc<FileMeta>> {
        self.footers.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn keep_footer(&self, name: &str, footer: &Arc<FileMeta>) {
        self.footers.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::clone(footer));
    }

    pub(super) fn trees(&self, name: &str) -> Option<Arc<Trees>> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn keep_trees(&self, name: &str, trees: &Arc<Trees>) {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::clone(trees));
    }

    /// Reads the Bloom filter of a column of a row group, if there is one.
    pub(super) async fn bloom(
        &self,
        meta: &FileMeta,
        store: &Store,
        group: usize,
        name: &str,
    ) -> Result<Option<Arc<Sbbf>>, ReadError> {
        let Some(range) = meta.bloom_range(group, name) else { return Ok(None) };
        let place = (meta.file.name.clone(), range.0);
        let blooms = || self.blooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bloom)) = blooms().by_place.get(&place) {
            return Ok(Some(Arc::clone(bloom)));
        }
        let Some(bloom) = meta.bloom(store, group, name, range).await?.map(Arc::new) else { return Ok(None) };
        let bytes = range.1 + place.0.len() as u64 + BLOOM_OVERHEAD_BYTES;
        blooms().keep(place, bytes, Arc::clone(&bloom));
        Ok(Some(bloom))
    }

    pub(super) fn erasures(&self, log: &LogId) -> (u64, Arc<Erasures>) {
        self.erasures.lock().unwrap_or_else(PoisonError::into_inner).get(log).cloned().unwrap_or_default()
    }

    pub(super) fn keep_erasures(&self, log: &LogId, to_seq: u64, known: &Arc<Erasures>) {
        let mut erasures = self.erasures.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = erasures.entry(log.clone()).or_default();
        if entry.0 < to_seq {
            let mut all = known.as_ref().clone();
            for (seq, row) in entry.1.iter() {
                all.entry(*seq).or_insert_with(|| Arc::clone(row));
            }
            *entry = (to_seq, Arc::new(all));
        }
    }

    /// Adds erasures that are declared after the archived rows.
    pub(super) fn add_erasures(&self, log: &LogId, more: &Erasures) {
        let mut erasures = self.erasures.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = erasures.entry(log.clone()).or_default();
        if more.keys().any(|seq| !entry.1.contains_key(seq)) {
            let known = Arc::make_mut(&mut entry.1);
            for (seq, row) in more {
                known.entry(*seq).or_insert_with(|| Arc::clone(row));
            }
        }
    }

    /// Bytes of rows that one of the current scans may read at once.
    pub(super) fn window_bytes(&self) -> u64 {
        WINDOWS_BYTES / self.scans.load(Ordering::Relaxed).max(1)
    }
}

/// A scan that shares the memory for rows; it no longer does when this value is dropped.
pub(super) struct ScanCount(Arc<Caches>);

impl ScanCount {
    pub(super) fn new(caches: &Arc<Caches>) -> Self {
        caches.scans.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(caches))
    }
}

impl Drop for ScanCount {
    fn drop(&mut self) {
        self.0.scans.fetch_sub(1, Ordering::Relaxed);
    }
}
