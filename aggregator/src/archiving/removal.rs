//! Removes what must not be in the archive any more: the content of erased rows, and rows that were kept for as long as required.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use piperoll_archive::history::{Head, History};
use piperoll_archive::read::Reader;
use piperoll_archive::row::{Day, LogId};
use piperoll_archive::write::{StepOutcome, Writer};
use piperoll_format::ids::NodeId;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};

use super::archiver::{ArchiveError, Archiver, Round, refresh};
use super::holds::{HeldRanges, holds_of};
use crate::audit::Audit;
use crate::cluster::roster::Cluster;

/// Files that one step removes at most.
const FILES_EXPIRED_MAX: usize = 1_000;
/// Steps of one round that remove something, so that a round ends. The rest follows in the next one.
const REMOVING_STEPS_MAX: usize = 16;
/// Time by which this machine's clock may differ from those of the nodes if rows are removed by their age.
const CLOCK_OFFSET_MAX: Duration = Duration::from_hours(1);
/// Time between two searches for old rows in periodic rounds.
const EXPIRY_INTERVAL: Duration = Duration::from_hours(1);
/// Reasons that a status lists.
const REASONS_MAX: usize = 64;

impl Archiver {
    /// Carries out what is due, and returns the numbers of the steps.
    pub(super) async fn remove(
        &self,
        writer: &mut Writer,
        cluster: &Cluster,
        audit: &Audit,
        mut history: History,
        round: Round,
    ) -> Result<Vec<u64>, ArchiveError> {
        let mut steps = Vec::new();
        let mut reasons = Vec::new();
        writer.retry_deletions(SystemClock.now()).await?;
        while steps.len() < REMOVING_STEPS_MAX {
            // With the files of an earlier state, a step would name files that are not part of the archive any more.
            let Some(reader) = reader(cluster).filter(|reader| reader.catalog().head() == history.head) else {
                reasons.push("nothing is removed while the archive's steps cannot be read".to_owned());
                break;
            };
            reasons.clear();
            let outcome = match self.erase(writer, &reader, &history, &mut reasons).await? {
                done @ StepOutcome::Committed { .. } => done,
                StepOutcome::Nothing { .. } => {
                    self.expire_at_times(writer, cluster, &reader, &history, round, &mut reasons).await?
                }
            };
            let StepOutcome::Committed { committed, history: next } = outcome else { break };
            history = *next;
            steps.push(committed.step.number);
            self.remember(&history);
            // Readers must know the new files before the old ones are deleted.
            refresh(cluster).await;
            if reader_head(cluster) != Some(history.head) {
                // The next round publishes the step.
                reasons.push(
                    "the files that step replaced are not deleted yet, because the archive cannot be read".to_owned(),
                );
                break;
            }
            let (number, files) = (committed.step.number, committed.step.removed_files().count());
            tracing::info!(step = number, files, "replaced or removed files of the archive");
            self.publish(writer, &committed, audit).await?;
        }
        reasons.extend(writer.refused().iter().cloned());
        reasons.truncate(REASONS_MAX);
        self.known().not_removed = reasons;
        Ok(steps)
    }

    /// Removes the content of rows whose erasure is declared by archived entries.
    async fn erase(
        &self,
        writer: &mut Writer,
        reader: &Reader,
        history: &History,
        reasons: &mut Vec<String>,
    ) -> Result<StepOutcome, ArchiveError> {
        let head = reader.catalog().head();
        if writer.searched() >= head.number {
            return Ok(StepOutcome::Nothing { missing: Vec::new() });
        }
        let due = reader.due_erasures(writer.searched(), self.config.keys.steps.public()).await?;
        let is_all_done = due.files.is_empty() && due.unread.is_empty();
        let replaced = writer.replace(history, due.files, SystemClock.now()).await?;
        if is_all_done {
            writer.set_searched(head.number, due.refused)?;
        } else {
            reasons.extend(due.refused);
        }
        reasons.extend(replaced.skipped);
        reasons.extend(due.unread.into_iter().map(|reason| format!("its erasures are not known: {reason}")));
        Ok(replaced.outcome)
    }

    /// Removes old rows, but looks for them only once an hour if there were none: that reads the catalog of all rows.
    async fn expire_at_times(
        &self,
        writer: &mut Writer,
        cluster: &Cluster,
        reader: &Reader,
        history: &History,
        round: Round,
        reasons: &mut Vec<String>,
    ) -> Result<StepOutcome, ArchiveError> {
        let looked = self.expiry_looked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, known)) = looked.filter(|(at, _)| round == Round::Periodic && at.elapsed() < EXPIRY_INTERVAL) {
            reasons.extend(known);
            return Ok(StepOutcome::Nothing { missing: Vec::new() });
        }
        let mut kept = Vec::new();
        let outcome = self.expire(writer, cluster, reader, history, &mut kept).await?;
        let is_done = matches!(outcome, StepOutcome::Nothing { .. });
        *self.expiry_looked.lock().unwrap_or_else(PoisonError::into_inner) =
            is_done.then(|| (Instant::now(), kept.clone()));
        reasons.extend(kept);
        Ok(outcome)
    }

    /// Removes rows that are older than the archive keeps them.
    async fn expire(
        &self,
        writer: &mut Writer,
        cluster: &Cluster,
        reader: &Reader,
        history: &History,
        reasons: &mut Vec<String>,
    ) -> Result<StepOutcome, ArchiveError> {
        let nothing = StepOutcome::Nothing { missing: Vec::new() };
        let Some(keep) = self.config.keep else { return Ok(nothing) };
        let now = SystemClock.now();
        let first_day = Day::of(now.minus(keep));
        let candidates = reader.expired(first_day, FILES_EXPIRED_MAX, |_, _, _| true).await?;
        if candidates.files.is_empty() {
            return Ok(nothing);
        }
        if let Err(reason) = check_clock(cluster) {
            reasons.push(format!("rows are kept longer: {reason}"));
            return Ok(nothing);
        }
        let mut held: BTreeMap<NodeId, Result<HeldRanges, String>> = BTreeMap::new();
        let nodes: BTreeSet<NodeId> = candidates.logs().map(|log| log.node_id.clone()).collect();
        for node in nodes {
            let holds = holds_of(cluster, reader, &node).await;
            if let Err(reason) = &holds {
                reasons.push(format!("rows of {node} are kept longer, because its holds are not known: {reason}"));
            }
            held.insert(node, holds);
        }
        let may_go = |log: &LogId, first: Timestamp, last: Timestamp| match held.get(&log.node_id) {
            Some(Ok(holds)) => !holds.iter().any(|hold| hold.start <= last && first < hold.end),
            Some(Err(_)) | None => false,
        };
        let expiry = reader.expired(first_day, FILES_EXPIRED_MAX, may_go).await?;
        if expiry.files.len() < candidates.files.len()
            && held.values().any(|holds| holds.as_ref().is_ok_and(|holds| !holds.is_empty()))
        {
            reasons.push("rows under a hold, and the later rows of their logs, are kept longer".to_owned());
        }
        Ok(writer.expire(history, expiry, now).await?)
    }
}

/// Rows are removed by their age only if the nodes agree about the time.
fn check_clock(cluster: &Cluster) -> Result<(), String> {
    let mut offsets: Vec<i64> =
        cluster.members.iter().filter_map(|member| Some(member.clock()?.offset_micros.saturating_abs())).collect();
    offsets.sort_unstable();
    let Some(median) = offsets.get(offsets.len() / 2) else {
        return Err("no node's clock is known".to_owned());
    };
    if u128::try_from(*median).unwrap_or_default() <= CLOCK_OFFSET_MAX.as_micros() {
        return Ok(());
    }
    Err("this machine's clock differs from those of the nodes by more than an hour; run `piperoll doctor`".to_owned())
}

fn reader_head(cluster: &Cluster) -> Option<Head> {
    reader(cluster).map(|reader| reader.catalog().head())
}

fn reader(cluster: &Cluster) -> Option<Reader> {
    cluster.archive.as_ref().map(Arc::as_ref).and_then(|archive| archive.reader().ok())
}
