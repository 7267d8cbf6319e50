//! Steps that replace or remove files: rows that were erased on their node lose their content in the archive, and rows that were kept for as
//! long as required are removed.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use piperoll_format::time::Timestamp;

use super::error::WriteError;
use super::layout::{LaidOut, RunBuilder};
use super::objects::StepContent;
use super::plans::Plans;
use super::writer::{SPOOL_DIR, StepOutcome, Writer};
use crate::file::decode::decode;
use crate::file::{DecodeError, EncodeError, FILE_BYTES_MAX, FileEncoder};
use crate::history::History;
use crate::read::Expiry;
use crate::record::{FileErasure, Missing, Plan, Replacement, RowOfFile, StepKind, Trees, digest_of};
use crate::row::{ArchivedRow, Content, Day};
use crate::store::StoreError;

/// Maximum number of files that one step replaces. Each is read, encoded again, and stored on the local disk.
const FILES_REPLACED_MAX: usize = 16;

/// Reasons why a file cannot be replaced. The other files of the step can be.
#[derive(Debug, thiserror::Error)]
enum ReplaceError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("it is not the file that its step describes")]
    Changed,
}

/// Result of a step that replaces files.
#[derive(Debug)]
pub struct Replaced {
    pub outcome: StepOutcome,
    /// Files that could not be replaced, with reasons. Erased rows still have their content there.
    pub skipped: Vec<String>,
}

impl Writer {
    /// Writes one step that removes the content of rows from files. Files after the first few are left to the next step. A file that is
    /// missing or was changed is skipped. The outcome is `Nothing` if no file could be replaced, or if a step that
    /// adds rows was interrupted and comes first.
    ///
    /// # Errors
    /// As for [`Writer::step`], which also repeats a replacement that was interrupted.
    pub async fn replace(
        &mut self,
        history: &History,
        erasures: Vec<FileErasure>,
        now: Timestamp,
    ) -> Result<Replaced, WriteError> {
        let plans = self.open_plans(history.head.number + 1, history).await?;
        let nothing = StepOutcome::Nothing { missing: Vec::new() };
        if erasures.is_empty() {
            return Ok(Replaced { outcome: nothing, skipped: Vec::new() });
        }
        if plans.current.iter().any(|plan| plan.kind == StepKind::Add) {
            let skipped = vec!["a step that adds rows was interrupted and comes first".to_owned()];
            return Ok(Replaced { outcome: nothing, skipped });
        }
        self.replace_files(history, &plans, erasures, now).await
    }

    /// Writes one step that removes files. Returns `Nothing` if there are none, or if a step that was interrupted comes first.
    ///
    /// # Errors
    /// As for [`Writer::step`].
    pub async fn expire(
        &mut self,
        history: &History,
        expiry: Expiry,
        now: Timestamp,
    ) -> Result<StepOutcome, WriteError> {
        let plans = self.open_plans(history.head.number + 1, history).await?;
        if expiry.files.is_empty() || !plans.current.is_empty() {
            return Ok(StepOutcome::Nothing { missing: Vec::new() });
        }
        let Expiry { files, starts, trees } = expiry;
        let content = StepContent { expired: files, starts, ..StepContent::of(StepKind::Expire, now) };
        self.commit_step(history, content, &Trees { logs: trees }).await
    }

    pub(super) async fn replace_files(
        &mut self,
        history: &History,
        plans: &Plans,
        erasures: Vec<FileErasure>,
        created: Timestamp,
    ) -> Result<Replaced, WriteError> {
        let (mut laid_out, mut skipped) = (Vec::new(), Vec::new());
        for (index, erasure) in erasures.into_iter().enumerate() {
            if laid_out.len() == FILES_REPLACED_MAX {
                break;
            }
            let path = self.settings.dir.join(SPOOL_DIR).join(format!("replaced-{index}.parquet"));
            match self.without_content(&erasure, path).await? {
                Ok(file) => laid_out.push((erasure, file)),
                Err(reason) => {
                    skipped.push(format!("erased rows of {} keep their content: {reason}", erasure.file.name))
                }
            }
        }
        if laid_out.is_empty() {
            return Ok(Replaced { outcome: StepOutcome::Nothing { missing: Vec::new() }, skipped });
        }
        let plan = Plan {
            number: history.head.number + 1,
            previous: history.head.digest,
            kind: StepKind::Replace,
            created,
            writer: self.name(),
            logs: Vec::new(),
            files: laid_out.iter().map(|(_, laid_out)| laid_out.file.planned.clone()).collect(),
            missing: Vec::<Missing>::new(),
            replaced: laid_out.iter().map(|(erasure, _)| erasure.clone()).collect(),
        };
        self.announce(&plan, plans).await?;
        let mut replaced = Vec::new();
        for (erasure, file) in laid_out {
            let FileErasure { logs, file: old, erased } = erasure;
            let file = self.upload(file, &plans.current).await?;
            replaced.push(Replacement { name: old.name, logs, file, erased });
        }
        let content = StepContent { replaced, ..StepContent::of(StepKind::Replace, created) };
        let outcome = self.commit_step(history, content, &Trees::default()).await?;
        Ok(Replaced { outcome, skipped })
    }

    /// Makes the file that takes the place of another one, or returns the reason why the other one cannot be read.
    async fn without_content(
        &self,
        erasure: &FileErasure,
        path: PathBuf,
    ) -> Result<Result<LaidOut, String>, WriteError> {
        let name = erasure.file.name.clone();
        let bytes = match self.store.read(&name, FILE_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(error @ (StoreError::Missing { .. } | StoreError::TooLarge { .. })) => {
                return Ok(Err(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let erasure = erasure.clone();
        let encoded = tokio::task::spawn_blocking(move || encode_again(&bytes, &erasure, &path)).await;
        match encoded.unwrap_or(Err(ReplaceError::Changed)) {
            Ok(laid_out) => Ok(Ok(laid_out)),
            Err(ReplaceError::Encode(error)) => Err(error.into()),
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

/// Encodes the rows of a file again, without the content of erased ones.
fn encode_again(bytes: &Bytes, erasure: &FileErasure, path: &Path) -> Result<LaidOut, ReplaceError> {
    // The digest is compared first, so that only files of the archive's writer are parsed.
    let day = erasure.file.runs.first().map(|run| Day::of(run.first));
    let day = day.filter(|_| digest_of(bytes) == erasure.file.sha256).ok_or(ReplaceError::Changed)?;
    let mut encoder = FileEncoder::new(day, path)?;
    let mut runs = RunBuilder::default();
    let mut left: Vec<RowOfFile> = erasure.erased.clone();
    decode::<ReplaceError>(bytes, |decoded| {
        let log = erasure.logs.iter().position(|log| *log == decoded.log).ok_or(ReplaceError::Changed)?;
        let mut row: ArchivedRow = decoded.row;
        let place = RowOfFile { log, seq: row.seq };
        if let Some(at) = left.iter().position(|erased| *erased == place) {
            left.swap_remove(at);
            row.content = Content::Erased { leaf: row.leaf() };
        }
        runs.add(log, &row);
        Ok(encoder.push(&decoded.log, &row)?)
    })?;
    let file = encoder.finish()?;
    let runs = runs.finish();
    if !left.is_empty() || runs != erasure.file.runs {
        return Err(ReplaceError::Changed);
    }
    Ok(LaidOut { file, runs })
}
