//! Identifies the sender of a recording request.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use piperoll_net::serve::UnixPeer;

use super::error::ApiError;

/// Name of the token that a request was authenticated with; a request extension.
#[derive(Debug, Clone)]
pub(super) struct TokenName(pub(super) String);

/// Sender of a recording request, as written in `via`.
pub(super) struct Sender(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Sender {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if let Some(peer) = parts.extensions.get::<UnixPeer>() {
            return Ok(Self(format!("uid={}", peer.uid)));
        }
        match parts.extensions.get::<TokenName>() {
            Some(TokenName(name)) => Ok(Self(format!("token={name}"))),
            None => Err(ApiError::new(401, "unauthorized", "the sender cannot be identified")),
        }
    }
}

impl Sender {
    /// Returns the interface that the request came through, without the sender's name.
    pub(super) fn way(&self) -> &'static str {
        if self.0.starts_with("uid=") { "socket" } else { "http" }
    }
}
