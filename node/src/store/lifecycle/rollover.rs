//! Starts a new generation: archives the old log unchanged, and creates a new log whose first entry records the reason.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use piperoll_detect::Rules;
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::entry::lifecycle;
use piperoll_format::ids::Generation;
use piperoll_format::note::Note;
use piperoll_format::statement::{GENERATION_BEGUN, Hold};
use piperoll_format::verify::RowChecker;
use piperoll_net::clock::Clock;
use serde_json::json;

use super::hold_changes::add_hold;
use super::past_logs::folder_of;
use super::past_retention::begun;
use crate::store::engine::open_writer::{OpenWriter, open_writer};
use crate::store::engine::signer::{StoredNote, kept};
use crate::store::index::BLOCK_LEVEL;
use crate::store::table::error::OpenError;
use crate::store::table::holds;
use crate::store::table::keys::LogKeys;
use crate::store::table::log_dir::LogDir;
use crate::store::table::new_entry::NewEntry;
use crate::store::table::rows;

/// Result of starting a new generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGeneration {
    pub generation: Generation,
    /// Path of the archived old log.
    pub old: PathBuf,
    /// Names of the old log's holds, which are set in the new log too, or the reason why they could not be read.
    pub holds: Result<Vec<String>, String>,
}

/// Starts a new generation in a directory whose daemon is stopped. The old log need not be readable.
///
/// The new log is created next to the old one, and one system call exchanges the two. Whenever this function is interrupted, the
/// node finds a complete log in its directory.
pub fn begin_generation(
    dir: &LogDir,
    keys: &LogKeys,
    clock: Arc<dyn Clock>,
    reason: &str,
    by: &str,
) -> Result<NewGeneration, OpenError> {
    let io = |path: PathBuf| move |source| OpenError::Io { path, source };
    let lock = dir.lock_existing()?;
    finish_exchange(dir, keys).map_err(io(dir.path().to_owned()))?;
    let old_generation = dir.marked_generation()?;
    let seen = |which| {
        let conn = dir.open_reader(keys.ring.cluster(), keys.ring.node_id()).ok()?.conn;
        let note = Note::parse(&kept(&conn, which).ok()??).ok()?;
        Checkpoint::parse(note.text()).ok().map(|checkpoint| checkpoint.size)
    };
    let there = || {
        let conn = dir.open_reader(keys.ring.cluster(), keys.ring.node_id()).ok()?.conn;
        rows::extent(&conn).ok().map(|extent| extent.head_seq.map_or(0, |head| head.saturating_add(1)))
    };
    let previous = json!({
        "generation": old_generation, "signed_rows": seen(StoredNote::Signed), "witnessed_rows": seen(StoredNote::Witnessed),
        "rows": there(),
    });
    let holds = held_there(dir, keys);
    let beside = |suffix: &str| folder_of(dir.path(), suffix);
    let fresh = beside(&format!("{BEGUN}{}", uuid::Uuid::now_v7().simple()));
    let fresh_dir = LogDir::new(&fresh);
    let OpenWriter { mut writer, generation, lock: fresh_lock, .. } =
        open_writer(&fresh_dir, keys, clock, Rules::none(), BLOCK_LEVEL)?;
    let details = json!({ "previous": previous, "reason": reason, "by": by });
    let begun = lifecycle(GENERATION_BEGUN, "a new log replaces the archived one", &details);
    let stopped = lifecycle("log.stopped", "the node is not running yet", &json!({}));
    let new_entries = [begun, stopped].map(|entry| NewEntry { entry, via: Arc::from("node") });
    let recorded =
        writer.append(new_entries.to_vec()).and_then(|results| results.into_iter().collect::<Result<Vec<_>, _>>());
    // On failure, both logs keep their folders: the new one stays incomplete, and the old one stays in use.
    recorded.map_err(|e| io(fresh.clone())(std::io::Error::other(e)))?;
    // A hold applies to a range of time, not to a log: it also keeps entries that are recorded in the new log.
    for hold in holds.iter().flatten() {
        add_hold(&mut writer, hold).map_err(|e| io(fresh.clone())(std::io::Error::other(e)))?;
    }
    fresh_dir.write_marker(keys.ring.cluster(), keys.ring.node_id(), generation).map_err(io(fresh.clone()))?;
    drop(writer);
    // Forwarding offsets, paused destinations and source offsets also apply to the new log.
    for folder in BESIDE_THE_LOG {
        copy_folder(&dir.path().join(folder), &fresh.join(folder)).map_err(io(fresh.clone()))?;
    }
    renameat2(AT_FDCWD, &fresh, AT_FDCWD, dir.path(), RenameFlags::RENAME_EXCHANGE)
        .map_err(|e| io(dir.path().to_owned())(e.into()))?;
    let old = beside(&old_generation.map_or("old".to_owned(), |generation| generation.to_string()));
    // A crash before this line leaves the old log under the temporary name of the new one; see `finish_exchange`.
    std::fs::rename(&fresh, &old).map_err(io(old.clone()))?;
    drop((lock, fresh_lock));
    let holds = holds.map(|holds| holds.into_iter().map(|hold| hold.name).collect());
    Ok(NewGeneration { generation, old, holds })
}

/// Beginning of the suffix in the folder name of a log that is being created.
const BEGUN: &str = "begun-";

/// Gives the replaced log its final name if a crash after the exchange of the two logs prevented that. The caller holds the lock.
pub(in crate::store) fn finish_exchange(dir: &LogDir, keys: &LogKeys) -> std::io::Result<()> {
    let Some(generation) = generation_before(dir, keys) else { return Ok(()) };
    let old = folder_of(dir.path(), &generation.to_string());
    let (Some(parent), false) = (old.parent(), old.exists()) else { return Ok(()) };
    let prefix = folder_of(dir.path(), BEGUN);
    let prefix = prefix.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for entry in std::fs::read_dir(parent)? {
        let path = entry?.path();
        let is_left = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
        // Skip new logs that were created but never used: each of them has a generation of its own.
        if is_left && LogDir::new(&path).marked_generation().is_ok_and(|marked| marked == Some(generation)) {
            tracing::warn!(from = %path.display(), to = %old.display(), "starting a new generation was interrupted; finishing the archiving of the old log");
            return std::fs::rename(&path, &old);
        }
    }
    Ok(())
}

/// Returns the generation of the log that the current log replaced, if the first row of the current log can be read.
fn generation_before(dir: &LogDir, keys: &LogKeys) -> Option<Generation> {
    let opened = dir.open_reader(keys.ring.cluster(), keys.ring.node_id()).ok()?;
    let mut checker = RowChecker::new(keys.ring.clone(), opened.generation);
    begun(&opened.conn, &mut checker).ok()??.generation?.parse().ok()
}

/// Reads the holds of a log that may be damaged, from authentic entries only.
fn held_there(dir: &LogDir, keys: &LogKeys) -> Result<Vec<Hold>, String> {
    let conn = dir.open_reader(keys.ring.cluster(), keys.ring.node_id()).map_err(|error| error.to_string())?;
    let mut checker = RowChecker::new(keys.ring.clone(), conn.generation);
    let held = holds::holds(&conn.conn, &mut checker).map_err(|error| error.to_string())??;
    Ok(held.into_iter().map(|held| held.hold).collect())
}

/// Folders of the data directory that are copied to the next generation.
const BESIDE_THE_LOG: [&str; 2] = ["forward", "intake"];

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    let listed = match std::fs::read_dir(from) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    std::fs::create_dir_all(to)?;
    for entry in listed {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        std::fs::copy(entry.path(), &copy)?;
        std::fs::File::open(&copy)?.sync_all()?;
    }
    std::fs::File::open(to)?.sync_all()
}
