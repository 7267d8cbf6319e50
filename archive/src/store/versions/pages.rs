//! Pages of a list of versions.

use super::super::error::StoreError;
use super::client::Client;
use super::outcome::Version;

/// Maximum number of versions of one object. The archive creates every object once, so more than a few mean that something else writes.
pub(super) const VERSIONS_MAX: usize = 1_000;
/// Maximum number of pages that a list of one object's versions has. Names that merely begin with the object's name share the list.
pub(super) const PAGES_MAX: usize = 20;
/// Number of versions per page. All three services allow it.
pub(super) const PAGE_VERSIONS: &str = "1000";

/// Versions that the pages of a list have shown so far.
#[derive(Default)]
pub(super) struct Pages {
    pub(super) versions: Vec<Version>,
    read: usize,
}

impl Pages {
    /// Adds the versions of one page.
    pub(super) fn add(
        &mut self,
        client: &Client,
        name: &str,
        versions: impl Iterator<Item = Version>,
    ) -> Result<(), StoreError> {
        self.versions.extend(versions);
        self.read += 1;
        if self.versions.len() <= VERSIONS_MAX && self.read <= PAGES_MAX {
            return Ok(());
        }
        let (name, store) = (name.to_owned(), client.shown().to_owned());
        Err(StoreError::TooManyVersions { name, store, versions_max: VERSIONS_MAX })
    }
}
