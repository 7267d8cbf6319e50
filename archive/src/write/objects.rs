//! Creates the objects of a step, and commits it.

use bytes::Bytes;
use piperoll_format::time::Timestamp;

use super::error::WriteError;
use super::layout::LaidOut;
use super::state::State;
use super::writer::{Committed, StepOutcome, Writer};
use crate::file::{EncodeError, FILE_BYTES_MAX};
use crate::history::History;
use crate::record::names;
use crate::record::{
    ArchiveStart, FileRecord, LogRange, Missing, ObjectRecord, Plan, PlannedFile, Replacement, STEP_BYTES_MAX, Step,
    StepKind, Trees, digest_of,
};
use crate::store::Created;

/// Content of a step, without its place in the chain.
pub(super) struct StepContent {
    pub(super) kind: StepKind,
    pub(super) created: Timestamp,
    pub(super) logs: Vec<LogRange>,
    pub(super) files: Vec<FileRecord>,
    pub(super) missing: Vec<Missing>,
    pub(super) replaced: Vec<Replacement>,
    pub(super) expired: Vec<String>,
    pub(super) starts: Vec<ArchiveStart>,
}

impl StepContent {
    /// A step without content.
    pub(super) fn of(kind: StepKind, created: Timestamp) -> Self {
        Self {
            kind,
            created,
            logs: Vec::new(),
            files: Vec::new(),
            missing: Vec::new(),
            replaced: Vec::new(),
            expired: Vec::new(),
            starts: Vec::new(),
        }
    }
}

impl Writer {
    /// Creates the hashes and tiles of a step whose files exist, and commits it.
    pub(super) async fn commit_step(
        &mut self,
        history: &History,
        content: StepContent,
        trees: &Trees,
    ) -> Result<StepOutcome, WriteError> {
        let number = history.head.number + 1;
        let tree_bytes = trees.to_bytes();
        let sha256 = digest_of(&tree_bytes);
        let tree = ObjectRecord { name: names::tree(number, &sha256), bytes: tree_bytes.len() as u64, sha256 };
        let step = Step {
            number,
            previous: history.head.digest,
            kind: content.kind,
            created: content.created,
            writer: self.name(),
            logs: content.logs,
            files: content.files,
            tree,
            missing: content.missing,
            replaced: content.replaced,
            expired: content.expired,
            starts: content.starts,
        };
        let bytes = step.to_bytes(&self.settings.keys.steps)?;
        if bytes.len() > STEP_BYTES_MAX {
            return Err(WriteError::TooManyRuns(number));
        }
        let digest = digest_of(&bytes);
        // Applying the step to the history before it is committed checks it, and yields the tiles.
        let mut next = history.clone();
        let tiles = next.add(&step, digest, trees)?;
        for (log, tile) in tiles {
            let origin = log.origin(self.settings.cluster.as_str());
            self.create_equal(&names::tile(&origin, tile.level, tile.index), tile.hashes.concat().into()).await?;
        }
        self.create_equal(&step.tree.name, tree_bytes.into()).await?;
        self.keep_files(&step)?;
        self.commit(&step, bytes.into()).await?;
        self.read_back(&step).await?;
        let state = State { head: Some(next.head), ..self.state.state.clone() };
        self.state.store(state)?;
        self.known = Some(next.clone());
        let committed = Box::new(Committed { step, digest });
        Ok(StepOutcome::Committed { committed, history: Box::new(next) })
    }

    /// Creates an object; if it exists, it must have the same content.
    pub(super) async fn create_equal(&self, name: &str, bytes: Bytes) -> Result<(), WriteError> {
        if self.store.create(name, bytes.clone()).await? == Created::New {
            return Ok(());
        }
        let found = self.store.read(name, (bytes.len() as u64).max(STEP_BYTES_MAX as u64)).await?;
        if found == bytes { Ok(()) } else { Err(WriteError::OtherContent { name: name.to_owned() }) }
    }

    /// Creates a file. If it exists, it must be one that this attempt or an earlier one encoded from the same rows: another version
    /// of the program may encode them differently. An object from elsewhere is never parsed.
    pub(super) async fn upload(&self, laid_out: LaidOut, plans: &[Plan]) -> Result<FileRecord, WriteError> {
        let LaidOut { file, runs } = laid_out;
        let bytes = file.read().map_err(EncodeError::Io)?;
        let mut planned = file.planned.clone();
        if self.store.create(&planned.name, bytes.clone()).await? == Created::Exists {
            let found = digest_of(&self.store.read(&planned.name, FILE_BYTES_MAX).await?);
            let own = planned.clone();
            let mut known = plans.iter().flat_map(|plan| &plan.files).chain([&own]);
            let same = known.rfind(|known| known.name == own.name && known.sha256 == found).cloned();
            planned = same.ok_or_else(|| WriteError::OtherContent { name: own.name.clone() })?;
        }
        let PlannedFile { name, bytes, sha256, tail_offset, tail_sha256 } = planned;
        Ok(FileRecord { name, bytes, sha256, tail_offset, tail_sha256, rows: file.rows, runs })
    }

    /// Creates the step's object. From then on, its rows are part of the archive.
    pub(super) async fn commit(&self, step: &Step, bytes: Bytes) -> Result<(), WriteError> {
        let name = names::step(step.number);
        if self.store.create(&name, bytes.clone()).await? == Created::New {
            return Ok(());
        }
        let found = self.store.read(&name, STEP_BYTES_MAX as u64).await?;
        if found == bytes {
            // The answer to the first attempt was lost.
            return Ok(());
        }
        let other = Step::read(step.number, &found, self.settings.keys.steps.public())?;
        if self.is_own(&other.writer) {
            // An attempt whose answer was lost has committed other rows; the next round continues from them.
            return Err(WriteError::CommittedBefore { name });
        }
        Err(WriteError::AnotherWriter { name, writer: other.writer, own: self.name() })
    }

    /// Reads one tail back, so that a store that does not keep what it acknowledged is noticed before a node deletes rows.
    pub(super) async fn read_back(&self, step: &Step) -> Result<(), WriteError> {
        let Some(file) = step.new_files().next() else { return Ok(()) };
        let tail = self.store.read_tail(&file.name, file.tail_offset, FILE_BYTES_MAX).await?;
        if digest_of(&tail) == file.tail_sha256 {
            Ok(())
        } else {
            Err(WriteError::ReadBack { name: file.name.clone() })
        }
    }
}
