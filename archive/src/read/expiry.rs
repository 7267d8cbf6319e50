//! Decides which files have been kept for as long as required.

use std::collections::{BTreeMap, BTreeSet};

use piperoll_format::merkle::CompactRange;
use piperoll_format::time::Timestamp;

use super::catalog::CatalogRun;
use super::error::ReadError;
use super::rows::Reader;
use crate::record::{ArchiveStart, LogTree};
use crate::row::{Day, LogId};

/// Files that a step removes, and where the logs begin afterwards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expiry {
    /// Names of the files.
    pub files: Vec<String>,
    pub(crate) starts: Vec<ArchiveStart>,
    /// Compact ranges before the starts.
    pub(crate) trees: Vec<LogTree>,
}

impl Expiry {
    /// Logs of which rows are removed.
    pub fn logs(&self) -> impl Iterator<Item = &LogId> {
        self.starts.iter().map(|start| &start.log)
    }
}

impl Reader {
    /// Finds the files of days before `first_day` that can be removed, at most `files_max`. Rows are removed only from the beginning of a log,
    /// so that what is left stays provable, and only whole files. `may_go` decides about the rows of a log in a time range, both ends included.
    ///
    /// # Errors
    /// Fails if the store does not answer, or if an object is not what its step says.
    pub async fn expired(
        &self,
        first_day: Day,
        files_max: usize,
        may_go: impl Fn(&LogId, Timestamp, Timestamp) -> bool,
    ) -> Result<Expiry, ReadError> {
        let mut runs: BTreeMap<usize, Vec<(&LogId, &CatalogRun)>> = BTreeMap::new();
        // End of the rows of each log that may go.
        let mut kept_from: BTreeMap<&LogId, u64> = BTreeMap::new();
        for (log, of_log) in self.catalog().logs() {
            kept_from.insert(log, of_log.ranges().last().map_or(0, |range| range.to_seq));
            for run in of_log.runs() {
                runs.entry(run.file).or_default().push((log, run));
            }
        }
        let is_old =
            |(log, run): &(&LogId, &CatalogRun)| Day::of(run.last) < first_day && may_go(log, run.first, run.last);
        // A node's clock may be wrong, so the rows must also have been archived before the first day.
        let was_archived = |file: &usize| self.catalog().archived_at(*file) < first_day.begin();
        let mut going: BTreeSet<usize> = runs
            .iter()
            .filter(|(file, runs)| was_archived(file) && runs.iter().all(is_old))
            .map(|(file, _)| *file)
            .collect();
        let days: BTreeMap<usize, Day> =
            going.iter().filter_map(|file| Some((*file, Day::of(runs[file].first()?.1.first)))).collect();
        // The oldest days first. A limit must not divide a log's rows in another way than its order does.
        let mut by_day: Vec<usize> = going.iter().copied().collect();
        by_day.sort_by_key(|file| (days.get(file).copied(), *file));
        for file in by_day.iter().skip(files_max) {
            going.remove(file);
        }
        for (_, of_file) in runs.iter().filter(|(file, _)| !going.contains(file)) {
            keep(&mut kept_from, of_file);
        }
        // A file that stays keeps all later rows of its logs.
        loop {
            let stays = |file: &&usize| runs[*file].iter().any(|(log, run)| kept_from.get(log) < Some(&run.to_seq));
            let staying: Vec<usize> = going.iter().filter(stays).copied().collect();
            if staying.is_empty() {
                break;
            }
            for file in staying {
                going.remove(&file);
                keep(&mut kept_from, &runs[&file]);
            }
        }
        let mut expiry = Expiry {
            files: going.iter().map(|file| self.catalog().file(*file).name.clone()).collect(),
            ..Expiry::default()
        };
        let logs: BTreeSet<&LogId> = going.iter().flat_map(|file| runs[file].iter().map(|(log, _)| *log)).collect();
        for log in logs {
            let first_seq = kept_from.get(log).copied().unwrap_or_default();
            let before = self.before_row(log, first_seq).await?;
            let hashes = before.hashes().to_vec();
            expiry.starts.push(ArchiveStart { log: log.clone(), first_seq });
            expiry.trees.push(LogTree {
                log: log.clone(),
                from_seq: first_seq,
                to_seq: first_seq,
                before: hashes.clone(),
                tiles: Vec::new(),
                after: hashes,
                rest: Vec::new(),
            });
        }
        Ok(expiry)
    }

    /// Compact range of the rows of a log below `seq`, which is the begin or end of archived rows.
    async fn before_row(&self, log: &LogId, seq: u64) -> Result<CompactRange, ReadError> {
        let form = || ReadError::changed("steps", format!("the hashes before row {seq} of {log} are not known"));
        let of_log = self.catalog().log(log).ok_or_else(form)?;
        if let Some(range) = of_log.ranges().iter().find(|range| range.from_seq == seq) {
            return self.before(log, range).await?.ok_or_else(form);
        }
        let hashes = self.covers(log, std::slice::from_ref(&(0..seq))).await?.pop().unwrap_or_default();
        CompactRange::new(seq, hashes).ok_or_else(form)
    }
}

/// Notes that the rows of a file stay.
fn keep<'a>(kept_from: &mut BTreeMap<&'a LogId, u64>, of_file: &[(&'a LogId, &CatalogRun)]) {
    for (log, run) in of_file {
        let first = kept_from.entry(log).or_insert(run.from_seq);
        *first = (*first).min(run.from_seq);
    }
}
