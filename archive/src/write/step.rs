//! One step that adds rows: which rows, their plan and their files.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use piperoll_format::time::Timestamp;

use super::error::WriteError;
use super::gather::{Gathered, Target, gather};
use super::layout::lay_out;
use super::objects::StepContent;
use super::source::{Due, Source, SourceError};
use super::writer::{SPOOL_DIR, StepOutcome, Writer};
use crate::file::EncodeError;
use crate::history::{History, checkpoint_of};
use crate::record::names;
use crate::record::{Missing, Plan, PlannedLog, RecordError, StepKind, Trees};
use crate::row::LogId;

/// Nodes that are read at the same time.
const NODES_AT_ONCE: usize = 4;
/// Time in which the rows of one log must have arrived.
const GATHER_TIMEOUT: Duration = Duration::from_hours(1);
/// Runs in one step, which determine the size of its record: about 130 bytes each. A log with more, because its clock was set back
/// very often, or because it has rows of very many days, is continued in the next step.
const STEP_RUNS_MAX: usize = 200_000;
const LOG_RUNS_MIN: usize = 16;
const LOG_RUNS_MAX: usize = 10_000;

impl Writer {
    /// Writes one step with rows of `due`. If an earlier attempt was interrupted, repeats that one instead.
    ///
    /// # Errors
    /// Fails if the archive cannot be used. The next call repeats the step.
    pub async fn step<S: Source>(
        &mut self,
        source: &S,
        history: &History,
        due: &[Due],
        now: Timestamp,
    ) -> Result<StepOutcome, WriteError> {
        let number = history.head.number + 1;
        let plans = self.open_plans(number, history).await?;
        let mut base = plans.current.first().cloned();
        if let Some(plan) = base.take_if(|plan| plan.kind == StepKind::Replace) {
            let outcome = self.replace_files(history, &plans, plan.replaced, plan.created).await?.outcome;
            if let StepOutcome::Committed { .. } = outcome {
                return Ok(outcome);
            }
            // None of the files can be replaced any more, so the step adds rows instead.
        }
        let mut missing: Vec<Missing> = base.iter().flat_map(|plan| plan.missing.clone()).collect();
        let mut gathered = match &base {
            Some(plan) => {
                let targets = self.planned_targets(plan, history)?;
                self.gather_all(source, &targets, history, &mut missing).await
            }
            None => self.gather_due(source, history, due, &mut missing).await,
        };
        if gathered.is_empty() && base.is_none() {
            return Ok(StepOutcome::Nothing { missing });
        }
        gathered.sort_by(|a, b| a.range.log.cmp(&b.range.log));
        let spool = self.settings.dir.join(SPOOL_DIR);
        let laid_out = tokio::task::spawn_blocking(move || {
            let files = lay_out(&mut gathered, &spool);
            files.map(|files| (files, gathered))
        });
        let panicked = |error: tokio::task::JoinError| EncodeError::Io(std::io::Error::other(error.to_string()));
        let (files, gathered) = laid_out.await.map_err(panicked)??;
        let created = base.as_ref().map_or(now, |plan| plan.created);
        let plan = Plan {
            number,
            previous: history.head.digest,
            kind: StepKind::Add,
            created,
            writer: self.name(),
            logs: gathered.iter().map(planned).collect(),
            files: files.iter().map(|laid_out| laid_out.file.planned.clone()).collect(),
            missing: missing.clone(),
            replaced: Vec::new(),
        };
        self.announce(&plan, &plans).await?;
        let mut records = Vec::new();
        for laid_out in files {
            records.push(self.upload(laid_out, &plans.current).await?);
        }
        let trees = Trees { logs: gathered.iter().map(|log| log.tree.clone()).collect() };
        let logs = gathered.iter().map(|log| log.range.clone()).collect();
        let content = StepContent { logs, files: records, missing, ..StepContent::of(StepKind::Add, created) };
        self.commit_step(history, content, &trees).await
    }

    fn planned_targets(&self, plan: &Plan, history: &History) -> Result<Vec<Target>, WriteError> {
        let name = names::plan(plan.number);
        let runs_max = runs_max(plan.logs.len());
        let target = |planned: &PlannedLog| {
            let origin = planned.log.origin(self.settings.cluster.as_str());
            let checkpoint = checkpoint_of(&planned.checkpoint, &origin);
            let checkpoint = checkpoint.map_err(|reason| RecordError::Form { name: name.clone(), reason })?;
            let known = history.logs.get(&planned.log).map_or(0, |known| known.after.size());
            if planned.from_seq < known || planned.from_seq >= planned.to_seq || planned.to_seq > checkpoint.size {
                let reason = format!("it plans rows {}..{} of {}", planned.from_seq, planned.to_seq, planned.log);
                return Err(RecordError::Form { name: name.clone(), reason });
            }
            Ok(Target {
                log: planned.log.clone(),
                from_seq: planned.from_seq,
                to_seq: planned.to_seq,
                note: planned.checkpoint.clone(),
                checkpoint,
                runs_max,
            })
        };
        let targets: Result<Vec<Target>, RecordError> = plan.logs.iter().map(target).collect();
        Ok(targets?)
    }

    /// Reads the rows of the next step. A log that cannot be read must not keep the others out of the step, so the step is planned
    /// again without it if nothing else fits.
    async fn gather_due<S: Source>(
        &self,
        source: &S,
        history: &History,
        due: &[Due],
        missing: &mut Vec<Missing>,
    ) -> Vec<Gathered> {
        let mut failed: BTreeSet<LogId> = BTreeSet::new();
        loop {
            let targets = self.due_targets(source, history, due, &mut failed, missing).await;
            if targets.is_empty() {
                return Vec::new();
            }
            let gathered = self.gather_all(source, &targets, history, missing).await;
            if !gathered.is_empty() {
                return gathered;
            }
            failed.extend(targets.into_iter().map(|target| target.log));
        }
    }

    /// Decides which rows the next step adds: for each log those up to its checkpoint, as far as the limit of a step permits.
    async fn due_targets<S: Source>(
        &self,
        source: &S,
        history: &History,
        due: &[Due],
        failed: &mut BTreeSet<LogId>,
        missing: &mut Vec<Missing>,
    ) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        let mut left = self.step_rows_max;
        for due in due.iter().filter(|due| !failed.contains(&due.log)).cloned().collect::<Vec<_>>() {
            let lack = |reason: String| Missing { node_id: due.log.node_id.clone(), reason };
            let origin = due.log.origin(self.settings.cluster.as_str());
            let checkpoint = match checkpoint_of(&due.checkpoint, &origin) {
                Ok(checkpoint) => checkpoint,
                Err(reason) => {
                    missing.push(lack(reason));
                    failed.insert(due.log.clone());
                    continue;
                }
            };
            let archived = history.logs.get(&due.log).map_or(0, |known| known.after.size());
            if checkpoint.size <= archived || left == 0 {
                continue;
            }
            let first = match source.first_seq(&due.log).await {
                Ok(first) => first,
                Err(error) => {
                    missing.push(lack(error.0));
                    failed.insert(due.log.clone());
                    continue;
                }
            };
            // If the node pruned rows before they were archived, a new contiguous range begins at its log start.
            let from_seq = archived.max(first);
            if from_seq >= checkpoint.size {
                continue;
            }
            let to_seq = checkpoint.size.min(from_seq.saturating_add(left));
            left -= to_seq - from_seq;
            let (log, note) = (due.log.clone(), due.checkpoint.clone());
            targets.push(Target { log, from_seq, to_seq, note, checkpoint, runs_max: 0 });
        }
        let runs_max = runs_max(targets.len());
        targets.iter_mut().for_each(|target| target.runs_max = runs_max);
        targets
    }

    async fn gather_all<S: Source>(
        &self,
        source: &S,
        targets: &[Target],
        history: &History,
        missing: &mut Vec<Missing>,
    ) -> Vec<Gathered> {
        let spool = self.settings.dir.join(SPOOL_DIR);
        let spool: &Path = &spool;
        let one = |target: Target| async move {
            let known = history.logs.get(&target.log);
            let gathered = tokio::time::timeout(GATHER_TIMEOUT, gather(source, &target, known, spool)).await;
            let too_slow = |_| SourceError(format!("its rows did not arrive within {} s", GATHER_TIMEOUT.as_secs()));
            gathered
                .map_err(too_slow)
                .flatten()
                .map_err(|error| Missing { node_id: target.log.node_id.clone(), reason: error.0 })
        };
        let results: Vec<Result<Gathered, Missing>> =
            stream::iter(targets.to_vec()).map(one).buffered(NODES_AT_ONCE).collect().await;
        let mut all = Vec::new();
        for result in results {
            match result {
                Ok(gathered) => all.push(gathered),
                Err(lack) => missing.push(lack),
            }
        }
        all
    }
}

/// Maximum number of runs of one log in a step of `logs` logs.
fn runs_max(logs: usize) -> usize {
    (STEP_RUNS_MAX / logs.max(1)).clamp(LOG_RUNS_MIN, LOG_RUNS_MAX)
}

fn planned(log: &Gathered) -> PlannedLog {
    PlannedLog {
        log: log.range.log.clone(),
        from_seq: log.range.from_seq,
        to_seq: log.range.to_seq,
        checkpoint: log.range.checkpoint.clone(),
    }
}
