//! Versions on Azure Blob Storage (Azure Storage REST API: List Blobs, Delete Blob, Get Blob Properties).
//!
//! A blob has a current version, older versions, and snapshots. The current version cannot be deleted by its identifier: deleting the
//! blob makes it an older version. With soft delete, a deleted version is kept for some days; it can be erased earlier only if the
//! account permits permanent deletion.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;

use super::super::error::StoreError;
use super::client::{Answer, Client, encoded};
use super::outcome::{Kind, Listing, Lock, LockMode, Removal, State, Version};
use super::pages::{PAGE_VERSIONS, Pages};

/// Version of the interface. Versions of blobs exist since 2019-12-12, immutability of a version and permanent deletion since
/// 2020-06-12.
const API_VERSION: (&str, &str) = ("x-ms-version", "2023-11-03");
const LIST: &str = "list the versions of";
const DELETE: &str = "delete a version of";
const LIST_RIGHTS: &str = "the right to list blobs with versions and deleted blobs (role Storage Blob Data Contributor, or permission l \
                           of a shared access signature)";
const DELETE_RIGHTS: &str =
    "the right to delete versions (role Storage Blob Data Owner, or permissions dx of a shared access signature)";
/// Seconds of a day. Azure tells how many days a deleted blob is kept.
const DAY_SECONDS: u64 = 86_400;
/// Maximum number of days that Azure keeps a deleted blob.
const KEPT_DAYS_MAX: u64 = 365;

/// The versions of a container.
#[derive(Debug)]
pub(in crate::store) struct AzureVersions {
    pub(super) client: Client,
    /// Address of the container, without a slash at the end.
    url: String,
}

/// Answer of List Blobs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EnumerationResults {
    blobs: Option<Blobs>,
    next_marker: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blobs {
    #[serde(default)]
    blob: Vec<Blob>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blob {
    name: String,
    version_id: Option<String>,
    #[serde(default)]
    is_current_version: bool,
    snapshot: Option<String>,
    #[serde(default)]
    deleted: bool,
    properties: Option<Properties>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Properties {
    remaining_retention_days: Option<u64>,
}

impl Blob {
    fn into_version(self, now: SystemTime) -> Version {
        let until = || {
            // The number is rounded, so this is the latest time.
            let days =
                self.properties.and_then(|properties| properties.remaining_retention_days)?.min(KEPT_DAYS_MAX) + 1;
            now.checked_add(Duration::from_secs(days * DAY_SECONDS)).map(DateTime::<Utc>::from)
        };
        let state = if self.deleted { State::SoftDeleted { until: until() } } else { State::Live };
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (kind, id) = match (filled(self.snapshot), filled(self.version_id)) {
            (Some(snapshot), _) => (Kind::Snapshot, snapshot),
            (None, Some(version)) if !self.is_current_version => (Kind::Version, version),
            (None, version) => (Kind::Current, version.unwrap_or_default()),
        };
        Version { kind, id, lock: None, state }
    }
}

impl AzureVersions {
    pub(in crate::store) fn new(client: Client, url: String) -> Self {
        Self { client, url }
    }

    /// Lists the versions, snapshots and soft-deleted versions of exactly this blob (List Blobs).
    pub(super) async fn list(&self, name: &str) -> Result<Listing, StoreError> {
        let now = SystemTime::now();
        let mut pages = Pages::default();
        let mut marker = String::new();
        loop {
            let prefix = encoded(name, false);
            let query = format!("restype=container&comp=list&prefix={prefix}&maxresults={PAGE_VERSIONS}");
            let url = format!("{}?{query}&include=snapshots%2Cversions%2Cdeleted{marker}", self.url);
            let sent = self.client.send(Method::GET, &url, &[API_VERSION]).await;
            let answer = sent.map_err(|reason| self.client.failed(LIST, name, reason))?;
            if !answer.status.is_success() {
                if is_unsupported(&answer) {
                    return Ok(Listing::Unsupported(answer.reason()));
                }
                return Err(self.client.refused(LIST, name, &answer, LIST_RIGHTS));
            }
            let text = answer.text().map_err(|reason| self.client.failed(LIST, name, reason))?;
            let page = quick_xml::de::from_str::<EnumerationResults>(text);
            let page = page.map_err(|error| self.client.failed(LIST, name, format!("invalid answer: {error}")))?;
            let blobs = page.blobs.map(|blobs| blobs.blob).unwrap_or_default();
            let blobs = blobs.into_iter().filter(|blob| blob.name == name);
            pages.add(&self.client, name, blobs.map(|blob| blob.into_version(now)))?;
            let Some(next) = page.next_marker.filter(|next| !next.is_empty()) else {
                return Ok(Listing::Versions(pages.versions));
            };
            marker = format!("&marker={}", encoded(&next, false));
        }
    }

    /// Deletes one version (Delete Blob). If the store refuses, looks for a lock.
    pub(super) async fn remove(&self, name: &str, version: &Version) -> Result<Removal, StoreError> {
        let blob = format!("{}/{}", self.url, encoded(name, true));
        let id = match version.kind {
            Kind::Current => None,
            Kind::Version => Some(format!("versionid={}", encoded(&version.id, false))),
            Kind::Snapshot => Some(format!("snapshot={}", encoded(&version.id, false))),
        };
        if let State::SoftDeleted { until } = version.state {
            // A soft-deleted blob without an identifier can only be restored, not erased.
            let Some(id) = id else { return Ok(Removal::Kept { until }) };
            let answer = self.delete(name, &format!("{blob}?{id}&deletetype=permanent"), false).await?;
            return Ok(if is_gone(&answer) { Removal::Removed } else { Removal::Kept { until } });
        }
        let url = id.as_ref().map_or_else(|| blob.clone(), |id| format!("{blob}?{id}"));
        let answer = self.delete(name, &url, version.kind == Kind::Current).await?;
        if is_gone(&answer) {
            let is_demoted = version.kind == Kind::Current && !version.id.is_empty();
            return Ok(if is_demoted { Removal::Demoted } else { Removal::Removed });
        }
        match self.lock(name, &url, &answer).await? {
            Some(lock) => Ok(Removal::Locked(lock)),
            None => Err(self.client.refused(DELETE, name, &answer, DELETE_RIGHTS)),
        }
    }

    async fn delete(&self, name: &str, url: &str, with_snapshots: bool) -> Result<Answer, StoreError> {
        let headers: &[_] =
            if with_snapshots { &[API_VERSION, ("x-ms-delete-snapshots", "include")] } else { &[API_VERSION] };
        self.client.send(Method::DELETE, url, headers).await.map_err(|reason| self.client.failed(DELETE, name, reason))
    }

    /// The lock of a version, from its properties (Get Blob Properties) or from the refusal to delete it.
    async fn lock(&self, name: &str, url: &str, refusal: &Answer) -> Result<Option<Lock>, StoreError> {
        let code = refusal.code();
        let named = match code.as_deref() {
            Some("BlobImmutableDueToLegalHold") => Some(LockMode::Hold),
            Some("BlobImmutableDueToPolicy") => Some(LockMode::Policy),
            _ => return Ok(None),
        };
        let sent = self.client.send(Method::HEAD, url, &[API_VERSION]).await;
        let answer = sent.map_err(|reason| self.client.failed("read the lock of", name, reason))?;
        let listed = if answer.status.is_success() { lock_of(&answer.headers) } else { None };
        // The policy of a whole container is not among the properties of a blob.
        Ok(listed.or_else(|| named.map(|mode| Lock { mode, until: None })))
    }
}

/// Lock in the headers of Get Blob Properties.
fn lock_of(headers: &HeaderMap) -> Option<Lock> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if header("x-ms-legal-hold") == Some("true") {
        return Some(Lock { mode: LockMode::Hold, until: None });
    }
    let until = DateTime::parse_from_rfc2822(header("x-ms-immutability-policy-until-date")?).ok()?.with_timezone(&Utc);
    let is_locked = header("x-ms-immutability-policy-mode").is_some_and(|mode| mode.eq_ignore_ascii_case("locked"));
    let mode = if is_locked { LockMode::Compliance } else { LockMode::Governance };
    Some(Lock { mode, until: Some(until) })
}

fn is_gone(answer: &Answer) -> bool {
    let is_missing = answer.status == StatusCode::NOT_FOUND && answer.code().as_deref() != Some("ContainerNotFound");
    answer.status.is_success() || is_missing
}

/// Whether an answer means that the account has no versions: one with a hierarchical namespace, or another implementation.
fn is_unsupported(answer: &Answer) -> bool {
    let code = answer.code();
    let is_unknown = matches!(
        code.as_deref(),
        Some(
            "UnsupportedQueryParameter"
                | "InvalidQueryParameterValue"
                | "OutOfRangeQueryParameterValue"
                | "FeatureVersionMismatch"
                | "BlobOperationNotSupported"
                | "HierarchicalNamespaceNotSupported"
        )
    );
    answer.status == StatusCode::NOT_IMPLEMENTED || is_unknown
}
