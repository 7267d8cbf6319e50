//! Settings of the writer, and the creation of an archive.

use std::path::PathBuf;

use piperoll_format::ids::{ClusterName, NodeId};
use piperoll_format::time::Timestamp;

use super::error::WriteError;
use super::state::{STATE_FILE, State, StateFile};
use crate::history::Head;
use crate::record::names::ARCHIVE;
use crate::record::{ABOUT_BYTES_MAX, About, ArchiveKeys, digest_of};
use crate::store::{Created, Store, probe};

/// Identity of an archive and of its writer.
#[derive(Clone)]
pub struct Settings {
    pub cluster: ClusterName,
    pub archive: NodeId,
    pub keys: ArchiveKeys,
    /// Directory for the writer's state and for rows that are being archived.
    pub dir: PathBuf,
    /// Name of this machine, for messages.
    pub host: String,
}

/// Creates the object `archive`, after a check that the store is suitable. Returns false if this archive exists already.
///
/// # Errors
/// Fails if the store does not create objects atomically, or holds another archive.
pub async fn initialize(store: &Store, settings: &Settings, now: Timestamp) -> Result<bool, WriteError> {
    std::fs::create_dir_all(&settings.dir).map_err(|error| WriteError::Local { path: settings.dir.clone(), error })?;
    let mut state = StateFile::open(&settings.dir.join(STATE_FILE))?;
    probe(store, &state.state.instance).await?;
    let about = About { cluster: settings.cluster.clone(), archive: settings.archive.clone(), created: now };
    let bytes = about.to_bytes(&settings.keys.steps)?;
    let is_new = store.create(ARCHIVE, bytes.into()).await? == Created::New;
    let found = store.read(ARCHIVE, ABOUT_BYTES_MAX as u64).await?;
    let known = About::read(&found, settings.keys.steps.public())
        .map_err(|error| WriteError::Exists { at: store.shown().to_owned(), found: error.to_string() })?;
    if (&known.cluster, &known.archive) != (&settings.cluster, &settings.archive) {
        let found = format!("{} of cluster {}", known.archive, known.cluster);
        return Err(WriteError::Exists { at: store.shown().to_owned(), found });
    }
    if state.is_new && is_new {
        let head = Some(Head { number: 0, digest: digest_of(&found) });
        let next = State { head, ..state.state.clone() };
        state.store(next)?;
    }
    Ok(is_new)
}
