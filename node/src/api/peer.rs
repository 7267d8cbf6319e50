//! The mTLS interface: aggregators of the same cluster read, nobody writes, no node reads another.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use piperoll_shared::api::frame;
use piperoll_shared::api::node::{CheckpointAnswer, CheckpointQuery, ClockReading, NodeStatus, ScanRequest, peer_path};
use piperoll_shared::log::tree::encode_hash;
use piperoll_shared::net::identity::Kind;
use piperoll_shared::net::serve::TlsPeer;

use super::App;
use super::error::ApiError;
use super::stream::{Form, scan_body};
use crate::store::SignedCheckpoint;

/// Routes for aggregators.
pub(crate) fn peer_routes(app: &Arc<App>) -> Router {
    Router::new()
        .route(peer_path::SCAN, post(scan))
        .route(peer_path::STATUS, get(status))
        .route(peer_path::CLOCK, get(clock))
        .route(peer_path::CHECKPOINT, get(checkpoint))
        .route(peer_path::COSIGNED, post(cosigned))
        .layer(middleware::from_fn_with_state(Arc::clone(app), aggregators_only))
        .with_state(Arc::clone(app))
}

async fn aggregators_only(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<TlsPeer>,
    request: Request,
    next: Next,
) -> Response {
    match &peer.identity {
        Some(identity) if identity.cluster == app.cluster && identity.kind == Kind::Aggregator => {
            next.run(request).await
        }
        other => {
            let who = other.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
            tracing::warn!(address = %peer.address, %who, "peer request refused");
            ApiError::new(
                403,
                "not_an_aggregator",
                format!("only aggregators of this cluster read a node; the certificate names {who}"),
            )
            .into_response()
        }
    }
}

async fn scan(State(app): State<Arc<App>>, Json(request): Json<ScanRequest>) -> Result<Response, ApiError> {
    Ok(([(CONTENT_TYPE, frame::MEDIA_TYPE)], scan_body(&app, request, Form::Frames).await?).into_response())
}

async fn status(State(app): State<Arc<App>>) -> Result<Json<NodeStatus>, ApiError> {
    Ok(Json(app.status().await?))
}

async fn clock(State(app): State<Arc<App>>) -> Json<ClockReading> {
    Json(ClockReading { now_micros: app.clock.now().micros() })
}

async fn checkpoint(
    State(app): State<Arc<App>>,
    Query(asked): Query<CheckpointQuery>,
) -> Result<Json<CheckpointAnswer>, ApiError> {
    let SignedCheckpoint { checkpoint, note } = app.store.checkpoint().await?;
    let proof = if (1..checkpoint.size).contains(&asked.old) {
        app.store.consistency(asked.old, checkpoint.size).await?
    } else {
        Vec::new()
    };
    Ok(Json(CheckpointAnswer { note: note.to_string(), proof: proof.iter().map(encode_hash).collect() }))
}

async fn cosigned(State(app): State<Arc<App>>, note: String) -> Result<StatusCode, ApiError> {
    app.store.cosigned(note).await?;
    Ok(StatusCode::NO_CONTENT)
}
