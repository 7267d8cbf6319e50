//! `/searches`: the saved searches of a client. `/filter`: keys and values of the filter language.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use piperoll_protocol::access::{Permission, SavedSearch};
use piperoll_query::filter::{IS_WORDS, KEY_WORDS};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::auth::{Caller, Unrecorded, recordable};
use super::error::ApiError;
use super::log::with_done;
use crate::access::saved_searches::SearchError;
use crate::state::App;

/// Whose searches they are. Who gets the same name later with another limit does not find them: they can name what is outside it.
fn owner(caller: &Caller) -> String {
    let limit = caller.scope().text().map(|scope| hex::encode(&Sha256::digest(scope)[..8])).unwrap_or_default();
    format!("{} {} {limit}", caller.method(), caller.name()).trim_end().to_owned()
}

/// Away from the threads that answer requests.
async fn on_disk(change: impl FnOnce() -> Result<(), SearchError> + Send + 'static) -> Result<StatusCode, ApiError> {
    let changed = tokio::task::spawn_blocking(change).await;
    changed.unwrap_or_else(|error| Err(SearchError::Failed(error.to_string())))?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /searches`.
pub(super) async fn list(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Response {
    let mut response = Json(app.searches.of(&owner(&caller))).into_response();
    response.extensions_mut().insert(Unrecorded);
    response
}

/// `POST /searches`: one of the same name is replaced.
pub(super) async fn keep(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, body: Bytes) -> Response {
    let recordable = recordable(&app).await;
    let mut details = json!({});
    let kept = (|| {
        caller.require(Permission::View)?;
        recordable?;
        let search: SavedSearch = serde_json::from_slice(&body)
            .map_err(|e| ApiError::new(400, "bad_request", format!("name and parameters are needed: {e}")))?;
        details = json!({ "name": search.name.chars().take(64).collect::<String>() });
        Ok::<_, ApiError>(search)
    })();
    let kept = match kept {
        Ok(search) => on_disk(move || app.searches.keep(&owner(&caller), search)).await,
        Err(error) => Err(error),
    };
    with_done(kept, "audit.search_keep", details)
}

/// `DELETE /searches/{name}`.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Response {
    let details = json!({ "name": name.chars().take(64).collect::<String>() });
    let recordable = recordable(&app).await;
    let removed = match caller.require(Permission::View).and(recordable) {
        Ok(()) => on_disk(move || app.searches.remove(&owner(&caller), &name)).await,
        Err(error) => Err(error),
    };
    with_done(removed, "audit.search_remove", details)
}

/// One key of a filter.
#[derive(Serialize, ToSchema)]
pub(super) struct FilterKey {
    key: &'static str,
    /// What it matches.
    about: &'static str,
    /// The field by which `GET /stats` counts its values; null when they cannot be counted.
    counted_by: Option<&'static str>,
}

/// `GET /filter`.
#[derive(Serialize, ToSchema)]
pub(super) struct FilterWords {
    keys: Vec<FilterKey>,
    /// What can stand behind `is:`.
    is: Vec<&'static str>,
}

pub(super) async fn filter_words() -> Response {
    let keys = KEY_WORDS.map(|(key, counted_by, about)| FilterKey { key, about, counted_by });
    let mut response = Json(FilterWords { keys: keys.into(), is: IS_WORDS.to_vec() }).into_response();
    response.extensions_mut().insert(Unrecorded);
    response
}
