//! The archive's writer in an aggregator: when it runs, what it records, and what it reports.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use piperoll_archive::history::{Head, History, HistoryError};
use piperoll_archive::read::ReadError;
use piperoll_archive::record::{Missing, StepKind};
use piperoll_archive::row::LogId;
use piperoll_archive::store::{Store, StoreError};
use piperoll_archive::write::{Committed, PendingDeletion, StepOutcome, WriteError, Writer};
use piperoll_client::{Category, EmitError, Entry, Outcome};
use piperoll_format::ids::EntryId;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::archive::{ArchiveNode, ArchiveRun, ArchiveStatus, ArchiveVerdict, KeptFile, MissingNode};

use super::due::{Until, due};
use super::mirrored::give_to_nodes;
use super::node_rows::NodeRows;
use crate::audit::Audit;
use crate::cluster::roster::Cluster;
use crate::config::ArchiveConfig;

/// Maximum number of steps in one round, so that a round ends. The rest follows in the next one.
const STEPS_PER_ROUND_MAX: usize = 256;
/// Maximum number of missing nodes that an entry names.
const MISSING_NAMED_MAX: usize = 64;

/// Reasons why a round failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("step {step} is committed, but cannot be recorded: {error}")]
    Record { step: u64, error: EmitError },
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<StoreError> for ArchiveError {
    fn from(error: StoreError) -> Self {
        Self::Write(error.into())
    }
}

/// Cause of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// The interval between two rounds has passed.
    Periodic,
    /// An operator requested it. With `now`, rows up to the newest cosigned checkpoints are due.
    Requested { now: bool },
}

impl Round {
    fn is_now(self) -> bool {
        self == Self::Requested { now: true }
    }
}

/// The archive that this aggregator writes.
pub(crate) struct Archiver {
    pub(super) config: ArchiveConfig,
    dir: PathBuf,
    /// Opened by the first round. Rounds hold the lock, so only one of them runs.
    writer: tokio::sync::Mutex<Option<Writer>>,
    known: Mutex<Known>,
    /// Time at which rows were last looked for that have been kept long enough, and the reasons why some stayed.
    pub(super) expiry_looked: Mutex<Option<(Instant, Vec<String>)>>,
}

/// Results of the last rounds.
#[derive(Default)]
pub(super) struct Known {
    running: bool,
    head: Option<Head>,
    logs: BTreeMap<LogId, ArchivedLog>,
    missing: Vec<Missing>,
    /// Message of the last round, if it failed.
    error: Option<(ArchiveVerdict, String)>,
    last_step_at: Option<Timestamp>,
    last_round_at: Option<Timestamp>,
    errors: u64,
    bytes: u64,
    rows: u64,
    /// Files that the store keeps although they are not part of the archive any more.
    pending: Vec<PendingDeletion>,
    /// Reasons why rows that should lose their content, or leave the archive, have not.
    pub(super) not_removed: Vec<String>,
}

struct ArchivedLog {
    first_seq: u64,
    rows: u64,
    newest: Timestamp,
}

/// Numbers for the metrics.
pub(crate) struct Figures {
    pub(crate) step: u64,
    pub(crate) errors: u64,
    /// Rows and bytes that this process added to the archive.
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Files that the store keeps although they are not part of the archive any more.
    pub(crate) pending_deletions: u64,
    pub(crate) last_step_at: Option<Timestamp>,
    /// For each node: archived rows of its current log, witnessed rows that are not archived, and the age of the archive.
    pub(crate) nodes: Vec<(String, u64, u64, f64)>,
}

impl Archiver {
    pub(crate) fn new(config: ArchiveConfig, state_dir: &std::path::Path) -> Self {
        let dir = state_dir.join("archive");
        Self {
            config,
            dir,
            writer: tokio::sync::Mutex::new(None),
            known: Mutex::default(),
            expiry_looked: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> String {
        self.config.id.to_string()
    }

    pub(crate) fn interval(&self) -> Duration {
        self.config.interval
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Archives everything that is due.
    pub(crate) async fn round(
        &self,
        cluster: &Cluster,
        audit: &Audit,
        round: Round,
    ) -> Result<ArchiveRun, ArchiveError> {
        let mut writer = self.writer.lock().await;
        let running = Running::new(self);
        let result = self.round_with(&mut writer, cluster, audit, round).await;
        drop(running);
        let mut known = self.known();
        known.last_round_at = Some(SystemClock.now());
        match &result {
            Ok(run) => {
                known.error = None;
                known.missing.clone_from(&run.1);
            }
            Err(error) => {
                known.errors += 1;
                known.error = Some((verdict_of(error), error.to_string()));
                let verdict = verdict_of(error);
                if let (Some(archive), ArchiveVerdict::Rollback | ArchiveVerdict::Fork) = (&cluster.archive, verdict) {
                    archive.distrust(verdict, error.to_string());
                }
                // Open the store and the state again, because the cause may be outside of this process.
                *writer = None;
            }
        }
        result.map(|(run, _)| run)
    }

    async fn round_with(
        &self,
        opened: &mut Option<Writer>,
        cluster: &Cluster,
        audit: &Audit,
        round: Round,
    ) -> Result<(ArchiveRun, Vec<Missing>), ArchiveError> {
        let writer = match opened {
            Some(writer) => writer,
            None => {
                let store = Store::open(&self.config.address, self.config.credentials.as_ref())?;
                opened.insert(Writer::open(store, self.config.settings(self.dir.clone()))?)
            }
        };
        let (mut history, unpublished) = writer.load(SystemClock.now()).await?;
        self.remember(&history);
        refresh(cluster).await;
        if let Some(committed) = unpublished {
            self.publish(writer, &committed, audit).await?;
        }
        let until = if round.is_now() { Until::Now } else { Until::EndedDays(self.config.after) };
        let mut run = ArchiveRun { steps: Vec::new(), rows: 0, files: 0, missing: Vec::new() };
        let mut missing: Vec<Missing> = Vec::new();
        for _ in 0..STEPS_PER_ROUND_MAX {
            let due = due(cluster, until, SystemClock.now());
            match writer.step(&NodeRows(cluster), &history, &due, SystemClock.now()).await? {
                StepOutcome::Nothing { missing: now_missing } => {
                    missing = now_missing;
                    break;
                }
                StepOutcome::Committed { committed, history: next } => {
                    history = *next;
                    let step = &committed.step;
                    run.steps.push(step.number);
                    run.rows += step.rows();
                    run.files += step.files.len() as u64;
                    {
                        let mut known = self.known();
                        known.rows += step.rows();
                        known.bytes += step.files.iter().map(|file| file.bytes).sum::<u64>();
                        known.last_step_at = Some(SystemClock.now());
                    }
                    self.remember(&history);
                    refresh(cluster).await;
                    tracing::info!(step = step.number, rows = run.rows, files = step.files.len(), "archived");
                    self.publish(writer, &committed, audit).await?;
                }
            }
        }
        give_to_nodes(cluster, &self.config.keys.mirror, SystemClock.now()).await;
        let removed = self.remove(writer, cluster, audit, history, round).await;
        self.known().pending = writer.pending_deletions().to_vec();
        run.steps.extend(removed?);
        run.missing = missing.iter().map(named).collect();
        Ok((run, missing))
    }

    pub(super) fn remember(&self, history: &History) {
        let mut known = self.known();
        known.head = Some(history.head);
        known.logs = history
            .logs
            .iter()
            .map(|(log, state)| {
                let archived =
                    ArchivedLog { first_seq: state.first_seq, rows: state.after.size(), newest: state.newest };
                (log.clone(), archived)
            })
            .collect();
    }

    /// Does what follows a commit. All of it can be repeated: the entry has an id that follows from the step, and the cosignatures
    /// of the first time are kept.
    pub(super) async fn publish(
        &self,
        writer: &mut Writer,
        committed: &Committed,
        audit: &Audit,
    ) -> Result<(), ArchiveError> {
        let step = committed.step.number;
        audit.note(self.entry(committed)).await.map_err(|error| ArchiveError::Record { step, error })?;
        writer.publish(committed, SystemClock.now()).await?;
        Ok(writer.published(step)?)
    }

    fn entry(&self, committed: &Committed) -> Entry {
        let (step, digest) = (&committed.step, committed.digest);
        let rows = step.rows();
        let missing: Vec<&str> =
            step.missing.iter().map(|lack| lack.node_id.as_str()).take(MISSING_NAMED_MAX).collect();
        let did = match step.kind {
            StepKind::Add => format!("added {rows} rows of {} logs", step.logs.len()),
            StepKind::Replace => {
                let erased: usize = step.replaced.iter().map(|replaced| replaced.erased.len()).sum();
                format!("removed the content of {erased} erased rows from {} files", step.replaced.len())
            }
            StepKind::Expire => {
                format!("removed {} files, whose rows were kept for as long as required", step.expired.len())
            }
        };
        let mut id = [0; 16];
        id.copy_from_slice(&digest.0[..16]);
        let id = EntryId::from_uuid(uuid::Builder::from_custom_bytes(id).into_uuid());
        Entry::new(Category::Audit, "audit.archive_step")
            .with_id(id)
            .occurred_at(step.created)
            .outcome(Outcome::Success)
            .entity("archive", self.config.id.to_string())
            .description(format!("step {} of the archive {} {did}", step.number, self.config.id))
            .detail("archive", self.config.id.to_string())
            .detail("step", step.number)
            .detail("sha256", digest.to_string())
            .detail("rows", rows)
            .detail("logs", step.logs.len())
            .detail("files", step.new_files().count())
            .detail("removed_files", step.removed_files().count())
            .detail("missing", missing)
    }

    /// Status for people and programs.
    pub(crate) fn status(&self, cluster: &Cluster) -> ArchiveStatus {
        let nodes = self.nodes(cluster);
        let known = self.known();
        let (verdict, reason) = match &known.error {
            Some((verdict, reason)) => (*verdict, Some(reason.clone())),
            None if known.last_round_at.is_none() => (ArchiveVerdict::Pending, None),
            None => (ArchiveVerdict::Ok, None),
        };
        ArchiveStatus {
            archive: self.config.id.to_string(),
            url: self.config.address.to_string(),
            verdict,
            reason,
            running: known.running,
            step: known.head.map_or(0, |head| head.number),
            sha256: known.head.map(|head| head.digest.to_string()),
            last_step_at: known.last_step_at.map(Timestamp::to_text),
            last_round_at: known.last_round_at.map(Timestamp::to_text),
            nodes,
            missing: known.missing.iter().map(named).collect(),
            pending_deletions: known.pending.iter().map(kept_file).collect(),
            not_removed: known.not_removed.clone(),
        }
    }

    fn nodes(&self, cluster: &Cluster) -> Vec<ArchiveNode> {
        let known = self.known();
        let mut nodes = Vec::new();
        for member in &cluster.members {
            let pinned = member.witness.pinned();
            let current = pinned.as_ref().map(|pinned| pinned.generation);
            let mut logs: Vec<(&LogId, &ArchivedLog)> =
                known.logs.iter().filter(|(log, _)| log.node_id == member.node.id).collect();
            // The current log last.
            logs.sort_by_key(|(log, archived)| (Some(log.generation) == current, archived.newest));
            let has_current = logs.iter().any(|(log, _)| Some(log.generation) == current);
            for (log, archived) in logs {
                let witnessed =
                    pinned.as_ref().filter(|pinned| pinned.generation == log.generation).map(|pinned| pinned.size);
                nodes.push(ArchiveNode {
                    node_id: member.node.id.to_string(),
                    generation: Some(log.generation.to_string()),
                    first_seq: archived.first_seq,
                    archived_rows: archived.rows,
                    archived_through: Some(archived.newest.to_text()),
                    witnessed_rows: witnessed,
                    pending_rows: witnessed.map_or(0, |witnessed| witnessed.saturating_sub(archived.rows)),
                });
            }
            if !has_current {
                let witnessed = pinned.as_ref().map(|pinned| pinned.size);
                nodes.push(ArchiveNode {
                    node_id: member.node.id.to_string(),
                    generation: current.map(|generation| generation.to_string()),
                    first_seq: 0,
                    archived_rows: 0,
                    archived_through: None,
                    witnessed_rows: witnessed,
                    pending_rows: witnessed.unwrap_or(0),
                });
            }
        }
        nodes
    }

    pub(crate) fn figures(&self, cluster: &Cluster) -> Figures {
        let now = SystemClock.now();
        let age = |node: &ArchiveNode| {
            let through = node.archived_through.as_ref().and_then(|text| Timestamp::parse_rfc3339(text).ok());
            match (node.pending_rows, through) {
                (0, _) | (_, None) => 0.0,
                (_, Some(through)) => (now.micros() - through.micros()).max(0) as f64 / 1e6,
            }
        };
        let mut nodes: BTreeMap<String, (u64, u64, f64)> = BTreeMap::new();
        for node in self.nodes(cluster).iter().filter(|node| node.witnessed_rows.is_some()) {
            nodes.insert(node.node_id.clone(), (node.archived_rows, node.pending_rows, age(node)));
        }
        let known = self.known();
        Figures {
            step: known.head.map_or(0, |head| head.number),
            errors: known.errors,
            rows: known.rows,
            bytes: known.bytes,
            pending_deletions: known.pending.len() as u64,
            last_step_at: known.last_step_at,
            nodes: nodes.into_iter().map(|(node, (rows, pending, age))| (node, rows, pending, age)).collect(),
        }
    }
}

/// Marks a round as running until it is dropped, also if the round panics.
struct Running<'a>(&'a Archiver);

impl<'a> Running<'a> {
    fn new(archiver: &'a Archiver) -> Self {
        archiver.known().running = true;
        Self(archiver)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.known().running = false;
    }
}

/// Lets queries read the new steps.
pub(super) async fn refresh(cluster: &Cluster) {
    if let Some(archive) = &cluster.archive {
        archive.refresh().await;
    }
}

fn kept_file(pending: &PendingDeletion) -> KeptFile {
    KeptFile {
        name: pending.name.clone(),
        until: pending.until.map(Timestamp::to_text),
        reason: pending.reason.clone(),
    }
}

fn named(missing: &Missing) -> MissingNode {
    MissingNode { node_id: missing.node_id.to_string(), reason: missing.reason.clone() }
}

fn verdict_of(error: &ArchiveError) -> ArchiveVerdict {
    use piperoll_archive::write::AlarmKind;
    match error {
        ArchiveError::Write(WriteError::Alarm { kind: AlarmKind::Rollback, .. }) => ArchiveVerdict::Rollback,
        ArchiveError::Write(WriteError::Alarm { kind: AlarmKind::Fork, .. }) => ArchiveVerdict::Fork,
        ArchiveError::Write(WriteError::AnotherWriter { .. }) => ArchiveVerdict::AnotherWriter,
        ArchiveError::Write(WriteError::Store(_) | WriteError::History(HistoryError::Store(_)))
        | ArchiveError::Read(ReadError::Store(_)) => ArchiveVerdict::Unreachable,
        _ => ArchiveVerdict::Error,
    }
}
