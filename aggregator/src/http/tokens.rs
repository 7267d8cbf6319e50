//! `/tokens`: admins create, list and revoke tokens. A token is only ever in the answer that creates it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::access::{NewToken, Permission};
use piperoll_query::human_time;
use serde_json::{Value, json};

use super::auth::{Caller, Done, recordable};
use super::error::ApiError;
use crate::access::scope::SCOPE_BYTES_MAX;
use crate::state::App;

fn done(response: impl IntoResponse, action: &'static str, details: Value) -> Response {
    let mut response = response.into_response();
    response.extensions_mut().insert(Done { action, details });
    response
}

pub(super) async fn list(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Response {
    let listed = caller.require(Permission::ManageTokens).and_then(|()| Ok(Json(app.tokens.list()?)));
    done(listed, "audit.token_list", json!({}))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: axum::body::Bytes,
) -> Response {
    let mut details = json!({});
    let recordable = recordable(&app).await;
    let created = (|| {
        caller.require(Permission::ManageTokens)?;
        recordable?;
        let new: NewToken = serde_json::from_slice(&body)
            .map_err(|e| ApiError::new(400, "bad_request", format!("name and role are needed: {e}")))?;
        details = json!({ "token_name": new.name.chars().take(64).collect::<String>(), "role": new.role, "expires": shown(new.expires.as_deref()), "scope": shown(new.scope.as_deref()) });
        let now = SystemClock.now();
        let expires = new.expires.as_deref().map(|text| expiry(text, now)).transpose()?;
        Ok::<_, ApiError>((
            StatusCode::CREATED,
            Json(app.tokens.create(&new.name, new.role, new.scope.as_deref(), expires, now)?),
        ))
    })();
    done(created, "audit.token_create", details)
}

/// What somebody asks for may be anything; the entry about it must fit.
fn shown(text: Option<&str>) -> Option<String> {
    text.map(|text| text.chars().take(SCOPE_BYTES_MAX).collect())
}

fn expiry(text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    human_time::parse_expiry(text, now).map_err(|e| ApiError::new(400, "bad_expiry", e.to_string()))
}

pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Response {
    let details = json!({ "token_name": name.chars().take(64).collect::<String>() });
    let recordable = recordable(&app).await;
    let revoked = caller
        .require(Permission::ManageTokens)
        .and(recordable)
        .and_then(|()| app.tokens.revoke(&name).map_err(ApiError::from))
        .map(|()| StatusCode::NO_CONTENT);
    done(revoked, "audit.token_revoke", details)
}
