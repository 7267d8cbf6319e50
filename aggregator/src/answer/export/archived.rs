//! Adds archived rows to a node's part of a bundle.
//!
//! A bundle has one checkpoint for each log. Rows that the node pruned are proven with hashes from the archive up to the log start, and
//! with hashes from the node after it. For a log that the node cannot read, the newest checkpoint in the archive is used.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use piperoll_archive::read::Reader;
use piperoll_archive::row::LogId;
use piperoll_evidence::bundle::was_witnessed_until;
use piperoll_format::merkle::{Cover, Hash, left_out};
use piperoll_format::time::Timestamp;
use piperoll_protocol::aggregator::Status;

use super::collect::{Collected, prove};
use super::gathered::{Gathered, Gathering, Proven, joined, lead_to};
use crate::answer::archived::needed_from_archive;
use crate::answer::outcome::NodeOutcome;
use crate::cluster::archive::ClusterArchive;
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::witness::pinned::Pinned;
use crate::config::FanOutLimits;
use crate::scan::archive_plan::ArchivePlan;
use crate::scan::archive_reader::ArchiveReader;
use crate::scan::node_reader::conclude;
use crate::scan::plan::{ArchivedRows, NodeRequest};
use crate::scan::query::Query;

/// An export for which the archive is read.
pub(super) struct ArchivedExport<'a> {
    pub(super) archive: &'a ClusterArchive,
    pub(super) query: &'a Query,
    pub(super) limits: &'a FanOutLimits,
    /// Time at which the export began.
    pub(super) created: Timestamp,
    pub(super) dir: &'a Path,
}

/// Hashes after the rows that only the archive has.
struct Upper {
    /// End of the rows whose hashes come from the archive.
    split: u64,
    /// Rows from `split` on that are in the bundle.
    runs: Vec<Range<u64>>,
    /// Hashes for the gaps between them.
    hashes: Vec<Hash>,
}

impl ArchivedExport<'_> {
    /// Reads the rows that are needed from the archive. The first of `logs` is the node's current one.
    pub(super) async fn add_to(&self, member: &Arc<NodeHandle>, logs: &mut Vec<Collected>) -> io::Result<()> {
        let parts: Vec<&NodeOutcome> = logs.iter().map(|log| &log.part).collect();
        for plan in needed_from_archive(Some(self.archive), self.query, None, &parts) {
            match plan {
                ArchivePlan::Read(asked) => {
                    let Some(rows) = asked.archived.clone() else { continue };
                    let added = self.read(member, *asked, rows, logs).await?;
                    logs.push(added);
                }
                ArchivePlan::Not { part, reason } => {
                    logs.push(Collected::none(NodeOutcome::without_archive(member, part, reason)));
                }
            }
        }
        Ok(())
    }

    async fn read(
        &self,
        member: &Arc<NodeHandle>,
        mut asked: NodeRequest,
        rows: ArchivedRows,
        logs: &mut [Collected],
    ) -> io::Result<Collected> {
        let mut part = NodeOutcome { aside: asked.aside, ..NodeOutcome::asked(member, Instant::now()) };
        part.archived = Some(rows.part.clone());
        part.generation = Some(rows.log.generation);
        part.head_seq = rows.part.seqs.end.checked_sub(1);
        asked.request.limit = None;
        let mut gathering = Gathering::new(self.dir.to_path_buf());
        let mut borders = Vec::new();
        let failure = match ArchiveReader::open(member, &asked, &rows, self.limits) {
            Ok(mut reader) => {
                let failure = loop {
                    match reader.next().await {
                        Ok(Some(row)) => gathering.take(&row)?,
                        Ok(None) => break None,
                        Err(failure) => break Some(failure),
                    }
                };
                borders.append(&mut reader.borders);
                part.counters = std::mem::take(&mut reader.counters);
                failure
            }
            Err(failure) => Some(failure),
        };
        (part.status, part.reason) = conclude(&part.counters, failure.is_none(), failure.as_ref());
        let rejected = gathering.rejected.take();
        let live = logs.first_mut().filter(|live| part.adds_to_live_log() && live.proven.is_some());
        let size = match live.as_ref().and_then(|live| live.proven.as_ref()) {
            Some(proven) => proven.pinned.size,
            None => rows.part.seqs.end,
        };
        let proven = match gathering.finish(borders, size) {
            Ok(gathered) if part.adds_to_live_log() => match live {
                Some(live) => self.join(member, &rows, gathered, live).await?.map(|()| None),
                None => Err("the node's own rows could not be proven".to_owned()),
            },
            Ok(gathered) => self.instead(member, &rows, gathered).await?.map(Some),
            Err(message) => Err(message),
        };
        match proven {
            Ok(None) => {}
            Ok(Some(proven)) if part.aside.is_some() => {
                return Ok(Collected { part, proven: Some(proven), rejected });
            }
            Ok(Some(proven)) => {
                if let Some(instead_of_node) = part.archived.as_mut().and_then(|part| part.instead_of_node.as_mut())
                    && let Err(message) = self.covers_range(&rows, &proven.pinned)
                {
                    *instead_of_node = Err(message);
                }
                if let Some(first) = logs.first_mut() {
                    first.proven = Some(proven);
                }
            }
            Err(message) if part.status == Status::Ok => {
                let reason = format!("its archived rows could not be proven: {message}");
                (part.status, part.reason) = (Status::Incomplete, Some(reason));
            }
            Err(_) => {}
        }
        Ok(Collected { part, proven: None, rejected })
    }

    /// Adds archived rows to those of the node's current log.
    async fn join(
        &self,
        member: &Arc<NodeHandle>,
        rows: &ArchivedRows,
        older: Gathered,
        live: &mut Collected,
    ) -> io::Result<Result<(), String>> {
        let Some(proven) = live.proven.take() else { return Ok(Err("the node's own rows are missing".to_owned())) };
        let split = rows.part.seqs.end;
        let Proven { pinned, rows: newer, proof } = proven;
        if live.part.counters.floor != Some(split) || pinned.size < split {
            let message = format!("the node has no rows from {split} on that fit to them");
            live.proven = Some(Proven { pinned, rows: newer, proof });
            return Ok(Err(message));
        }
        let mut all = older.all_runs();
        all.extend(newer.all_runs());
        let all = joined(all);
        // The node needs no hashes of pruned rows to prove the others if all of them are left out of the gaps.
        let above =
            joined(std::iter::once(0..split).chain(clipped(&all, split..pinned.size)).filter(not_empty).collect());
        let proof_of_both = match prove(member, &pinned, above.clone()).await {
            Ok(hashes) => {
                let upper = Upper { split, runs: above, hashes };
                proof_of(&rows.reader, &rows.log, &all, pinned.size, upper).await
            }
            Err(message) => Err(message),
        };
        let proof_of_both = match proof_of_both {
            Ok(proof) => proof,
            Err(message) => {
                live.proven = Some(Proven { pinned, rows: newer, proof });
                return Ok(Err(message));
            }
        };
        let (mut older, mut newer) = (older, newer);
        let fits = tokio::task::block_in_place(|| lead_to(&pinned, &proof_of_both, &mut [&mut older, &mut newer]))?;
        if !fits {
            live.proven = Some(Proven { pinned, rows: newer, proof });
            return Ok(Err("they do not lead to the witnessed checkpoint".to_owned()));
        }
        older.append(newer)?;
        let joined = Proven { pinned, rows: older, proof: proof_of_both };
        // The verifier applies the same rule, so a bundle that is exported as complete is also verified as complete.
        let is_fresh = was_witnessed_until(joined.pinned.seen, self.created);
        if !is_fresh && live.part.status == Status::Pruned {
            let reason = format!("its checkpoint has not been renewed since {}", joined.pinned.seen);
            (live.part.status, live.part.reason) = (Status::Error, Some(reason));
        }
        live.proven = Some(joined);
        Ok(Ok(()))
    }

    /// Proves archived rows of a log that the node cannot read, with the archive's newest checkpoint of it.
    async fn instead(
        &self,
        member: &Arc<NodeHandle>,
        rows: &ArchivedRows,
        gathered: Gathered,
    ) -> io::Result<Result<Proven, String>> {
        let pinned = match newest_checkpoint(member, rows) {
            Ok(pinned) => pinned,
            Err(message) => return Ok(Err(message)),
        };
        let split = rows.part.seqs.end;
        let range = rows.reader.catalog().log(&rows.log).and_then(|log| log.ranges().last().cloned());
        let Some(range) = range.filter(|range| range.to_seq == split) else {
            return Ok(Err(format!("the archive has no checkpoint of its first {split} rows")));
        };
        let rest = match rows.reader.rest(&rows.log, &range).await {
            Ok(rest) => rest,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let upper = Upper { split, runs: std::iter::once(0..split).filter(not_empty).collect(), hashes: rest };
        match proof_of(&rows.reader, &rows.log, &gathered.all_runs(), pinned.size, upper).await {
            Ok(proof) => {
                let mut proven = Proven { pinned, rows: gathered, proof };
                let fits = tokio::task::block_in_place(|| proven.fits())?;
                Ok(if fits { Ok(proven) } else { Err("they do not lead to their checkpoint".to_owned()) })
            }
            Err(message) => Ok(Err(message)),
        }
    }

    /// Checks that a verifier can see from the checkpoint that no row of the range is missing.
    fn covers_range(&self, rows: &ArchivedRows, pinned: &Pinned) -> Result<(), String> {
        let archived_to = rows.part.seqs.end;
        if pinned.size != archived_to {
            return Err(format!("only {archived_to} of the {} rows below its checkpoint are archived", pinned.size));
        }
        let end = if self.query.to == Timestamp::MAX { self.created } else { self.query.to };
        // Only a bundle without a filter has the last row, which shows that the log reaches the end of the range.
        let is_after = self.query.filter.is_empty() && rows.part.through.is_some_and(|last| last >= self.query.to);
        if is_after || was_witnessed_until(pinned.seen, end) {
            Ok(())
        } else {
            Err(format!("its checkpoint has not been renewed since {}", pinned.seen))
        }
    }
}

/// The newest checkpoint in the archive, or the witnessed one of the same rows, which was cosigned later.
fn newest_checkpoint(member: &Arc<NodeHandle>, rows: &ArchivedRows) -> Result<Pinned, String> {
    let range = rows.reader.catalog().log(&rows.log).and_then(|log| log.ranges().last());
    let range = range.ok_or_else(|| format!("the archive has no rows of {}", rows.log))?;
    let opened = member.witness.opened_archived(&range.checkpoint, &rows.log)?;
    let witnessed = member.witness.pinned().filter(|pinned| {
        (pinned.generation, pinned.size, pinned.root) == (rows.log.generation, opened.size, opened.root)
    });
    Ok(witnessed.unwrap_or_else(|| Pinned {
        generation: rows.log.generation,
        size: opened.size,
        root: opened.root,
        note: Arc::clone(&range.checkpoint),
        seen: member.witness.cosigned_at(&range.checkpoint).unwrap_or(Timestamp::MIN),
    }))
}

/// Creates the proof of `runs` among the first `size` rows: gaps below `upper.split` have hashes from the archive.
async fn proof_of(
    reader: &Reader,
    log: &LogId,
    runs: &[Range<u64>],
    size: u64,
    upper: Upper,
) -> Result<Vec<Hash>, String> {
    let Upper { split, runs: above, hashes } = upper;
    let lower: Vec<Range<u64>> = clipped(runs, 0..split).filter(not_empty).collect();
    let gaps: Vec<Range<u64>> = left_out(&lower, split).collect();
    let mut covers = reader.covers(log, &gaps).await.map_err(|error| error.to_string())?;
    // The gap at the split has hashes from both sides.
    let last = gaps.last().map_or(0, |gap| gap.start);
    let first = left_out(&above, size).find(|gap| gap.start == split && !gap.is_empty());
    let to = first.map_or(split, |gap| gap.end);
    let count = Cover::len_of(split, to);
    let form = || "the hashes have the wrong number".to_owned();
    let (near, far) = hashes.split_at_checked(count).ok_or_else(form)?;
    let mut edge = Cover::new(last, split, covers.pop().unwrap_or_default()).ok_or_else(form)?;
    let near = Cover::new(split, to, near.to_vec()).ok_or_else(form)?;
    if !edge.append(&near, |_, _| {}) {
        return Err(form());
    }
    let mut proof = covers.concat();
    proof.extend_from_slice(edge.hashes());
    proof.extend_from_slice(far);
    Ok(proof)
}

/// The parts of runs within a range.
fn clipped(runs: &[Range<u64>], within: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    runs.iter().map(move |run| run.start.max(within.start)..run.end.min(within.end))
}

fn not_empty(run: &Range<u64>) -> bool {
    !run.is_empty()
}
