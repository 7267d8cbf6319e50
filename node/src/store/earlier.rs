//! Logs that the present one took the place of, when its first rows are pruned: their rows are older than these, and they go with them,
//! whole.
//!
//! Only a log that the present one names in its first row, or that such a log names, goes. A hold on its rows keeps it, and with it all
//! that follows. One that cannot be read, lacks rows or fails verification is evidence: it stays, and so do those before it.

use std::path::PathBuf;

use piperoll_shared::log::ids::Generation;
use piperoll_shared::log::seal::KeyRing;
use piperoll_shared::log::statement::{Begun, EarlierPruned};
use piperoll_shared::log::time::Timestamp;
use piperoll_shared::log::verify::{Integrity, RowChecker};
use rusqlite::Connection;

use super::LogDir;
use super::aside::folder_of;
use super::epochs::teach;
use super::floor::{entry_at, first_seq, floor, row_at};
use super::hold::{HeldUnder, holds};
use super::open::Opened;
use super::prune::{PruneCheck, PruneWish};
use super::rows;
use super::search::Search;
use super::upkeep::UpkeepError;

/// Logs that go with one prune; no node has as many.
const LOGS_MAX: usize = 16;
/// Logs that one statement names, those of prunes before included.
const NAMED_MAX: usize = 64;

/// Where a log stands, and what its rows are sealed with.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) dir: LogDir,
    pub(super) ring: KeyRing,
}

/// A log that was put aside, open to be read.
struct EarlierLog {
    opened: Opened,
    checker: RowChecker,
    rows: u64,
    /// Where it begins, and which logs went with its own first rows.
    first: u64,
    gone: Vec<EarlierPruned>,
}

impl EarlierLog {
    /// In words why it cannot be read.
    fn open(place: &Place, generation: Generation) -> Result<Self, String> {
        let dir = LogDir::new(folder_of(place.dir.path(), &generation.to_string()));
        let opened = dir.open_reader(place.ring.cluster(), place.ring.node_id()).map_err(|e| e.to_string())?;
        if opened.generation != generation {
            return Err(format!("the log in its folder is generation {}", opened.generation));
        }
        let mut checker = RowChecker::new(place.ring.clone(), generation);
        let sql = |error: rusqlite::Error| error.to_string();
        let floor = floor(&opened.conn, &mut checker).map_err(sql)??;
        teach(&opened.conn, &mut checker, floor.as_ref()).map_err(sql)??;
        let extent = rows::extent(&opened.conn).map_err(sql)?;
        let rows = extent.head_seq.map_or(0, |head| head.saturating_add(1));
        let first = first_seq(floor.as_ref());
        let gone = floor.map(|floor| floor.pruned.earlier).unwrap_or_default();
        Ok(Self { opened, checker, rows, first, gone })
    }

    /// The newest time of rows from `from` on.
    fn newest(&mut self, from: u64) -> rusqlite::Result<Option<Timestamp>> {
        newest(&self.opened.conn, &mut self.checker, from.max(self.first), self.rows)
    }

    /// A hold that keeps some of its rows, in words: one of its own, or one of the log that took its place.
    fn held(&mut self, present: &[HeldUnder]) -> rusqlite::Result<Result<Option<String>, String>> {
        let own = match holds(&self.opened.conn, &mut self.checker)? {
            Ok(own) => own,
            Err(words) => return Ok(Err(words)),
        };
        if let Some(held) = own.first() {
            return Ok(Ok(Some(format!(
                "the hold {:?}, which is to be released there (--generation)",
                held.hold.name
            ))));
        }
        let mut search = Search { conn: &self.opened.conn, checker: &mut self.checker };
        let eras = search.eras(self.first, self.rows)?;
        for held in present {
            if search.first_within(&eras, held.hold.from, held.hold.to)?.is_some() {
                return Ok(Ok(Some(format!("the hold {:?}", held.hold.name))));
            }
        }
        Ok(Ok(None))
    }
}

/// The newest time of the rows in `from..to`, in whatever era; a row that is not there or fails has the latest one of all.
pub(super) fn newest(
    conn: &Connection,
    checker: &mut RowChecker,
    from: u64,
    to: u64,
) -> rusqlite::Result<Option<Timestamp>> {
    let mut newest = None;
    for (_, end) in (Search { conn, checker: &mut *checker }).eras(from, to)? {
        let row = row_at(conn, checker, end - 1)?;
        newest = newest.max(Some(row.map_or(Timestamp::MAX, |row| row.timestamp)));
    }
    Ok(newest)
}

/// What an authentic first row says of the log before.
fn begun(conn: &Connection, checker: &mut RowChecker) -> rusqlite::Result<Option<Begun>> {
    let first = entry_at(conn, checker, 0)?.filter(|row| row.checked.integrity == Integrity::Ok);
    Ok(first.and_then(|row| Begun::read(&row.body)))
}

/// What becomes of earlier logs when the first rows of a log go.
#[derive(Default)]
pub(super) struct Leaving {
    /// Those that go, the newest first.
    pub(super) logs: Vec<EarlierPruned>,
    /// Why one has to stay, and all rows that follow with it.
    pub(super) kept: Option<String>,
    /// Why one stays although later rows may go.
    pub(super) evidence: Option<String>,
}

/// Finds the logs that are older than row 0.
pub(super) fn leaving(
    conn: &Connection,
    checker: &mut RowChecker,
    place: &Place,
    wish: PruneWish,
    held: &[HeldUnder],
) -> rusqlite::Result<Leaving> {
    let mut leaving = Leaving::default();
    let mut before = begun(conn, checker)?;
    while let Some(begun_after) = before.take() {
        let generation = begun_after.generation.as_ref().and_then(|text| text.parse::<Generation>().ok());
        let Some(generation) = generation.filter(|generation| {
            let is_new = leaving.logs.iter().all(|log| log.generation != *generation);
            is_new && leaving.logs.len() < LOGS_MAX && folder_of(place.dir.path(), &generation.to_string()).is_dir()
        }) else {
            break;
        };
        let evidence =
            |words: &str| format!("the earlier log {generation} stays, and is to be removed by hand: {words}");
        let mut log = match EarlierLog::open(place, generation) {
            Ok(log) => log,
            Err(words) => {
                leaving.evidence = Some(evidence(&words));
                break;
            }
        };
        let signed = begun_after.signed_rows.max(begun_after.witnessed_rows).unwrap_or_default();
        let had = begun_after.rows.unwrap_or_default().max(signed);
        if log.rows < had {
            leaving.evidence = Some(evidence(&format!("it had {had} rows, and {} are here", log.rows)));
            break;
        }
        match log.held(held)? {
            Ok(None) => {}
            Ok(Some(hold)) => {
                leaving.kept = Some(format!("the earlier log {generation}, and what follows, is kept by {hold}"));
                break;
            }
            Err(words) => {
                leaving.evidence = Some(evidence(&words));
                break;
            }
        }
        // Of rows that were in it when it was put aside the present log's own age says enough, unless times decide.
        let young_from = if wish.before == Timestamp::MAX { begun_after.rows.unwrap_or(signed) } else { 0 };
        if let Some(newest) = log.newest(young_from)?.filter(|newest| *newest >= wish.earlier_before) {
            let words = format!("the earlier log {generation}, and what follows, stays: it has a row of {newest}");
            leaving.kept = Some(words);
            break;
        }
        leaving.logs.push(EarlierPruned { generation, rows: log.rows });
        before = begun(&log.opened.conn, &mut log.checker)?;
    }
    Ok(leaving)
}

/// Opens those that go once more; returns what the statement names and the newest time of a row of theirs.
pub(super) fn named(place: &Place, logs: &[EarlierPruned]) -> Result<(Vec<EarlierPruned>, Timestamp), UpkeepError> {
    let (mut all, mut newest) = (logs.to_vec(), Timestamp::MIN);
    for log in logs {
        let mut open = EarlierLog::open(place, log.generation).map_err(UpkeepError::Refused)?;
        newest = newest.max(open.newest(0)?.unwrap_or(Timestamp::MIN));
        add(&mut all, &open.gone);
    }
    Ok((all, newest))
}

/// Adds those that are not among them yet.
pub(super) fn add(all: &mut Vec<EarlierPruned>, more: &[EarlierPruned]) {
    for log in more {
        if all.len() < NAMED_MAX && all.iter().all(|known| known.generation != log.generation) {
            all.push(log.clone());
        }
    }
}

/// The oldest time of a row in a log that goes with the first rows of the present one.
pub(super) fn oldest(
    conn: &Connection,
    checker: &mut RowChecker,
    place: &Place,
) -> rusqlite::Result<Option<Timestamp>> {
    let wish = PruneWish { before: Timestamp::MAX, to_max: u64::MAX, earlier_before: Timestamp::MAX };
    let mut oldest = None;
    for log in leaving(conn, checker, place, wish, &[])?.logs {
        if let Ok(mut open) = EarlierLog::open(place, log.generation) {
            let first = row_at(&open.opened.conn, &mut open.checker, open.first)?.map(|row| row.timestamp);
            oldest = oldest.into_iter().chain(first).min();
        }
    }
    Ok(oldest)
}

/// The check of a log that is about to go, between two steps.
pub(super) struct EarlierCheck {
    log: EarlierLog,
    check: PruneCheck,
}

impl EarlierCheck {
    pub(super) fn new(place: &Place, log: &EarlierPruned) -> Result<Self, UpkeepError> {
        let open = EarlierLog::open(place, log.generation).map_err(UpkeepError::Refused)?;
        let check = PruneCheck::new(open.first, open.rows);
        Ok(Self { log: open, check })
    }

    /// Reads on; whether all is read. The first row that fails ends it.
    pub(super) fn step(&mut self) -> Result<bool, UpkeepError> {
        self.check.step(&self.log.opened.conn, &mut self.log.checker)
    }
}

/// Removes a log that was stated as gone, unless something was recorded in it since. In words why it is still there.
///
/// Whoever calls has seen the statement witnessed. Its folder gets another name first: a crash behind that leaves one that nobody takes
/// for a log, and that the next call removes.
pub(super) fn remove(place: &Place, log: &EarlierPruned, held: &[HeldUnder]) -> Result<bool, String> {
    let beside = |suffix: String| -> PathBuf { folder_of(place.dir.path(), &suffix) };
    let (folder, going) = (beside(log.generation.to_string()), beside(format!("going-{}", log.generation)));
    let io = |error: std::io::Error| error.to_string();
    let is_there = folder.is_dir();
    if is_there {
        // Held until all is gone: an operator who records something in it comes before or finds no log.
        let _lock = LogDir::new(&folder).lock_existing().map_err(|e| e.to_string())?;
        let mut open = EarlierLog::open(place, log.generation)?;
        if open.rows != log.rows {
            return Err(format!("it had {} rows when it was stated as pruned, and has {} now", log.rows, open.rows));
        }
        if let Some(hold) = open.held(held).map_err(|e| e.to_string())?? {
            return Err(format!("it is kept by {hold}"));
        }
        drop(open);
        std::fs::rename(&folder, &going).map_err(io)?;
    }
    if going.is_dir() {
        std::fs::remove_dir_all(&going).map_err(io)?;
    }
    Ok(is_there)
}
