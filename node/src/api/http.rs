//! HTTPS on loopback for whoever cannot reach the socket, such as a container: recording only, each caller with a token.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use piperoll_shared::api::node::socket_path;
use piperoll_shared::net::serve::{Connection, UnixPeer};

use super::App;
use super::append::{append, gap};
use super::error::ApiError;
use super::socket::healthz;

/// Routes of the loopback interface. Nothing is read through it.
pub(crate) fn http_routes(app: &Arc<App>) -> Router {
    Router::new()
        .route(socket_path::ENTRIES, post(append))
        .route(socket_path::GAPS, post(gap))
        .route(socket_path::HEALTHZ, get(healthz))
        .layer(middleware::from_fn_with_state(Arc::clone(app), token_only))
        .with_state(Arc::clone(app))
}

/// The name of the token that a request came with; a request extension.
#[derive(Debug, Clone)]
struct TokenName(String);

async fn token_only(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let refused = |detail: &str| {
        let mut response = ApiError::new(401, "unauthorized", detail).into_response();
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"piperoll\""));
        response
    };
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
        return refused("send `Authorization: Bearer …` with a token of `piperoll node token create`");
    };
    match app.tokens.find(token) {
        Ok(Some(name)) => {
            if let Some(connection) = request.extensions().get::<Connection>() {
                connection.identified();
            }
            request.extensions_mut().insert(TokenName(name));
            next.run(request).await
        }
        Ok(None) => refused("this token is not known here, or was revoked"),
        Err(error) => {
            tracing::error!(%error, "tokens cannot be looked at");
            ApiError::new(503, "no_tokens", "the tokens cannot be looked at; the daemon's log says why").into_response()
        }
    }
}

/// Who records, as `via` says it.
pub(super) struct Sender(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Sender {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if let Some(peer) = parts.extensions.get::<UnixPeer>() {
            return Ok(Self(format!("uid={}", peer.uid)));
        }
        match parts.extensions.get::<TokenName>() {
            Some(TokenName(name)) => Ok(Self(format!("token={name}"))),
            None => Err(ApiError::new(401, "unauthorized", "nobody is known to have sent this")),
        }
    }
}

impl Sender {
    /// The way in, without who used it.
    pub(super) fn way(&self) -> &'static str {
        if self.0.starts_with("uid=") { "socket" } else { "http" }
    }
}
