//! Prunes the oldest rows. The order of the steps ensures that a crash never loses rows that were not recorded as pruned.
//!
//! 1. *Plan*: determine the cut, that is, the seq below which rows are pruned. It is rounded down to a full tile, and every
//!    row below it has been witnessed and is not under a hold.
//! 2. *Check*: read every row that would be pruned. A row that fails verification is evidence; in that case nothing is dropped.
//! 3. *State*: one transaction writes the entry `log.pruned` and moves the log start. From then on, the rows no longer belong to
//!    the log.
//! 4. Once a witness has cosigned that entry: *drop* the rows in small batches, comparing each tile with its rows once more, and
//!    remove the archived logs that the entry names.
//! 5. *Finish*: shrink the file in small steps, and record the space freed in a second `log.pruned` entry.
//!
//! Every step can be repeated; a node that restarts continues where it stopped.

use std::sync::PoisonError;

use piperoll_format::entry::Prefix;
use piperoll_format::merkle::{Hash, TILE_LEVELS, TILE_WIDTH, TreeReader, perfect_root};
use piperoll_format::statement::{ArchiveDigest, PruneFinished, Pruned, Statement};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::RowChecker;
use piperoll_protocol::node::PrunePlan;
use rusqlite::Connection;

use super::past_retention::{self, LogLocation};
use super::prune_request::PruneTarget;
use crate::store::engine::signer::mirrored_size;
use crate::store::engine::writer::{WAL_TRIES, Writer};
use crate::store::table::erased::{self, row_at};
use crate::store::table::error::{AdminError, refused};
use crate::store::table::holds::{HoldScan, holds};
use crate::store::table::log_start::{first_seq, floor, unfinished};
use crate::store::table::mac_epochs::load_epochs;
use crate::store::table::rows::read_row;
use crate::store::table::tiles::{StoredTiles, leaves, stored_roots, stored_tile, tile_id};
use crate::store::table::time_search::Search;

/// Number of tiles whose rows are dropped in one transaction; such a transaction may delay an append by a few milliseconds.
const TILES_PER_BATCH: u64 = 8;
/// Number of tiles whose rows are read in one step of the check that precedes a prune.
const TILES_PER_STEP: u64 = 16;
/// Number of pages returned to the file system in one transaction (4 MiB).
const PAGES_PER_VACUUM: u32 = 1_024;

/// Determines which rows a request would prune now, and what limits the prune.
pub(in crate::store) fn plan(
    conn: &Connection,
    checker: &mut RowChecker,
    wish: PruneTarget,
    witnessed: u64,
    place: &LogLocation,
) -> Result<PrunePlan, AdminError> {
    let first = first_seq(refused(floor(conn, checker)?)?.as_ref());
    let held = refused(holds(conn, checker)?)?;
    let end: u64 = conn.query_row("SELECT coalesce(max(seq) + 1, 0) FROM entries", [], |row| row.get(0))?;
    let generation = checker.generation();
    let mut search = Search { conn, checker };
    let eras = search.eras(first, end)?;
    let mut cut = search.first_within(&eras, wish.before, Timestamp::MAX)?.unwrap_or(end).min(wish.to_max);
    let mut limits = Vec::new();
    if witnessed < cut {
        cut = witnessed;
        limits.push(format!("row {witnessed} and all later rows have not been seen by a witness yet"));
    }
    if place.keys.archive.is_some() {
        let archived = mirrored_size(conn, &place.keys, generation, true)?;
        if archived < cut {
            cut = archived;
            limits.push(format!("row {archived} and all later rows are not known to be in the archive"));
        }
    }
    for held in &held {
        let of_range = search.first_within(&eras, held.hold.from, held.hold.to)?.unwrap_or(end);
        let keeps = of_range.min(held.entry_seq);
        if keeps < cut {
            cut = keeps;
            limits.push(format!("the hold {:?} keeps row {keeps} and all later rows", held.hold.name));
        }
    }
    let mut to_seq = (cut / TILE_WIDTH * TILE_WIDTH).max(first);
    let mut earlier = Vec::new();
    // Archived logs are older than all rows of the current log, and only row 0 names the log that was replaced. So archived logs
    // can be removed only together with row 0.
    if first == 0 && to_seq > 0 {
        let mut leaving = past_retention::leaving(conn, checker, place, wish, &held)?;
        leaving.keep_unarchived(conn, place)?;
        limits.extend(leaving.evidence);
        earlier = leaving.logs;
        if let Some(message) = leaving.kept {
            limits.push(message);
            (to_seq, earlier) = (first, Vec::new());
        }
    }
    let time = |checker: &mut RowChecker, seq: Option<u64>| -> rusqlite::Result<Option<Timestamp>> {
        let Some(seq) = seq.filter(|seq| (first..to_seq).contains(seq)) else { return Ok(None) };
        Ok(row_at(conn, checker, seq)?.map(|row| row.timestamp))
    };
    let oldest = time(checker, Some(first))?;
    let newest = time(checker, to_seq.checked_sub(1))?;
    Ok(PrunePlan { from_seq: first, to_seq, oldest, newest, limits, earlier, unconfirmed_from: None })
}

/// Maximum bytes of an archive's name.
const ARCHIVE_NAME_BYTES_MAX: usize = 255;

fn check_archive(archive: Option<&ArchiveDigest>) -> Result<(), AdminError> {
    let Some(ArchiveDigest { name, sha256 }) = archive else { return Ok(()) };
    let named = !name.is_empty() && name.len() <= ARCHIVE_NAME_BYTES_MAX && !name.chars().any(char::is_control);
    if named && sha256.len() == 64 && sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(());
    }
    let message = format!(
        "an archive must have a name of 1 to {ARCHIVE_NAME_BYTES_MAX} bytes and a SHA-256 of 64 hexadecimal digits"
    );
    Err(AdminError::Refused(message))
}

impl Search<'_> {
    /// Returns the first row of the log with a time in `from..to`. A row that fails verification counts as being in this range.
    pub(in crate::store) fn first_within(
        &mut self,
        eras: &[(u64, u64)],
        from: Timestamp,
        to: Timestamp,
    ) -> rusqlite::Result<Option<u64>> {
        for (first, end) in eras {
            let part = self.within(*first, *end, from, to)?;
            if part.start < part.end {
                return Ok(Some(part.start));
            }
        }
        Ok(None)
    }
}

/// Progress of the check of rows to be pruned, between two steps.
pub(in crate::store) struct PruneCheck {
    next: u64,
    to: u64,
    holds: HoldScan,
}

impl PruneCheck {
    pub(in crate::store) fn new(from: u64, to: u64) -> Self {
        Self { next: from, to, holds: HoldScan::new(from) }
    }

    /// Reads the next rows. Returns whether all rows have been read; fails at the first row that fails verification.
    pub(in crate::store) fn step(&mut self, conn: &Connection, checker: &mut RowChecker) -> Result<bool, AdminError> {
        if self.next >= self.to {
            return self.holds.step(conn, checker);
        }
        let floor = refused(floor(conn, checker)?)?;
        refused(load_epochs(conn, checker, floor.as_ref())?)?;
        let end = self.to.min(self.next + TILES_PER_STEP * TILE_WIDTH);
        let evidence = |seq: u64, why: &str| {
            AdminError::Refused(format!(
                "row {seq}: {why}; pruning would destroy evidence, so nothing was pruned (run `piperoll node verify` for details)"
            ))
        };
        let mut statement = conn.prepare_cached(
            "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq",
        )?;
        let mut rows = statement.query((self.next, end))?;
        let mut tile: Vec<Hash> = Vec::new();
        while let Some(row) = rows.next()? {
            let mut row = read_row(row, checker)?;
            erased::recognise(conn, checker, &mut row)?;
            if row.seq != self.next {
                break;
            }
            if !row.is_sound() {
                return Err(evidence(row.seq, row.checked.reason.unwrap_or("fails verification")));
            }
            tile.push(row.leaf());
            self.next += 1;
            if tile.len() as u64 == TILE_WIDTH {
                let index = self.next / TILE_WIDTH - 1;
                if stored_tile(conn, 0, index).ok().as_ref() != Some(&tile) || !root_fits(conn, index, &tile)? {
                    return Err(evidence(index * TILE_WIDTH, "this row and those after it do not match the tree"));
                }
                tile.clear();
            }
        }
        if self.next < end {
            return Err(evidence(self.next, "is missing"));
        }
        Ok(false)
    }
}

/// Returns whether the root of a tile's hashes equals the stored roots: the root in the tile's own row and, if the tile above is
/// full, the root in that tile.
fn root_fits(conn: &Connection, index: u64, tile: &[Hash]) -> Result<bool, AdminError> {
    let root = perfect_root(tile);
    let above = stored_tile(conn, 1, index / TILE_WIDTH).ok();
    let there = above.and_then(|above| above.get(usize::try_from(index % TILE_WIDTH).ok()?).copied());
    Ok(stored_roots(conn, 0, index, index + 1)? == [root] && there.is_none_or(|there| there == root))
}

/// The steps of a prune that change the log, run on the writer's thread.
pub(in crate::store) struct Pruner<'a> {
    writer: &'a mut Writer,
}

impl<'a> Pruner<'a> {
    pub(in crate::store) fn new(writer: &'a mut Writer) -> Self {
        Self { writer }
    }

    /// Records the planned prune in a `log.pruned` entry, and moves the log start to the end of the planned rows. The caller must
    /// have checked the rows.
    pub(in crate::store) fn state(
        &mut self,
        wish: PruneTarget,
        checked: &PrunePlan,
        policy: &str,
        archive: Option<ArchiveDigest>,
    ) -> Result<Pruned, AdminError> {
        check_archive(archive.as_ref())?;
        let mut checker = self.writer.checker();
        if unfinished(self.writer.conn(), &mut checker)?.is_some() {
            return Err(AdminError::Refused(
                "an earlier prune is not finished yet; try again when it has finished".to_owned(),
            ));
        }
        // Plan once more, because a hold may have been set since the check.
        let place = LogLocation { dir: self.writer.dir().clone(), keys: self.writer.keys().clone() };
        let now = plan(self.writer.conn(), &mut checker, wish, self.writer.witnessed_size(), &place)?;
        let same_logs = now.earlier.starts_with(&checked.earlier);
        if now.from_seq != checked.from_seq || now.to_seq < checked.to_seq || !same_logs {
            return Err(AdminError::Refused(
                "the rows that may be pruned have changed in the meantime; try again".to_owned(),
            ));
        }
        let (from_seq, to_seq) = (checked.from_seq, checked.to_seq);
        if to_seq <= from_seq {
            return Err(AdminError::Refused("nothing to prune".to_owned()));
        }
        refused(self.writer.check_signed()?)?;
        let floor_now = refused(floor(self.writer.conn(), &mut checker)?)?;
        refused(load_epochs(self.writer.conn(), &mut checker, floor_now.as_ref())?)?;
        let last = row_at(self.writer.conn(), &mut checker, to_seq - 1)?
            .filter(crate::store::table::rows::StoredRow::is_sound);
        let last = last.ok_or_else(|| AdminError::Refused(format!("row {} fails verification", to_seq - 1)))?;
        let (mut earlier, newest) = past_retention::named(&place, &checked.earlier)?;
        let mut newest =
            newest.max(past_retention::newest(self.writer.conn(), &mut checker, from_seq, to_seq)?.unwrap_or(newest));
        if let Some(floor) = floor_now {
            newest = newest.max(floor.pruned.newest);
            past_retention::add(&mut earlier, &floor.pruned.earlier);
        }
        let root = TreeReader::new(StoredTiles(self.writer.conn()), self.writer.next_seq()).root(to_seq)?;
        let pruned = Pruned {
            from_seq,
            to_seq,
            epoch: last.epoch,
            era: last.era,
            last_timestamp: last.timestamp,
            newest,
            root,
            policy: policy.to_owned(),
            archive,
            witnessed: self.writer.ages().lock().unwrap_or_else(PoisonError::into_inner).note_over(to_seq),
            earlier,
        };
        let statement = Statement::Pruned(pruned.clone());
        self.writer.transact(|transaction, now| {
            let entry_seq = transaction.state(&statement, now)?;
            transaction
                .conn()
                .execute("INSERT INTO pruned (to_seq, entry_seq) VALUES (?1, ?2)", (to_seq, entry_seq))?;
            Ok(())
        })?;
        Ok(pruned)
    }

    /// Drops the next batch of pruned rows. Returns true if there was no row below the log start left to drop. The caller must
    /// make sure that a witness has cosigned the `log.pruned` entry.
    pub(in crate::store) fn drop_batch(&mut self) -> Result<bool, AdminError> {
        let mut checker = self.writer.checker();
        let Some(floor) = unfinished(self.writer.conn(), &mut checker)? else { return Ok(true) };
        let (seq, to) = (floor.pruned.to_seq, floor.pruned.to_seq);
        self.writer
            .index()
            .cut(seq)
            .map_err(|error| AdminError::Refused(format!("cannot remove the pruned rows from the index: {error}")))?;
        let first: Option<u64> =
            self.writer
                .conn()
                .query_row("SELECT min(seq) FROM entries WHERE seq >= 0 AND seq < ?1", [to], |row| row.get(0))?;
        let Some(first) = first else {
            self.tidy_tiles(seq)?;
            return Ok(true);
        };
        let from = first / TILE_WIDTH * TILE_WIDTH;
        let to = to.min(from + TILES_PER_BATCH * TILE_WIDTH);
        let ids = self.check_going(from, to)?;
        let full_above = self.writer.next_seq() >> (2 * TILE_LEVELS) << TILE_LEVELS;
        self.writer.transact(|transaction, _| {
            let mut drop_id = transaction.conn().prepare_cached("DELETE FROM ids WHERE id = ?1 AND seq = ?2")?;
            for (id, seq) in &ids {
                drop_id.execute((&id[..], seq))?;
            }
            transaction.conn().execute("DELETE FROM entries WHERE seq >= ?1 AND seq < ?2", (from, to))?;
            transaction.conn().execute("DELETE FROM erased WHERE seq >= ?1 AND seq < ?2", (from, to))?;
            drop_tiles(transaction.conn(), 0, from / TILE_WIDTH..to / TILE_WIDTH, full_above)?;
            Ok(())
        })?;
        Ok(false)
    }

    /// Compares the rows `from..to` with their tiles once more, and returns the IDs to be dropped.
    fn check_going(&self, from: u64, to: u64) -> Result<Vec<(Vec<u8>, u64)>, AdminError> {
        for index in from / TILE_WIDTH..to / TILE_WIDTH {
            let first = index * TILE_WIDTH;
            let made = leaves(self.writer.conn(), first, first + TILE_WIDTH)?;
            if stored_tile(self.writer.conn(), 0, index).ok() != Some(made) {
                return Err(AdminError::Refused(format!(
                    "rows from {first} on were changed after they were checked; they are kept as evidence"
                )));
            }
        }
        let mut statement =
            self.writer.conn().prepare_cached("SELECT seq, body FROM entries WHERE seq >= ?1 AND seq < ?2")?;
        let mut rows = statement.query((from, to))?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next()? {
            let body = row.get_ref(1)?.as_bytes().unwrap_or_default();
            if let Some(prefix) = Prefix::parse(body) {
                ids.push((prefix.id.as_bytes().to_vec(), row.get(0)?));
            }
        }
        // The body of an erased row is empty, so read its ID from the table `erased`.
        let mut statement =
            self.writer.conn().prepare_cached("SELECT id, seq FROM erased WHERE seq >= ?1 AND seq < ?2")?;
        let mut rows = statement.query((from, to))?;
        while let Some(row) = rows.next()? {
            ids.push((row.get(0)?, row.get(1)?));
        }
        Ok(ids)
    }

    /// Drops the tiles below the log start on every level.
    fn tidy_tiles(&mut self, floor: u64) -> Result<(), AdminError> {
        let size = self.writer.next_seq();
        self.writer.transact(|transaction, _| {
            for level in 0..TILE_LEVELS {
                let below = floor.checked_shr(TILE_LEVELS * (level + 1)).unwrap_or(0);
                let full_above = size.checked_shr(TILE_LEVELS * (level + 2)).unwrap_or(0) << TILE_LEVELS;
                drop_tiles(transaction.conn(), level, 0..below, full_above)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Gives some free pages back to the file system. Returns true if no free page is left or none could be given back.
    pub(in crate::store) fn shrink(&mut self) -> Result<bool, AdminError> {
        let before: u64 = self.writer.conn().query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if before > 0 {
            let mut statement =
                self.writer.conn().prepare(&format!("PRAGMA incremental_vacuum({PAGES_PER_VACUUM})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        let after: u64 = self.writer.conn().query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        Ok(after == 0 || after == before)
    }

    /// Records the end of a prune, whose rows have all been dropped. Returns `None` if there is no unfinished prune.
    pub(in crate::store) fn finish(&mut self, bytes_freed: u64) -> Result<Option<PruneFinished>, AdminError> {
        let mut checker = self.writer.checker();
        let Some(floor) = unfinished(self.writer.conn(), &mut checker)? else { return Ok(None) };
        let (from_seq, to_seq) = (floor.pruned.from_seq, floor.pruned.to_seq);
        let finished = PruneFinished { to_seq, rows: to_seq - from_seq, bytes_freed };
        let statement = Statement::PruneFinished(finished.clone());
        self.writer.transact(|transaction, now| {
            let entry_seq = transaction.state(&statement, now)?;
            transaction.conn().execute("UPDATE pruned SET finished_seq = ?1 WHERE to_seq = ?2", (entry_seq, to_seq))?;
            Ok(())
        })?;
        // The file only shrinks when the WAL is checkpointed into it.
        self.writer.empty_wal(WAL_TRIES);
        Ok(Some(finished))
    }
}

/// Size in bytes of all pages of the file, used or free.
pub(in crate::store) fn file_bytes(conn: &Connection) -> rusqlite::Result<u64> {
    let read = |name: &str| conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, u64>(0));
    Ok(read("page_count")? * read("page_size")?)
}

/// Drops the hashes of the tiles `indexes`, which are below the log start. A full tile of the next level contains their roots.
/// Until that tile is full, the roots stay in the tiles' own rows, because the tile of the next level is built from them.
fn drop_tiles(conn: &Connection, level: u32, indexes: std::ops::Range<u64>, full_above: u64) -> rusqlite::Result<()> {
    let gone = indexes.end.min(full_above).max(indexes.start);
    conn.prepare_cached("DELETE FROM tiles WHERE id >= ?1 AND id < ?2")?
        .execute((tile_id(level, indexes.start), tile_id(level, gone)))?;
    conn.prepare_cached("UPDATE tiles SET hashes = x'' WHERE id >= ?1 AND id < ?2 AND length(hashes) > 0")?
        .execute((tile_id(level, gone), tile_id(level, indexes.end)))
        .map(|_| ())
}

/// Size in bytes of the used pages, which is compared with the size limit of the log.
pub(in crate::store) fn used_bytes(conn: &Connection) -> rusqlite::Result<u64> {
    let free: u64 = conn.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    let page: u64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    Ok(file_bytes(conn)?.saturating_sub(free * page))
}
