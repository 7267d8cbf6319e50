//! The local Unix socket: applications append, operators read. The kernel authenticates clients.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use piperoll_net::serve::UnixPeer;
use piperoll_protocol::node::{NDJSON, NodeStatus, ScanRequest, socket_path};

use super::admin;
use super::app::App;
use super::append::{append, gap};
use super::body::JsonBody;
use super::error::ApiError;
use super::health::healthz;
use super::stream::{Form, check_body, room, scan_body};

/// Returns the routes of the local socket.
pub(crate) fn socket_routes(app: &Arc<App>) -> Router {
    let readers_only = Router::new()
        .route(socket_path::SCAN, post(scan))
        .route(socket_path::VERIFY, get(verify))
        .layer(middleware::from_fn_with_state(Arc::clone(app), readers_only));
    Router::new()
        .route(socket_path::ENTRIES, post(append))
        .route(socket_path::GAPS, post(gap))
        .route(socket_path::STATUS, get(status))
        .route(socket_path::CHECKPOINT, get(checkpoint))
        .route(socket_path::HEALTHZ, get(healthz))
        .route(socket_path::METRICS, get(metrics))
        .merge(readers_only)
        .merge(admin::routes(app))
        .with_state(Arc::clone(app))
}

/// Refuses callers that may not read. Any client that may connect may append, but only some may read other users' entries.
async fn readers_only(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<UnixPeer>,
    request: Request,
    next: Next,
) -> Response {
    if app.readers.contains(&peer.uid) {
        return next.run(request).await;
    }
    let detail =
        format!("uid {} may append but not read; add it to socket.readers in node.toml, or run this as root", peer.uid);
    ApiError::new(403, "not_a_reader", detail).into_response()
}

async fn scan(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<UnixPeer>,
    JsonBody(request): JsonBody<ScanRequest>,
) -> Result<Response, ApiError> {
    let room = room(&app.scans, &format!("uid={}", peer.uid)).await?;
    Ok(([(CONTENT_TYPE, NDJSON)], scan_body(&app, request, Form::Lines, room).await?).into_response())
}

async fn verify(State(app): State<Arc<App>>, Extension(peer): Extension<UnixPeer>) -> Result<Response, ApiError> {
    let room = room(&app.scans, &format!("uid={}", peer.uid)).await?;
    Ok(([(CONTENT_TYPE, NDJSON)], check_body(&app, room).await).into_response())
}

/// Returns the node's status. A caller that may only append sees the node's health, but not its holds or destinations.
async fn status(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<UnixPeer>,
) -> Result<Json<NodeStatus>, ApiError> {
    let mut status = app.status().await?;
    if !app.readers.contains(&peer.uid) {
        status.forward.clear();
        status.intake.clear();
        if let Some(retention) = &mut status.retention {
            retention.holds.clear();
            retention.problem = None;
        }
    }
    Ok(Json(status))
}

/// Returns the newest checkpoint to any client that may connect: it states the number of rows, but reveals nothing about them.
async fn checkpoint(State(app): State<Arc<App>>) -> Result<String, ApiError> {
    Ok(app.store.checkpoint().await?.note.to_string())
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    app.metrics_page().await
}
