//! Around every `/api/v1` route: how often, from where, who, and the entry about it.
//!
//! The entry is on disk before the first byte of an allowed answer leaves; a request that cannot be recorded
//! is not answered.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use piperoll_shared::net::clock::{Clock as _, SystemClock};
use piperoll_shared::net::serve::TlsPeer;
use serde_json::{Value, json};

use super::error::{ApiError, RefusalReason};
use super::identify::unset_cookie;
use super::{App, origin};
use crate::audit::Event;
use crate::scope::Scope;

pub(super) use super::identify::Caller;

/// Sent by a page that asks for something without anybody having asked it to.
const UNATTENDED: &str = "piperoll-unattended";
/// Between two times at which those who have been quiet are forgotten.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

/// What a handler did, for the entry.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) action: &'static str,
    pub(super) details: Value,
}

/// The answer says nothing that the caller did not know; it leaves no entry when it succeeds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unrecorded;

/// How often, from where, who; then the answer, then the entry.
pub(super) async fn identify_and_record(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<TlsPeer>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let mut event = Event::of(&peer, &parts.method, parts.uri.path(), &parts.headers);
    if let Err(wait) = app.limits.address(peer.address.ip()) {
        return refused(&app, event, "too_many_requests", too_many("your address", wait)).await;
    }
    if let Err(error) = origin::check(&parts) {
        return refused(&app, event, "cross_site", error.into_response()).await;
    }
    // A tail that connects again by itself, or a page that catches up, says nothing about whether anybody is there.
    let keep_alive = parts.uri.path() != "/audit-log/tail" && !parts.headers.contains_key(UNATTENDED);
    let caller = match app.identify(&peer, &parts.headers, SystemClock.now(), keep_alive) {
        Ok(caller) => caller,
        Err((reason, error)) => {
            // A page that asks who is signed in, before anybody is, tries nothing.
            if reason == "no_credentials" && parts.uri.path() == "/session" && parts.method == Method::GET {
                return error.into_response();
            }
            let mut response = error.into_response();
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"piperoll\""));
            // So that what is left to show, a certificate, is looked at the next time.
            if reason.starts_with("session_")
                && let Ok(cookie) = HeaderValue::from_str(&unset_cookie())
            {
                response.headers_mut().insert(SET_COOKIE, cookie);
            }
            return refused(&app, event, reason, response).await;
        }
    };
    event.user = Some(caller.name().to_owned());
    event.auth_method = Some(caller.method());
    if let Err(wait) = app.limits.caller(caller.name()) {
        return refused(&app, event, "too_many_requests", too_many(caller.name(), wait)).await;
    }
    let scope = caller.scope().clone();
    let mut request = Request::from_parts(parts, body);
    request.extensions_mut().insert(caller);
    // In a task of its own: a caller who hangs up cancels this function, and must not get a change without its entry.
    let (tasks, if_it_fails) = (app.tasks.clone(), (Arc::clone(&app), event.clone()));
    let answered = tasks.spawn(async move { answer_and_record(&app, event, &scope, request, next).await });
    match answered.await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "answering a request failed");
            let (app, event) = if_it_fails;
            let event = Event { outcome: "failure", reason: Some("internal".to_owned()), ..event };
            let failed = ApiError::new(500, "internal", "answering failed; the daemon's log says why");
            recorded(&app, event, failed.into_response()).await
        }
    }
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

/// Turned away before anything was done. The entry about it does not wait for whoever was turned away.
pub(super) async fn refused(app: &Arc<App>, mut event: Event, reason: &str, response: Response) -> Response {
    event.reason = Some(reason.to_owned());
    app.metrics.count(event.action, response.status().as_u16());
    let recording = Arc::clone(app);
    let _ = app.tasks.spawn(async move { recording.audit.refuse(event).await }).await;
    response
}

pub(super) fn too_many(whose: &str, wait: Duration) -> Response {
    let seconds = wait.as_secs() + 1;
    let detail = format!("{whose} asks too often; wait {seconds} s, or ask for more at a time");
    let mut response = ApiError::new(429, "too_many_requests", detail).into_response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

async fn answer_and_record(app: &App, mut event: Event, scope: &Scope, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(done) = response.extensions_mut().remove::<Done>() {
        event.action = done.action;
        event.details = done.details;
    }
    if let Some(scope) = scope.text() {
        event.details["limited_to"] = json!(scope);
    }
    let reason = response.extensions_mut().remove::<RefusalReason>();
    event.outcome = match response.status().as_u16() {
        200..=299 => "success",
        403 => "denied",
        _ => "failure",
    };
    event.reason = reason.map(|r| r.0);
    app.metrics.count(event.action, response.status().as_u16());
    if response.extensions_mut().remove::<Unrecorded>().is_some() && event.outcome == "success" {
        return response;
    }
    let denied = event.outcome == "denied";
    if denied {
        // A known caller is refused by name each time; only strangers are counted together.
        if let Err(error) = app.audit.record(event).await {
            tracing::error!(%error, "a refused request could not be recorded");
        }
        return response;
    }
    recorded(app, event, response).await
}

/// The answer, once its entry is on disk.
pub(super) async fn recorded(app: &App, event: Event, response: Response) -> Response {
    match app.audit.record(event).await {
        Ok(()) => response,
        Err(error) => {
            tracing::error!(%error, "a request could not be recorded and is not answered");
            let detail = format!("the entry about this request could not be recorded, so it is not answered: {error}");
            ApiError::new(503, "not_recorded", detail).into_response()
        }
    }
}

/// A change that could not be recorded must not happen; the entry itself follows the change.
pub(super) async fn recordable(app: &App) -> Result<(), ApiError> {
    let refused = |error| {
        ApiError::new(503, "not_recorded", format!("this change could not be recorded, so it is not made: {error}"))
    };
    app.audit.ready().await.map_err(refused)
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
