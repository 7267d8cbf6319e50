//! Holds, erasure, pruning, rebuilding the index, and control of forwarding: on the local socket only, for root and the daemon's own
//! user. No remote interface has such routes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use piperoll_format::statement::{Hold, HoldRelease, Pruned};
use piperoll_format::time::Timestamp;
use piperoll_net::serve::UnixPeer;
use piperoll_protocol::node::{
    ConfirmTimesRequest, ConfirmedTimes, EntryRecorded, EraseRequest, ForwardPauseRequest, ForwardResumeRequest,
    ForwardStatus, HeldRows, HoldReleaseRequest, HoldRequest, IndexExtent, PrunePlan, PruneRequest, RetentionStatus,
    socket_path,
};

use super::app::App;
use super::body::JsonBody;
use super::error::ApiError;

pub(super) fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route(socket_path::HOLDS, get(holds).post(add_hold))
        .route(socket_path::HOLDS_RELEASE, post(release_hold))
        .route(socket_path::ERASE, post(erase))
        .route(socket_path::PRUNE, get(progress).post(prune))
        .route(socket_path::PRUNE_PLAN, post(plan))
        .route(socket_path::CONFIRM_TIMES, post(confirm_times))
        .route(socket_path::REINDEX, post(reindex))
        .route(socket_path::FORWARD, get(forwards))
        .route(socket_path::FORWARD_PAUSE, post(pause))
        .route(socket_path::FORWARD_RESUME, post(resume))
        .layer(middleware::from_fn_with_state(Arc::clone(app), owners_only))
}

async fn owners_only(Extension(peer): Extension<UnixPeer>, request: Request, next: Next) -> Response {
    if [0, nix::unistd::geteuid().as_raw()].contains(&peer.uid) {
        return next.run(request).await;
    }
    let detail = format!("uid {} may not do this; run it as root or as the node's own user", peer.uid);
    ApiError::new(403, "not_the_owner", detail).into_response()
}

fn by(peer: &UnixPeer) -> String {
    format!("uid={}", peer.uid)
}

async fn holds(State(app): State<Arc<App>>) -> Result<Json<Vec<HeldRows>>, ApiError> {
    let held = app.store.holds().await?;
    Ok(Json(held.into_iter().map(|held| HeldRows { entry_seq: held.entry_seq, hold: held.hold }).collect()))
}

async fn add_hold(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<UnixPeer>,
    JsonBody(asked): JsonBody<HoldRequest>,
) -> Result<Json<EntryRecorded>, ApiError> {
    let HoldRequest { name, from, to, reason } = asked;
    let (from, to) = (from.unwrap_or(Timestamp::MIN), to.unwrap_or(Timestamp::MAX));
    let entry_seq = app.store.add_hold(Hold { name, from, to, reason, by: by(&peer) }).await?;
    Ok(Json(EntryRecorded { entry_seq, wal_emptied: true }))
}

async fn release_hold(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<UnixPeer>,
    JsonBody(asked): JsonBody<HoldReleaseRequest>,
) -> Result<Json<EntryRecorded>, ApiError> {
    let HoldReleaseRequest { name, reason } = asked;
    let entry_seq = app.store.release_hold(HoldRelease { name, reason, by: by(&peer) }).await?;
    Ok(Json(EntryRecorded { entry_seq, wal_emptied: true }))
}

async fn erase(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<UnixPeer>,
    JsonBody(asked): JsonBody<EraseRequest>,
) -> Result<Json<EntryRecorded>, ApiError> {
    let EraseRequest { seq, reason, archived } = asked;
    Ok(Json(match archived {
        Some(row) => app.store.erase_archived(row, reason, by(&peer)).await?,
        None => app.store.erase(seq, reason, by(&peer)).await?,
    }))
}

async fn plan(
    State(app): State<Arc<App>>,
    JsonBody(asked): JsonBody<PruneRequest>,
) -> Result<Json<PrunePlan>, ApiError> {
    Ok(Json(app.retention.plan(asked.before).await?))
}

async fn confirm_times(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<UnixPeer>,
    JsonBody(asked): JsonBody<ConfirmTimesRequest>,
) -> Result<Json<ConfirmedTimes>, ApiError> {
    let confirmed = app.store.confirm_times(asked.reason, by(&peer), asked.dry_run).await?;
    app.retention.look_again();
    Ok(Json(confirmed))
}

/// Returns 202: the prune is recorded, and is carried out once a witness has seen the prune statement.
async fn prune(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<UnixPeer>,
    JsonBody(asked): JsonBody<PruneRequest>,
) -> Result<(StatusCode, Json<Pruned>), ApiError> {
    let to_seq = asked.to_seq.ok_or_else(|| ApiError::new(400, "no_plan", "specify the `to_seq` from the plan"))?;
    let pruned = app.retention.ask(asked.before, to_seq, &by(&peer), asked.archive, asked.confirm).await?;
    Ok((StatusCode::ACCEPTED, Json(pruned)))
}

/// Returns 202: the index is dropped and rebuilt, and meanwhile searches read the rows that it does not cover yet.
async fn reindex(State(app): State<Arc<App>>) -> Result<(StatusCode, Json<IndexExtent>), ApiError> {
    app.store.reindex().await?;
    Ok((StatusCode::ACCEPTED, Json(app.store.index())))
}

async fn progress(State(app): State<Arc<App>>) -> Result<Json<RetentionStatus>, ApiError> {
    Ok(Json(app.retention.status().await?))
}

async fn forwards(State(app): State<Arc<App>>) -> Json<Vec<ForwardStatus>> {
    Json(app.forwarding.statuses())
}

async fn pause(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<UnixPeer>,
    JsonBody(asked): JsonBody<ForwardPauseRequest>,
) -> Result<Json<ForwardStatus>, ApiError> {
    Ok(Json(app.forwarding.pause(&asked.name, &asked.reason, &by(&peer)).await?))
}

async fn resume(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<UnixPeer>,
    JsonBody(asked): JsonBody<ForwardResumeRequest>,
) -> Result<Json<ForwardStatus>, ApiError> {
    Ok(Json(app.forwarding.resume(&asked.name, &by(&peer)).await?))
}
