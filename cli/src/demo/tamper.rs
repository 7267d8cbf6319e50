//! Edits a log like an attacker who has write access to the file but does not have the key.

use std::path::Path;

use anyhow::{Context as _, ensure};
use rusqlite::{Connection, OptionalExtension as _};

/// Texts to replace, in order of preference; the last one occurs in every log.
const EDITS: [(&str, &str); 3] = [
    ("\"user\":\"m.keller\"", "\"user\":\"s.bauer\""),
    ("\"outcome\":\"denied\"", "\"outcome\":\"success\""),
    ("\"outcome\":\"success\"", "\"outcome\":\"failure\""),
];

/// An edit that was made to a row, with the row's original body to undo it.
pub(super) struct Edit {
    pub(super) seq: u64,
    pub(super) before: &'static str,
    pub(super) after: &'static str,
    body: String,
}

/// Rewrites one row: drops the trigger, edits the row, and restores the trigger so that the schema shows no sign of the edit.
pub(super) fn edit(database: &Path) -> anyhow::Result<Edit> {
    let conn = Connection::open(database)?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    for (before, after) in EDITS {
        let found: Option<(u64, String)> = conn
            .query_row(
                "SELECT seq, body FROM entries WHERE instr(body, ?1) > 0 AND seq > 0 ORDER BY seq LIMIT 1",
                [before],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        if let Some((seq, body)) = found {
            rewrite(&conn, seq, &body.replacen(before, after, 1))?;
            return Ok(Edit { seq, before, after, body });
        }
    }
    anyhow::bail!("no row to edit was found")
}

impl Edit {
    pub(super) fn undo(&self, database: &Path) -> anyhow::Result<()> {
        let conn = Connection::open(database)?;
        conn.busy_timeout(std::time::Duration::from_secs(5))?;
        rewrite(&conn, self.seq, &self.body)
    }
}

/// Removes the newest rows and all traces of them in the database; returns how many rows are left.
pub(super) fn cut_tail(database: &Path, rows: u64) -> anyhow::Result<u64> {
    let conn = Connection::open(database)?;
    let triggers: Vec<(String, String)> = conn
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let head: u64 = conn.query_row("SELECT max(seq) FROM entries", [], |row| row.get(0))?;
    let left = head + 1 - rows;
    let mut script = "BEGIN IMMEDIATE;".to_owned();
    for (name, _) in &triggers {
        script += &format!("DROP TRIGGER {name};");
    }
    script += &format!(
        "DELETE FROM entries WHERE seq >= {left}; DELETE FROM ids WHERE seq >= {left}; DELETE FROM checkpoints;"
    );
    // Delete the tiles that the removed rows had completed.
    script += &format!("DELETE FROM tiles WHERE (((id & 72057594037927935) + 1) << (8 * ((id >> 56) + 1))) > {left};");
    for (_, sql) in &triggers {
        script += &format!("{sql};");
    }
    conn.execute_batch(&(script + "COMMIT;"))?;
    Ok(left)
}

fn rewrite(conn: &Connection, seq: u64, body: &str) -> anyhow::Result<()> {
    let trigger: String = conn
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'entries_append_only_update'", [], |row| row.get(0))
        .context("cannot read the trigger that refuses updates")?;
    conn.execute_batch("BEGIN IMMEDIATE; DROP TRIGGER entries_append_only_update;")?;
    let changed = conn.execute("UPDATE entries SET body = ?1 WHERE seq = ?2", (body, seq))?;
    conn.execute_batch(&format!("{trigger}; COMMIT;"))?;
    ensure!(changed == 1, "row {seq} could not be edited");
    Ok(())
}
