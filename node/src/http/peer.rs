//! The mTLS interface: aggregators of the same cluster may read; no peer may write, and nodes may not read other nodes.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use piperoll_format::merkle::{Hash, encode_hash};
use piperoll_net::identity::Kind;
use piperoll_net::serve::TlsPeer;
use piperoll_protocol::frame;
use piperoll_protocol::node::{
    CheckpointAnswer, CheckpointQuery, ClockReading, InclusionQuery, MirroredCheckpoint, NodeStatus,
    PROOF_REQUEST_BYTES_MAX, PROOF_RUNS_MAX, ProofAnswer, ProofRequest, ScanRequest, peer_path,
};
use piperoll_query::filter::FILTER_VERSION;

use super::app::App;
use super::body::JsonBody;
use super::error::ApiError;
use super::stream::{Form, room, scan_body};
use crate::store::SignedCheckpoint;

/// Routes for aggregators.
pub(crate) fn peer_routes(app: &Arc<App>) -> Router {
    Router::new()
        .route(peer_path::SCAN, post(scan))
        .route(peer_path::STATUS, get(status))
        .route(peer_path::CLOCK, get(clock))
        .route(peer_path::CHECKPOINT, get(checkpoint))
        .route(peer_path::COSIGNED, post(cosigned))
        .route(peer_path::MIRRORED, post(mirrored))
        .route(peer_path::PROOF, post(proof))
        .route(peer_path::INCLUSION, get(inclusion))
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
            let who = other.as_ref().map_or_else(|| "no identity".to_owned(), ToString::to_string);
            tracing::warn!(address = %peer.address, %who, "peer request refused");
            ApiError::new(
                403,
                "not_an_aggregator",
                format!("only aggregators of this cluster may read a node; the certificate names {who}"),
            )
            .into_response()
        }
    }
}

async fn scan(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<TlsPeer>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<ScanRequest>,
) -> Result<Response, ApiError> {
    let places =
        headers.get(ACCEPT).is_some_and(|accepts| accepts.as_bytes() == frame::MEDIA_TYPE_WITH_PLACES.as_bytes());
    let form = Form::Frames { places };
    let name = peer.identity.as_ref().map_or_else(String::new, ToString::to_string);
    let room = room(&app.peer_scans, &name).await?;
    Ok(([(CONTENT_TYPE, frame::MEDIA_TYPE)], scan_body(&app, request, form, room).await?).into_response())
}

async fn status(State(app): State<Arc<App>>) -> Result<Json<NodeStatus>, ApiError> {
    Ok(Json(app.status().await?))
}

async fn clock(State(app): State<Arc<App>>) -> Json<ClockReading> {
    Json(ClockReading { now_micros: app.clock.now().micros(), filter_version: FILTER_VERSION })
}

async fn checkpoint(
    State(app): State<Arc<App>>,
    Query(asked): Query<CheckpointQuery>,
) -> Result<Json<CheckpointAnswer>, ApiError> {
    if let Some(generation) = asked.generation.filter(|generation| *generation != app.store.generation()) {
        let made = app.store.aside_checkpoint(generation, asked.old).await?;
        return Ok(Json(made.ok_or_else(|| another_log(&app))?));
    }
    let SignedCheckpoint { checkpoint, note } = app.store.checkpoint().await?;
    let proof = if (1..checkpoint.size).contains(&asked.old) {
        app.store.consistency(asked.old, checkpoint.size).await?
    } else {
        Vec::new()
    };
    let mut span = app.store.span(checkpoint.size).await?;
    span.pruned = app.store.floor().await?.map(|floor| floor.rows());
    span.aside = app.store.asides().await;
    Ok(Json(CheckpointAnswer {
        generation: None,
        note: note.to_string(),
        proof: proof.iter().map(encode_hash).collect(),
        span: Some(span),
    }))
}

async fn cosigned(State(app): State<Arc<App>>, note: String) -> Result<StatusCode, ApiError> {
    app.store.cosigned(note).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn mirrored(
    State(app): State<Arc<App>>,
    JsonBody(mirrored): JsonBody<MirroredCheckpoint>,
) -> Result<StatusCode, ApiError> {
    app.store.mirrored(mirrored.note, mirrored.first_seq).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn proof(
    State(app): State<Arc<App>>,
    JsonBody(asked): JsonBody<ProofRequest, PROOF_REQUEST_BYTES_MAX>,
) -> Result<Json<ProofAnswer>, ApiError> {
    let runs: Vec<_> = asked.runs.iter().map(|(begin, end)| *begin..*end).collect();
    let apart = runs.windows(2).all(|pair| pair[0].end < pair[1].start);
    let sound = runs.iter().all(|run| run.start < run.end && run.end <= asked.size);
    if !apart || !sound || runs.len() > PROOF_RUNS_MAX {
        let detail = format!("`runs` must be at most {PROOF_RUNS_MAX} ascending, non-adjacent ranges within the tree");
        return Err(ApiError::new(400, "bad_runs", detail));
    }
    let made = app.store.range_proof(asked.generation, runs, asked.size).await?;
    Ok(Json(answer(&made.ok_or_else(|| another_log(&app))?)))
}

async fn inclusion(
    State(app): State<Arc<App>>,
    Query(asked): Query<InclusionQuery>,
) -> Result<Json<ProofAnswer>, ApiError> {
    if asked.seq >= asked.size {
        return Err(ApiError::new(400, "bad_seq", "the row is not within the tree"));
    }
    let made = app.store.inclusion(asked.generation, asked.seq, asked.size).await?;
    Ok(Json(answer(&made.ok_or_else(|| another_log(&app))?)))
}

fn answer(hashes: &[Hash]) -> ProofAnswer {
    ProofAnswer { hashes: hashes.iter().map(encode_hash).collect() }
}

/// Returns the error for a proof about another log, or about a size that this log does not have.
fn another_log(app: &App) -> ApiError {
    let rows = app.store.health().head().map_or(0, |head| head + 1);
    let detail = format!("this log is generation {} with {rows} rows", app.store.generation());
    ApiError::new(409, "another_log", detail)
}
