//! One step that adds rows: which rows, their plan and their files.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use piperoll_format::time::Timestamp;

use super::error::WriteError;
use super::gather::{Gathered, Target, gather};
use super::layout::lay_out;
use super::objects::StepContent;
use super::settings::Settings;
use super::source::{Due, Source, SourceError};
use super::state::{Alarm, AlarmKind, STATE_FILE, State, StateFile};
use crate::file::EncodeError;
use crate::history::{Head, History, HistoryError, checkpoint_of};
use crate::record::names;
use crate::record::{
    Digest, Missing, Plan, PlannedFile, PlannedLog, RecordError, STEP_BYTES_MAX, Step, StepKind, Trees, digest_of,
};
use crate::row::LogId;
use crate::store::{Created, Store};

/// Rows that one step adds at most: about 3 GB on the local disk while it is written. The others follow in the next step.
const STEP_ROWS_MAX: u64 = 4_000_000;
/// Nodes that are read at the same time.
const NODES_AT_ONCE: usize = 4;
/// Time in which the rows of one log must have arrived.
const GATHER_TIMEOUT: Duration = Duration::from_hours(1);
/// Runs in one step, which determine the size of its record: about 130 bytes each. A log with more, because its clock was set back
/// very often, or because it has rows of very many days, is continued in the next step.
const STEP_RUNS_MAX: usize = 200_000;
const LOG_RUNS_MIN: usize = 16;
const LOG_RUNS_MAX: usize = 10_000;
/// Maximum number of plans of one step: attempts that were interrupted and created different files.
const PLANS_MAX: usize = 256;
pub(super) const SPOOL_DIR: &str = "spool";
const LOCK_FILE: &str = "lock";

/// Result of one round.
#[derive(Debug)]
pub enum StepOutcome {
    /// No row is due, or none of the due ones could be read.
    Nothing { missing: Vec<Missing> },
    Committed {
        committed: Box<Committed>,
        /// The archive with this step.
        history: Box<History>,
    },
}

/// A committed step.
#[derive(Debug, Clone)]
pub struct Committed {
    pub step: Step,
    pub digest: Digest,
}

/// The writer of one archive. Only one may exist for an archive.
pub struct Writer {
    pub(super) store: Store,
    pub(super) settings: Settings,
    pub(super) state: StateFile,
    step_rows_max: u64,
    /// The archive as this writer knows it, so that later rounds read only new steps.
    pub(super) known: Option<History>,
    /// Held while the writer exists, so that no other process uses its state.
    _lock: File,
}

impl Writer {
    /// Opens the writer's state.
    ///
    /// # Errors
    /// Fails if the local directory or the state file cannot be used.
    pub fn open(store: Store, settings: Settings) -> Result<Self, WriteError> {
        let spool = settings.dir.join(SPOOL_DIR);
        std::fs::create_dir_all(&spool).map_err(|error| WriteError::Local { path: spool.clone(), error })?;
        let lock = lock(&settings.dir)?;
        clear(&spool).map_err(|error| WriteError::Local { path: spool.clone(), error })?;
        let state = StateFile::open(&settings.dir.join(STATE_FILE))?;
        Ok(Self { store, settings, state, step_rows_max: STEP_ROWS_MAX, known: None, _lock: lock })
    }

    /// Limits the rows of a step to fewer than the default; for tests.
    #[must_use]
    pub fn with_step_rows_max(mut self, rows: u64) -> Self {
        self.step_rows_max = rows.max(1);
        self
    }

    /// Host and instance, as plans and steps name the writer.
    pub fn name(&self) -> String {
        format!("{}/{}", self.settings.host, self.state.state.instance)
    }

    /// Whether a plan or step was written by this writer. The host may have been renamed since.
    pub(super) fn is_own(&self, writer: &str) -> bool {
        writer.rsplit('/').next() == Some(self.state.state.instance.as_str())
    }

    /// The finding about the archive that an operator has not accepted yet.
    pub fn alarm(&self) -> Option<&Alarm> {
        self.state.state.alarm.as_ref()
    }

    /// Reads the chain of steps, and compares it with what this writer saw. Returns the newest step too, if it was not published
    /// completely.
    ///
    /// # Errors
    /// Fails if the archive was rolled back, replaced, or written by another writer.
    pub async fn load(&mut self, now: Timestamp) -> Result<(History, Option<Committed>), WriteError> {
        if let Some(alarm) = self.state.state.alarm.clone() {
            return Err(WriteError::Alarm { kind: alarm.kind, reason: alarm.reason, since: alarm.since });
        }
        let seen = self.state.state.head;
        // If the newest step was not published completely, read it again.
        let known = self.known.take().filter(|known| known.head.number <= self.state.state.published);
        // The steps that this writer knows were compared when it read or wrote them.
        let mut seen_there = seen.is_none() || known.is_some();
        let mut newest: Option<(Step, Digest)> = None;
        let key = self.settings.keys.steps.public().clone();
        let each = |step: &Step, head: Head| {
            seen_there |= Some(head) == seen;
            newest = Some((step.clone(), head.digest));
        };
        let loaded = match known {
            Some(mut known) => known.advance(&self.store, &key, each).await.map(|()| known),
            None => History::load(&self.store, &key, &self.settings.cluster, &self.settings.archive, each).await,
        };
        let history = match loaded {
            // A missing step below the newest one that this writer saw is a rollback too.
            Err(HistoryError::Gap(name)) if seen.is_some() => {
                return Err(self.raise(AlarmKind::Rollback, format!("{name} is missing"), now));
            }
            Err(error @ HistoryError::Chain { .. }) if seen.is_some() => {
                return Err(self.raise(AlarmKind::Fork, error.to_string(), now));
            }
            loaded => loaded?,
        };
        if let Some(seen) = seen {
            if history.head.number < seen.number {
                let reason = format!("it has {} steps, but step {} was seen", history.head.number, seen.number);
                return Err(self.raise(AlarmKind::Rollback, reason, now));
            }
            let is_known = seen_there || seen == history.head || (newest.is_some() && seen.number == 0);
            if !is_known {
                let reason = format!("{} is not the one that was seen ({})", names::step(seen.number), seen.digest);
                return Err(self.raise(AlarmKind::Fork, reason, now));
            }
        } else if history.head.number > 0 {
            return Err(WriteError::Unknown(self.store.shown().to_owned()));
        }
        if let Some((step, _)) = newest.as_ref().filter(|(step, _)| seen.is_none_or(|seen| step.number > seen.number))
            && !self.is_own(&step.writer)
        {
            let (name, writer) = (names::step(step.number), step.writer.clone());
            return Err(WriteError::AnotherWriter { name, writer, own: self.name() });
        }
        if self.state.state.head != Some(history.head) {
            let next = State { head: Some(history.head), ..self.state.state.clone() };
            self.state.store(next)?;
        }
        self.known = Some(history.clone());
        let unpublished = newest.filter(|(step, _)| step.number > self.state.state.published);
        let unpublished = unpublished.map(|(step, digest)| Committed { step, digest });
        Ok((history, unpublished))
    }

    /// Accepts the archive as it is now: clears a finding, and takes over from another writer.
    ///
    /// # Errors
    /// Fails if the chain of steps is not valid in itself.
    pub async fn accept(&mut self) -> Result<Head, WriteError> {
        let key = self.settings.keys.steps.public().clone();
        let (cluster, archive) = (self.settings.cluster.clone(), self.settings.archive.clone());
        let history = History::load(&self.store, &key, &cluster, &archive, |_, _| ()).await?;
        let published = self.state.state.published.min(history.head.number);
        // A plan that another writer left open is continued.
        let adopted = Some(history.head.number + 1);
        let next = State { head: Some(history.head), alarm: None, published, adopted, ..self.state.state.clone() };
        self.state.store(next)?;
        self.known = None;
        Ok(history.head)
    }

    fn raise(&mut self, kind: AlarmKind, reason: String, since: Timestamp) -> WriteError {
        let next = State { alarm: Some(Alarm { kind, reason: reason.clone(), since }), ..self.state.state.clone() };
        if let Err(error) = self.state.store(next) {
            // The finding is reported anyway, and found again at the next round.
            tracing::error!(%error, "cannot store a finding about the archive");
        }
        WriteError::Alarm { kind, reason, since }
    }

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
            let outcome = self.replace_files(history, &plans, plan.replaced, plan.created).await?;
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

    /// Reads the plans of a step.
    pub(super) async fn open_plans(&self, number: u64, history: &History) -> Result<Plans, WriteError> {
        let mut plans = Plans::default();
        for (name, plan) in self.plans_of(number).await? {
            if plan.previous != history.head.digest {
                // It was made for another history, before an operator accepted a rollback.
                plans.has_stale = true;
            } else if self.is_own(&plan.writer) || self.state.state.adopted == Some(number) {
                plans.current.push(plan);
            } else {
                return Err(WriteError::AnotherWriter { name, writer: plan.writer, own: self.name() });
            }
        }
        Ok(plans)
    }

    /// Returns all plans of a step, the first one first.
    pub(super) async fn plans_of(&self, number: u64) -> Result<Vec<(String, Plan)>, WriteError> {
        let mut all = Vec::new();
        let listed = self.store.list(names::PLANS).await?;
        let of_it = listed.into_iter().filter(|listed| names::number_of_plan(&listed.name) == Some(number));
        for listed in of_it.take(PLANS_MAX) {
            let bytes = self.store.read(&listed.name, STEP_BYTES_MAX as u64).await?;
            let plan = Plan::read(&listed.name, &bytes, self.settings.keys.steps.public())?;
            all.push((listed.name, plan));
        }
        Ok(all)
    }

    /// Creates the plan's object, unless earlier plans of the step name all of its files. Files are created only after this, so
    /// that those that are not needed in the end can be found.
    pub(super) async fn announce(&self, plan: &Plan, plans: &Plans) -> Result<(), WriteError> {
        let is_named = |file: &PlannedFile| plans.current.iter().any(|known| known.files.contains(file));
        if !plans.current.is_empty() && plan.files.iter().all(is_named) {
            return Ok(());
        }
        let bytes = Bytes::from(plan.to_bytes(&self.settings.keys.steps)?);
        if bytes.len() > STEP_BYTES_MAX {
            return Err(WriteError::TooManyRuns(plan.number));
        }
        let name = if plans.current.is_empty() && !plans.has_stale {
            names::plan(plan.number)
        } else {
            names::plan_again(plan.number, &digest_of(&bytes))
        };
        if self.store.create(&name, bytes.clone()).await? == Created::New {
            return Ok(());
        }
        let found = self.store.read(&name, STEP_BYTES_MAX as u64).await?;
        if found == bytes {
            return Ok(());
        }
        let other = Plan::read(&name, &found, self.settings.keys.steps.public())?;
        Err(WriteError::AnotherWriter { name, writer: other.writer, own: self.name() })
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

/// Takes the lock of the writer's directory.
fn lock(dir: &Path) -> Result<File, WriteError> {
    let path = dir.join(LOCK_FILE);
    let failed = |error: std::io::Error| WriteError::Local { path: path.clone(), error };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(WriteError::Locked(path.clone())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Removes files that a crash left.
fn clear(spool: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(spool)? {
        std::fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// Plans of one step that were made before.
#[derive(Default)]
pub(super) struct Plans {
    /// Those that continue the present history, the first one first.
    pub(super) current: Vec<Plan>,
    /// Whether there are others.
    has_stale: bool,
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
