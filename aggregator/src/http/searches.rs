//! `/searches`: the saved searches of a client. `/filter`: keys and values of the filter language.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use piperoll_protocol::access::SavedSearch;
use piperoll_protocol::problem::Problem;
use piperoll_query::filter::{IS_WORDS, KEY_WORDS};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::audited::AuditEntry;
use super::error::ApiError;
use super::identify::Caller;
use crate::access::saved_searches::SearchError;
use crate::state::App;

/// Returns the name under which a caller's searches are stored. It includes the scope: a later caller with the same
/// name and another scope must not find searches that can name data outside of that scope.
fn owner(caller: &Caller) -> String {
    let limit = caller.scope().text().map(|scope| hex::encode(&Sha256::digest(scope)[..8])).unwrap_or_default();
    format!("{} {} {limit}", caller.method(), caller.name()).trim_end().to_owned()
}

/// Runs a change on a blocking thread, so that it does not block the threads that answer requests.
async fn on_disk(change: impl FnOnce() -> Result<(), SearchError> + Send + 'static) -> Result<StatusCode, ApiError> {
    let changed = tokio::task::spawn_blocking(change).await;
    changed.unwrap_or_else(|error| Err(SearchError::Failed(error.to_string())))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the caller's saved searches.
#[utoipa::path(get, path = "/searches", tag = "searches", responses(
    (status = 200, description = "The caller's saved searches", body = Vec<SavedSearch>),
))]
pub(super) async fn list_searches(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
) -> Json<Vec<SavedSearch>> {
    audit.skip_on_success();
    Json(app.searches.of(&owner(&caller)))
}

/// Saves a search; one of the same name is replaced.
#[utoipa::path(post, path = "/searches", tag = "searches", request_body = SavedSearch, responses(
    (status = 204, description = "Saved; a search of the same name is replaced"),
    (status = 409, description = "The caller already has 100 saved searches", body = Problem),
))]
pub(super) async fn keep_search(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let search: SavedSearch = serde_json::from_slice(&body)
        .map_err(|e| ApiError::new(400, "bad_request", format!("name and parameters are required: {e}")))?;
    audit.details(json!({ "name": search.name.chars().take(64).collect::<String>() }));
    on_disk(move || app.searches.keep(&owner(&caller), search)).await
}

/// Removes a saved search.
#[utoipa::path(delete, path = "/searches/{name}", tag = "searches", params(
    ("name" = String, Path, description = "Name of the search"),
), responses(
    (status = 204, description = "Removed"),
    (status = 404, description = "No such search", body = Problem),
))]
pub(super) async fn remove_search(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    audit.details(json!({ "name": name.chars().take(64).collect::<String>() }));
    on_disk(move || app.searches.remove(&owner(&caller), &name)).await
}

/// One key of a filter.
#[derive(Serialize, ToSchema)]
pub(super) struct FilterKey {
    key: &'static str,
    /// Description of what the key matches.
    about: &'static str,
    /// The field by which `GET /stats` counts its values; null when they cannot be counted.
    counted_by: Option<&'static str>,
}

/// `GET /filter`.
#[derive(Serialize, ToSchema)]
pub(super) struct FilterWords {
    keys: Vec<FilterKey>,
    /// Values allowed after `is:`.
    is: Vec<&'static str>,
}

/// Lists the keys and words of the filter language.
#[utoipa::path(get, path = "/filter", tag = "log", responses(
    (status = 200, description = "Keys of the filter language, and values allowed after `is:`", body = FilterWords),
))]
pub(super) async fn filter_words(Extension(audit): Extension<AuditEntry>) -> Json<FilterWords> {
    audit.skip_on_success();
    let keys = KEY_WORDS.map(|(key, counted_by, about)| FilterKey { key, about, counted_by });
    Json(FilterWords { keys: keys.into(), is: IS_WORDS.to_vec() })
}
