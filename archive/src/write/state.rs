//! State that the writer keeps between runs: the newest step that it saw, by which a rollback or a replaced archive is
//! recognized.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use piperoll_format::time::Timestamp;
use piperoll_net::checked_json;
use serde::{Deserialize, Serialize};

use crate::history::Head;

/// Bytes of the random id of a writer.
const INSTANCE_BYTES: usize = 8;

/// Kind of a finding about the archive as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// The archive has fewer steps than this writer saw.
    Rollback,
    /// The archive has another step under a number that this writer saw.
    Fork,
}

impl fmt::Display for AlarmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rollback => "rollback",
            Self::Fork => "fork",
        })
    }
}

/// A finding about the archive. It stays until an operator accepts the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alarm {
    pub kind: AlarmKind,
    pub reason: String,
    pub since: Timestamp,
}

/// Reason why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot use the archive's state file {}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("cannot create a random id: {0}")]
    Random(getrandom::Error),
}

/// Name of the state file in the writer's directory.
pub(super) const STATE_FILE: &str = "state.json";

/// Returns the newest step that a writer whose state is in `dir` has seen; `None` if there is no such state.
///
/// # Errors
/// Fails if the state file cannot be read.
pub fn newest_seen(dir: &Path) -> Result<Option<Head>, StateError> {
    let path = dir.join(STATE_FILE);
    if !path.exists() {
        return Ok(None);
    }
    Ok(StateFile::open(&path)?.state.head)
}

/// Content of the state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// Random id of this writer.
    pub(super) instance: String,
    /// Newest step that this writer saw.
    pub(super) head: Option<Head>,
    /// Newest step after whose commit everything was done: entry, cosignatures.
    pub(super) published: u64,
    /// Step whose open plan this writer continues although another writer made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) adopted: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) alarm: Option<Alarm>,
    /// Newest step whose rows were searched for entries that declare erasures.
    #[serde(default)]
    pub(super) searched: u64,
    /// Declared erasures that describe other rows than the archived ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) refused: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) pending: Vec<PendingDeletion>,
}

/// A file that is not part of the archive any more, and that the store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingDeletion {
    pub name: String,
    /// Step that replaced or removed the file.
    pub step: u64,
    /// Time until which the store keeps it, if that is known.
    pub until: Option<Timestamp>,
    pub reason: String,
}

/// The state and its file.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    pub(super) state: State,
    /// Whether the file did not exist.
    pub(super) is_new: bool,
}

impl StateFile {
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        let failed = |reason: String| StateError::File { path: path.to_owned(), reason };
        match std::fs::read(path) {
            Ok(bytes) => {
                let state = checked_json::from_bytes(&bytes).map_err(failed)?;
                Ok(Self { path: path.to_owned(), state, is_new: false })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut random = [0; INSTANCE_BYTES];
                getrandom::fill(&mut random).map_err(StateError::Random)?;
                let state = State {
                    instance: hex::encode(random),
                    head: None,
                    published: 0,
                    adopted: None,
                    alarm: None,
                    searched: 0,
                    refused: Vec::new(),
                    pending: Vec::new(),
                };
                Ok(Self { path: path.to_owned(), state, is_new: true })
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    pub(super) fn store(&mut self, state: State) -> Result<(), StateError> {
        checked_json::write(&self.path, &state)
            .map_err(|error| StateError::File { path: self.path.clone(), reason: error.to_string() })?;
        self.state = state;
        self.is_new = false;
        Ok(())
    }
}
