//! `/tokens`: admins create, list and revoke tokens. A token itself is only in the response that creates it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::access::{CreatedToken, NewToken, TokenInfo};
use piperoll_protocol::problem::Problem;
use piperoll_query::human_time;
use serde_json::json;

use super::audited::AuditEntry;
use super::error::ApiError;
use crate::access::scope::SCOPE_BYTES_MAX;
use crate::state::App;

/// Lists tokens; a token itself is only in the answer that creates it.
#[utoipa::path(get, path = "/tokens", tag = "tokens", responses(
    (status = 200, description = "Names, roles and expiry", body = Vec<TokenInfo>),
))]
pub(super) async fn list_tokens(State(app): State<Arc<App>>) -> Result<Json<Vec<TokenInfo>>, ApiError> {
    Ok(Json(app.tokens.list()?))
}

/// Creates a token.
#[utoipa::path(post, path = "/tokens", tag = "tokens", request_body = NewToken, responses(
    (status = 201, description = "The new token, shown only in this response", body = CreatedToken),
    (status = 409, description = "The name is taken", body = Problem),
))]
pub(super) async fn create_token(
    State(app): State<Arc<App>>,
    Extension(audit): Extension<AuditEntry>,
    body: Bytes,
) -> Result<(StatusCode, Json<CreatedToken>), ApiError> {
    let new: NewToken = serde_json::from_slice(&body)
        .map_err(|e| ApiError::new(400, "bad_request", format!("name and role are required: {e}")))?;
    audit.details(json!({ "token_name": new.name.chars().take(64).collect::<String>(), "role": new.role,
        "expires": shown(new.expires.as_deref()), "scope": shown(new.scope.as_deref()) }));
    let now = SystemClock.now();
    let expires = new.expires.as_deref().map(|text| expiry(text, now)).transpose()?;
    let created = app.tokens.create(&new.name, new.role, new.scope.as_deref(), expires, now)?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Truncates a value from the request, which can have any length, so that it fits into the audit entry.
fn shown(text: Option<&str>) -> Option<String> {
    text.map(|text| text.chars().take(SCOPE_BYTES_MAX).collect())
}

fn expiry(text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    human_time::parse_expiry(text, now).map_err(|e| ApiError::new(400, "bad_expiry", e.to_string()))
}

/// Revokes a token at once.
#[utoipa::path(delete, path = "/tokens/{name}", tag = "tokens", params(
    ("name" = String, Path, description = "Name of the token"),
), responses(
    (status = 204, description = "Revoked; the token is no longer valid"),
    (status = 404, description = "No such token", body = Problem),
))]
pub(super) async fn revoke_token(
    State(app): State<Arc<App>>,
    Extension(audit): Extension<AuditEntry>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    audit.details(json!({ "token_name": name.chars().take(64).collect::<String>() }));
    app.tokens.revoke(&name)?;
    Ok(StatusCode::NO_CONTENT)
}
