//! Stores on disk which record is about to be processed, so that one record cannot crash the node repeatedly.
//!
//! Every parser that processes a record is bounded, so none should ever crash the node. This is the second line of defense: after
//! an unclean stop, the first records are processed one at a time. A record on which two starts have crashed is skipped, and only
//! its length and hash are recorded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use piperoll_net::atomic_file::replace;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Number of starts that may crash on a record before the record is skipped.
pub(super) const DEATHS_MAX: u32 = 2;

/// Maximum number of single records that are stored as begun; there is more than one only if files were mixed up by hand.
const BEGUN_MAX: usize = 16;

/// Work that was begun and is possibly unfinished.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begun {
    /// Digest of the position of a batch's first record; `None` when records are processed one at a time.
    batch: Option<String>,
    /// Number of times that work on a single record was begun, by the digest of its position.
    alone: BTreeMap<String, u32>,
}

/// The attempt file of one source, and its contents when the node started.
#[derive(Default)]
pub(super) struct Attempts {
    path: PathBuf,
    begun: Begun,
    ended_uncleanly: bool,
}

impl Attempts {
    /// Reads the attempt file. A file that cannot be parsed counts as an unclean stop.
    pub(super) fn open(folder: &Path, name: &str) -> Self {
        let path = folder.join(format!("{name}.attempt"));
        let left = std::fs::read(&path).ok();
        let ended_uncleanly = left.is_some();
        let begun = left.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, begun, ended_uncleanly }
    }

    /// Whether the last run ended in the middle of a batch.
    pub(super) fn ended_uncleanly(&self) -> bool {
        self.ended_uncleanly
    }

    /// Stores on disk that work on a batch begins. The batch is identified by the position of its first record.
    pub(super) fn begin_batch(&mut self, place: &str) -> std::io::Result<()> {
        self.begun.batch = Some(digest(place));
        self.write()
    }

    /// Stores on disk that work on a single record begins. Returns false, without storing anything, if `DEATHS_MAX` starts have
    /// crashed on this record; the caller must then skip it.
    pub(super) fn begin_one(&mut self, place: &str) -> std::io::Result<bool> {
        let count = self.begun.alone.entry(digest(place)).or_default();
        if *count >= DEATHS_MAX {
            return Ok(false);
        }
        *count += 1;
        self.begun.batch = None;
        while self.begun.alone.len() > BEGUN_MAX {
            self.begun.alone.pop_first();
        }
        self.write().map(|()| true)
    }

    /// Removes a record that was begun with `begin_one`, because it was recorded or skipped. The file on disk is not updated yet.
    pub(super) fn end_one(&mut self, place: &str) {
        self.begun.alone.remove(&digest(place));
    }

    /// Removes the attempt file, because all work that was begun is finished.
    pub(super) fn done(&mut self) {
        self.begun = Begun::default();
        // If a crash undoes the removal, the next start merely processes records one at a time without need.
        let _ = std::fs::remove_file(&self.path);
    }

    fn write(&self) -> std::io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        replace(&self.path, serde_json::to_string(&self.begun)?.as_bytes())
    }
}

fn digest(place: &str) -> String {
    hex::encode(Sha256::digest(place.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_in_which_two_starts_died_is_passed() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let open = || Attempts::open(dir.path(), "k8s");
        assert!(!open().ended_uncleanly());
        open().begin_batch("1")?;
        // The first crash was somewhere in the batch. From now on, records are processed one at a time, and each of the following
        // starts crashes on the second record.
        for _ in 0..DEATHS_MAX {
            let mut attempts = open();
            assert!(attempts.ended_uncleanly());
            assert!(attempts.begin_one("1")?, "a good one");
            attempts.end_one("1");
            assert!(attempts.begin_one("2")?, "the one that kills");
        }
        let mut attempts = open();
        assert!(attempts.begin_one("1")?, "what is good is never passed");
        attempts.end_one("1");
        assert!(!attempts.begin_one("2")?);
        attempts.end_one("2");
        assert!(attempts.begin_one("3")?);
        attempts.done();
        assert!(!open().ended_uncleanly());
        std::fs::write(dir.path().join("k8s.attempt"), "torn")?;
        assert!(open().ended_uncleanly());
        Ok(())
    }
}
