//! The list of routes. The router, the OpenAPI document and the list for tests are built from these declarations.

use std::sync::Arc;

use piperoll_protocol::access::Permission;
use utoipa::openapi::HttpMethod;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::audited::RouteRules;
use super::{archive, exports, findings, health, log, nodes, searches, session, stats, tail, tokens};
use crate::state::App;

/// Path of the API below the host.
pub(super) const API: &str = "/api/v1";

/// Former paths of routes, each with its current path. The former paths are served for one release.
pub(super) const FORMER_PATHS: [(&str, &str); 1] = [("/judgements", "/verdicts")];

/// A route under `/api/v1` that needs an identity and records one entry. Method, path and documentation are on its handler.
pub(super) struct Route {
    pub(super) rules: RouteRules,
    pub(super) handler: UtoipaMethodRouter<Arc<App>>,
}

/// Returns every route that needs an identity. The router is built from this list alone, and a test checks it with every
/// role and scope.
pub(super) fn declared() -> Vec<Route> {
    use Permission::{AcceptHistory, Export, ManageArchive, ManageTokens, Verify, View};
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
        change("audit.judge", Verify, routes!(findings::record_verdict)),
        read("audit.nodes", View, routes!(nodes::nodes)),
        change("audit.history_accept", AcceptHistory, routes!(nodes::accept)),
        read("audit.archive_status", View, routes!(archive::status)),
        change("audit.archive_run", ManageArchive, routes!(archive::run)),
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

/// Returns the route for signing in. Its callers have no identity yet, so its handler does itself what
/// [`auth::identify`] and [`audited`] do for the other routes.
pub(super) fn sign_in() -> UtoipaMethodRouter<Arc<App>> {
    routes!(session::sign_in)
}

/// Returns the routes for machines that watch the aggregator; they need no identity and record no entries.
pub(super) fn open() -> [UtoipaMethodRouter<Arc<App>>; 3] {
    [routes!(health::healthz), routes!(health::readyz), routes!(health::metrics)]
}

/// Returns the method and path of every route under `/api/v1`.
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
