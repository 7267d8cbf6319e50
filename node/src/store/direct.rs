//! The log without a daemon: read straight from its directory, or appended to for a moment.

use std::sync::Arc;

use piperoll_shared::api::node::{ScanRequest, VerifyLine};
use piperoll_shared::log::ids::Generation;
use piperoll_shared::net::clock::{Clock, SystemClock};
use rusqlite::Connection;

use super::open::CopyAside;
use super::rows;
use super::signer::{self, Kept};
use super::writer::{Appended, Draft};
use super::{AppendError, Batch, Check, Extent, LogDir, LogKeys, OpenError, OpenWriter, ReadError, Scan};
use super::{open_writer, parse_filter, schema};

/// A log read straight from its directory, without a daemon.
pub struct DirectLog {
    conn: Connection,
    keys: LogKeys,
    generation: Generation,
    _copy: Option<CopyAside>,
}

impl DirectLog {
    pub fn open(dir: &LogDir, keys: LogKeys) -> Result<Self, OpenError> {
        let opened = dir.open_reader(keys.ring.cluster(), keys.ring.node_id())?;
        Ok(Self { conn: opened.conn, keys, generation: opened.generation, _copy: opened.copy })
    }

    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub fn extent(&self) -> Result<Extent, ReadError> {
        Ok(rows::extent(&self.conn)?)
    }

    pub fn scan(&self, request: &ScanRequest) -> Result<Scan, ReadError> {
        let head = self.extent()?.head_seq;
        let filter = parse_filter(request, SystemClock.now())?;
        Scan::plan(&self.conn, request, filter, head, self.keys.ring.clone(), self.generation)
    }

    pub fn next_batch(&self, scan: &mut Scan) -> Result<Batch, ReadError> {
        scan.next_batch(&self.conn)
    }

    pub fn check(&self) -> Result<Check, ReadError> {
        Ok(Check::new(&self.keys, self.generation, self.extent()?.head_seq))
    }

    pub fn check_step(&self, check: &mut Check) -> Result<Vec<VerifyLine>, ReadError> {
        Ok(check.step(&self.conn)?)
    }

    /// A note as it was kept last, whoever signed it.
    pub fn kept_note(&self, kept: Kept) -> Result<Option<String>, ReadError> {
        Ok(signer::kept(&self.conn, kept)?)
    }

    /// What is wrong with the schema, in words.
    pub fn schema_fault(&self) -> Option<String> {
        let differences = schema::differences(&self.conn).unwrap_or_default();
        (!differences.is_empty()).then(|| format!("the database's schema is not ours: {}", differences.join("; ")))
    }
}

/// Appends straight to a directory whose daemon is down, holding the writer's lock for that long.
pub fn append_directly(
    dir: &LogDir,
    keys: &LogKeys,
    clock: Arc<dyn Clock>,
    drafts: Vec<Draft>,
) -> Result<Vec<Result<Appended, AppendError>>, OpenError> {
    let OpenWriter { mut writer, generation, health, lock, .. } = open_writer(dir, keys, clock)?;
    let count = drafts.len();
    let results = writer.append(drafts).unwrap_or_else(|error| vec![Err(error); count]);
    let io = |source| OpenError::Io { path: dir.path().to_owned(), source };
    if health.head().is_some() {
        dir.write_marker(keys.ring.cluster(), keys.ring.node_id(), generation).map_err(io)?;
    }
    drop(writer);
    drop(lock);
    Ok(results)
}
