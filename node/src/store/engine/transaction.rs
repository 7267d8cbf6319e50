//! Records one group of entries in one transaction: assigns numbers and timestamps, computes MACs, and handles duplicate IDs.

use std::sync::Arc;

use piperoll_detect::Detector;
use piperoll_format::entry::{CallerEntry, NodeFields, Prefix, lifecycle, write_body};
use piperoll_format::ids::{EntryId, Generation, NodeId};
use piperoll_format::limits::CLOCK_CLAMP_MICROS_MAX;
use piperoll_format::mac::MacKey;
use piperoll_format::statement::{KeyRotated, Statement};
use piperoll_format::time::Timestamp;
use piperoll_protocol::node::Receipt;
use piperoll_redact::is_same_entry;
use rusqlite::{Connection, OptionalExtension as _};

use super::integrator::TreeIntegrator;
use super::write_error::WriteError;
use crate::store::index::PendingRows;
use crate::store::table::error::AppendError;
use crate::store::table::new_entry::{AppendResult, Appended, NewEntry, to_text};
use crate::store::table::tiles::{INSERT_TILE, insert_tile};

/// Position after the newest row.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct AppendPosition {
    pub(in crate::store) next_seq: u64,
    pub(in crate::store) era: u32,
    pub(in crate::store) last: Timestamp,
}

/// MAC key and identity for the rows of one transaction.
pub(super) struct Sealing {
    pub(super) key: MacKey,
    pub(super) node_id: NodeId,
    pub(super) generation: Generation,
    pub(super) epoch: u32,
}

/// State of the writer that a transaction changes. After a transaction that failed, the writer restores all of it.
pub(super) struct Pending<'a> {
    pub(super) tree: &'a mut TreeIntegrator,
    /// Rows of this transaction, which the index will receive.
    pub(super) fresh: &'a mut PendingRows,
    pub(super) detector: &'a mut Detector,
    pub(super) end: &'a mut AppendPosition,
}

/// One open transaction.
pub(in crate::store) struct Transaction<'a> {
    conn: &'a Connection,
    insert: rusqlite::CachedStatement<'a>,
    insert_id: rusqlite::CachedStatement<'a>,
    insert_tile: rusqlite::CachedStatement<'a>,
    sealing: Sealing,
    pending: Pending<'a>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(conn: &'a Connection, sealing: Sealing, pending: Pending<'a>) -> rusqlite::Result<Self> {
        Ok(Self {
            conn,
            insert: conn.prepare_cached(
                "INSERT INTO entries (seq, ts, era, epoch, mac, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?,
            insert_id: conn.prepare_cached("INSERT INTO ids (id, seq) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?,
            insert_tile: conn.prepare_cached(INSERT_TILE)?,
            sealing,
            pending,
        })
    }

    /// Connection of this transaction, for changes to tables other than the table of rows.
    pub(in crate::store) fn conn(&self) -> &'a Connection {
        self.conn
    }

    /// Advances the log's time to `now`. Within one era, time never decreases: a small step back is ignored, and a large one
    /// begins a new era and records `log.clock_stepped`.
    pub(super) fn advance_time(&mut self, now: Timestamp) -> Result<(), WriteError> {
        let back = self.pending.end.last.micros().saturating_sub(now.micros());
        if back > CLOCK_CLAMP_MICROS_MAX && self.pending.end.next_seq > 0 {
            let era = self.pending.end.era.saturating_add(1);
            let details = serde_json::json!({
                "era": era, "previous_timestamp": self.pending.end.last, "stepped_back_micros": back,
            });
            self.pending.end.era = era;
            self.pending.end.last = now;
            let entry = lifecycle("log.clock_stepped", "the clock stepped back; a new era begins", &details);
            self.record_own(entry)?;
        } else {
            self.pending.end.last = self.pending.end.last.max(now);
        }
        Ok(())
    }

    /// Records a statement of the node about its own log; returns the seq of the entry.
    pub(in crate::store) fn state(&mut self, statement: &Statement, now: Timestamp) -> Result<u64, WriteError> {
        self.advance_time(now)?;
        self.record_own(statement.to_entry())
    }

    /// Records an entry of the node about itself; returns its seq. Such an entry has a fresh ID and bounded fields, so it
    /// should never be refused. If it is refused, the error rolls back the whole transaction.
    fn record_own(&mut self, entry: CallerEntry) -> Result<u64, WriteError> {
        match self.record(NewEntry { entry, via: Arc::from("node") })? {
            Ok(Appended::New(receipt)) => Ok(receipt.seq),
            Ok(Appended::Duplicate(_)) => Err(WriteError::OwnDuplicate),
            Err(error) => Err(WriteError::OwnEntry(error)),
        }
    }

    /// Switches to another key epoch. The rotation is recorded twice: in the last row under the old secret, and in the first
    /// row under the new one.
    pub(super) fn rotate(&mut self, epoch: u32, key: MacKey, now: Timestamp) -> Result<(), WriteError> {
        self.advance_time(now)?;
        let first_seq = self.pending.end.next_seq + 1;
        let statement = Statement::KeyRotated(KeyRotated { from_epoch: self.sealing.epoch, epoch, first_seq });
        self.state(&statement, now)?;
        (self.sealing.key, self.sealing.epoch) = (key, epoch);
        self.state(&statement, now)?;
        self.conn.execute("INSERT INTO epochs (epoch, first_seq) VALUES (?1, ?2)", (epoch, first_seq))?;
        Ok(())
    }

    /// Records one entry at the log's current time. The inner error applies to this entry alone.
    pub(super) fn record(&mut self, new_entry: NewEntry) -> Result<AppendResult, WriteError> {
        let id = new_entry.entry.id.unwrap_or_else(|| EntryId::from_uuid(uuid::Uuid::now_v7()));
        let seq = self.pending.end.next_seq;
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(WriteError::Random)?;
        let stamp = NodeFields {
            node_id: &self.sealing.node_id,
            generation: &self.sealing.generation,
            seq,
            era: self.pending.end.era,
            salt,
            timestamp: self.pending.end.last,
            id,
            via: &new_entry.via,
        };
        let mark = self.pending.detector.mark();
        let flags = to_text(&self.pending.detector.detect(new_entry.entry.rule_input(), stamp.timestamp));
        let body = match write_body(&stamp, &new_entry.entry, &flags) {
            Ok(body) => body,
            Err(error) => {
                self.pending.detector.rollback_to(mark);
                return Ok(Err(error.into()));
            }
        };
        if self.insert_id.execute((id.as_bytes(), seq))? == 0 {
            self.pending.detector.rollback_to(mark);
            return self.known_id(&new_entry, id);
        }
        let mac = self.sealing.key.mac(body.as_bytes());
        self.insert.execute((
            seq,
            self.pending.end.last.micros(),
            self.pending.end.era,
            self.sealing.epoch,
            &mac[..],
            &body,
        ))?;
        self.pending.tree.push(&body, mac)?;
        self.pending.fresh.push(self.pending.end.last, &body);
        self.pending.end.next_seq += 1;
        Ok(Ok(Appended::New(Receipt {
            node_id: self.sealing.node_id.clone(),
            seq,
            timestamp: self.pending.end.last,
            id,
            signature: hex::encode(mac),
        })))
    }

    /// Stores the tiles that the rows of this transaction filled. Call it once, before the commit.
    pub(super) fn store_tiles(&mut self) -> Result<(), WriteError> {
        for tile in self.pending.tree.full_tiles()? {
            insert_tile(&mut self.insert_tile, &tile)?;
        }
        Ok(())
    }

    /// Handles an id that is already taken: returns the first receipt if the content is the same; otherwise refuses the entry and
    /// records the refusal.
    fn known_id(&mut self, new_entry: &NewEntry, id: EntryId) -> Result<AppendResult, WriteError> {
        let seq: u64 = self.conn.query_row("SELECT seq FROM ids WHERE id = ?1", [id.as_bytes()], |row| row.get(0))?;
        let first = stored(self.conn, seq)?;
        if let Some((body, mac)) = &first
            && is_same_entry(&new_entry.entry, body)
            && let Some(prefix) = Prefix::parse(body.as_bytes())
        {
            return Ok(Ok(Appended::Duplicate(Receipt {
                node_id: self.sealing.node_id.clone(),
                seq,
                timestamp: prefix.timestamp,
                id,
                signature: hex::encode(mac),
            })));
        }
        let details = serde_json::json!({ "id": id, "first_seq": seq, "refused_via": &*new_entry.via });
        let note = serde_json::json!({
            "category": "audit", "action": "audit.id_conflict", "outcome": "denied", "reason": "id_reused",
            "description": "an entry was refused because its id was used before for another entry",
            "entity_type": "entry", "entity_id": id, "details": details,
        });
        match CallerEntry::parse(note.to_string().as_bytes()) {
            Ok(entry) => {
                // The entry about the refusal has an id of its own, so the recursion ends here.
                let _ = self.record(NewEntry { entry, via: Arc::from("node") })?;
            }
            Err(error) => tracing::error!(%error, "cannot record the reuse of an ID"),
        }
        Ok(Err(AppendError::Conflict { id: id.to_string(), seq }))
    }
}

/// Returns the body and the MAC of a row. A body or MAC of the wrong type is returned as empty.
fn stored(conn: &Connection, seq: u64) -> rusqlite::Result<Option<(String, Vec<u8>)>> {
    conn.query_row("SELECT body, mac FROM entries WHERE seq = ?1", [seq], |row| {
        let body = row.get_ref(0)?.as_bytes().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        let mac = row.get_ref(1)?.as_bytes().map(<[u8]>::to_vec).unwrap_or_default();
        Ok((body, mac))
    })
    .optional()
}
