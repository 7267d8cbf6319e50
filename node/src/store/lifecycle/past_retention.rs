//! Retention of archived logs. The rows of an archived log are older than those of the log that replaced it. So when the first
//! rows of the current log are pruned, the archived logs are removed together with them, each log as a whole.
//!
//! A log is removed only if the first row of the current log, or of another log that is removed, names it. If a hold applies to
//! its rows, the log is kept, together with all later logs and rows. A log that is damaged, lacks rows or fails verification is
//! evidence: it is kept, and so are the logs before it.

use std::path::PathBuf;

use piperoll_format::ids::Generation;
use piperoll_format::statement::{Begun, EarlierPruned};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::{Integrity, RowChecker};
use piperoll_protocol::node::{FindingKind, VerifyLine};
use rusqlite::{Connection, ErrorCode};

use super::past_logs::folder_of;
use super::prune_request::PruneTarget;
use crate::store::engine::signer::mirrored_size;
use crate::store::offline::log::OfflineLog;
use crate::store::table::erased::row_at;
use crate::store::table::error::{AdminError, OpenError, ReadError};
use crate::store::table::holds::{HeldBy, holds};
use crate::store::table::keys::LogKeys;
use crate::store::table::log_dir::{LogDir, Opened};
use crate::store::table::log_start::{first_seq, floor};
use crate::store::table::mac_epochs::load_epochs;
use crate::store::table::rows::{self, entry_at};
use crate::store::table::time_search::Search;

/// Maximum number of logs that are removed in one prune; no node is expected to have as many.
const LOGS_MAX: usize = 16;
/// Maximum number of logs that one `log.pruned` entry names, including those removed by earlier prunes.
const NAMED_MAX: usize = 64;

/// Location of a log, with the keys for its MACs and signatures.
#[derive(Clone)]
pub(in crate::store) struct LogLocation {
    pub(in crate::store) dir: LogDir,
    pub(in crate::store) keys: LogKeys,
}

impl LogLocation {
    /// Returns the folder of an archived log.
    fn aside(&self, generation: Generation) -> LogDir {
        LogDir::new(folder_of(self.dir.path(), &generation.to_string()))
    }
}

/// Reason why it cannot be determined whether an archived log may be removed.
enum Obstacle {
    /// The log itself is damaged or incomplete, and is kept as evidence.
    Evidence(String),
    /// The log cannot be read at the moment.
    Now(String),
}

impl From<rusqlite::Error> for Obstacle {
    fn from(error: rusqlite::Error) -> Self {
        let message = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) | None => Self::Evidence(message),
            Some(_) => Self::Now(message),
        }
    }
}

impl From<OpenError> for Obstacle {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io { .. } | OpenError::InUse { .. } => Self::Now(error.to_string()),
            OpenError::Sqlite { path, source } => match source.into() {
                Self::Evidence(message) => Self::Evidence(format!("{}: {message}", path.display())),
                Self::Now(message) => Self::Now(format!("{}: {message}", path.display())),
            },
            other => Self::Evidence(other.to_string()),
        }
    }
}

impl From<ReadError> for Obstacle {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Sqlite(error) => error.into(),
            other => Self::Evidence(other.to_string()),
        }
    }
}

impl Obstacle {
    fn describe(self) -> String {
        let (Self::Evidence(message) | Self::Now(message)) = self;
        message
    }
}

/// An archived log, open for reading.
struct EarlierLog {
    opened: Opened,
    checker: RowChecker,
    rows: u64,
    /// The first row of the log, the newest time of the rows that were pruned before that row, and the logs that were removed
    /// with them.
    first: u64,
    newest_gone: Timestamp,
    gone: Vec<EarlierPruned>,
}

impl EarlierLog {
    fn open(place: &LogLocation, generation: Generation) -> Result<Self, Obstacle> {
        let evidence = Obstacle::Evidence;
        let dir = place.aside(generation);
        // Refuse a log that this user cannot remove; otherwise an entry would state that the log was pruned although it still
        // exists.
        dir.check_owner()?;
        if !dir.may_write() {
            return Err(evidence(format!("{} is not writable by this user", dir.path().display())));
        }
        let ring = &place.keys.ring;
        let opened = dir.open_reader(ring.cluster(), ring.node_id())?;
        if opened.generation != generation {
            return Err(evidence(format!("its folder contains the log of generation {}", opened.generation)));
        }
        let mut checker = RowChecker::new(ring.clone(), generation);
        let floor = floor(&opened.conn, &mut checker)?.map_err(evidence)?;
        load_epochs(&opened.conn, &mut checker, floor.as_ref())?.map_err(Obstacle::Evidence)?;
        let extent = rows::extent(&opened.conn)?;
        let rows = extent.head_seq.map_or(0, |head| head.saturating_add(1));
        let first = first_seq(floor.as_ref());
        let newest_gone = floor.as_ref().map_or(Timestamp::MIN, |floor| floor.pruned.newest);
        let gone = floor.map(|floor| floor.pruned.earlier).unwrap_or_default();
        Ok(Self { opened, checker, rows, first, newest_gone, gone })
    }

    /// Returns the newest time of the rows from `from` on.
    fn newest(&mut self, from: u64) -> rusqlite::Result<Option<Timestamp>> {
        newest(&self.opened.conn, &mut self.checker, from.max(self.first), self.rows)
    }

    /// Era of a row.
    fn era(&mut self, seq: u64) -> rusqlite::Result<Option<u32>> {
        Ok(row_at(&self.opened.conn, &mut self.checker, seq)?.map(|row| row.era))
    }

    /// Returns a description of a hold that applies to rows of this log: a hold of the log itself, or one of the current log
    /// (`present`).
    fn held(&mut self, present: &[HeldBy]) -> Result<Option<String>, Obstacle> {
        let own = holds(&self.opened.conn, &mut self.checker)?.map_err(Obstacle::Evidence)?;
        if let Some(held) = own.first() {
            let name = &held.hold.name;
            return Ok(Some(format!("the hold {name:?} of that log (release it with --generation)")));
        }
        let mut search = Search { conn: &self.opened.conn, checker: &mut self.checker };
        let eras = search.eras(self.first, self.rows)?;
        for held in present {
            if search.first_within(&eras, held.hold.from, held.hold.to)?.is_some() {
                return Ok(Some(format!("the hold {:?}", held.hold.name)));
            }
        }
        Ok(None)
    }
}

/// Returns the newest time of the rows in `from..to`, over all eras. A row that is missing or fails verification counts as
/// `Timestamp::MAX`.
pub(in crate::store) fn newest(
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

/// Returns what the first row of a log states about the log that it replaced, if that row is authentic.
pub(in crate::store) fn begun(conn: &Connection, checker: &mut RowChecker) -> rusqlite::Result<Option<Begun>> {
    let first = entry_at(conn, checker, 0)?.filter(|row| row.checked.integrity == Integrity::Ok);
    Ok(first.and_then(|row| Begun::read(&row.body)))
}

/// The archived logs to remove when the first rows of a log are pruned, and the reasons why other archived logs are kept.
#[derive(Default)]
pub(in crate::store) struct Leaving {
    /// Logs to remove, newest first.
    pub(in crate::store) logs: Vec<EarlierPruned>,
    /// Reason why a log, and therefore all later rows, must be kept.
    pub(in crate::store) kept: Option<String>,
    /// Reason why a log is kept as evidence; later rows may be pruned nevertheless.
    pub(in crate::store) evidence: Option<String>,
}

impl Leaving {
    /// Keeps the logs that the cluster's archive does not have in full, if the node is configured to wait for it.
    pub(in crate::store) fn keep_unarchived(&mut self, conn: &Connection, place: &LogLocation) -> rusqlite::Result<()> {
        if place.keys.archive.is_none() {
            return Ok(());
        }
        for EarlierPruned { generation, rows, .. } in &self.logs {
            let archived = mirrored_size(conn, &place.keys, *generation, false)?;
            if archived < *rows {
                self.kept = Some(format!(
                    "the log of generation {generation}, together with all later rows, is kept: only {archived} of its {rows} rows are known to be in the archive"
                ));
                break;
            }
        }
        Ok(())
    }
}

/// Decision about one archived log.
enum Fate {
    Goes(EarlierPruned, Option<Begun>),
    /// The log, and therefore all later rows, must be kept.
    Kept(String),
}

/// Determines which archived logs can be removed together with the first rows of the current log, and why others are kept.
pub(in crate::store) fn leaving(
    conn: &Connection,
    checker: &mut RowChecker,
    place: &LogLocation,
    wish: PruneTarget,
    held: &[HeldBy],
) -> Result<Leaving, AdminError> {
    let mut leaving = Leaving::default();
    let mut before = begun(conn, checker)?;
    while let Some(begun) = before.take() {
        let generation = begun.generation.as_ref().and_then(|text| text.parse::<Generation>().ok());
        let Some(generation) = generation.filter(|generation| {
            let is_new = leaving.logs.iter().all(|log| log.generation != *generation);
            is_new && leaving.logs.len() < LOGS_MAX && place.aside(*generation).path().is_dir()
        }) else {
            break;
        };
        match fate(place, generation, &begun, wish, held) {
            Ok(Fate::Goes(log, its)) => {
                leaving.logs.push(log);
                before = its;
            }
            Ok(Fate::Kept(message)) => {
                leaving.kept = Some(format!("the archived log {generation}, together with all later rows, {message}"))
            }
            Err(Obstacle::Evidence(message)) => {
                leaving.evidence =
                    Some(format!("the archived log {generation} is kept and must be removed by hand: {message}"));
            }
            Err(Obstacle::Now(message)) => {
                return Err(not_now(generation, &message));
            }
        }
    }
    Ok(leaving)
}

/// Decides whether one archived log can be removed. `begun_after` is the statement in the first entry of the log that replaced
/// this archived log.
fn fate(
    place: &LogLocation,
    generation: Generation,
    begun_after: &Begun,
    wish: PruneTarget,
    held: &[HeldBy],
) -> Result<Fate, Obstacle> {
    let mut log = EarlierLog::open(place, generation)?;
    let signed = begun_after.signed_rows.max(begun_after.witnessed_rows);
    let Some(had) = begun_after.rows.max(signed) else {
        return Err(Obstacle::Evidence(
            "its number of rows is unknown: it could not be read when it was archived".to_owned(),
        ));
    };
    if log.rows < had {
        return Err(Obstacle::Evidence(format!("it had {had} rows, but only {} are left", log.rows)));
    }
    if let Some(hold) = log.held(held)? {
        return Ok(Fate::Kept(format!("is kept by {hold}")));
    }
    // Rows that existed when the log was archived are older than the current log's rows, so check their age only if the request
    // prunes by time.
    let added_from = begun_after.rows.or(signed).unwrap_or_default();
    let added = log.newest(added_from)?;
    if added.is_some() && added_from > 0 && log.era(log.rows - 1)? != log.era(added_from - 1)? {
        let message = "rows were added to it after the clock had been set back, so their age is unknown";
        return Err(Obstacle::Evidence(message.to_owned()));
    }
    let young = if wish.before == Timestamp::MAX { added } else { log.newest(0)? };
    if let Some(newest) = young.filter(|newest| *newest >= wish.earlier_before) {
        return Ok(Fate::Kept(format!("is kept: it has a row as recent as {newest}")));
    }
    let before = begun(&log.opened.conn, &mut log.checker)?;
    Ok(Fate::Goes(EarlierPruned { generation, rows: log.rows, added }, before))
}

/// Reopens the logs that will be removed. Returns the logs that the `log.pruned` entry will name, and the newest time of all rows
/// in the reopened logs and of the rows that earlier prunes removed from them.
pub(in crate::store) fn named(
    place: &LogLocation,
    logs: &[EarlierPruned],
) -> Result<(Vec<EarlierPruned>, Timestamp), AdminError> {
    let (mut all, mut newest) = (logs.to_vec(), Timestamp::MIN);
    for log in logs {
        let mut open =
            EarlierLog::open(place, log.generation).map_err(|found| AdminError::Refused(found.describe()))?;
        newest = newest.max(open.newest(0)?.unwrap_or(Timestamp::MIN)).max(open.newest_gone);
        // Do not copy an old statement about a log that still exists, because only the current state of that log counts.
        open.gone.retain(|gone| !place.aside(gone.generation).path().is_dir());
        add(&mut all, &open.gone);
    }
    Ok((all, newest))
}

/// Adds the logs in `more` that are not in the list yet, up to `NAMED_MAX` logs in total.
pub(in crate::store) fn add(all: &mut Vec<EarlierPruned>, more: &[EarlierPruned]) {
    for log in more {
        if all.len() < NAMED_MAX && all.iter().all(|known| known.generation != log.generation) {
            all.push(log.clone());
        }
    }
}

/// Returns the oldest time of a row in the archived logs that would be removed together with the first rows of the current log.
pub(in crate::store) fn oldest(
    conn: &Connection,
    checker: &mut RowChecker,
    place: &LogLocation,
) -> Result<Option<Timestamp>, AdminError> {
    let wish = PruneTarget { before: Timestamp::MAX, to_max: u64::MAX, earlier_before: Timestamp::MAX };
    let mut oldest = None;
    for log in leaving(conn, checker, place, wish, &[])?.logs {
        if let Ok(mut open) = EarlierLog::open(place, log.generation) {
            let first = row_at(&open.opened.conn, &mut open.checker, open.first)?.map(|row| row.timestamp);
            oldest = oldest.into_iter().chain(first).min();
        }
    }
    Ok(oldest)
}

/// Verifies an entire log as `node verify` does, including all checkpoints that were signed over it. Returns a description of
/// the first fault; a damaged index does not count as a fault.
pub(in crate::store) fn verify(place: &LogLocation, log: &EarlierPruned) -> Result<Option<String>, AdminError> {
    let verified = || -> Result<Option<String>, Obstacle> {
        let direct = OfflineLog::open(&place.aside(log.generation), place.keys.clone())?;
        let mut check = direct.check()?;
        while !check.done() {
            let lines = direct.check_step(&mut check)?;
            let mut findings = lines.into_iter().filter_map(|line| match line {
                VerifyLine::Finding(finding) if finding.kind != FindingKind::Index => Some(finding.detail),
                _ => None,
            });
            if let Some(detail) = findings.next() {
                return Ok(Some(detail));
            }
        }
        Ok(None)
    };
    match verified() {
        Ok(found) => Ok(found),
        Err(Obstacle::Evidence(message)) => Ok(Some(message)),
        Err(Obstacle::Now(message)) => Err(not_now(log.generation, &message)),
    }
}

fn not_now(generation: Generation, message: &str) -> AdminError {
    AdminError::Refused(format!("the archived log {generation} cannot be read now: {message}"))
}

/// Removes a log that a `log.pruned` entry names, unless something was recorded or changed in the log after that entry; the
/// error states why the log was kept.
///
/// The caller must make sure that a witness has cosigned the `log.pruned` entry. The folder is renamed first, so that after a
/// crash it is not mistaken for a log; the next call removes the renamed folder.
pub(in crate::store) fn remove(place: &LogLocation, log: &EarlierPruned, held: &[HeldBy]) -> Result<bool, String> {
    let going: PathBuf = folder_of(place.dir.path(), &format!("going-{}", log.generation));
    let io = |error: std::io::Error| error.to_string();
    if going.is_dir() {
        std::fs::remove_dir_all(&going).map_err(io)?;
    }
    let folder = place.aside(log.generation);
    if !folder.path().is_dir() {
        return Ok(false);
    }
    // Hold the lock until everything is removed, so that an operator can record something in the log only before the removal,
    // and not during it.
    let _lock = folder.lock_existing().map_err(|e| e.to_string())?;
    let mut open = EarlierLog::open(place, log.generation).map_err(Obstacle::describe)?;
    if open.rows != log.rows {
        return Err(format!("it had {} rows when it was recorded as pruned, but has {} now", log.rows, open.rows));
    }
    if let Some(hold) = open.held(held).map_err(Obstacle::describe)? {
        return Err(format!("it is kept by {hold}"));
    }
    drop(open);
    if let Some(message) = verify(place, log).map_err(|e| e.to_string())? {
        return Err(message);
    }
    std::fs::rename(folder.path(), &going).map_err(io)?;
    std::fs::remove_dir_all(&going).map_err(io)?;
    Ok(true)
}
