//! Verifies the files of rows, and what their rows say together.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt as _, stream};
use piperoll_format::ids::NodeId;
use piperoll_format::merkle::Cover;

use super::check::{Chain, Checker, Scope};
use super::file_check::{self, Checked, ErasedRow, MentionedStep};
use super::report::FindingKind;
use crate::file::FILE_BYTES_MAX;
use crate::record::{FileRecord, names};
use crate::row::LogId;

/// Files that are read at the same time. A file may need 128 MiB, and more for the row groups that are decoded.
const FILES_AT_ONCE: usize = 2;

/// Covers of rows, by the index of their step and of their log in it.
type Covers = BTreeMap<(usize, usize), Vec<Cover>>;

impl Checker<'_> {
    pub(super) async fn files(
        &mut self,
        chain: &Chain,
        listed: &BTreeMap<String, u64>,
        scope: Scope,
        progress: &mut impl FnMut(u64, u64),
    ) {
        let store = self.store;
        let mut wanted = Vec::new();
        for (index, step) in chain.steps.iter().enumerate() {
            // The rows of a log in a step are verified as a whole, so all files that have some of them are read.
            let in_scope = step.files.iter().filter(|file| scope.has(file));
            let logs: HashSet<usize> = in_scope.flat_map(|file| file.runs.iter().map(|run| run.log)).collect();
            let is_wanted = |file: &FileRecord| file.runs.iter().any(|run| logs.contains(&run.log));
            for file in &step.files {
                self.report.files += 1;
                match listed.get(&file.name) {
                    // Sizes are compared for all files, the content only for the requested ones.
                    None => self.find(FindingKind::File, &file.name, "it is missing"),
                    Some(bytes) if *bytes != file.bytes => {
                        let detail = format!("it has {bytes} bytes, but its step says {}", file.bytes);
                        self.find(FindingKind::File, &file.name, detail);
                    }
                    Some(_) if is_wanted(file) => wanted.push((index, file)),
                    Some(_) => {}
                }
            }
        }
        let mut seen = Seen::default();
        // Files that the interrupted verification read are not read again.
        let is_known = |(index, file): (usize, _)| {
            let is_known =
                self.resume.as_ref().is_some_and(|resume| resume.find(&chain.digest_of(index), file).is_some());
            (index, file, is_known)
        };
        let wanted: Vec<_> = wanted.into_iter().map(is_known).collect();
        let mut read = stream::iter(wanted)
            .map(|(index, file, is_known)| async move {
                if is_known {
                    return (index, file, Ok(Ok(None)));
                }
                let bytes = match store.read(&file.name, FILE_BYTES_MAX).await {
                    Ok(bytes) => bytes,
                    Err(error) => return (index, file, Err(Some(error))),
                };
                let (record, logs) = (file.clone(), chain.steps[index].logs.clone());
                let checked = tokio::task::spawn_blocking(move || file_check::check(&bytes, &record, &logs)).await;
                (index, file, checked.map(|checked| checked.map(Some)).map_err(|_| None))
            })
            .buffered(FILES_AT_ONCE);
        while let Some((index, file, result)) = read.next().await {
            // The files come in the order of the steps, so the rows of earlier steps can be joined.
            let later = seen.covers.split_off(&(index, 0));
            self.join(chain, std::mem::replace(&mut seen.covers, later));
            match result {
                Err(Some(error)) => self.unread(FindingKind::File, &file.name, &error),
                Err(None) => self.find(FindingKind::Unread, &file.name, "the program that verifies it ended early"),
                Ok(Err(reason)) => self.find(FindingKind::File, &file.name, reason),
                Ok(Ok(read)) => {
                    let is_known = read.is_none();
                    let kept = || self.resume.as_ref().and_then(|resume| resume.find(&chain.digest_of(index), file));
                    let Some(checked) = read.or_else(kept) else {
                        let detail = "the results of the interrupted verification cannot be read";
                        self.find(FindingKind::Unread, &file.name, detail);
                        continue;
                    };
                    self.report.files_verified += 1;
                    self.report.rows_verified += checked.rows;
                    if let Some(day) = &checked.day {
                        self.report.cover(day);
                    }
                    if is_known {
                        self.report.files_resumed += 1;
                    } else if self.has_tiles_of(chain, index, file, &checked)
                        && let Some(resume) = &mut self.resume
                    {
                        resume.keep(&chain.digest_of(index), file, &checked);
                    }
                    self.take(index, file, checked, &mut seen);
                    progress(self.report.rows_verified, self.report.rows);
                }
            }
        }
        self.join(chain, seen.covers);
        self.erasures(&seen.erased, &seen.declared);
        self.mentioned(chain, &seen.steps);
    }

    /// Compares the full tiles of a file's rows with the step's hashes.
    fn has_tiles_of(&mut self, chain: &Chain, index: usize, file: &FileRecord, checked: &Checked) -> bool {
        let trees = &chain.trees[index].logs;
        let is_wrong = |(log, tile, root): &&(usize, u64, _)| {
            let expected = trees.get(*log).and_then(|tree| {
                let at = usize::try_from(tile.checked_sub(tree.first_tile())?).ok()?;
                tree.tiles.get(at)
            });
            expected != Some(root)
        };
        let wrong = checked.tiles.iter().find(is_wrong);
        if let Some((_, tile, _)) = wrong {
            let detail = format!("the rows of tile {tile} do not lead to the log's checkpoint");
            self.find(FindingKind::Rows, &file.name, detail);
        }
        wrong.is_none()
    }

    /// Keeps the results of a file until the other files of its step were read.
    fn take(&mut self, index: usize, file: &FileRecord, checked: Checked, seen: &mut Seen) {
        for (log, cover) in checked.covers {
            seen.covers.entry((index, log)).or_default().push(cover);
        }
        self.report.erased += checked.erased.len() as u64;
        seen.erased.extend(checked.erased);
        for (log, row) in checked.declared {
            seen.declared.entry((log, row.seq)).or_default().push(row);
        }
        seen.steps.extend(checked.steps);
        if seen.erased.len().max(seen.declared.len()) > file_check::ERASED_MAX {
            self.find(FindingKind::Erased, &file.name, "the archive has too many erasures to verify");
            seen.erased.clear();
        }
    }

    /// Joins the rows of each log in each step, which must lead from the hashes before to the hashes after them.
    fn join(&mut self, chain: &Chain, covers: Covers) {
        for ((index, log), mut covers) in covers {
            let step = &chain.steps[index];
            let (Some(range), Some(tree)) = (step.logs.get(log), chain.trees[index].logs.get(log)) else { continue };
            covers.sort_by_key(Cover::from);
            let rows = covers.iter().map(|cover| cover.to() - cover.from()).fold(0, u64::saturating_add);
            let start = chain.starts.get(&range.log).filter(|(first, _)| *first > range.from_seq);
            let (first, mut joined) = match start {
                Some((first, before)) => (*first, before.clone()),
                None => (range.from_seq, tree.before()),
            };
            if Some(rows) != range.to_seq.checked_sub(first) {
                // Not all files of the range were read, or one of them is reported already.
                continue;
            }
            for cover in &covers {
                joined = joined.and_then(|mut range| range.append(cover).then_some(range));
            }
            if joined.is_none() || joined != tree.after() {
                let detail = format!(
                    "rows {}..{} of {} do not lead to the log's checkpoint",
                    range.from_seq, range.to_seq, range.log
                );
                self.find(FindingKind::Rows, names::step(step.number), detail);
            }
        }
    }

    fn erasures(&mut self, erased: &[(LogId, ErasedRow)], declared: &HashMap<(LogId, u64), Vec<ErasedRow>>) {
        // With a part of the days, the declaring entry may not have been read.
        if !self.report.whole {
            return;
        }
        for (log, row) in erased {
            if declared.get(&(log.clone(), row.seq)).is_none_or(|said| !said.contains(row)) {
                let detail =
                    "it is erased, but no entry in the archive declares that (the entry may not be archived yet)";
                self.find(FindingKind::Erased, format!("{log}/{}", row.seq), detail);
            }
        }
    }

    /// The writer records its steps in its own log, which is archived too. An archive that lacks such a step was rolled back.
    /// Only entries of an aggregator's own node count, because any application can record an entry that looks like these.
    fn mentioned(&mut self, chain: &Chain, steps: &[(NodeId, MentionedStep)]) {
        let aggregators = format!("{}/aggregator/", self.trust.cluster);
        let own: HashSet<&str> =
            self.trust.witnesses.iter().filter_map(|witness| witness.name().strip_prefix(&aggregators)).collect();
        let of_it = |(node, step): &&(NodeId, MentionedStep)| {
            own.contains(node.as_str()) && step.archive == self.archive.id.as_str()
        };
        for (_, step) in steps.iter().filter(of_it) {
            match chain.digests.get(&step.step) {
                Some(digest) if *digest == step.sha256 => {}
                Some(_) => {
                    self.find(FindingKind::Rollback, names::step(step.step), "it is not the step that an entry records")
                }
                None => {
                    self.find(FindingKind::Rollback, names::step(step.step), "an entry records it, but it is missing")
                }
            }
        }
    }
}

/// Results of single files, until all of them have been read.
#[derive(Default)]
struct Seen {
    covers: Covers,
    erased: Vec<(LogId, ErasedRow)>,
    declared: HashMap<(LogId, u64), Vec<ErasedRow>>,
    steps: Vec<(NodeId, MentionedStep)>,
}
