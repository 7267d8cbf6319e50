//! Verification of a whole log: MACs, gaps, derived data, the schema, and SQLite's own check.

use std::collections::BTreeMap;
use std::sync::Arc;

use piperoll_format::entry::Prefix;
use piperoll_format::ids::{Generation, NodeId};
use piperoll_format::merkle::{Hash, leaf_hash};
use piperoll_format::note::KeyKind;
use piperoll_format::verify::{Integrity, RowChecker, SequenceWalk};
use piperoll_protocol::node::{Finding, FindingKind, VerifyLine, VerifySummary};
use rusqlite::Connection;

use super::tree::{NoteFault, TreeCheck};
use crate::store::index::IndexCheck;
use crate::store::table::erased;
use crate::store::table::health::Health;
use crate::store::table::keys::LogKeys;
use crate::store::table::log_start::{LogStart, floor};
use crate::store::table::mac_epochs::epochs;
use crate::store::table::rows::{SEQ_MAX, StoredRow, read_unchecked};
use crate::store::table::schema;

/// Number of rows that are hashed together as a block; [`BLOCKS_PER_STEP`] is the number of blocks per step. A step is one read
/// transaction.
const BLOCK_ROWS: u64 = 2_048;
const BLOCKS_PER_STEP: u32 = 6;
/// Maximum number of findings listed in full; any further findings are only counted.
const FINDINGS_LISTED_MAX: u64 = 1_000;

/// Progress of a check between two steps. Rows that are written after the check began are not checked, so that checking a log
/// in use gives no false alarms.
pub struct Check {
    pub(in crate::store) checker: RowChecker,
    tree: TreeCheck,
    node_id: NodeId,
    generation: Generation,
    pub(in crate::store) head: Option<u64>,
    next: u64,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    pub(in crate::store) rows: u64,
    walk: SequenceWalk,
    findings: u64,
    listed: u64,
    stage: Stage,
    fault: Option<String>,
    /// Health of the running writer, if there is one.
    pub(in crate::store) health: Option<Arc<Health>>,
    /// Number of sound rows that are missing from the index of IDs.
    pub(in crate::store) ids_missing: u64,
    /// Number of rows whose erasure is recorded by an entry that names them.
    erased: u64,
    pub(in crate::store) floor: Option<LogStart>,
    /// Holds that were set by the entries read so far and not released by them.
    pub(in crate::store) held: BTreeMap<String, u64>,
    index: IndexCheck,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Schema,
    Rows,
    File,
    Done,
}

impl Check {
    /// Creates a check. `head` is the newest row that the writer knows or, without a writer, the newest row of the table.
    /// `beside` is the content of `log.checkpoint`, which must be read before `head`.
    pub(in crate::store) fn new(
        keys: &LogKeys,
        generation: Generation,
        beside: Result<Option<Vec<u8>>, String>,
        head: Option<u64>,
        index: IndexCheck,
    ) -> Self {
        let node_id = keys.ring.node_id().clone();
        Self {
            tree: TreeCheck::new(keys.checkpoint.named(&keys.origin(generation), KeyKind::Log), beside),
            checker: RowChecker::new(keys.ring.clone(), generation),
            node_id,
            generation,
            head,
            next: 0,
            first_seq: None,
            last_seq: None,
            rows: 0,
            walk: SequenceWalk::starting_at(0),
            findings: 0,
            listed: 0,
            stage: Stage::Schema,
            fault: None,
            health: None,
            ids_missing: 0,
            erased: 0,
            floor: None,
            held: BTreeMap::new(),
            index,
        }
    }

    /// Makes the check report a fault of the file, which a running daemon has found, as its first finding.
    pub fn with_fault(mut self, fault: Option<String>) -> Self {
        self.fault = fault;
        self
    }

    /// Configures the check for a log whose writer is running.
    pub(in crate::store) fn beside(mut self, health: Arc<Health>) -> Self {
        self.health = Some(health);
        self
    }

    pub fn done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Runs the next step and returns the lines of its report.
    pub(in crate::store) fn step(&mut self, conn: &Connection) -> rusqlite::Result<Vec<VerifyLine>> {
        // Use one read transaction for the whole step; otherwise each of its thousands of small queries would acquire and
        // release the WAL's locks.
        let transaction = conn.unchecked_transaction()?;
        let lines = self.piece(conn)?;
        transaction.finish()?;
        Ok(lines)
    }

    fn piece(&mut self, conn: &Connection) -> rusqlite::Result<Vec<VerifyLine>> {
        let mut lines = Vec::new();
        match self.stage {
            Stage::Schema => {
                if let Some(fault) = self.fault.take() {
                    self.find(&mut lines, None, FindingKind::File, fault);
                }
                for difference in schema::differences(conn)? {
                    self.find(&mut lines, None, FindingKind::Schema, difference);
                }
                for (key, expected) in
                    [("node_id", self.node_id.to_string()), ("generation", self.generation.to_string())]
                {
                    let found = schema::meta(conn, key)?.unwrap_or_default();
                    if found != expected {
                        let detail = format!("in the table `meta`, {key} is {found:?} instead of {expected:?}");
                        self.find(&mut lines, None, FindingKind::Schema, detail);
                    }
                }
                self.go_to_floor(conn, &mut lines)?;
                match epochs(conn, &mut self.checker, self.floor.as_ref())? {
                    Ok(epochs) => self.checker.know_epochs(epochs),
                    Err(message) => self.find(&mut lines, None, FindingKind::Derived, message),
                }
                for fault in self.tree.begin(conn)? {
                    let NoteFault { detail, is_unsigned } = fault;
                    self.report(&mut lines, Finding { seq: None, kind: FindingKind::Checkpoint, detail, is_unsigned });
                }
                self.stage = if self.head.is_some() { Stage::Rows } else { Stage::File };
            }
            Stage::Rows => self.rows(conn, &mut lines)?,
            Stage::File => {
                self.stray_rows(conn, &mut lines)?;
                self.leftover_ids(conn, &mut lines)?;
                self.statements(conn, &mut lines)?;
                for fault in self.tree.end(conn)? {
                    self.find(&mut lines, None, FindingKind::Checkpoint, fault);
                }
                for fault in self.index.finish(conn)? {
                    self.find(&mut lines, None, FindingKind::Index, fault);
                }
                self.file(conn, &mut lines)?;
                self.stage = Stage::Done;
                lines.push(VerifyLine::Final(VerifySummary {
                    node_id: self.node_id.clone(),
                    generation: self.generation,
                    rows: self.rows,
                    first_seq: self.first_seq,
                    last_seq: self.last_seq,
                    erased: self.erased,
                    pruned: self.floor.as_ref().map(|floor| floor.pruned.to_seq),
                    unindexed: self.index.unindexed(),
                    findings: self.findings,
                    listed: self.listed,
                }));
            }
            Stage::Done => {}
        }
        Ok(lines)
    }

    pub(in crate::store) fn find(
        &mut self,
        lines: &mut Vec<VerifyLine>,
        seq: Option<u64>,
        kind: FindingKind,
        detail: String,
    ) {
        self.report(lines, Finding { seq, kind, detail, is_unsigned: false });
    }

    fn report(&mut self, lines: &mut Vec<VerifyLine>, finding: Finding) {
        self.findings += 1;
        if self.listed < FINDINGS_LISTED_MAX {
            self.listed += 1;
            lines.push(VerifyLine::Finding(finding));
        }
    }

    /// Begins at the log start. If rows at the current position were pruned during the check, skips to the new log start.
    fn go_to_floor(&mut self, conn: &Connection, lines: &mut Vec<VerifyLine>) -> rusqlite::Result<()> {
        let floor = match floor(conn, &mut self.checker)? {
            Ok(floor) => floor.filter(|floor| floor.pruned.to_seq > self.next),
            Err(message) => {
                // Report the problem only once.
                if self.stage == Stage::Schema {
                    self.find(lines, None, FindingKind::Derived, message);
                }
                None
            }
        };
        let Some(floor) = floor else { return Ok(()) };
        self.next = floor.pruned.to_seq;
        self.walk = SequenceWalk::going_on(floor.pruned.to_seq, floor.pruned.era, floor.pruned.last_timestamp);
        self.index.go_to(floor.pruned.to_seq);
        if let Some(fault) = self.tree.go_to(conn, &floor.pruned)? {
            self.find(lines, None, FindingKind::Checkpoint, fault);
        }
        self.floor = Some(floor);
        Ok(())
    }

    fn rows(&mut self, conn: &Connection, lines: &mut Vec<VerifyLine>) -> rusqlite::Result<()> {
        self.go_to_floor(conn, lines)?;
        let head = self.head.unwrap_or_default();
        let mut block = read_block(conn, self.next, head)?;
        for number in 1..=BLOCKS_PER_STEP {
            // Read the next block while the current block is hashed.
            let behind = block.last().map_or(self.next, |row| row.seq + 1);
            let (leaves, ahead) = std::thread::scope(|scope| {
                let hashing = scope.spawn(|| hash_both(&mut block, &mut self.checker));
                let ahead = if number < BLOCKS_PER_STEP { read_block(conn, behind, head) } else { Ok(Vec::new()) };
                (hashing.join(), ahead)
            });
            let ahead = ahead?;
            // The hashing thread never panics, but if it did, its work would be repeated here.
            let leaves = leaves.unwrap_or_else(|_| hash_both(&mut block, &mut self.checker));
            self.block(conn, &mut block, leaves, lines)?;
            if (block.len() as u64) < BLOCK_ROWS {
                if let Some(fault) = self.walk.finish(self.head) {
                    self.find(lines, None, FindingKind::Sequence, fault.to_string());
                }
                self.stage = Stage::File;
                break;
            }
            block = ahead;
        }
        lines.push(VerifyLine::Progress { checked: self.rows, of: head + 1 });
        Ok(())
    }

    /// Checks one block of rows that were hashed, and reports what it finds.
    fn block(
        &mut self,
        conn: &Connection,
        stored: &mut [StoredRow],
        leaves: Vec<Hash>,
        lines: &mut Vec<VerifyLine>,
    ) -> rusqlite::Result<()> {
        let mut found = Vec::new();
        for row in stored.iter_mut() {
            erased::recognise(conn, &mut self.checker, row)?;
        }
        // Collect the IDs in row order. This is almost the order of the index, because newer IDs are usually greater.
        let mut ids: Vec<([u8; 16], u64)> = Vec::new();
        for (row, leaf) in stored.iter().zip(leaves) {
            self.rows += 1;
            self.first_seq.get_or_insert(row.seq);
            self.last_seq = Some(row.seq);
            self.next = row.seq + 1;
            let leaf = row.erased.as_ref().map_or(leaf, |erased| erased.statement.leaf);
            let sound = row.is_sound();
            if let Some(erased) = &row.erased {
                self.erased += 1;
                let (entry_seq, reason) = (erased.entry_seq, erased.statement.reason.clone());
                lines.push(VerifyLine::Erased { seq: row.seq, entry_seq, reason });
            }
            if let Some(reason) = row.checked.reason {
                let kind = if row.checked.integrity == Integrity::UnknownKey {
                    FindingKind::UnknownKey
                } else {
                    FindingKind::Row
                };
                found.push((Some(row.seq), kind, reason.to_owned()));
            }
            if let Some(fault) = self.walk.step(row.seq, sound.then_some((row.era, row.timestamp))) {
                found.push((Some(row.seq), FindingKind::Sequence, fault.to_string()));
            }
            for fault in self.tree.row(row.seq, leaf) {
                found.push((None, FindingKind::Checkpoint, fault));
            }
            self.note_hold(row);
            if let Some(fault) = self.index.row(conn, row) {
                found.push((None, FindingKind::Index, fault));
            }
            if sound && let Some(prefix) = Prefix::parse(&row.body) {
                ids.push((*prefix.id.as_bytes(), row.seq));
            }
        }
        for fault in self.tree.compare_tiles(conn)? {
            found.push((None, FindingKind::Tree, fault));
        }
        self.check_ids(conn, ids, &mut found)?;
        for (seq, kind, detail) in found {
            self.find(lines, seq, kind, detail);
        }
        Ok(())
    }

    /// Reports rows with a seq below 0 or above the last valid seq, because no read would ever return them.
    fn stray_rows(&mut self, conn: &Connection, lines: &mut Vec<VerifyLine>) -> rusqlite::Result<()> {
        let stray: u64 =
            conn.query_row("SELECT count(*) FROM entries WHERE seq < 0 OR seq > ?1", [SEQ_MAX], |row| row.get(0))?;
        if stray > 0 {
            let detail = format!("{stray} rows are numbered below 0 or above {SEQ_MAX}");
            self.find(lines, None, FindingKind::Sequence, detail);
        }
        let Some(health) = self.health.clone() else { return Ok(()) };
        // Read the table first and the writer's claim afterwards: rows that the writer commits in between are below the claim.
        let newest: Option<u64> =
            conn.query_row("SELECT max(seq) FROM entries WHERE seq BETWEEN 0 AND ?1", [SEQ_MAX], |row| row.get(0))?;
        let claimed = health.claimed();
        if newest.is_some_and(|newest| newest >= claimed) {
            let mut statement =
                conn.prepare("SELECT seq FROM entries WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq LIMIT ?3")?;
            let mut rows = statement.query((claimed, SEQ_MAX, FINDINGS_LISTED_MAX))?;
            while let Some(row) = rows.next()? {
                let seq = row.get(0)?;
                let detail = "the row's number is higher than that of the newest row that the node wrote".to_owned();
                self.find(lines, Some(seq), FindingKind::Sequence, detail);
            }
        }
        Ok(())
    }

    fn file(&mut self, conn: &Connection, lines: &mut Vec<VerifyLine>) -> rusqlite::Result<()> {
        let mut statement = conn.prepare("PRAGMA integrity_check(20)")?;
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let text: String = row.get(0)?;
            if text != "ok" {
                found.push(text);
            }
        }
        for text in found {
            self.find(lines, None, FindingKind::File, text);
        }
        Ok(())
    }
}

fn read_block(conn: &Connection, from: u64, head: u64) -> rusqlite::Result<Vec<StoredRow>> {
    let mut statement = conn.prepare_cached(
        "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
    )?;
    let mut rows = statement.query((from, head, BLOCK_ROWS))?;
    let mut stored = Vec::new();
    while let Some(row) = rows.next()? {
        stored.push(read_unchecked(row)?);
    }
    Ok(stored)
}

/// Checks the MACs of rows and computes their leaves, on two threads. These two hashes per row take most of the time of a full
/// check.
fn hash_both(rows: &mut [StoredRow], checker: &mut RowChecker) -> Vec<Hash> {
    let shared: &[StoredRow] = rows;
    let all = || shared.iter().map(|row| leaf_hash(&row.body, &row.mac)).collect::<Vec<_>>();
    let (leaves, checked) = std::thread::scope(|scope| {
        let leaves = scope.spawn(all);
        let checked: Vec<_> = shared.iter().map(|row| row.checked_by(checker)).collect();
        (leaves.join(), checked)
    });
    // The hashing thread never panics, but if it did, its work would be repeated here.
    let leaves = leaves.unwrap_or_else(|_| all());
    for (row, checked) in rows.iter_mut().zip(checked) {
        row.checked = checked;
    }
    leaves
}
