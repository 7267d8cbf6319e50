//! The schema of the database, and the check that the database has exactly this schema (docs/format.md, "Database").

use rusqlite::{Connection, OptionalExtension};

/// Version of the schema, stored in `PRAGMA user_version`. It is incremented when the tables change.
pub(in crate::store) const SCHEMA_VERSION: i64 = 1;
/// `PRAGMA application_id`: "PRoL", so that `file` and people can identify the database.
pub(in crate::store) const APPLICATION_ID: i64 = 0x5052_6f4c;

/// SQL expression for the log start, used in triggers: only rows below it may be deleted.
macro_rules! floor {
    () => {
        "(SELECT coalesce(max(to_seq), 0) FROM pruned)"
    };
}
/// Defines a trigger that refuses a change, always or unless a condition holds.
macro_rules! refuse {
    ($name:literal, $change:literal, $table:literal) => {
        ("trigger", $name, concat!("CREATE TRIGGER ", $name, " BEFORE ", $change, " ON ", $table, " BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"))
    };
    ($name:literal, $change:literal, $table:literal, unless $($allowed:expr),+) => {
        ("trigger", $name, concat!("CREATE TRIGGER ", $name, " BEFORE ", $change, " ON ", $table, " WHEN NOT (", $($allowed),+, ") BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"))
    };
}

/// Kind, name and SQL of every object in the schema. `entries.ts`, `entries.era` and `ids` are derived from the bodies and can be
/// rebuilt, and `tiles` can be rebuilt from bodies and MACs. `checkpoints` holds the newest signed note and the newest cosigned
/// one. `pruned`, `erased`, `epochs` and `holds` only locate the node's own entries that state these facts, and prove nothing
/// without them. `mac` and `body` have no NOT NULL, because they are NULL in an erased row, and because a planted NULL has to be
/// readable to be reported.
const OBJECTS: [(&str, &str, &str); 23] = [
    (
        "table",
        "entries",
        "CREATE TABLE entries (seq INTEGER PRIMARY KEY, ts INTEGER NOT NULL, era INTEGER NOT NULL, epoch INTEGER NOT NULL, mac BLOB, body TEXT) STRICT",
    ),
    ("table", "ids", "CREATE TABLE ids (id BLOB PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID"),
    ("table", "meta", "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID"),
    ("table", "tiles", "CREATE TABLE tiles (id INTEGER PRIMARY KEY, root BLOB NOT NULL, hashes BLOB NOT NULL) STRICT"),
    (
        "table",
        "checkpoints",
        "CREATE TABLE checkpoints (kind TEXT PRIMARY KEY, size INTEGER NOT NULL, note TEXT NOT NULL) STRICT, WITHOUT ROWID",
    ),
    // `finished_seq` is NULL while rows recorded as pruned may still exist.
    (
        "table",
        "pruned",
        "CREATE TABLE pruned (to_seq INTEGER PRIMARY KEY, entry_seq INTEGER NOT NULL, finished_seq INTEGER) STRICT",
    ),
    (
        "table",
        "erased",
        "CREATE TABLE erased (seq INTEGER PRIMARY KEY, entry_seq INTEGER NOT NULL, leaf BLOB NOT NULL, id BLOB NOT NULL) STRICT",
    ),
    ("table", "epochs", "CREATE TABLE epochs (epoch INTEGER PRIMARY KEY, first_seq INTEGER NOT NULL) STRICT"),
    ("table", "holds", "CREATE TABLE holds (name TEXT PRIMARY KEY, entry_seq INTEGER NOT NULL) STRICT, WITHOUT ROWID"),
    refuse!("entries_append_only_delete", "DELETE", "entries", unless "OLD.seq < ", floor!()),
    refuse!(
        "entries_append_only_update", "UPDATE", "entries", unless
        "NEW.body IS NULL AND NEW.mac IS NULL AND NEW.seq = OLD.seq AND NEW.ts = OLD.ts AND NEW.era = OLD.era AND NEW.epoch = OLD.epoch AND OLD.seq IN (SELECT seq FROM erased)"
    ),
    refuse!("ids_append_only_delete", "DELETE", "ids", unless "OLD.seq < ", floor!()),
    refuse!("ids_append_only_update", "UPDATE", "ids"),
    refuse!("meta_append_only_delete", "DELETE", "meta"),
    refuse!("meta_append_only_update", "UPDATE", "meta"),
    // The first seq after the rows of a tile is (index + 1) << 8 * (level + 1).
    refuse!(
        "tiles_append_only_delete", "DELETE", "tiles", unless
        "((OLD.id & 72057594037927935) + 1) << (8 * ((OLD.id >> 56) + 1)) <= ", floor!()
    ),
    refuse!(
        "tiles_append_only_update", "UPDATE", "tiles", unless
        "NEW.id = OLD.id AND NEW.root = OLD.root AND NEW.hashes = x'' AND ((OLD.id & 72057594037927935) + 1) << (8 * ((OLD.id >> 56) + 1)) <= ", floor!()
    ),
    refuse!("pruned_append_only_delete", "DELETE", "pruned"),
    refuse!(
        "pruned_append_only_update", "UPDATE", "pruned", unless
        "NEW.to_seq = OLD.to_seq AND NEW.entry_seq = OLD.entry_seq AND OLD.finished_seq IS NULL AND NEW.finished_seq IS NOT NULL"
    ),
    refuse!("erased_append_only_delete", "DELETE", "erased", unless "OLD.seq < ", floor!()),
    refuse!("erased_append_only_update", "UPDATE", "erased"),
    refuse!("epochs_append_only_delete", "DELETE", "epochs"),
    refuse!("epochs_append_only_update", "UPDATE", "epochs"),
];

/// Creates a new, empty database. `auto_vacuum` must be set before the first table and before WAL.
pub(in crate::store) fn create(conn: &Connection, meta: &[(&str, &str)]) -> rusqlite::Result<()> {
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.execute_batch("BEGIN IMMEDIATE")?;
    for (_, _, sql) in OBJECTS {
        conn.execute_batch(sql)?;
    }
    for (key, value) in meta {
        conn.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", [key, value])?;
    }
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    conn.execute_batch("COMMIT")
}

/// Describes every difference between the actual schema and the expected one. The list is empty if there is no difference.
pub(in crate::store) fn differences(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut statement = conn.prepare("SELECT type, name, coalesce(sql, '') FROM sqlite_schema")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        found.push((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?));
    }
    let mut message = Vec::new();
    for (kind, name, sql) in &found {
        match OBJECTS.iter().find(|(_, ours, _)| ours == name) {
            None => message.push(format!("a {kind} {name:?} was added")),
            Some((our_kind, _, our_sql)) if our_kind != kind || our_sql != sql => {
                message.push(format!("the {our_kind} {name:?} was changed"));
            }
            Some(_) => {}
        }
    }
    for (kind, name, _) in OBJECTS {
        if !found.iter().any(|(_, found_name, _)| found_name == name) {
            message.push(format!("the {kind} {name:?} was removed"));
        }
    }
    Ok(message)
}

/// Returns SQLite's counter of schema changes. As long as the counter is the same, the schema is the one that was checked last.
pub(in crate::store) fn cookie(conn: &Connection) -> rusqlite::Result<i64> {
    // Queried before every commit, so cache the statement.
    conn.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))
}

pub(in crate::store) fn user_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

pub(in crate::store) fn application_id(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA application_id", [], |row| row.get(0))
}

pub(in crate::store) fn meta(conn: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}
