//! Builds the router from the declared routes.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use piperoll_client::Peer;
use piperoll_net::serve::TlsPeer;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::UtoipaMethodRouter;

use super::audited::audited;
use super::declared::{API, FORMER_PATHS, Route, declared, open, sign_in};
use super::openapi::openapi_json;
use super::{auth, error, headers};
use crate::state::App;

/// Maximum bytes of a request's body, such as a filter, a reason or a name.
const BODY_BYTES_MAX: usize = 64 * 1024;
fn add(router: Router<Arc<App>>, (_, paths, handler): UtoipaMethodRouter<Arc<App>>) -> Router<Arc<App>> {
    paths.paths.keys().fold(router, |router, path| {
        let former = FORMER_PATHS.iter().filter(|(_, present)| present == path);
        former.fold(router.route(path, handler.clone()), |router, (former, _)| router.route(former, handler.clone()))
    })
}

/// Builds the router for everything that is served. Unknown paths under `/api/v1` need an identity and record an entry too.
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
        // Only bundle uploads may exceed this limit: their handler reads the body itself.
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
