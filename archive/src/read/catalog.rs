//! The rows of an archive by log: which file has them, and which step proves them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use piperoll_format::ids::{ClusterName, NodeId};
use piperoll_format::note::VerifyingKey;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::EpochSpan;

use super::error::ReadError;
use crate::history::{Head, History};
use crate::record::{Digest, FileRecord, ObjectRecord, Step, names};
use crate::row::LogId;
use crate::store::Store;

/// Rows of an archive, as its steps describe them.
#[derive(Debug, Clone)]
pub struct Catalog {
    history: History,
    logs: BTreeMap<LogId, Arc<CatalogLog>>,
    files: Vec<Arc<CatalogFile>>,
    /// Hashes of each step; those of step 1 come first.
    trees: Vec<Arc<ObjectRecord>>,
    /// Time at which each step was planned.
    created: Vec<Timestamp>,
    /// Files that were replaced or removed since the catalog was loaded. Readers with an earlier state may still look for them.
    removed: Arc<BTreeSet<String>>,
}

/// Archived rows of one log.
#[derive(Debug, Clone, Default)]
pub struct CatalogLog {
    /// Contiguous ranges, ascending. There are several only if the node pruned rows before they were archived.
    ranges: Vec<CatalogRange>,
    /// Runs, ascending by seq.
    runs: Vec<CatalogRun>,
    epochs: Vec<EpochSpan>,
    /// Newest time of the rows that were removed from the beginning of the log, if the archive had all of them.
    removed_newest: Option<Timestamp>,
}

/// Consecutive archived rows of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogRange {
    pub from_seq: u64,
    pub to_seq: u64,
    /// Era and time of the last row.
    pub era: u32,
    pub last: Timestamp,
    /// Newest checkpoint that proves the rows, with its signatures.
    pub checkpoint: Arc<str>,
    /// Rows that each step added, ascending.
    pub(super) steps: Vec<(Range<u64>, u64)>,
    /// Step that removed the rows before the range; its hashes have the compact range before `from_seq`. `None` if no step did, so that
    /// the compact range is among the hashes of the step that added the first rows.
    pub(super) begun_by: Option<u64>,
}

/// Consecutive rows of one log, day and era in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CatalogRun {
    pub(super) from_seq: u64,
    pub(super) to_seq: u64,
    pub(super) era: u32,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// Index into the files of the catalog.
    pub(super) file: usize,
    /// Number of rows in the file before the run.
    pub(super) row: u64,
}

/// A file of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CatalogFile {
    /// Step that describes the file, and the step that added its rows.
    pub(super) step: u64,
    pub(super) added_by: u64,
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) tail_offset: u64,
    pub(super) tail_sha256: Digest,
}

impl Catalog {
    /// Reads all steps.
    ///
    /// # Errors
    /// Fails if the store does not answer, or if a step is missing, was changed, or does not continue the steps before it.
    pub async fn load(
        store: &Store,
        key: &VerifyingKey,
        cluster: &ClusterName,
        archive: &NodeId,
    ) -> Result<Self, ReadError> {
        let mut entries = Entries::default();
        let history = History::load(store, key, cluster, archive, |step, _| entries.add(step)).await?;
        // No reader knows an earlier state.
        entries.removed.clear();
        Self::of(history, entries)
    }

    /// Reads the steps after the newest known one.
    ///
    /// # Errors
    /// As for [`Catalog::load`]; the catalog is then unchanged.
    pub async fn advance(&mut self, store: &Store, key: &VerifyingKey) -> Result<(), ReadError> {
        let mut history = self.history.clone();
        let mut entries = Entries {
            logs: self.logs.clone(),
            files: self.files.clone(),
            trees: self.trees.clone(),
            created: self.created.clone(),
            removed: self.removed.as_ref().clone(),
            places: None,
            problem: None,
        };
        history.advance(store, key, |step, _| entries.add(step)).await?;
        *self = Self::of(history, entries)?;
        Ok(())
    }

    fn of(history: History, entries: Entries) -> Result<Self, ReadError> {
        let Entries { logs, files, trees, created, removed, problem, .. } = entries;
        match problem {
            Some((step, reason)) => Err(ReadError::changed(&names::step(step), reason)),
            None => Ok(Self { history, logs, files, trees, created, removed: Arc::new(removed) }),
        }
    }

    /// Names of files that were part of the archive since the catalog was loaded, and are not any more.
    pub(super) fn removed(&self) -> &BTreeSet<String> {
        &self.removed
    }

    /// All logs with archived rows.
    pub fn logs(&self) -> impl Iterator<Item = (&LogId, &Arc<CatalogLog>)> {
        self.logs.iter()
    }

    /// The newest step.
    pub fn head(&self) -> Head {
        self.history.head
    }

    pub(super) fn cluster(&self) -> &ClusterName {
        &self.history.about.cluster
    }

    /// Archived rows of a log; `None` if there are none.
    pub fn log(&self, log: &LogId) -> Option<&Arc<CatalogLog>> {
        self.logs.get(log)
    }

    /// All logs of a node.
    pub fn logs_of<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = (&'a LogId, &'a Arc<CatalogLog>)> {
        self.logs.iter().filter(move |(log, _)| &log.node_id == node)
    }

    pub(super) fn file(&self, index: usize) -> &Arc<CatalogFile> {
        &self.files[index]
    }

    /// Time at which the rows of a file were archived.
    pub(super) fn archived_at(&self, file: usize) -> Timestamp {
        let step = self.files[file].added_by.checked_sub(1).and_then(|at| usize::try_from(at).ok());
        step.and_then(|at| self.created.get(at)).copied().unwrap_or(Timestamp::MAX)
    }

    /// Hashes of a step.
    pub(super) fn tree(&self, step: u64) -> Option<&Arc<ObjectRecord>> {
        self.trees.get(usize::try_from(step.checked_sub(1)?).ok()?)
    }
}

impl CatalogFile {
    fn of(file: &FileRecord, step: u64, added_by: u64) -> Self {
        Self {
            step,
            added_by,
            name: file.name.clone(),
            bytes: file.bytes,
            tail_offset: file.tail_offset,
            tail_sha256: file.tail_sha256,
        }
    }
}

impl CatalogLog {
    /// Contiguous ranges of archived rows, ascending.
    pub fn ranges(&self) -> &[CatalogRange] {
        &self.ranges
    }

    /// Era and time of the first archived row.
    pub fn first(&self) -> Option<(u32, Timestamp)> {
        self.runs.first().map(|run| (run.era, run.first))
    }

    /// Newest time of all rows before the first archived one, if the archive had them and has removed them.
    pub fn removed_newest(&self) -> Option<Timestamp> {
        self.removed_newest
    }

    /// Epochs of the MAC key, ascending.
    pub fn epochs(&self) -> &[EpochSpan] {
        &self.epochs
    }

    /// Epoch of the MAC key at a row; `None` if the steps do not say.
    pub(super) fn epoch_of(&self, seq: u64) -> Option<u32> {
        let after = self.epochs.partition_point(|span| span.first_seq <= seq);
        after.checked_sub(1).map(|at| self.epochs[at].epoch)
    }

    /// Whether rows of a time range may be among the archived ones.
    pub fn touches(&self, from: Timestamp, to: Timestamp) -> bool {
        self.runs.iter().any(|run| from <= run.last && run.first < to)
    }

    /// The range that contains a row.
    pub fn range_of(&self, seq: u64) -> Option<&CatalogRange> {
        self.ranges.iter().find(|range| (range.from_seq..range.to_seq).contains(&seq))
    }

    /// Removes the rows below `first`.
    fn begin_at(&mut self, first: u64, step: u64) {
        let was_whole = self.removed_newest.is_some() || self.ranges.first().is_some_and(|range| range.from_seq == 0);
        if was_whole && self.ranges.first().is_some_and(|range| first <= range.to_seq) {
            let removed = self.runs.iter().filter(|run| run.from_seq < first).map(|run| run.last);
            self.removed_newest = removed.chain(self.removed_newest).max();
        }
        self.runs.retain(|run| first <= run.from_seq);
        self.ranges.retain(|range| first < range.to_seq);
        if let Some(range) = self.ranges.first_mut().filter(|range| range.from_seq < first) {
            (range.from_seq, range.begun_by) = (first, Some(step));
            range.steps.retain(|(rows, _)| first < rows.end);
            if let Some((rows, _)) = range.steps.first_mut() {
                rows.start = rows.start.max(first);
            }
        }
        let begin = self.epochs.iter().rposition(|span| span.first_seq <= first).unwrap_or(0);
        self.epochs.drain(..begin);
    }

    /// Runs of all rows, ascending by seq.
    pub(super) fn runs(&self) -> &[CatalogRun] {
        &self.runs
    }

    /// Rows that steps after `step` added.
    pub(super) fn added_after(&self, step: u64) -> Vec<Range<u64>> {
        let steps = self.ranges.iter().flat_map(|range| &range.steps);
        steps.filter(|(_, number)| *number > step).map(|(rows, _)| rows.clone()).collect()
    }

    /// Runs with rows of `rows`, ascending.
    pub(super) fn runs_in(&self, rows: &Range<u64>) -> &[CatalogRun] {
        let begin = self.runs.partition_point(|run| run.to_seq <= rows.start);
        let end = self.runs.partition_point(|run| run.from_seq < rows.end);
        self.runs.get(begin..end).unwrap_or_default()
    }
}

/// Parts of a catalog while steps are added.
#[derive(Default)]
struct Entries {
    logs: BTreeMap<LogId, Arc<CatalogLog>>,
    files: Vec<Arc<CatalogFile>>,
    trees: Vec<Arc<ObjectRecord>>,
    created: Vec<Timestamp>,
    removed: BTreeSet<String>,
    /// Indexes of the files by name, from the first step on that replaces a file.
    places: Option<HashMap<String, usize>>,
    /// A step that contradicts the steps before it, and the reason.
    problem: Option<(u64, String)>,
}

impl Entries {
    /// Lets the files of a step take the place of others.
    fn replace(&mut self, step: &Step) -> Result<(), String> {
        for replaced in &step.replaced {
            let files = &self.files;
            let indexed = || files.iter().enumerate().map(|(at, file)| (file.name.clone(), at)).collect();
            let places = self.places.get_or_insert_with(indexed);
            let at = places.remove(&replaced.name);
            let file = at.and_then(|at| self.files.get_mut(at));
            let (at, file) =
                at.zip(file).ok_or_else(|| format!("it replaces {}, which no step added", replaced.name))?;
            places.insert(replaced.file.name.clone(), at);
            *file = Arc::new(CatalogFile::of(&replaced.file, step.number, file.added_by));
            self.removed.insert(replaced.name.clone());
        }
        Ok(())
    }

    /// Removes the rows before the starts of a step.
    fn expire(&mut self, step: &Step) -> Result<(), String> {
        for start in &step.starts {
            let known = self.logs.get_mut(&start.log);
            let known = known.ok_or_else(|| format!("it removes rows of {}, which has none", start.log))?;
            Arc::make_mut(known).begin_at(start.first_seq, step.number);
            if known.ranges.is_empty() {
                self.logs.remove(&start.log);
            }
        }
        self.removed.extend(step.expired.iter().cloned());
        Ok(())
    }

    /// Adds a step whose form and position the history has checked.
    fn add(&mut self, step: &Step) {
        self.trees.push(Arc::new(step.tree.clone()));
        self.created.push(step.created);
        if let Err(reason) = self.replace(step).and_then(|()| self.expire(step)) {
            self.problem.get_or_insert((step.number, reason));
        }
        let mut runs: Vec<Vec<CatalogRun>> = step.logs.iter().map(|_| Vec::new()).collect();
        for file in &step.files {
            let index = self.files.len();
            if let Some(places) = &mut self.places {
                places.insert(file.name.clone(), index);
            }
            self.files.push(Arc::new(CatalogFile::of(file, step.number, step.number)));
            let mut row = 0;
            for run in &file.runs {
                let rows = run.to_seq - run.from_seq;
                if let Some(of_log) = runs.get_mut(run.log) {
                    of_log.push(CatalogRun {
                        from_seq: run.from_seq,
                        to_seq: run.to_seq,
                        era: run.era,
                        first: run.first,
                        last: run.last,
                        file: index,
                        row,
                    });
                }
                row += rows;
            }
        }
        for (added, mut runs) in step.logs.iter().zip(runs) {
            runs.sort_by_key(|run| run.from_seq);
            let Some(last) = runs.last().map(|run| run.last) else { continue };
            let log = Arc::make_mut(self.logs.entry(added.log.clone()).or_default());
            let rows = added.from_seq..added.to_seq;
            let checkpoint: Arc<str> = added.checkpoint.as_str().into();
            match log.ranges.last_mut().filter(|range| range.to_seq == rows.start) {
                Some(range) => {
                    (range.to_seq, range.era, range.last, range.checkpoint) = (rows.end, added.era, last, checkpoint);
                    range.steps.push((rows, step.number));
                }
                None => log.ranges.push(CatalogRange {
                    from_seq: rows.start,
                    to_seq: rows.end,
                    era: added.era,
                    last,
                    checkpoint,
                    steps: vec![(rows, step.number)],
                    begun_by: None,
                }),
            }
            log.runs.append(&mut runs);
            for span in &added.epochs {
                if log.epochs.last().is_none_or(|known| known.first_seq < span.first_seq && known.epoch < span.epoch) {
                    log.epochs.push(*span);
                }
            }
        }
    }
}
