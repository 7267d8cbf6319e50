//! Who is asking, what they may do, and the entry about it.
//!
//! The entry is on disk before the first byte of an allowed answer leaves; a request that cannot be recorded
//! is not answered.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, USER_AGENT, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use piperoll_shared::api::aggregator::Role;
use piperoll_shared::net::clock::{Clock as _, SystemClock};
use piperoll_shared::net::identity::Kind;
use piperoll_shared::net::serve::TlsPeer;
use serde_json::{Value, json};

use super::App;
use super::error::{ApiError, RefusalReason};
use crate::audit::Event;
use crate::scope::Scope;
use crate::tokens::Lookup;

/// What a request does; decides who may do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    View,
    Export,
    Verify,
    ManageTokens,
    /// Say that a node's new history is meant.
    AcceptHistory,
}

/// The person or program behind a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    name: String,
    role: Role,
    scope: Scope,
    method: &'static str,
}

/// What a handler did, for the entry.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) action: &'static str,
    pub(super) details: Value,
}

impl Caller {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the caller may see at all.
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// For what cannot be done with a part of the rows.
    pub(super) fn require_everything(&self) -> Result<(), ApiError> {
        match self.scope.text() {
            None => Ok(()),
            Some(scope) => Err(ApiError::new(
                403,
                "limited",
                format!("this reads every row, and {} is limited to {scope}; ask somebody without a limit", self.name),
            )),
        }
    }

    /// Exact sets; no role outranks another beyond what stands here.
    pub(super) fn may(&self, permission: Permission) -> bool {
        match self.role {
            Role::Viewer => matches!(permission, Permission::View),
            Role::Auditor => matches!(permission, Permission::View | Permission::Export | Permission::Verify),
            Role::Admin => true,
        }
    }

    pub(super) fn require(&self, permission: Permission) -> Result<(), ApiError> {
        if self.may(permission) {
            return Ok(());
        }
        let needs = match permission {
            Permission::View => "viewer, auditor or admin",
            Permission::Export | Permission::Verify => "auditor or admin",
            Permission::ManageTokens | Permission::AcceptHistory => "admin",
        };
        Err(ApiError::new(
            403,
            "not_permitted",
            format!("{} has the role {:?}; this needs {needs}", self.name, self.role),
        ))
    }
}

/// Around every `/api/v1` route: identify, answer, record, in this order.
pub(super) async fn identify_and_record(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<TlsPeer>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut event = Event {
        action: "audit.request",
        outcome: "denied",
        reason: None,
        user: None,
        auth_method: None,
        ip: peer.address.ip(),
        user_agent: request.headers().get(USER_AGENT).and_then(|v| v.to_str().ok()).map(str::to_owned),
        method: request.method().to_string(),
        path: format!("/api/v1{}", request.uri().path()),
        details: json!({}),
    };
    let caller = match identify(&app, &peer, request.headers()) {
        Ok(caller) => caller,
        Err((reason, error)) => {
            event.reason = Some(reason.to_owned());
            app.metrics.count(event.action, 401);
            app.audit.refuse(event).await;
            let mut response = error.into_response();
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"piperoll\""));
            return response;
        }
    };
    event.user = Some(caller.name.clone());
    event.auth_method = Some(caller.method);
    request.extensions_mut().insert(caller);
    // In a task of its own: a caller who hangs up cancels this function, and must not get a change without its entry.
    let answered = tokio::spawn(async move { answer_and_record(&app, event, request, next).await });
    answered.await.unwrap_or_else(|error| {
        tracing::error!(%error, "answering a request failed");
        ApiError::new(500, "internal", "answering failed; the daemon's log says why").into_response()
    })
}

async fn answer_and_record(app: &App, mut event: Event, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(done) = response.extensions_mut().remove::<Done>() {
        event.action = done.action;
        event.details = done.details;
    }
    let reason = response.extensions_mut().remove::<RefusalReason>();
    event.outcome = match response.status().as_u16() {
        200..=299 => "success",
        403 => "denied",
        _ => "failure",
    };
    event.reason = reason.map(|r| r.0);
    app.metrics.count(event.action, response.status().as_u16());
    let denied = event.outcome == "denied";
    if denied {
        // A known caller is refused by name each time; only strangers are counted together.
        if let Err(error) = app.audit.record(event).await {
            tracing::error!(%error, "a refused request could not be recorded");
        }
        return response;
    }
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

/// A bearer token, or a user's certificate.
fn identify(app: &App, peer: &TlsPeer, headers: &HeaderMap) -> Result<Caller, (&'static str, ApiError)> {
    let refuse = |code: &'static str, detail: String| (code, ApiError::new(401, code, detail));
    if let Some(header) = headers.get(AUTHORIZATION) {
        let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).map(str::trim);
        let Some(token) = token else {
            return Err(refuse("bad_authorization", "send the token as `Authorization: Bearer <token>`".to_owned()));
        };
        return match app.tokens.find(token, SystemClock.now()) {
            Ok(Lookup::Good(holder)) => {
                Ok(Caller { name: holder.name, role: holder.role, scope: holder.scope, method: "token" })
            }
            Ok(Lookup::Expired(name)) => {
                Err(refuse("token_expired", format!("the token {name:?} has expired; ask an admin for a new one")))
            }
            Ok(Lookup::Unknown) => {
                Err(refuse("token_unknown", "this token is not known here, or was revoked".to_owned()))
            }
            Err(error) => Err(("token_file", error.into())),
        };
    }
    match &peer.identity {
        Some(identity) if identity.kind == Kind::User && identity.cluster == app.cluster_name => {
            match app.users.get(identity.id.as_str()) {
                Some(user) => Ok(Caller {
                    name: identity.id.to_string(),
                    role: user.role.clone(),
                    scope: user.scope.clone(),
                    method: "certificate",
                }),
                None => Err(refuse("user_unknown", format!("the certificate names {identity}, who has no role here"))),
            }
        }
        Some(identity) => Err(refuse("not_a_user", format!("the certificate names {identity}, which is not a user"))),
        None => Err(refuse(
            "no_credentials",
            "send a token (`Authorization: Bearer …`) or use a user's certificate".to_owned(),
        )),
    }
}
