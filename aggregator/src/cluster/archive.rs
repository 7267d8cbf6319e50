//! The archive from which rows are read that nodes no longer have.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use piperoll_archive::history::HistoryError;
use piperoll_archive::read::{Caches, Catalog, ReadError, Reader};
use piperoll_archive::store::Store;
use piperoll_protocol::archive::ArchiveVerdict;

use crate::config::ArchiveConfig;

/// The archive, as queries read it.
pub(crate) struct ClusterArchive {
    config: ArchiveConfig,
    caches: Arc<Caches>,
    state: Mutex<State>,
    /// Held by `refresh`, so that steps are read once.
    refreshing: tokio::sync::Mutex<()>,
}

struct State {
    reader: Option<Reader>,
    trouble: Option<(ArchiveVerdict, String)>,
}

impl ClusterArchive {
    pub(crate) fn new(config: ArchiveConfig) -> Self {
        let trouble = Some((ArchiveVerdict::Pending, "its steps have not been read yet".to_owned()));
        let state = Mutex::new(State { reader: None, trouble });
        Self { config, caches: Arc::default(), state, refreshing: tokio::sync::Mutex::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Name of the archive in answers: `archive:<id>`.
    pub(crate) fn name(&self) -> String {
        format!("archive:{}", self.config.id)
    }

    /// The reader of the rows of all known steps; a message if the archive cannot be used.
    pub(crate) fn reader(&self) -> Result<Reader, String> {
        let state = self.state();
        let reason = || state.trouble.as_ref().map(|(_, reason)| reason.clone()).unwrap_or_default();
        state.reader.clone().ok_or_else(reason)
    }

    /// Verdict on the archive, and the number of the newest known step.
    pub(crate) fn standing(&self) -> (ArchiveVerdict, u64) {
        let state = self.state();
        let step = state.reader.as_ref().map_or(0, |reader| reader.catalog().head().number);
        (state.trouble.as_ref().map_or(ArchiveVerdict::Ok, |(verdict, _)| *verdict), step)
    }

    /// Reads the steps that were added. If the store does not answer, the steps that are known stay usable.
    pub(crate) async fn refresh(&self) {
        let _one = self.refreshing.lock().await;
        let known = self.state().reader.clone();
        match self.read_steps(known).await {
            Ok(reader) => {
                let mut state = self.state();
                (state.reader, state.trouble) = (Some(reader), None);
            }
            Err(error) => {
                let verdict = match &error {
                    ReadError::Store(_) | ReadError::History(HistoryError::Store(_)) | ReadError::Aborted => {
                        ArchiveVerdict::Unreachable
                    }
                    _ => ArchiveVerdict::Error,
                };
                self.distrust(verdict, error.to_string());
            }
        }
    }

    /// Records that the archive cannot be used. Its known steps stay usable only if the store merely does not answer.
    pub(crate) fn distrust(&self, verdict: ArchiveVerdict, reason: String) {
        let mut state = self.state();
        if verdict != ArchiveVerdict::Unreachable {
            state.reader = None;
        }
        state.trouble = Some((verdict, reason));
    }

    async fn read_steps(&self, known: Option<Reader>) -> Result<Reader, ReadError> {
        let config = &self.config;
        let key = config.keys.steps.public();
        let (store, catalog) = match known {
            Some(reader) => {
                let store = reader.store().clone();
                let mut catalog = reader.catalog().clone();
                catalog.advance(&store, key).await?;
                (store, catalog)
            }
            None => {
                let store = Store::open(&config.address, config.credentials.as_ref())?;
                let catalog = Catalog::load(&store, key, &config.cluster, &config.id).await?;
                (store, catalog)
            }
        };
        Ok(Reader::new(store, Arc::new(catalog), Arc::clone(&self.caches)))
    }
}
