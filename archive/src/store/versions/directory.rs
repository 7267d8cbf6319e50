//! Versions in a directory: there are none, but an interrupted creation can leave a copy of the content.
//!
//! `LocalFileSystem` writes an object to `NAME#1` (or the next free number) and links it to its name. A copy that a crash left there
//! is hidden from lists, so it has to be looked for when content is to be erased. What snapshots of the file system keep is out of
//! reach; the documentation says so.

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::local::LocalFileSystem;

use super::super::error::StoreError;
use super::outcome::{Kind, Listing, Removal, State, Version};

/// The files of an archive in a directory.
#[derive(Debug)]
pub(in crate::store) struct DirectoryVersions {
    store: Arc<LocalFileSystem>,
    shown: String,
}

impl DirectoryVersions {
    pub(in crate::store) fn new(store: Arc<LocalFileSystem>, shown: &str) -> Self {
        Self { store, shown: shown.to_owned() }
    }

    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Lists the file, and copies that an interrupted creation left.
    pub(super) async fn list(&self, name: &str) -> Result<Listing, StoreError> {
        let path = self.path(name)?;
        let listed =
            blocking(move || files(&path)).await.map_err(|error| self.failed("list the copies of", name, &error))?;
        let version = |id: String| Version { kind: Kind::Version, id, lock: None, state: State::Live };
        Ok(Listing::Versions(listed.into_iter().map(version).collect()))
    }

    /// Deletes one file, durably.
    pub(super) async fn remove(&self, name: &str, version: &Version) -> Result<Removal, StoreError> {
        let path = self.path(name)?.with_file_name(&version.id);
        let removed = blocking(move || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // Without it, the file could come back after a power failure.
            path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
        });
        removed.await.map_err(|error| self.failed("delete", name, &error))?;
        Ok(Removal::Removed)
    }

    fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let location =
            object_store::path::Path::parse(name).map_err(|error| self.failed("use", name, &Error::other(error)))?;
        self.store.path_to_filesystem(&location).map_err(|error| self.failed("use", name, &Error::other(error)))
    }

    fn failed(&self, what: &'static str, name: &str, error: &Error) -> StoreError {
        StoreError::Failed { what, name: name.to_owned(), store: self.shown.clone(), reason: error.to_string() }
    }
}

/// Names of the file at `path` and of its copies `NAME#1`, `NAME#2`, ….
fn files(path: &Path) -> Result<Vec<String>, Error> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(Error::new(ErrorKind::InvalidInput, "the name is not the name of a file"));
    };
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?.file_name();
        let Some(entry) = entry.to_str() else { continue };
        let is_copy = |rest: &str| {
            rest.strip_prefix('#')
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        };
        if entry.strip_prefix(name).is_some_and(|rest| rest.is_empty() || is_copy(rest)) {
            found.push(entry.to_owned());
        }
    }
    Ok(found)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(Error::other)?
}

#[cfg(test)]
mod tests {
    use super::super::super::{Address, Store};
    use super::super::Deleted;
    use super::*;

    #[tokio::test]
    async fn a_file_and_its_leftover_copies_are_deleted() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open_new(&Address::Directory(dir.path().join("archive")), None).expect("a store");
        let name = "data/day=2026-11-27/x.parquet";
        let folder = dir.path().join("archive/data/day=2026-11-27");
        assert_eq!(store.delete_all_versions(name).await.expect("no such folder"), Deleted::Nothing);
        for file in ["x.parquet", "x.parquet2", "x.parquet#no", "y.parquet"] {
            store.create(&format!("data/day=2026-11-27/{file}"), "row".into()).await.expect("a file");
        }
        fs::write(folder.join("x.parquet#2"), "row").expect("a leftover");
        assert_eq!(store.delete_all_versions(name).await.expect("deleted"), Deleted::All { versions: 2 });
        assert_eq!(store.delete_all_versions(name).await.expect("again"), Deleted::Nothing);
        let mut left =
            fs::read_dir(&folder).expect("a folder").map(|e| e.expect("an entry").file_name()).collect::<Vec<_>>();
        left.sort();
        assert_eq!(left, ["x.parquet#no", "x.parquet2", "y.parquet"]);
    }
}
