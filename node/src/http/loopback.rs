//! HTTPS on loopback for clients that cannot reach the socket, such as containers: recording only, with a token.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use piperoll_net::serve::Connection;
use piperoll_protocol::node::socket_path;

use super::app::App;
use super::append::{append, gap};
use super::error::ApiError;
use super::health::healthz;
use super::sender::TokenName;

/// Returns the routes of the loopback interface. Entries cannot be read through it.
pub(crate) fn http_routes(app: &Arc<App>) -> Router {
    Router::new()
        .route(socket_path::ENTRIES, post(append))
        .route(socket_path::GAPS, post(gap))
        .route(socket_path::HEALTHZ, get(healthz))
        .layer(middleware::from_fn_with_state(Arc::clone(app), token_only))
        .with_state(Arc::clone(app))
}

async fn token_only(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let refused = |detail: &str| {
        let mut response = ApiError::new(401, "unauthorized", detail).into_response();
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"piperoll\""));
        response
    };
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
        return refused("send `Authorization: Bearer …` with a token from `piperoll node token create`");
    };
    match app.tokens.find(token) {
        Ok(Some(name)) => {
            if let Some(connection) = request.extensions().get::<Connection>() {
                connection.identified();
            }
            request.extensions_mut().insert(TokenName(name));
            next.run(request).await
        }
        Ok(None) => refused("unknown or revoked token"),
        Err(error) => {
            tracing::error!(%error, "cannot read the token file");
            ApiError::new(503, "no_tokens", "cannot read the token file; see the daemon's log").into_response()
        }
    }
}
