//! Operations on the objects of an archive.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

use super::address::Address;
use super::backend::Opened;
use super::credentials::Credentials;
use super::error::{StoreError, chain};
use super::versions::{Backend, Deleted};

/// Maximum number of objects that one listing returns. An archive of a thousand nodes over ten years has about half a million
/// objects.
const LISTED_MAX: usize = 10_000_000;

/// Store of an archive: names are relative to the archive's prefix.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: String,
    /// Access to the versions of objects; missing in a store for tests, which has none.
    versions: Option<Arc<Backend>>,
    /// Address for messages; has no credentials.
    shown: String,
}

/// Result of creating an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    New,
    /// There is an object of this name already. It was not changed.
    Exists,
}

/// An object as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub bytes: u64,
}

impl Store {
    /// Opens an existing archive's store.
    ///
    /// # Errors
    /// Fails if the directory does not exist, or if the settings of a bucket are not usable.
    pub fn open(address: &Address, credentials: Option<&Credentials>) -> Result<Self, StoreError> {
        Ok(Self::from_opened(address.open(credentials, false)?, address))
    }

    /// Opens the store of a new archive; creates the directory if it does not exist.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn open_new(address: &Address, credentials: Option<&Credentials>) -> Result<Self, StoreError> {
        Ok(Self::from_opened(address.open(credentials, true)?, address))
    }

    /// Uses any object store; for tests.
    #[must_use]
    pub fn of(inner: Arc<dyn ObjectStore>, shown: &str) -> Self {
        Self { inner, prefix: String::new(), versions: None, shown: shown.to_owned() }
    }

    fn from_opened(opened: Opened, address: &Address) -> Self {
        let Opened { store, prefix, versions } = opened;
        Self { inner: store, prefix, versions: Some(versions), shown: address.to_string() }
    }

    /// Address for messages, without credentials.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Creates an object. Never overwrites one.
    ///
    /// # Errors
    /// Fails if the store does not answer or refuses. The object may exist nevertheless, because the answer may have been lost.
    pub async fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.inner.put_opts(&self.path(name)?, bytes.into(), options).await {
            Ok(_) => Ok(Created::New),
            // A service may report a failed precondition instead.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Created::Exists),
            Err(error) => Err(self.error("create", name, &error)),
        }
    }

    /// Reads an object of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// Fails if the object is missing or larger, or if the store does not answer.
    pub async fn read(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreError> {
        let answer = self.inner.get(&self.path(name)?).await.map_err(|error| self.error("read", name, &error))?;
        self.check_size(name, answer.meta.size, bytes_max)?;
        // The store may send more bytes than it announces.
        let mut stream = answer.into_stream();
        let mut all = Vec::new();
        while let Some(part) = stream.try_next().await.map_err(|error| self.error("read", name, &error))? {
            all.extend_from_slice(&part);
            self.check_size(name, all.len() as u64, bytes_max)?;
        }
        Ok(all.into())
    }

    /// Reads the bytes from `offset` to the end of an object.
    ///
    /// # Errors
    /// As for [`Store::read`].
    pub async fn read_tail(&self, name: &str, offset: u64, bytes_max: u64) -> Result<Bytes, StoreError> {
        let options = GetOptions { range: Some(GetRange::Offset(offset)), ..GetOptions::default() };
        let path = self.path(name)?;
        let answer = self.inner.get_opts(&path, options).await.map_err(|error| self.error("read", name, &error))?;
        self.check_size(name, answer.range.end - answer.range.start, bytes_max)?;
        answer.bytes().await.map_err(|error| self.error("read", name, &error))
    }

    /// Reads parts of an object, in the order of `ranges`.
    ///
    /// # Errors
    /// Fails if the object is missing or shorter, or if the store does not answer.
    pub async fn read_ranges(&self, name: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let path = &self.path(name)?;
        let read = stream::iter(joined(ranges)).map(|block| async move {
            let bytes =
                self.inner.get_range(path, block.clone()).await.map_err(|error| self.error("read", name, &error))?;
            Ok::<_, StoreError>((block.start, bytes))
        });
        let blocks = read.buffered(PARALLEL_MAX).try_collect::<Vec<_>>().await?;
        let mut parts = Vec::with_capacity(ranges.len());
        for range in ranges {
            let part = blocks.iter().find_map(|(start, bytes)| part_of(*start, bytes, range));
            let other = || self.failed("read", name, "the store returned another part of the object".to_owned());
            parts.push(part.ok_or_else(other)?);
        }
        Ok(parts)
    }

    /// Lists the objects of a folder, or all objects if `folder` is empty, sorted by name.
    ///
    /// # Errors
    /// Fails if the store does not answer, or lists more objects than an archive can have.
    pub async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let path = self.path(folder)?;
        let mut stream = self.inner.list(Some(&path));
        let mut all = Vec::new();
        while let Some(meta) = stream.try_next().await.map_err(|error| self.error("list", folder, &error))? {
            let full = meta.location.as_ref();
            let name = match self.prefix.as_str() {
                "" => Some(full),
                prefix => full.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')),
            };
            let Some(name) = name else { continue };
            if all.len() >= LISTED_MAX {
                let reason = format!("it has more than {LISTED_MAX} objects");
                return Err(self.failed("list", folder, reason));
            }
            all.push(Listed { name: name.to_owned(), bytes: meta.size });
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Whether an object exists.
    ///
    /// # Errors
    /// Fails if the store does not answer.
    pub async fn exists(&self, name: &str) -> Result<bool, StoreError> {
        match self.inner.head(&self.path(name)?).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.error("find", name, &error)),
        }
    }

    /// Deletes an object. An object that does not exist counts as deleted.
    ///
    /// # Errors
    /// Fails if the store does not answer or refuses.
    pub async fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.inner.delete(&self.path(name)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error("delete", name, &error)),
        }
    }

    /// Deletes an object in all versions, and checks that none remains. [`Store::delete`] hides an object of a store with versions,
    /// but keeps its content. If the store keeps a version, the object is hidden, so that engines that list a folder do not see it.
    ///
    /// # Errors
    /// Fails if the store does not answer or refuses, or if the object has too many versions.
    pub async fn delete_all_versions(&self, name: &str) -> Result<Deleted, StoreError> {
        let path = self.path(name)?;
        let Some(versions) = &self.versions else {
            self.delete(name).await?;
            return Ok(Deleted::All { versions: 1 });
        };
        let deleted = versions.delete_all_versions(path.as_ref()).await?;
        if deleted.remaining().is_some()
            && let Err(error) = self.delete(name).await
        {
            tracing::debug!(name, %error, "cannot hide an object that the store keeps");
        }
        Ok(deleted)
    }

    fn path(&self, name: &str) -> Result<Path, StoreError> {
        let full = match (self.prefix.as_str(), name) {
            ("", name) => name.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, name) => format!("{prefix}/{name}"),
        };
        Path::parse(&full).map_err(|error| self.failed("use", name, error.to_string()))
    }

    fn check_size(&self, name: &str, bytes: u64, bytes_max: u64) -> Result<(), StoreError> {
        if bytes <= bytes_max {
            return Ok(());
        }
        Err(StoreError::TooLarge { name: name.to_owned(), store: self.shown.clone(), bytes, bytes_max })
    }

    fn error(&self, what: &'static str, name: &str, error: &Error) -> StoreError {
        let (name, store) = (name.to_owned(), self.shown.clone());
        match error {
            Error::NotFound { .. } => StoreError::Missing { name, store },
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                StoreError::Denied { name, store, reason: chain(error) }
            }
            other => StoreError::Failed { what, name, store, reason: chain(other) },
        }
    }

    /// Error about a list that contradicts the objects.
    pub(crate) fn wrong_list(&self, folder: &str, reason: String) -> StoreError {
        self.failed("list", folder, reason)
    }

    fn failed(&self, what: &'static str, name: &str, reason: String) -> StoreError {
        StoreError::Failed { what, name: name.to_owned(), store: self.shown.clone(), reason }
    }
}

/// Maximum number of requests for parts of one object at the same time.
const PARALLEL_MAX: usize = 8;
/// Maximum gap in bytes between two ranges that are read with one request.
const GAP_BYTES_MAX: u64 = 1024 * 1024;

/// Joins ranges that are close together. `ObjectStore::get_ranges` does the same, but panics if the object is shorter than a range.
fn joined(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| range.start);
    let mut blocks: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match blocks.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(GAP_BYTES_MAX) => last.end = last.end.max(range.end),
            _ => blocks.push(range),
        }
    }
    blocks
}

/// The part of a block that begins at `start`. Missing if the block does not contain the whole range.
fn part_of(start: u64, block: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let from = usize::try_from(range.start.checked_sub(start)?).ok()?;
    let to = usize::try_from(range.end.checked_sub(start)?).ok()?;
    (from <= to && to <= block.len()).then(|| block.slice(from..to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_of_an_object_are_read_in_order_and_a_short_object_is_an_error() {
        let store = Store::of(Arc::new(object_store::memory::InMemory::new()), "memory");
        let all = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect::<Bytes>();
        assert_eq!(store.create("x", all.clone()).await.expect("created"), Created::New);
        let ranges = [2_000_000..2_000_004, 0..3, 2_999_999..3_000_000, 5..9, 7..8, 4..4];
        let parts = store.read_ranges("x", &ranges).await.expect("parts");
        for (part, range) in parts.iter().zip(&ranges) {
            assert_eq!(
                *part,
                all.slice(usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small"))
            );
        }
        for beyond in [2_999_998..3_000_001, 3_000_010..3_000_020] {
            assert!(store.read_ranges("x", &[0..3, 2_999_990..2_999_992, beyond]).await.is_err());
        }
        assert_eq!(joined(&[5..6, 0..2, 3_000_000..3_000_001]), [0..6, 3_000_000..3_000_001]);
    }
}
