//! Versions on Google Cloud Storage (Cloud Storage JSON API v1: Objects: list, Objects: delete).
//!
//! A version is called a generation. Deleting a generation erases it, unless the bucket has a soft delete policy. New buckets have
//! one of seven days; a soft-deleted generation cannot be erased earlier.

use chrono::{DateTime, Utc};
use http::{Method, StatusCode};
use serde::Deserialize;

use super::super::error::StoreError;
use super::client::{Client, encoded};
use super::outcome::{Kind, Listing, Lock, LockMode, Removal, State, Version};
use super::pages::{PAGE_VERSIONS, Pages};

const LIST: &str = "list the versions of";
const DELETE: &str = "delete a version of";
const LIST_RIGHTS: &str = "storage.objects.list";
const DELETE_RIGHTS: &str = "storage.objects.delete";

/// The versions of a bucket.
#[derive(Debug)]
pub(in crate::store) struct GcsVersions {
    pub(super) client: Client,
    /// Address of the bucket's objects.
    url: String,
}

/// Answer of Objects: list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Objects {
    #[serde(default)]
    items: Vec<Object>,
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    name: String,
    generation: String,
    #[serde(default)]
    temporary_hold: bool,
    #[serde(default)]
    event_based_hold: bool,
    retention: Option<Retention>,
    retention_expiration_time: Option<String>,
    soft_delete_time: Option<String>,
    hard_delete_time: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Retention {
    mode: Option<String>,
    retain_until_time: Option<String>,
}

impl Object {
    fn is_soft_deleted(&self) -> bool {
        self.soft_delete_time.is_some() || self.hard_delete_time.is_some()
    }

    fn into_version(self) -> Version {
        let lock = self.lock();
        let until = self.hard_delete_time.as_deref().and_then(time);
        let state = if self.is_soft_deleted() { State::SoftDeleted { until } } else { State::Live };
        Version { kind: Kind::Version, id: self.generation, lock, state }
    }

    /// The lock that ends last: a hold, the retention of the object, or the policy of the bucket.
    fn lock(&self) -> Option<Lock> {
        if self.temporary_hold || self.event_based_hold {
            return Some(Lock { mode: LockMode::Hold, until: None });
        }
        let of_object = self.retention.as_ref().and_then(|retention| {
            let is_locked = retention.mode.as_deref() == Some("Locked");
            let mode = if is_locked { LockMode::Compliance } else { LockMode::Governance };
            Some(Lock { mode, until: Some(time(retention.retain_until_time.as_deref()?)?) })
        });
        let of_bucket = self.retention_expiration_time.as_deref().and_then(time);
        let of_bucket = of_bucket.map(|until| Lock { mode: LockMode::Policy, until: Some(until) });
        of_object.into_iter().chain(of_bucket).reduce(Lock::or_longer)
    }
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc))
}

impl GcsVersions {
    pub(in crate::store) fn new(client: Client, base: &str, bucket: &str) -> Self {
        Self { client, url: format!("{base}/storage/v1/b/{}/o", encoded(bucket, false)) }
    }

    /// Lists the generations of exactly this object, soft-deleted ones included (Objects: list with `versions` and with
    /// `softDeleted`, which exclude each other).
    pub(super) async fn list(&self, name: &str) -> Result<Listing, StoreError> {
        let mut pages = Pages::default();
        if let Some(reason) = self.read_pages(&mut pages, name, "versions", |object| !object.is_soft_deleted()).await? {
            return Ok(Listing::Unsupported(reason));
        }
        // A bucket without a soft delete policy may refuse the second list: then there is nothing to list.
        self.read_pages(&mut pages, name, "softDeleted", Object::is_soft_deleted).await?;
        Ok(Listing::Versions(pages.versions))
    }

    /// Reads all pages of one list. Returns the reason if the store has no such list.
    async fn read_pages(
        &self,
        pages: &mut Pages,
        name: &str,
        which: &str,
        is_wanted: impl Fn(&Object) -> bool,
    ) -> Result<Option<String>, StoreError> {
        let mut token = String::new();
        loop {
            let query = format!("{which}=true&prefix={}&maxResults={PAGE_VERSIONS}{token}", encoded(name, false));
            let sent = self.client.send(Method::GET, &format!("{}?{query}", self.url), &[]).await;
            let answer = sent.map_err(|reason| self.client.failed(LIST, name, reason))?;
            if !answer.status.is_success() {
                let is_unsupported = matches!(
                    answer.status,
                    StatusCode::BAD_REQUEST | StatusCode::PRECONDITION_FAILED | StatusCode::NOT_IMPLEMENTED
                );
                if is_unsupported {
                    return Ok(Some(answer.reason()));
                }
                return Err(self.client.refused(LIST, name, &answer, LIST_RIGHTS));
            }
            let page = serde_json::from_slice::<Objects>(&answer.body);
            let page = page.map_err(|error| self.client.failed(LIST, name, format!("invalid answer: {error}")))?;
            let objects = page.items.into_iter().filter(|object| object.name == name && is_wanted(object));
            pages.add(&self.client, name, objects.map(Object::into_version))?;
            let Some(next) = page.next_page_token.filter(|next| !next.is_empty()) else { return Ok(None) };
            token = format!("&pageToken={}", encoded(&next, false));
        }
    }

    /// Deletes one generation (Objects: delete with `generation`). If the store refuses, the lock from the list is the reason.
    pub(super) async fn remove(&self, name: &str, version: &Version) -> Result<Removal, StoreError> {
        if let State::SoftDeleted { until } = version.state {
            return Ok(Removal::Kept { until });
        }
        let url = format!("{}/{}?generation={}", self.url, encoded(name, false), encoded(&version.id, false));
        let sent = self.client.send(Method::DELETE, &url, &[]).await;
        let answer = sent.map_err(|reason| self.client.failed(DELETE, name, reason))?;
        if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND {
            return Ok(Removal::Removed);
        }
        match &version.lock {
            Some(lock) if answer.status.is_client_error() => Ok(Removal::Locked(lock.clone())),
            _ => Err(self.client.refused(DELETE, name, &answer, DELETE_RIGHTS)),
        }
    }
}
