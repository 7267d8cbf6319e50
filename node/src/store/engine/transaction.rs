//! One group of entries in one transaction: numbers, timestamps, MACs, and duplicate IDs.

use std::sync::Arc;

use piperoll_detect::Detector;
use piperoll_format::entry::{CallerEntry, Prefix, Stamp, lifecycle, write_body};
use piperoll_format::ids::{EntryId, Generation, NodeId};
use piperoll_format::limits::CLOCK_CLAMP_MICROS_MAX;
use piperoll_format::mac::MacKey;
use piperoll_format::statement::{KeyRotated, Statement};
use piperoll_format::time::Timestamp;
use piperoll_protocol::node::Receipt;
use piperoll_redact::is_same_entry;
use rusqlite::{Connection, OptionalExtension as _};

use super::integrator::{IntegratorStopped, TreeIntegrator};
use crate::store::index::PendingRows;
use crate::store::table::draft::{AppendResult, Appended, Draft, to_text};
use crate::store::table::error::AppendError;
use crate::store::table::tiles::insert_tile;

/// Position after the newest row.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct AppendPosition {
    pub(in crate::store) next_seq: u64,
    pub(in crate::store) era: u32,
    pub(in crate::store) last: Timestamp,
}

/// One open transaction.
pub(in crate::store) struct Rows<'a> {
    pub(in crate::store) conn: &'a Connection,
    pub(in crate::store) insert: rusqlite::CachedStatement<'a>,
    pub(in crate::store) insert_id: rusqlite::CachedStatement<'a>,
    pub(in crate::store) insert_tile: rusqlite::CachedStatement<'a>,
    pub(in crate::store) tree: &'a mut TreeIntegrator,
    pub(in crate::store) fresh: &'a mut PendingRows,
    /// Keeps state about the entries it has judged; rolled back as a whole if the transaction fails.
    pub(in crate::store) judge: &'a mut Detector,
    pub(in crate::store) key: MacKey,
    pub(in crate::store) node_id: NodeId,
    pub(in crate::store) generation: Generation,
    pub(in crate::store) epoch: u32,
    pub(in crate::store) end: &'a mut AppendPosition,
}

impl Rows<'_> {
    /// Advances the log's time to `now`. Within one era time never decreases: a small step back is clamped, and a large one begins
    /// a new era and records `log.clock_stepped`.
    pub(in crate::store) fn keep_time(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        let back = self.end.last.micros().saturating_sub(now.micros());
        if back > CLOCK_CLAMP_MICROS_MAX && self.end.next_seq > 0 {
            let era = self.end.era.saturating_add(1);
            let details = serde_json::json!({
                "era": era, "previous_timestamp": self.end.last, "stepped_back_micros": back,
            });
            self.end.era = era;
            self.end.last = now;
            self.own("log.clock_stepped", "the clock stepped back; a new era begins", &details)?;
        } else {
            self.end.last = self.end.last.max(now);
        }
        Ok(())
    }

    fn own(&mut self, action: &str, description: &str, details: &serde_json::Value) -> rusqlite::Result<()> {
        let draft = Draft { entry: lifecycle(action, description, details), via: Arc::from("node") };
        self.record(draft).map(|_| ())
    }

    /// Records a statement of the node about its own log; returns the seq of the entry.
    pub(in crate::store) fn state(&mut self, statement: &Statement, now: Timestamp) -> rusqlite::Result<u64> {
        self.keep_time(now)?;
        match self.record(Draft { entry: statement.to_entry(), via: Arc::from("node") })? {
            Ok(Appended::New(receipt)) => Ok(receipt.seq),
            // A statement has a fresh id and bounded fields, so it cannot be refused. If it is, the error rolls back the
            // whole transaction.
            Ok(Appended::Known(_)) => Err(rusqlite::Error::StatementChangedRows(0)),
            Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(Box::new(error))),
        }
    }

    /// Switches to another key epoch: the last row under the old secret and the first row under the new one both state the
    /// rotation.
    pub(in crate::store) fn rotate(&mut self, epoch: u32, key: MacKey, now: Timestamp) -> rusqlite::Result<()> {
        self.keep_time(now)?;
        let first_seq = self.end.next_seq + 1;
        let statement = Statement::KeyRotated(KeyRotated { from_epoch: self.epoch, epoch, first_seq });
        self.state(&statement, now)?;
        (self.key, self.epoch) = (key, epoch);
        self.state(&statement, now)?;
        self.conn.execute("INSERT INTO epochs (epoch, first_seq) VALUES (?1, ?2)", (epoch, first_seq)).map(|_| ())
    }

    pub(in crate::store) fn record(&mut self, draft: Draft) -> rusqlite::Result<AppendResult> {
        let id = draft.entry.id.unwrap_or_else(|| EntryId::from_uuid(uuid::Uuid::now_v7()));
        let seq = self.end.next_seq;
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let stamp = Stamp {
            node_id: &self.node_id,
            generation: &self.generation,
            seq,
            era: self.end.era,
            salt,
            timestamp: self.end.last,
            id,
            via: &draft.via,
        };
        let mark = self.judge.mark();
        let flags = to_text(&self.judge.judge(draft.entry.facts(), stamp.timestamp));
        let body = match write_body(&stamp, &draft.entry, &flags) {
            Ok(body) => body,
            Err(error) => {
                self.judge.back_to(mark);
                return Ok(Err(error.into()));
            }
        };
        if self.insert_id.execute((id.as_bytes(), seq))? == 0 {
            self.judge.back_to(mark);
            return self.known_id(&draft, id);
        }
        let mac = self.key.mac(body.as_bytes());
        self.insert.execute((seq, self.end.last.micros(), self.end.era, self.epoch, &mac[..], &body))?;
        self.tree.push(&body, mac).map_err(gone)?;
        self.fresh.push(self.end.last, &body);
        self.end.next_seq += 1;
        Ok(Ok(Appended::New(Receipt {
            node_id: self.node_id.clone(),
            seq,
            timestamp: self.end.last,
            id,
            signature: hex::encode(mac),
        })))
    }

    /// Stores the tiles that the rows of this transaction filled. Call it once, before the commit.
    pub(in crate::store) fn store_tiles(&mut self) -> rusqlite::Result<()> {
        self.tree.full_tiles().map_err(gone)?.iter().try_for_each(|tile| insert_tile(&mut self.insert_tile, tile))
    }

    /// Handles an id that is already taken: the same content gets its first receipt; other content is refused, and the refusal is
    /// recorded.
    fn known_id(&mut self, draft: &Draft, id: EntryId) -> rusqlite::Result<AppendResult> {
        let seq: u64 = self.conn.query_row("SELECT seq FROM ids WHERE id = ?1", [id.as_bytes()], |row| row.get(0))?;
        let first = stored(self.conn, seq)?;
        if let Some((body, mac)) = &first
            && is_same_entry(&draft.entry, body)
            && let Some(prefix) = Prefix::parse(body.as_bytes())
        {
            return Ok(Ok(Appended::Known(Receipt {
                node_id: self.node_id.clone(),
                seq,
                timestamp: prefix.timestamp,
                id,
                signature: hex::encode(mac),
            })));
        }
        let details = serde_json::json!({ "id": id, "first_seq": seq, "refused_via": &*draft.via });
        let note = serde_json::json!({
            "category": "audit", "action": "audit.id_conflict", "outcome": "denied", "reason": "id_reused",
            "description": "an entry was refused because its id was used before for another entry",
            "entity_type": "entry", "entity_id": id, "details": details,
        });
        match CallerEntry::parse(note.to_string().as_bytes()) {
            Ok(entry) => {
                // The note has an id of its own, so this cannot recurse.
                let _ = self.record(Draft { entry, via: Arc::from("node") })?;
            }
            Err(error) => tracing::error!(%error, "cannot record the reuse of an ID"),
        }
        Ok(Err(AppendError::Conflict { id: id.to_string(), seq }))
    }
}

fn gone(error: IntegratorStopped) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// Body and MAC of a row. A body or MAC of the wrong type reads as empty.
pub(in crate::store) fn stored(conn: &Connection, seq: u64) -> rusqlite::Result<Option<(String, Vec<u8>)>> {
    conn.query_row("SELECT body, mac FROM entries WHERE seq = ?1", [seq], |row| {
        let body = row.get_ref(0)?.as_bytes().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        let mac = row.get_ref(1)?.as_bytes().map(<[u8]>::to_vec).unwrap_or_default();
        Ok((body, mac))
    })
    .optional()
}
