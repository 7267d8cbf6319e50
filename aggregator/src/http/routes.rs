//! Declares each route once; the router, the OpenAPI document and the list for tests are built from the declarations.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use piperoll_client::Peer;
use piperoll_net::serve::TlsPeer;
use piperoll_protocol::access::Permission;
use piperoll_protocol::problem::Problem;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::HttpMethod;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::audited::{RouteRules, audited};
use super::openapi::openapi_json;
use super::{auth, error, exports, findings, headers, log, nodes, searches, session, stats, tail, tokens};
use crate::state::App;

/// Bytes of a request's body: a filter, a reason, a name.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Path of the API below the host.
pub(super) const API: &str = "/api/v1";

/// A route under `/api/v1` that needs an identity and leaves one entry. Method, path and documentation are at its handler.
pub(super) struct Route {
    pub(super) rules: RouteRules,
    pub(super) handler: UtoipaMethodRouter<Arc<App>>,
}

/// Returns every route that needs an identity. The router is built from this list alone, and a test checks it with every
/// role and scope.
pub(super) fn declared() -> Vec<Route> {
    use Permission::{AcceptHistory, Export, ManageTokens, Verify, View};
    let route = |action, needs, changes, handler| Route { rules: RouteRules { action, needs, changes }, handler };
    let read = |action, needs, handler| route(action, Some(needs), false, handler);
    let change = |action, needs, handler| route(action, Some(needs), true, handler);
    vec![
        read("audit.view", View, routes!(log::audit_log)),
        read("audit.tail", View, routes!(tail::tail)),
        read("audit.view", View, routes!(log::entry)),
        read("audit.view", View, routes!(log::body)),
        read("audit.export", Export, routes!(exports::proof)),
        read("audit.export", Export, routes!(exports::exports)),
        read("audit.stats", View, routes!(stats::stats)),
        read("audit.verify", Verify, routes!(log::verify)),
        read("audit.bundle_verify", Verify, routes!(findings::verify_upload)),
        change("audit.acknowledge", Verify, routes!(findings::acknowledge)),
        change("audit.judge", Verify, routes!(findings::judge)),
        read("audit.nodes", View, routes!(nodes::nodes)),
        change("audit.history_accept", AcceptHistory, routes!(nodes::accept)),
        route("audit.filter", None, false, routes!(searches::filter_words)),
        route("audit.search_list", None, false, routes!(searches::list_searches)),
        change("audit.search_keep", View, routes!(searches::keep_search)),
        change("audit.search_remove", View, routes!(searches::remove_search)),
        route("audit.session", None, false, routes!(session::who_am_i)),
        route("audit.sign_out", None, false, routes!(session::sign_out)),
        route("audit.sign_in_link", None, true, routes!(session::link)),
        read("audit.token_list", ManageTokens, routes!(tokens::list_tokens)),
        change("audit.token_create", ManageTokens, routes!(tokens::create_token)),
        change("audit.token_revoke", ManageTokens, routes!(tokens::revoke_token)),
    ]
}

/// Returns the route for signing in, which precedes any identity; its handler does what [`auth::identify`] and
/// [`audited`] do for the others.
pub(super) fn sign_in() -> UtoipaMethodRouter<Arc<App>> {
    routes!(session::sign_in)
}

/// Routes for machines that watch the aggregator; they need no identity and leave no entry.
pub(super) fn open() -> [UtoipaMethodRouter<Arc<App>>; 3] {
    [routes!(healthz), routes!(readyz), routes!(metrics)]
}

/// Method and path of everything under `/api/v1`.
pub fn api_routes() -> Vec<(&'static str, String)> {
    let handlers = declared().into_iter().map(|route| route.handler).chain([sign_in()]);
    handlers.flat_map(|(_, paths, _)| methods(&paths)).map(|(method, path)| (method, format!("{API}{path}"))).collect()
}

fn methods(paths: &utoipa::openapi::path::Paths) -> Vec<(&'static str, String)> {
    let of = |item: &utoipa::openapi::PathItem| {
        let all = [(HttpMethod::Get, &item.get), (HttpMethod::Post, &item.post), (HttpMethod::Delete, &item.delete)];
        all.map(|(method, operation)| operation.is_some().then_some(method)).into_iter().flatten().map(|method| {
            match method {
                HttpMethod::Post => "POST",
                HttpMethod::Delete => "DELETE",
                _ => "GET",
            }
        })
    };
    paths.paths.iter().flat_map(|(path, item)| of(item).map(|method| (method, path.clone()))).collect()
}

fn add(router: Router<Arc<App>>, (_, paths, handler): UtoipaMethodRouter<Arc<App>>) -> Router<Arc<App>> {
    paths.paths.keys().fold(router, |router, path| router.route(path, handler.clone()))
}

/// Everything that is served. Unknown paths under `/api/v1` need an identity and leave an entry too.
pub(crate) fn routes(app: &Arc<App>) -> Router {
    let mut api = Router::new();
    for Route { rules, handler: (schemas, paths, handler) } in declared() {
        let handler = handler.route_layer(middleware::from_fn_with_state((Arc::clone(app), rules), audited));
        api = add(api, (schemas, paths, handler));
    }
    let api = api
        .fallback(|| async { error::ApiError::new(404, "not_found", "not found; see /api/openapi.json") })
        .method_not_allowed_fallback(|| async {
            error::ApiError::new(405, "method_not_allowed", "method not allowed; see /api/openapi.json")
        })
        // Only a bundle to be verified is longer, and that one is received by its own handler.
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(auth::panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(app), auth::identify));
    let api = add(api, sign_in())
        .layer(CatchPanicLayer::custom(auth::panicked))
        .layer(app.audit.layer())
        .layer(middleware::map_request(name_peer));
    let open = open().into_iter().fold(Router::new().route("/api/openapi.json", get(openapi)), add);
    let open = open
        .with_state(Arc::clone(app))
        .merge(crate::web::assets::pages())
        .layer(middleware::from_fn_with_state(Arc::clone(app), auth::not_too_often));
    Router::new()
        .nest(API, api)
        .with_state(Arc::clone(app))
        .merge(open)
        .layer(headers::compression())
        .layer(middleware::map_response(headers::guard))
}

/// Tells [`crate::audit::Audit::layer`] where the connection came from.
async fn name_peer(mut request: Request) -> Request {
    if let Some(peer) = request.extensions().get::<TlsPeer>() {
        let ip = peer.address.ip();
        request.extensions_mut().insert(Peer(ip));
    }
    request
}

async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], openapi_json()).into_response()
}

/// Answers while the process runs.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "The process answers")))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Answers whether requests can be recorded, because no request is answered that cannot be.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, description = "Requests can be recorded, so they are answered"),
    (status = 503, description = "They cannot", body = Problem),
))]
async fn readyz(State(app): State<Arc<App>>) -> Response {
    match app.audit.ready().await {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(error) => {
            error::ApiError::new(503, "not_ready", format!("requests cannot be recorded: {error}")).into_response()
        }
    }
}

/// Metrics in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "OpenMetrics text")))]
async fn metrics(State(app): State<Arc<App>>) -> Response {
    app.metrics.page(&app.cluster.members, app.tls.current().not_after)
}
