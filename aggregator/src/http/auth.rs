//! Middleware of every `/api/v1` route: rate limits, client address, authentication, and the audit entry.
//!
//! [`crate::audit::Audit::layer`], which wraps this middleware, writes the entry itself.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use piperoll_client::AuditContext;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_net::serve::{Connection, Held, TlsPeer};
use serde_json::json;

use super::audited::AuditEntry;
use super::error::{ApiError, RefusalReason};
use super::identify::unset_cookie;
use super::origin;
use crate::state::App;

/// Header of requests that a page makes without a user action.
const BACKGROUND_HEADER: &str = "piperoll-unattended";
/// Interval at which idle addresses and callers are removed from the rate limits.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum time that a request waits for earlier requests of the same caller.
const ROOM_WAIT: Duration = Duration::from_secs(10);

/// Checks rate limits, origin and identity, runs the request, and completes its audit entry.
pub(super) async fn identify(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<TlsPeer>,
    Extension(activity): Extension<AuditContext>,
    request: Request,
    next: Next,
) -> Response {
    let entry = AuditEntry::new(activity);
    let (parts, body) = request.into_parts();
    let turned_away = |reason, response| refused(&app, &entry, reason, response);
    if let Err(wait) = app.limits.address(peer.address.ip()) {
        return turned_away("too_many_requests", too_many("your address", wait));
    }
    if let Err(error) = origin::check(&parts) {
        return turned_away("cross_site", error.into_response());
    }
    // An automatic reconnect of a tail, or a page that refreshes itself, does not show that a user is present.
    let keep_alive = parts.uri.path() != "/audit-log/tail" && !parts.headers.contains_key(BACKGROUND_HEADER);
    let caller = match app.identify(&peer, &parts.headers, SystemClock.now(), keep_alive) {
        Ok(caller) => caller,
        Err((reason, error)) => {
            let mut response = error.into_response();
            // A page that checks for a session before the user signs in is not trying to get access.
            if reason == "no_credentials" && parts.uri.path() == "/session" && parts.method == Method::GET {
                entry.skip_on_success();
                return response;
            }
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"piperoll\""));
            // Remove the cookie, so that the next request is authenticated by its certificate, if it has one.
            if reason.starts_with("session_")
                && let Ok(cookie) = HeaderValue::from_str(&unset_cookie())
            {
                response.headers_mut().insert(SET_COOKIE, cookie);
            }
            return turned_away(reason, response);
        }
    };
    entry.activity().caller(caller.in_entry());
    if let Some(scope) = caller.scope().text() {
        entry.details(json!({ "limited_to": scope }));
    }
    if let Err(wait) = app.limits.caller(caller.name()) {
        return turned_away("too_many_requests", too_many(caller.name(), wait));
    }
    if let Some(connection) = parts.extensions.get::<Connection>() {
        connection.identified();
    }
    let room = match app.requests.wait(caller.name(), ROOM_WAIT).await {
        Ok(room) => room,
        Err(full) => {
            let message = format!("too many concurrent requests: {full}");
            return turned_away("too_many_requests", ApiError::new(429, "busy", message).into_response());
        }
    };
    let mut request = Request::from_parts(parts, body);
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(entry.clone());
    let mut response = next.run(request).await;
    if let Some(RefusalReason(code)) = response.extensions_mut().remove() {
        entry.reason(&code);
    }
    app.metrics.count(entry.action(), response.status().as_u16());
    // The request's slot is released when the response has been sent completely or was abandoned.
    let more = response.extensions_mut().remove::<Held>();
    response.extensions_mut().insert(Held(Arc::new((room, more))));
    response
}

/// Middleware of routes that need no identity: limits the rate of requests per address.
pub(super) async fn not_too_often(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<TlsPeer>,
    request: Request,
    next: Next,
) -> Response {
    match app.limits.address(peer.address.ip()) {
        Ok(()) => next.run(request).await,
        Err(wait) => too_many("your address", wait),
    }
}

/// Records a request that is refused before it has any effect.
pub(super) fn refused(app: &App, entry: &AuditEntry, reason: &str, response: Response) -> Response {
    entry.activity().reject(reason);
    app.metrics.count(entry.action(), response.status().as_u16());
    response
}

pub(super) fn too_many(whose: &str, wait: Duration) -> Response {
    let seconds = wait.as_secs() + 1;
    let detail = format!("too many requests from {whose}; retry in {seconds} s, or request more entries at a time");
    let mut response = ApiError::new(429, "too_many_requests", detail).into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Returns the response for a handler that panicked; the panic message is in the daemon's log.
pub(super) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    ApiError::new(500, "internal", "internal error; see the daemon's log").into_response()
}

impl App {
    /// Removes idle addresses and callers from the rate limits periodically; never returns.
    pub(crate) async fn tidy_limits(&self) {
        loop {
            tokio::time::sleep(TIDY_INTERVAL).await;
            self.limits.tidy();
        }
    }
}
