//! Deletes an object in all versions.
//!
//! A plain deletion hides the object of a store with versions and keeps its content. To erase a row, all versions of its old file
//! have to go. `object_store` can neither list nor delete versions, so this module sends the few requests itself, signed with the
//! credentials of the opened store.

mod azure;
#[cfg(test)]
mod azure_test;
mod client;
mod directory;
mod gcs;
#[cfg(test)]
mod gcs_test;
mod outcome;
mod pages;
mod s3;
#[cfg(test)]
mod s3_test;
#[cfg(test)]
mod scripted;

use std::time::Duration;

pub(super) use azure::AzureVersions;
pub(super) use client::{Client, Signer};
pub(super) use directory::DirectoryVersions;
pub(super) use gcs::GcsVersions;
pub(super) use s3::S3Versions;

pub use outcome::{Deleted, Lock, LockMode};

use super::error::StoreError;
use outcome::{Listing, Removal, State, Version};

/// Time limit for deleting one object in all versions, retries included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(300);
/// Maximum number of rounds of listing and deleting. On Azure with soft delete, the current version needs four: it becomes an older
/// version, is soft-deleted, is erased, and the last list is empty.
const ROUNDS_MAX: usize = 6;

/// Access to the versions of the objects of one store.
#[derive(Debug)]
pub(in crate::store) enum Backend {
    Directory(DirectoryVersions),
    S3(S3Versions),
    Azure(AzureVersions),
    Gcs(GcsVersions),
}

impl Backend {
    /// Deletes the object `name` in all versions, with delete markers and snapshots, and checks that the store lists none any more.
    /// May be repeated: what is gone already counts as deleted.
    ///
    /// # Errors
    /// Fails if the store does not answer or refuses for another reason than a lock, or if the object has too many versions.
    pub(in crate::store) async fn delete_all_versions(&self, name: &str) -> Result<Deleted, StoreError> {
        let rounds = self.delete_in_rounds(name);
        if let Ok(result) = tokio::time::timeout(OPERATION_TIMEOUT, rounds).await {
            return result;
        }
        let reason = format!("it took longer than {} s; try again", OPERATION_TIMEOUT.as_secs());
        Err(self.failed("delete all versions of", name, reason))
    }

    async fn delete_in_rounds(&self, name: &str) -> Result<Deleted, StoreError> {
        let (mut was_there, mut removed, mut remaining) = (false, 0, 0);
        for _ in 0..ROUNDS_MAX {
            let mut versions = match self.list(name).await? {
                Listing::Versions(versions) => versions,
                Listing::Unsupported(reason) => return Ok(Deleted::CannotList { reason }),
            };
            if versions.is_empty() {
                return Ok(if was_there { Deleted::All { versions: removed } } else { Deleted::Nothing });
            }
            (was_there, remaining) = (true, versions.len());
            // Azure refuses to delete the current version while it has snapshots.
            versions.sort_by_key(|version| version.kind);
            let (mut locked, mut kept) = (Vec::new(), Vec::new());
            for version in &versions {
                match self.remove(name, version).await? {
                    Removal::Removed if version.state == State::Live => removed += 1,
                    Removal::Removed | Removal::Demoted => {}
                    Removal::Locked(lock) => locked.push(lock),
                    Removal::Kept { until } => kept.push(until),
                }
            }
            let count = locked.len();
            if let Some(lock) = locked.into_iter().reduce(Lock::or_longer) {
                return Ok(Deleted::Locked { versions: count, lock });
            }
            if kept.len() == versions.len() {
                // Without a date for each of them, it is not known when the last one is erased.
                let until = kept.iter().copied().collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max());
                return Ok(Deleted::Recoverable { versions: kept.len(), until });
            }
        }
        let (name, store) = (name.to_owned(), self.shown().to_owned());
        Err(StoreError::VersionsRemain { name, store, versions: remaining })
    }

    async fn list(&self, name: &str) -> Result<Listing, StoreError> {
        match self {
            Self::Directory(store) => store.list(name).await,
            Self::S3(store) => store.list(name).await,
            Self::Azure(store) => store.list(name).await,
            Self::Gcs(store) => store.list(name).await,
        }
    }

    async fn remove(&self, name: &str, version: &Version) -> Result<Removal, StoreError> {
        match self {
            Self::Directory(store) => store.remove(name, version).await,
            Self::S3(store) => store.remove(name, version).await,
            Self::Azure(store) => store.remove(name, version).await,
            Self::Gcs(store) => store.remove(name, version).await,
        }
    }

    fn shown(&self) -> &str {
        match self {
            Self::Directory(store) => store.shown(),
            Self::S3(store) => store.client.shown(),
            Self::Azure(store) => store.client.shown(),
            Self::Gcs(store) => store.client.shown(),
        }
    }

    fn failed(&self, what: &'static str, name: &str, reason: String) -> StoreError {
        StoreError::Failed { what, name: name.to_owned(), store: self.shown().to_owned(), reason }
    }
}
