//! The HTTP interface for people and programs.

mod auth;
mod error;
mod exports;
mod log;
mod nodes;
mod openapi;
mod stats;
mod tail;
mod tokens;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tokio::sync::Semaphore;

use super::Cluster;
use super::audit::Audit;
use super::config::{AggregatorConfig, User};
use super::export::Exporter;
use super::metrics::Metrics;
use super::tokens::TokenStore;

pub use openapi::openapi_json;

/// What every handler works with.
pub(crate) struct App {
    pub(crate) cluster: Cluster,
    pub(crate) audit: Audit,
    exporter: Arc<Exporter>,
    tokens: TokenStore,
    users: HashMap<String, User>,
    cluster_name: piperoll_shared::log::ids::ClusterName,
    metrics: Metrics,
    /// Room for exports and checks.
    streams: Arc<Semaphore>,
    /// Room for counts.
    counts: Arc<Semaphore>,
    /// Room for live tails.
    tails: Arc<Semaphore>,
}

impl App {
    pub(crate) fn new(
        cluster: Cluster,
        tokens: TokenStore,
        audit: Audit,
        exporter: Exporter,
        config: &AggregatorConfig,
    ) -> Self {
        Self {
            cluster,
            audit,
            exporter: Arc::new(exporter),
            tokens,
            users: config.users.clone(),
            cluster_name: config.cluster.clone(),
            metrics: Metrics::new(),
            streams: Arc::new(Semaphore::new(log::STREAMS_MAX)),
            counts: Arc::new(Semaphore::new(log::COUNTS_MAX)),
            tails: Arc::new(Semaphore::new(tail::TAILS_MAX)),
        }
    }
}

/// Every route. Everything under `/api/v1` needs an identity and leaves one entry, unknown paths included.
pub(crate) fn routes(app: &Arc<App>) -> Router {
    let api = Router::new()
        .route("/audit-log", get(log::audit_log))
        .route("/audit-log/tail", get(tail::tail))
        .route("/audit-log/{node}/{seq}", get(log::entry))
        .route("/audit-log/{node}/{seq}/proof", get(exports::proof))
        .route("/exports", post(exports::exports))
        .route("/stats", get(stats::stats))
        .route("/verify", post(log::verify))
        .route("/nodes", get(nodes::nodes))
        .route("/nodes/{node}/accept", post(nodes::accept))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{name}", delete(tokens::revoke))
        .fallback(|| async { error::ApiError::new(404, "not_found", "there is nothing here; see /api/openapi.json") })
        .method_not_allowed_fallback(|| async {
            error::ApiError::new(405, "method_not_allowed", "this path has other methods; see /api/openapi.json")
        })
        .layer(middleware::from_fn_with_state(Arc::clone(app), auth::identify_and_record));
    Router::new()
        .nest("/api/v1", api)
        .route("/api/openapi.json", get(openapi))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .layer(middleware::map_response(no_store))
        .with_state(Arc::clone(app))
}

/// An answer is about one moment; a cached partial answer would be taken for a whole one later.
async fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], openapi_json()).into_response()
}

/// Ready when requests can be recorded, because no request is answered that cannot be.
async fn readyz(State(app): State<Arc<App>>) -> Response {
    match app.audit.ready().await {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(error) => {
            error::ApiError::new(503, "not_ready", format!("requests cannot be recorded: {error}")).into_response()
        }
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    app.metrics.page(&app.cluster.members)
}
