//! Reads rows by seq, and verifies them against the tree of their log.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, FixedSizeBinaryArray, RecordBatch};
use bytes::Bytes;
use piperoll_format::entry::Prefix;
use piperoll_format::merkle::{CompactRange, Cover, Hash, TILE_LEVELS, TILE_WIDTH};
use piperoll_format::time::Timestamp;

use super::cache::Caches;
use super::candidates::{numbers, times};
use super::catalog::{Catalog, CatalogLog, CatalogRange, CatalogRun};
use super::error::ReadError;
use super::remote_file::FileMeta;
use crate::record::{LogTree, TREE_BYTES_MAX, Trees, digest_of};
use crate::row::{ArchivedRow, Content, LogId};
use crate::store::Store;

/// Reader of an archive's rows.
#[derive(Debug, Clone)]
pub struct Reader {
    store: Store,
    catalog: Arc<Catalog>,
    caches: Arc<Caches>,
}

impl Reader {
    /// Creates a reader of the rows that `catalog` lists.
    pub fn new(store: Store, catalog: Arc<Catalog>, caches: Arc<Caches>) -> Self {
        caches.note_removed(catalog.removed());
        Self { store, catalog, caches }
    }

    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(super) fn caches(&self) -> &Arc<Caches> {
        &self.caches
    }

    /// Store from which the rows are read.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Waits until whole columns may be held in memory.
    pub(super) async fn slot(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.caches.slots.acquire().await.ok()
    }

    pub(super) async fn footer(&self, run: &CatalogRun) -> Result<Arc<FileMeta>, ReadError> {
        let file = self.catalog.file(run.file);
        if let Some(known) = self.caches.footer(&file.name) {
            return Ok(known);
        }
        let meta = Arc::new(FileMeta::read(&self.store, file).await?);
        self.caches.keep_footer(&file.name, &meta);
        Ok(meta)
    }

    /// Reads the rows of whole level-0 tiles, as far as they are archived. Each row leads to the checkpoint of its range.
    ///
    /// # Errors
    /// Fails if the store does not answer, or if the rows do not match the steps.
    pub async fn tiles(&self, log: &LogId, tiles: &[u64]) -> Result<Vec<ArchivedRow>, ReadError> {
        self.shared_tiles(log, tiles).await.map(|rows| rows.into_iter().map(ArchivedRow::detached).collect())
    }

    /// Like [`Self::tiles`], but all rows share the memory of their bodies. A row that is kept must be detached, because otherwise it keeps the
    /// memory of all of them.
    pub(super) async fn shared_tiles(&self, log: &LogId, tiles: &[u64]) -> Result<Vec<ArchivedRow>, ReadError> {
        self.verified_tiles(log, tiles).await.map_err(|error| self.caches.explain(error))
    }

    async fn verified_tiles(&self, log: &LogId, tiles: &[u64]) -> Result<Vec<ArchivedRow>, ReadError> {
        let Some(of_log) = self.catalog.log(log) else { return Ok(Vec::new()) };
        let mut wanted: Vec<Range<u64>> = Vec::new();
        for tile in tiles {
            let (begin, end) = (tile * TILE_WIDTH, (tile + 1) * TILE_WIDTH);
            for range in of_log.ranges() {
                let rows = begin.max(range.from_seq)..end.min(range.to_seq);
                if rows.start < rows.end {
                    wanted.push(rows);
                }
            }
        }
        wanted.sort_by_key(|rows| rows.start);
        wanted.dedup();
        let rows = self.unverified(of_log, &wanted).await?;
        let mut begin = 0_usize;
        for part in &wanted {
            let count = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
            let of_tile = rows.get(begin..begin.saturating_add(count)).unwrap_or_default();
            if !of_tile.iter().map(|(row, _)| row.seq).eq(part.clone()) {
                return Err(self.changed(of_log, part, "rows are missing"));
            }
            self.verify(log, of_log, part, of_tile.iter().map(|(_, leaf)| *leaf)).await?;
            begin += count;
        }
        let with_epoch = |(mut row, _): (ArchivedRow, Hash)| {
            // The steps are signed; the column is not compared with a digest.
            if let Content::Entry { epoch, .. } = &mut row.content
                && let Some(span) = of_log.epoch_of(row.seq)
            {
                *epoch = span;
            }
            row
        };
        Ok(rows.into_iter().map(with_epoch).collect())
    }

    fn changed(&self, of_log: &CatalogLog, rows: &Range<u64>, reason: &str) -> ReadError {
        let run = of_log.runs_in(rows).first();
        let name = run.map_or("data", |run| self.catalog.file(run.file).name.as_str());
        ReadError::changed(name, format!("rows {}..{}: {reason}", rows.start, rows.end))
    }

    /// Reads rows by seq, with their leaves. `wanted` ascends, and all of its rows are archived.
    async fn unverified(
        &self,
        of_log: &CatalogLog,
        wanted: &[Range<u64>],
    ) -> Result<Vec<(ArchivedRow, Hash)>, ReadError> {
        // Parts of one row group are read together.
        let mut parts: Vec<(CatalogRun, Vec<Range<u64>>)> = Vec::new();
        for rows in wanted {
            for run in of_log.runs_in(rows) {
                let part = rows.start.max(run.from_seq)..rows.end.min(run.to_seq);
                match parts.last_mut() {
                    Some((last, of_run)) if last == run => match of_run.last_mut() {
                        Some(before) if before.end == part.start => before.end = part.end,
                        _ => of_run.push(part),
                    },
                    _ => parts.push((run.clone(), vec![part])),
                }
            }
        }
        let mut all = Vec::new();
        for (run, parts) in parts {
            let meta = self.footer(&run).await?;
            let mut by_group: Vec<(usize, Vec<Range<u64>>)> = Vec::new();
            for part in &parts {
                let in_file = run.row + (part.start - run.from_seq)..run.row + (part.end - run.from_seq);
                for (group, rows) in meta.groups(in_file) {
                    match by_group.last_mut() {
                        Some((last, of_group)) if *last == group => of_group.push(rows),
                        _ => by_group.push((group, vec![rows])),
                    }
                }
            }
            for (group, rows) in by_group {
                let pages = meta.pages(&self.store, group, &rows).await?;
                let (of_file, of_run, wanted) = (Arc::clone(&meta), run.clone(), rows.clone());
                let decode = move || decode(&of_file, group, pages, &wanted, &of_run);
                let mut found = blocking(meta.file.name.clone(), decode).await?;
                if found.iter().any(|(row, _)| row.is_erased()) {
                    self.place_erased(&meta, group, &run, &mut found).await?;
                }
                all.extend(found);
            }
        }
        Ok(all)
    }

    /// Sets era and time of erased rows. They have no signed bytes, so the columns are read as a whole, which have a digest.
    async fn place_erased(
        &self,
        meta: &Arc<FileMeta>,
        group: usize,
        run: &CatalogRun,
        rows: &mut [(ArchivedRow, Hash)],
    ) -> Result<(), ReadError> {
        let _slot = self.slot().await;
        let columns = meta.columns(&self.store, group, &["era", "timestamp"]).await?;
        let of_file = Arc::clone(meta);
        let batches = blocking(meta.file.name.clone(), move || of_file.decode(group, columns, 0..u64::MAX)).await?;
        let times: Vec<i64> = batches.iter().flat_map(times).collect();
        let eras = batches.iter().filter_map(|batch| numbers(batch, "era")).flat_map(|eras| eras.values().to_vec());
        let eras: Vec<i64> = eras.collect();
        for row in rows.iter_mut().map(|(row, _)| row).filter(|row| row.is_erased()) {
            let at = (row.seq - run.from_seq + run.row).checked_sub(meta.first_of(group));
            let at = at.and_then(|at| usize::try_from(at).ok());
            let found = at.and_then(|at| Some((u32::try_from(*eras.get(at)?).ok()?, *times.get(at)?)));
            let form = || ReadError::changed(&meta.file.name, "it has other rows than its step says");
            let (era, time) = found.ok_or_else(form)?;
            (row.era, row.timestamp) = (era, Timestamp::from_micros(time));
        }
        Ok(())
    }

    /// Checks that rows lead to the hashes of their log's steps, which lead to its checkpoint.
    async fn verify(
        &self,
        log: &LogId,
        of_log: &CatalogLog,
        rows: &Range<u64>,
        leaves: impl Iterator<Item = Hash>,
    ) -> Result<(), ReadError> {
        let tile = rows.start / TILE_WIDTH;
        let (begin, end) = (tile * TILE_WIDTH, (tile + 1) * TILE_WIDTH);
        let Some(range) = of_log.range_of(rows.start) else { return Err(self.changed(of_log, rows, "not archived")) };
        let mut cover = if rows.start == begin {
            Cover::at(begin)
        } else {
            // The range begins within a tile: the hashes of the rows before it are in its first step.
            let before = self.before(log, range).await?;
            let hashes = before.map(|before| below_tile(&before)).unwrap_or_default();
            let cover = Cover::new(begin, rows.start, hashes);
            cover
                .ok_or_else(|| self.changed(of_log, rows, "the hashes of the rows before them have the wrong number"))?
        };
        let mut root = None;
        leaves.for_each(|leaf| cover.push(leaf, |_, found| root = Some(found)));
        let is_proven = if rows.end == end {
            let tree = self.tree_at(log, range, end - 1).await?;
            let at = tile.checked_sub(tree.first_tile()).and_then(|at| usize::try_from(at).ok());
            root.is_some() && root.as_ref() == at.and_then(|at| tree.tiles.get(at))
        } else {
            let after = self.tree_at(log, range, range.to_seq - 1).await?.after();
            after.is_some_and(|after| below_tile(&after) == cover.hashes())
        };
        if is_proven { Ok(()) } else { Err(self.changed(of_log, rows, "they do not lead to the log's checkpoint")) }
    }

    /// Compact range of the rows before a range.
    pub(super) async fn before(&self, log: &LogId, range: &CatalogRange) -> Result<Option<CompactRange>, ReadError> {
        let tree = match range.begun_by {
            Some(step) => self.tree_of(log, step).await?,
            None => self.tree_at(log, range, range.from_seq).await?,
        };
        Ok(tree.before().filter(|before| before.size() == range.from_seq))
    }

    /// Hashes of the step that added a row.
    pub(super) async fn tree_at(&self, log: &LogId, range: &CatalogRange, seq: u64) -> Result<TreeOfStep, ReadError> {
        let at = range.steps.partition_point(|(rows, _)| rows.end <= seq);
        self.tree_of(log, range.steps.get(at).map_or(0, |(_, step)| *step)).await
    }

    /// Hashes of a log in a step.
    async fn tree_of(&self, log: &LogId, step: u64) -> Result<TreeOfStep, ReadError> {
        let Some(record) = self.catalog.tree(step) else {
            return Err(ReadError::changed("steps", format!("step {step} is not known")));
        };
        let trees = match self.caches.trees(&record.name) {
            Some(trees) => trees,
            None => {
                let bytes = self.store.read(&record.name, record.bytes.min(TREE_BYTES_MAX)).await?;
                if digest_of(&bytes) != record.sha256 {
                    return Err(ReadError::changed(&record.name, "it does not match the digest in its step"));
                }
                let trees = Arc::new(Trees::read(&record.name, &bytes)?);
                self.caches.keep_trees(&record.name, &trees);
                trees
            }
        };
        let index = trees.logs.iter().position(|tree| &tree.log == log);
        let index = index.ok_or_else(|| ReadError::changed(&record.name, format!("it has no hashes of {log}")))?;
        Ok(TreeOfStep { trees, index })
    }
}

/// Hashes of one log in one step.
pub(super) struct TreeOfStep {
    trees: Arc<Trees>,
    index: usize,
}

impl std::ops::Deref for TreeOfStep {
    type Target = LogTree;

    fn deref(&self) -> &LogTree {
        &self.trees.logs[self.index]
    }
}

/// Hashes of the rows after the last full tile.
fn below_tile(range: &CompactRange) -> Vec<Hash> {
    let full = (range.size() >> TILE_LEVELS).count_ones() as usize;
    range.hashes().get(full..).unwrap_or_default().to_vec()
}

/// Runs a decoder outside of the async threads. A decoder is complex, and pages are not verified before they are decoded, so a
/// panic in it is an error of the file.
pub(super) async fn blocking<T: Send + 'static>(
    name: String,
    decode: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    match tokio::task::spawn_blocking(decode).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(ReadError::changed(&name, "it cannot be decoded")),
        Err(_) => Err(ReadError::Aborted),
    }
}

fn decode(
    meta: &FileMeta,
    group: usize,
    pages: Vec<(u64, Bytes)>,
    rows: &[Range<u64>],
    run: &CatalogRun,
) -> Result<Vec<(ArchivedRow, Hash)>, ReadError> {
    let first = meta.first_of(group);
    let mut seqs = rows.iter().cloned().flatten().map(|row| run.from_seq + (first + row - run.row));
    let mut all = Vec::new();
    for batch in meta.decode_rows(group, pages, rows)? {
        let form = |reason: &str| ReadError::changed(&meta.file.name, reason);
        let found = rows_of(&batch, &mut seqs).ok_or_else(|| form("it has other rows than its step says"))?;
        all.extend(found.into_iter().map(|row| {
            let leaf = row.leaf();
            (row, leaf)
        }));
    }
    Ok(all)
}

/// Rows of a batch, which share the memory of their bodies; `None` if the columns contradict each other.
fn rows_of(batch: &RecordBatch, seqs: &mut impl Iterator<Item = u64>) -> Option<Vec<ArchivedRow>> {
    let (eras, epochs, times) = (numbers(batch, "era")?, numbers(batch, "epoch")?, times(batch));
    let hash = |name: &str| batch.column_by_name(name).and_then(|column| column.as_fixed_size_binary_opt());
    let (macs, leaves) = (hash("mac")?, hash("leaf")?);
    let bodies = batch.column_by_name("body")?.as_binary_opt::<i32>()?;
    let body_bytes = Bytes::from_owner(bodies.values().clone());
    let mut rows = Vec::with_capacity(batch.num_rows());
    for index in 0..batch.num_rows() {
        let hash_at =
            |array: &FixedSizeBinaryArray| array.is_valid(index).then(|| array.value(index).try_into().ok()).flatten();
        let (era, timestamp, content) = match (bodies.is_valid(index), hash_at(macs), hash_at(leaves)) {
            (true, Some(mac), None) => {
                let body = bodies.value(index);
                // Position and time in the signed bytes take precedence over the columns.
                let prefix = Prefix::parse(body)?;
                let epoch = epochs.is_valid(index).then(|| u32::try_from(epochs.value(index)).ok()).flatten()?;
                let content = Content::Entry { epoch, body: body_bytes.slice_ref(body), mac };
                (prefix.era, prefix.timestamp, content)
            }
            (false, None, Some(leaf)) => {
                let era = u32::try_from(eras.value(index)).ok()?;
                (era, Timestamp::from_micros(*times.get(index)?), Content::Erased { leaf })
            }
            _ => return None,
        };
        rows.push(ArchivedRow { seq: seqs.next()?, era, timestamp, content });
    }
    Some(rows)
}
