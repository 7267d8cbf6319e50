//! Versions on Amazon S3 and services with the same interface (Amazon S3 API: `ListObjectVersions`, `DeleteObject`, `HeadObject`,
//! `GetObjectRetention`, `GetObjectLegalHold`).

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use http::{Method, StatusCode};
use serde::Deserialize;

use super::super::error::StoreError;
use super::client::{Answer, Client, encoded};
use super::outcome::{Kind, Listing, Lock, LockMode, Removal, State, Version};
use super::pages::{PAGE_VERSIONS, Pages};

const LIST: &str = "list the versions of";
const DELETE: &str = "delete a version of";
const LIST_RIGHTS: &str = "s3:ListBucketVersions";
const DELETE_RIGHTS: &str =
    "s3:DeleteObjectVersion, and s3:GetObjectRetention and s3:GetObjectLegalHold to see whether it is locked";

/// The versions of a bucket.
#[derive(Debug)]
pub(in crate::store) struct S3Versions {
    pub(super) client: Client,
    /// Address of the bucket, without a slash at the end.
    url: String,
    /// Whether it is a directory bucket (S3 Express One Zone). These have no versions, and other requests.
    express: bool,
}

/// Answer of `ListObjectVersions`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListVersionsResult {
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_version_id_marker: Option<String>,
    #[serde(default)]
    version: Vec<Entry>,
    #[serde(default)]
    delete_marker: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    /// `null` for an object that was created without versioning.
    version_id: Option<String>,
}

/// Answer of `GetObjectRetention`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Retention {
    mode: Option<String>,
    retain_until_date: Option<String>,
}

/// Answer of `GetObjectLegalHold`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LegalHold {
    status: Option<String>,
}

impl S3Versions {
    pub(in crate::store) fn new(client: Client, url: String, express: bool) -> Self {
        Self { client, url, express }
    }

    /// Lists the versions and delete markers of exactly this key (`ListObjectVersions`).
    pub(super) async fn list(&self, name: &str) -> Result<Listing, StoreError> {
        if self.express {
            return Ok(Listing::Unsupported(
                "directory buckets of S3 Express One Zone offer no list of versions".to_owned(),
            ));
        }
        let mut pages = Pages::default();
        let mut markers = String::new();
        loop {
            let query = format!("versions=&prefix={}&max-keys={PAGE_VERSIONS}{markers}", encoded(name, false));
            let url = format!("{}?{query}", self.url);
            let answer = self
                .client
                .send(Method::GET, &url, &[])
                .await
                .map_err(|reason| self.client.failed(LIST, name, reason))?;
            if !answer.status.is_success() {
                if is_unsupported(&answer) {
                    return Ok(Listing::Unsupported(answer.reason()));
                }
                return Err(self.client.refused(LIST, name, &answer, LIST_RIGHTS));
            }
            let text = answer.text().map_err(|reason| self.client.failed(LIST, name, reason))?;
            // A service that ignores the parameter sends a plain list instead.
            if !text.contains("<ListVersionsResult") {
                return Ok(Listing::Unsupported(
                    "the store answered with something else than a list of versions".to_owned(),
                ));
            }
            let page = quick_xml::de::from_str::<ListVersionsResult>(text);
            let page = page.map_err(|error| self.client.failed(LIST, name, format!("invalid answer: {error}")))?;
            let entries = page.version.into_iter().chain(page.delete_marker).filter(|entry| entry.key == name);
            let version = |entry: Entry| {
                let id = entry.version_id.unwrap_or_else(|| "null".to_owned());
                Version { kind: Kind::Version, id, lock: None, state: State::Live }
            };
            pages.add(&self.client, name, entries.map(version))?;
            let Some(next) = page.next_key_marker.filter(|_| page.is_truncated) else {
                return Ok(Listing::Versions(pages.versions));
            };
            markers = format!("&key-marker={}", encoded(&next, false));
            if let Some(next) = page.next_version_id_marker.filter(|next| !next.is_empty()) {
                markers = format!("{markers}&version-id-marker={}", encoded(&next, false));
            }
        }
    }

    /// Deletes one version or delete marker (`DeleteObject` with `versionId`). If the store refuses, looks for a lock.
    pub(super) async fn remove(&self, name: &str, version: &Version) -> Result<Removal, StoreError> {
        let object = format!("{}/{}", self.url, encoded(name, true));
        let id = format!("versionId={}", encoded(&version.id, false));
        let sent = self.client.send(Method::DELETE, &format!("{object}?{id}"), &[]).await;
        let answer = sent.map_err(|reason| self.client.failed(DELETE, name, reason))?;
        if answer.status.is_success()
            || answer.status == StatusCode::NOT_FOUND && answer.code().as_deref() != Some("NoSuchBucket")
        {
            return Ok(Removal::Removed);
        }
        match self.lock(name, &object, &id).await? {
            Some(lock) => Ok(Removal::Locked(lock)),
            None => Err(self.client.refused(DELETE, name, &answer, DELETE_RIGHTS)),
        }
    }

    /// The lock of a version. Missing if it has none, or if the store does not say.
    async fn lock(&self, name: &str, object: &str, id: &str) -> Result<Option<Lock>, StoreError> {
        let failed = |reason: String| self.client.failed("read the lock of", name, reason);
        let head = self.client.send(Method::HEAD, &format!("{object}?{id}"), &[]).await.map_err(failed)?;
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let (hold, mode) = (header("x-amz-object-lock-legal-hold"), header("x-amz-object-lock-mode"));
        if let Some(lock) = lock_of(hold, mode, header("x-amz-object-lock-retain-until-date")) {
            return Ok(Some(lock));
        }
        // The headers are left out if the credentials may not read the object. A service that ignores the parameters of the
        // following requests answers with the object, which is no valid answer.
        let hold = self.client.send(Method::GET, &format!("{object}?legal-hold=&{id}"), &[]).await.map_err(failed)?;
        let hold = hold.parsed::<LegalHold>().and_then(|hold| hold.status);
        let retention =
            self.client.send(Method::GET, &format!("{object}?retention=&{id}"), &[]).await.map_err(failed)?;
        let retention = retention.parsed::<Retention>();
        let (mode, until) = retention.map_or((None, None), |retention| (retention.mode, retention.retain_until_date));
        Ok(lock_of(hold.as_deref(), mode.as_deref(), until.as_deref()))
    }
}

/// The lock that legal hold, mode and date of a retention amount to. A date in the past is none.
fn lock_of(hold: Option<&str>, mode: Option<&str>, until: Option<&str>) -> Option<Lock> {
    if hold == Some("ON") {
        return Some(Lock { mode: LockMode::Hold, until: None });
    }
    let until = DateTime::parse_from_rfc3339(until?).ok()?.with_timezone(&Utc);
    let mode = match mode? {
        "COMPLIANCE" => LockMode::Compliance,
        "GOVERNANCE" => LockMode::Governance,
        _ => LockMode::Policy,
    };
    (until > DateTime::<Utc>::from(SystemTime::now())).then_some(Lock { mode, until: Some(until) })
}

/// Whether an answer means that the service has no such request.
fn is_unsupported(answer: &Answer) -> bool {
    matches!(answer.status, StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED)
        || matches!(answer.code().as_deref(), Some("NotImplemented" | "MethodNotAllowed"))
}
