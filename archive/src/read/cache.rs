//! Parts of objects that several reads need: footers and hashes.

use std::sync::{Arc, Mutex, PoisonError};

use hashlink::LruCache;
use tokio::sync::Semaphore;

use super::remote_file::FileMeta;
use crate::record::Trees;

/// Maximum number of footers kept. A footer takes about 100 KiB.
const FOOTERS_MAX: usize = 128;
/// Maximum number of steps whose hashes are kept. The hashes of a step take up to 500 KiB.
const TREES_MAX: usize = 32;

/// Row groups whose columns may be in memory at the same time. The columns of a row group that a filter needs take up to 32 MiB.
const COLUMNS_AT_ONCE: usize = 3;

/// Footers and hashes that were read last, and the permission to hold whole columns in memory. Objects never change, so nothing in a cache becomes stale.
pub struct Caches {
    footers: Mutex<LruCache<String, Arc<FileMeta>>>,
    trees: Mutex<LruCache<u64, Arc<Trees>>>,
    /// Held by scans while they select the rows of a row group.
    pub(super) slots: Semaphore,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            footers: Mutex::new(LruCache::new(FOOTERS_MAX)),
            trees: Mutex::new(LruCache::new(TREES_MAX)),
            slots: Semaphore::new(COLUMNS_AT_ONCE),
        }
    }
}

impl std::fmt::Debug for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caches").finish_non_exhaustive()
    }
}

impl Caches {
    pub(super) fn footer(&self, name: &str) -> Option<Arc<FileMeta>> {
        self.footers.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn keep_footer(&self, name: &str, footer: &Arc<FileMeta>) {
        self.footers.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::clone(footer));
    }

    pub(super) fn trees(&self, step: u64) -> Option<Arc<Trees>> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner).get(&step).cloned()
    }

    pub(super) fn keep_trees(&self, step: u64, trees: &Arc<Trees>) {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner).insert(step, Arc::clone(trees));
    }
}
