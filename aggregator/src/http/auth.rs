//! Middleware of every `/api/v1` route: rate limits, client address, authentication, and the audit entry.
//!
//! The entry itself is written around all of this ([`crate::audit::Audit::layer`]).

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

/// Sent by a page that asks for something without anybody having asked it to.
const UNATTENDED: &str = "piperoll-unattended";
/// Between two times at which those who have been quiet are forgotten.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);
/// How long a request waits for those of the same caller in front of it.
const ROOM_WAIT: Duration = Duration::from_secs(10);

/// How often, from where, who; then the answer, and what the entry says about it.
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
    // A tail that connects again by itself, or a page that catches up, says nothing about whether anybody is there.
    let keep_alive = parts.uri.path() != "/audit-log/tail" && !parts.headers.contains_key(UNATTENDED);
    let caller = match app.identify(&peer, &parts.headers, SystemClock.now(), keep_alive) {
        Ok(caller) => caller,
        Err((reason, error)) => {
            let mut response = error.into_response();
            // A page that asks who is signed in, before anybody is, tries nothing.
            if reason == "no_credentials" && parts.uri.path() == "/session" && parts.method == Method::GET {
                entry.skip_on_success();
                return response;
            }
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"piperoll\""));
            // So that what is left to show, a certificate, is looked at the next time.
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
            let words = format!("too many requests at one time: {full}");
            return turned_away("too_many_requests", ApiError::new(429, "busy", words).into_response());
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
    // The place is free when the last of the answer was taken, or given up.
    let more = response.extensions_mut().remove::<Held>();
    response.extensions_mut().insert(Held(Arc::new((room, more))));
    response
}

/// Around what needs no identity.
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

/// Turned away before anything was done.
pub(super) fn refused(app: &App, entry: &AuditEntry, reason: &str, response: Response) -> Response {
    entry.activity().reject(reason);
    app.metrics.count(entry.action(), response.status().as_u16());
    response
}

pub(super) fn too_many(whose: &str, wait: Duration) -> Response {
    let seconds = wait.as_secs() + 1;
    let detail = format!("{whose} asks too often; wait {seconds} s, or ask for more at a time");
    let mut response = ApiError::new(429, "too_many_requests", detail).into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// For a handler that panicked; its message is in the daemon's log.
pub(super) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    ApiError::new(500, "internal", "internal error; see the daemon's log").into_response()
}

impl App {
    /// Forgets who has been quiet for long; runs for ever.
    pub(crate) async fn tidy_limits(&self) {
        loop {
            tokio::time::sleep(TIDY_INTERVAL).await;
            self.limits.tidy();
        }
    }
}
