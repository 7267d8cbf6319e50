//! Operations on the objects of an archive.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

use piperoll_format::time::Timestamp;

use super::backend::Address;
use super::credentials::Credentials;
use super::error::{StoreError, chain};

/// Maximum number of objects that one listing returns. An archive of a thousand nodes over ten years has about half a million
/// objects.
const LISTED_MAX: usize = 10_000_000;

/// Store of an archive: names are relative to the archive's prefix.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: String,
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

/// Result of deleting an object in all versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// No version is left.
    All,
    /// The store keeps a version: until a known time, or until something changes.
    Kept { until: Option<Timestamp>, reason: String },
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
        let (inner, prefix) = address.open(credentials, false)?;
        Ok(Self { inner, prefix, shown: address.to_string() })
    }

    /// Opens the store of a new archive; creates the directory if it does not exist.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn open_new(address: &Address, credentials: Option<&Credentials>) -> Result<Self, StoreError> {
        let (inner, prefix) = address.open(credentials, true)?;
        Ok(Self { inner, prefix, shown: address.to_string() })
    }

    /// Uses any object store; for tests.
    #[must_use]
    pub fn of(inner: Arc<dyn ObjectStore>, shown: &str) -> Self {
        Self { inner, prefix: String::new(), shown: shown.to_owned() }
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
        let parts = self.inner.get_ranges(&self.path(name)?, ranges).await;
        let parts = parts.map_err(|error| self.error("read", name, &error))?;
        let is_short = |(part, range): (&Bytes, &Range<u64>)| part.len() as u64 != range.end - range.start;
        if parts.len() != ranges.len() || parts.iter().zip(ranges).any(is_short) {
            return Err(self.failed("read", name, "the store returned another part of the object".to_owned()));
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

    /// Deletes an object in all versions, so that nothing of its content is left. An object that does not exist counts as deleted.
    ///
    /// # Errors
    /// Fails if the store does not answer.
    pub async fn delete_versions(&self, name: &str) -> Result<Deleted, StoreError> {
        self.delete(name).await?;
        Ok(Deleted::All)
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

    fn failed(&self, what: &'static str, name: &str, reason: String) -> StoreError {
        StoreError::Failed { what, name: name.to_owned(), store: self.shown.clone(), reason }
    }
}
