//! The list of routes, and the router that is built from it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use super::openapi::openapi_json;
use super::{auth, error, exports, findings, headers, log, nodes, searches, session, stats, tail, tokens};
use crate::state::App;

/// Bytes of a request's body: a filter, a reason, a name.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// One way in under `/api/v1`.
struct Door {
    method: &'static str,
    path: &'static str,
    handler: MethodRouter<Arc<App>>,
}

/// Every route that needs an identity and leaves one entry. The router is made of this list, and so is what a test goes
/// over with every role and scope: there is no other way in.
fn doors() -> Vec<Door> {
    let door = |method, path, handler| Door { method, path, handler };
    vec![
        door("GET", "/audit-log", get(log::audit_log)),
        door("GET", "/audit-log/tail", get(tail::tail)),
        door("GET", "/audit-log/{node}/{seq}", get(log::entry)),
        door("GET", "/audit-log/{node}/{seq}/body", get(log::body)),
        door("GET", "/audit-log/{node}/{seq}/proof", get(exports::proof)),
        door("POST", "/exports", post(exports::exports)),
        door("GET", "/stats", get(stats::stats)),
        door("POST", "/verify", post(log::verify)),
        door("POST", "/bundles/verify", post(findings::verify_upload)),
        door("POST", "/acknowledgements", post(findings::acknowledge)),
        door("POST", "/judgements", post(findings::judge)),
        door("GET", "/nodes", get(nodes::nodes)),
        door("POST", "/nodes/{node}/accept", post(nodes::accept)),
        door("GET", "/filter", get(searches::filter_words)),
        door("GET", "/searches", get(searches::list)),
        door("POST", "/searches", post(searches::keep)),
        door("DELETE", "/searches/{name}", delete(searches::remove)),
        door("GET", "/session", get(session::who_am_i)),
        door("DELETE", "/session", delete(session::sign_out)),
        door("POST", "/session/links", post(session::link)),
        door("GET", "/tokens", get(tokens::list)),
        door("POST", "/tokens", post(tokens::create)),
        door("DELETE", "/tokens/{name}", delete(tokens::revoke)),
    ]
}

/// Signing in, which is for those whom nobody knows yet; it looks after itself.
const SIGN_IN: (&str, &str) = ("POST", "/session");

/// Method and path of everything under `/api/v1`.
pub fn api_routes() -> Vec<(&'static str, String)> {
    let doors = doors().into_iter().map(|door| (door.method, door.path)).chain([SIGN_IN]);
    doors.map(|(method, path)| (method, format!("/api/v1{path}"))).collect()
}

/// Everything that is served. Unknown paths under `/api/v1` need an identity and leave an entry too.
pub(crate) fn routes(app: &Arc<App>) -> Router {
    let mut api = Router::new();
    for door in doors() {
        api = api.route(door.path, door.handler);
    }
    let api = api
        .fallback(|| async { error::ApiError::new(404, "not_found", "not found; see /api/openapi.json") })
        .method_not_allowed_fallback(|| async {
            error::ApiError::new(405, "method_not_allowed", "method not allowed; see /api/openapi.json")
        })
        // Nothing but a bundle to be checked is longer, and that one is received apart.
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(auth::panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(app), auth::identify))
        .route(SIGN_IN.1, post(session::sign_in))
        .layer(CatchPanicLayer::custom(auth::panicked))
        .layer(app.audit.layer());
    let open = Router::new()
        .route("/api/openapi.json", get(openapi))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(app))
        .merge(crate::web::assets::pages())
        .layer(middleware::from_fn_with_state(Arc::clone(app), auth::not_too_often));
    Router::new()
        .nest("/api/v1", api)
        .with_state(Arc::clone(app))
        .merge(open)
        .layer(headers::compression())
        .layer(middleware::map_response(headers::guard))
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
    app.metrics.page(&app.cluster.members, app.tls.current().not_after)
}
