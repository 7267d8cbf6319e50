//! `/session`: signs a browser in with a cookie.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use piperoll_client::AuditContext;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_net::serve::TlsPeer;
use piperoll_protocol::access::{SessionInfo, SessionTimes, SignIn, SignInLink};
use piperoll_protocol::problem::Problem;
use serde_json::json;

use super::audited::{AuditEntry, recordable};
use super::auth::{refused, too_many};
use super::error::ApiError;
use super::identify::{Caller, Refusal, set_cookie, unset_cookie};
use super::origin;
use crate::access::sessions::Credential;
use crate::state::App;

const SIGN_IN: &str = "audit.sign_in";
/// Largest sign-in body: a token or a code, and a little JSON around it.
const BODY_BYTES_MAX: usize = 4_096;

/// Signs a browser in with a token, a one-time link or a certificate.
#[utoipa::path(post, path = "/session", tag = "session", request_body = SignIn, responses(
    (status = 201, description = "Signed in; the cookie is HttpOnly, Secure, SameSite=Strict", body = SessionInfo),
    (status = 413, description = "The body is longer than a token or a code", body = Problem),
), security(()))]
pub(super) async fn sign_in(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<TlsPeer>,
    Extension(activity): Extension<AuditContext>,
    request: axum::extract::Request,
) -> Response {
    let entry = AuditEntry::new(activity);
    entry.rename(SIGN_IN);
    let turned_away = |reason, response| refused(&app, &entry, reason, response);
    let (parts, body) = request.into_parts();
    let ip = peer.address.ip();
    if let Err(wait) = app.limits.address(ip).and_then(|()| app.limits.sign_in(ip)) {
        return turned_away("too_many_requests", too_many("your address", wait));
    }
    if let Err(error) = origin::check(&parts) {
        return turned_away("cross_site", error.into_response());
    }
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        let error = ApiError::new(413, "too_long", format!("a sign-in request must not exceed {BODY_BYTES_MAX} bytes"));
        return turned_away("too_long", error.into_response());
    };
    let now = SystemClock.now();
    let caller = match who(&app, &peer, &body, now) {
        Ok(caller) => caller,
        Err((reason, error)) => return turned_away(reason, error.into_response()),
    };
    entry.activity().caller(caller.in_entry());
    if let Some(scope) = caller.scope().text() {
        entry.details(json!({ "limited_to": scope }));
    }
    // If the beginning of a session cannot be recorded after all, the client does not receive the cookie, and the
    // session ends unused.
    let begun = recordable(&app)
        .await
        .and_then(|()| app.sessions.begin(caller.credential().clone(), now).map_err(|error| no_random(&error)));
    let response = match begun {
        Ok((secret, open)) => {
            let mut response = (StatusCode::CREATED, Json(info(&app, &caller, Some(open.ends)))).into_response();
            if let Ok(cookie) = HeaderValue::from_str(&set_cookie(&secret)) {
                response.headers_mut().insert(SET_COOKIE, cookie);
            }
            response
        }
        Err(error) => error.into_response(),
    };
    app.metrics.count(SIGN_IN, response.status().as_u16());
    response
}

/// Authenticates the token, code or certificate of a sign-in.
fn who(app: &App, peer: &TlsPeer, body: &Bytes, now: Timestamp) -> Result<Caller, Refusal> {
    let bad = |detail: &str| ("bad_request", ApiError::new(400, "bad_request", detail));
    // The input may contain a secret, so the parser's error message is not passed on.
    let typed: SignIn =
        serde_json::from_slice(body).map_err(|_| bad("send {\"token\":\"…\"}, {\"link\":\"…\"}, or {}"))?;
    match (typed.token, typed.link) {
        (Some(token), None) => app.holder_of(token.trim(), now),
        (None, Some(code)) => {
            let credential = app.sessions.redeem(code.trim()).ok_or_else(|| {
                let detail = "this sign-in URL has already been used, or is older than five minutes; request a new one";
                ("invalid_link", ApiError::new(401, "invalid_link", detail))
            })?;
            app.holder(&credential, now)
        }
        (None, None) => app.person(peer, now),
        (Some(_), Some(_)) => Err(bad("send a token or a link, not both")),
    }
}

fn info(app: &App, caller: &Caller, ends: Option<Timestamp>) -> SessionInfo {
    SessionInfo {
        name: caller.name().to_owned(),
        role: caller.role(),
        permissions: caller.role().permissions().to_vec(),
        limited_to: caller.scope().describe(),
        method: caller.method().to_owned(),
        session: ends.map(|ends| SessionTimes { idle_seconds: app.sessions.idle.as_secs(), ends: ends.to_text() }),
        cluster: app.cluster_name.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Returns the identity of the caller.
#[utoipa::path(get, path = "/session", tag = "session", responses(
    (status = 200, description = "Name, role and permissions of the caller", body = SessionInfo),
))]
pub(super) async fn who_am_i(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
) -> Json<SessionInfo> {
    audit.skip_on_success();
    Json(info(&app, &caller, caller.session().map(|open| open.ends)))
}

/// Signs the browser out.
#[utoipa::path(delete, path = "/session", tag = "session", responses(
    (status = 204, description = "Signed out"),
    (status = 409, description = "There is no session: a token or a certificate was sent", body = Problem),
), security(("session" = [])))]
pub(super) async fn sign_out(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>) -> Response {
    let mut response = match caller.session() {
        Some(open) => {
            app.sessions.end(&open.id);
            StatusCode::NO_CONTENT.into_response()
        }
        None => ApiError::new(409, "no_session", "there is no session to end: a token or a certificate was sent")
            .into_response(),
    };
    if let Ok(cookie) = HeaderValue::from_str(&unset_cookie()) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// Creates an address that signs one browser in as the caller, once.
#[utoipa::path(post, path = "/session/links", tag = "session", responses(
    (status = 201, description = "A URL that signs one browser in as the caller, once, within five minutes", body = SignInLink),
))]
pub(super) async fn link(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Result<(StatusCode, Json<SignInLink>), ApiError> {
    // A link created in a session could be used to extend the session without end, and a link created with a certificate
    // would work without the certificate.
    if caller.session().is_some() || !matches!(caller.credential(), Credential::Token { .. }) {
        let detail = "a one-time URL can only be created with a token (`piperoll browse`), not in a session or with a certificate";
        return Err(ApiError::new(403, "needs_token", detail));
    }
    let made = app.sessions.link(caller.credential().clone(), SystemClock.now());
    let (code, expires) = made.map_err(|error| no_random(&error))?;
    let link = SignInLink { path: format!("/sign-in#{}", code.as_str()), expires: expires.to_text() };
    Ok((StatusCode::CREATED, Json(link)))
}

fn no_random(error: &getrandom::Error) -> ApiError {
    ApiError::new(500, "internal", format!("cannot get random bytes from the system: {error}"))
}
