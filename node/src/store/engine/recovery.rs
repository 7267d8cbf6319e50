//! Recovery when a log is opened: checks the last row, the tree, and the last signed checkpoint.

use piperoll_format::entry::{NODE_CATEGORY, Prefix};
use piperoll_format::ids::Generation;
use piperoll_format::merkle::TreeBuilder;
use piperoll_format::note::KeyKind;
use piperoll_format::statement::Statement;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::{Integrity, RowChecker};
use piperoll_format::view::EntryView;
use rusqlite::Connection;

use super::integrator::TreeIntegrator;
use super::signer::{NoteCopy, Signer};
use super::transaction::AppendPosition;
use crate::store::table::erased;
use crate::store::table::health::Health;
use crate::store::table::keys::LogKeys;
use crate::store::table::log_dir::LogDir;
use crate::store::table::log_start::floor;
use crate::store::table::rows::{SEQ_MAX, StoredRow, read_row};
use crate::store::table::schema;
use crate::store::table::tiles::{self, TreeError};

/// Maximum number of rows that are read, from the newest backwards, to find out whether the last stop was clean.
const LOOK_BACK_ROWS: u32 = 10_000;

/// State of the writer as read from disk.
pub(super) struct Recovered {
    /// Position after the last *committed* row.
    pub(super) end: AppendPosition,
    /// Key epoch of the newest row.
    pub(super) last_epoch: Option<u32>,
    /// `None` when the stored tree cannot be used; the log then refuses appends.
    pub(super) tree: Option<TreeIntegrator>,
    /// `None` when the earlier checkpoints cannot be used; the log then refuses appends.
    pub(super) signer: Option<Signer>,
}

/// Reads the state at the end of a log that was just opened for writing.
pub(super) struct Recovery<'a> {
    pub(super) conn: &'a Connection,
    pub(super) dir: &'a LogDir,
    pub(super) keys: &'a LogKeys,
    pub(super) generation: Generation,
    pub(super) health: &'a Health,
}

impl Recovery<'_> {
    /// Reads the last row, the tree, and the last signed checkpoint. A mismatch is recorded in `health` and stops appends, but
    /// not reads.
    pub(super) fn run(&self) -> rusqlite::Result<Recovered> {
        let (end, last_epoch) = self.read_end()?;
        let (tree, signer) = self.read_tree(end.next_seq).map_or((None, None), |(tree, signer)| (Some(tree), signer));
        Ok(Recovered { end, last_epoch, tree, signer })
    }

    /// Rebuilds the right edge of the tree, and compares the log with the checkpoints that were signed earlier.
    fn read_tree(&self, size: u64) -> Option<(TreeIntegrator, Option<Signer>)> {
        match self.checked_tree(size) {
            Ok((tree, signer)) => {
                for damaged in signer.iter().flat_map(Signer::damaged) {
                    let message = damaged.describe();
                    // Keep the damaged file as evidence, because the next signature overwrites it.
                    let aside = match damaged.place {
                        NoteCopy::File => self.dir.set_checkpoint_aside().ok(),
                        NoteCopy::Database | NoteCopy::Witnessed => None,
                    };
                    tracing::error!(fault = %message, ?aside, "a copy of the checkpoint is damaged; the next signature or cosignature replaces it");
                }
                let newest = signer.as_ref().and_then(Signer::newest);
                self.health.publish_signed(newest.map(|signed| signed.checkpoint.size));
                let witnessed = signer.as_ref().and_then(|signer| signer.witnessed_size(self.conn).ok().flatten());
                self.health.publish_witnessed(witnessed);
                match TreeIntegrator::start(tree) {
                    Ok(tree) => Some((tree, signer)),
                    Err(error) => {
                        self.health.refuse_writes(format!(
                            "cannot start the tree integrator thread: {error}; allow more threads and restart the node"
                        ));
                        None
                    }
                }
            }
            // Signed rows are missing or changed, so the rows that can still be read must not be taken for the complete log.
            Err(fault) => {
                self.health.distrust(format!(
                    "{fault}; run `piperoll node verify`, keep the file as evidence, and begin a new generation"
                ));
                None
            }
        }
    }

    /// Returns the tree and its signer. The signer is `None` in an archived log whose signer cannot be opened because the key
    /// has been replaced; changes to the log's rows are still recorded, but stay unsigned.
    fn checked_tree(&self, size: u64) -> Result<(TreeBuilder, Option<Signer>), String> {
        let message = |error: TreeError| format!("the tree cannot be read: {error}");
        let keys = self.keys;
        let origin = keys.origin(self.generation);
        let key = keys
            .checkpoint
            .named(&origin, KeyKind::Log)
            .ok_or_else(|| format!("{origin:?} is not a valid key name"))?;
        let next = keys.next_checkpoint.as_ref().and_then(|next| next.named(&origin, KeyKind::Log));
        let signer = match Signer::open(self.conn, self.dir, key, next) {
            Ok(signer) => {
                signer.check(self.conn, size).map_err(message)??;
                Some(signer)
            }
            Err(_) if self.dir.is_aside() => None,
            Err(error) => return Err(error.to_string()),
        };
        let floor =
            floor(self.conn, &mut RowChecker::new(keys.ring.clone(), self.generation)).map_err(|e| e.to_string())??;
        let first = floor.map_or(0, |floor| floor.pruned.to_seq);
        tiles::check_last_tile(self.conn, first, size).map_err(message)??;
        Ok((tiles::resume(self.conn, size).map_err(message)?, signer))
    }

    /// Returns the position after the last row, according to that row's signed bytes, and the key epoch of that row. If the
    /// schema or the last row is not as expected, the log stays readable but refuses appends: new rows after a row that was
    /// tampered with would look like an endorsement of it.
    fn read_end(&self) -> rusqlite::Result<(AppendPosition, Option<u32>)> {
        let empty = AppendPosition { next_seq: 0, era: 0, last: Timestamp::MIN };
        let differences = schema::differences(self.conn)?;
        if !differences.is_empty() {
            self.health.distrust(format!("unexpected database schema: {}", differences.join("; ")));
        }
        let Some(row) = self.newest_rows(1)?.pop() else { return Ok((empty, None)) };
        let end = match (row.checked.integrity, Prefix::parse(&row.body)) {
            (Integrity::Ok, Some(prefix)) => {
                AppendPosition { next_seq: prefix.seq + 1, era: prefix.era, last: prefix.timestamp }
            }
            _ => {
                self.health.refuse_writes(format!(
                    "cannot append after the last row ({}): {}; run `piperoll node verify`, keep the file as evidence, and begin a new generation",
                    row.seq,
                    row.checked.reason.unwrap_or("its first fields cannot be read"),
                ));
                AppendPosition { next_seq: row.seq + 1, ..empty }
            }
        };
        Ok((end, Some(row.epoch)))
    }

    /// Reads and checks rows, starting with the newest.
    fn newest_rows(&self, count: u32) -> rusqlite::Result<Vec<StoredRow>> {
        let mut checker = RowChecker::new(self.keys.ring.clone(), self.generation);
        let mut statement = self.conn.prepare(
            "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq BETWEEN 0 AND ?1 ORDER BY seq DESC LIMIT ?2",
        )?;
        let mut rows = statement.query((SEQ_MAX, count))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let mut row = read_row(row, &mut checker)?;
            erased::recognise(self.conn, &mut checker, &mut row)?;
            found.push(row);
        }
        Ok(found)
    }

    /// Whether the newest entry that a daemon wrote is its `log.stopped`; `None` for a new log. Fields are read only from
    /// verified rows, so that an application's entry cannot be mistaken for an entry of the node.
    pub(super) fn last_stop(&self) -> rusqlite::Result<Option<bool>> {
        let rows = self.newest_rows(LOOK_BACK_ROWS)?;
        if rows.is_empty() {
            return Ok(None);
        }
        for row in rows {
            // A statement about rows or keys gives no information about a daemon, and an erased row has no content.
            if row.erased.is_some() || (Statement::read(&row.body).is_some() && row.is_sound()) {
                continue;
            }
            let Some(view) = EntryView::parse(&row.body).filter(|_| row.checked.integrity == Integrity::Ok) else {
                return Ok(Some(false));
            };
            // Skip entries that were appended offline while the daemon was down, and the node's own audit entries about them,
            // because they give no information about a daemon.
            let (via, category) = (view.via.as_ref(), view.category.as_deref());
            let direct = via == "cli" || via == "import";
            let note = via == "node" && category == Some("audit");
            if !direct && !note {
                let own = via == "node" && category == Some(NODE_CATEGORY);
                return Ok(Some(own && view.action.as_deref() == Some("log.stopped")));
            }
        }
        Ok(Some(false))
    }
}
