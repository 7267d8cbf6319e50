//! Opens a log for writing.

use std::sync::Arc;

use piperoll_detect::Rules;
use piperoll_format::ids::Generation;
use piperoll_net::clock::Clock;

use super::detector;
use super::writer::Writer;
use crate::store::index::Index;
use crate::store::table::error::OpenError;
use crate::store::table::health::Health;
use crate::store::table::keys::LogKeys;
use crate::store::table::log_dir::{FileIdentity, LogDir};

pub(in crate::store) struct OpenWriter {
    pub(in crate::store) writer: Writer,
    pub(in crate::store) generation: Generation,
    pub(in crate::store) identity: FileIdentity,
    pub(in crate::store) health: Arc<Health>,
    pub(in crate::store) lock: Option<std::fs::File>,
}

pub(in crate::store) fn open_writer(
    dir: &LogDir,
    keys: &LogKeys,
    clock: Arc<dyn Clock>,
    rules: Rules,
    level: u32,
) -> Result<OpenWriter, OpenError> {
    let ring = &keys.ring;
    if ring.newest_epoch().is_none() {
        return Err(OpenError::NoSecret);
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| OpenError::Io { path: dir.path().to_owned(), source: std::io::Error::other(error) })?;
    let new_generation = Generation::from_bytes(random);
    let mut opened = dir.open_writer(ring.cluster(), ring.node_id(), new_generation)?;
    let health = Arc::new(Health::default());
    let (generation, identity, lock) = (opened.generation, opened.identity, opened.lock.take());
    let index = Arc::new(Index::open(dir, generation, level));
    let mut writer = Writer::new(opened, dir, keys, clock, Arc::clone(&health), index)
        .map_err(|source| OpenError::Sqlite { path: dir.database(), source })?;
    if let Err(error) = writer.switch_epoch() {
        tracing::error!(%error, "cannot switch to the new MAC key; the log is read-only");
    }
    let detector = detector::remember(&writer, rules);
    writer.set_detector(detector);
    // If a process was killed after an erasure, the erased content may still be in the WAL.
    writer.empty_wal(1);
    Ok(OpenWriter { writer, generation, identity, health, lock })
}
