//! Middleware for every route: sets the action of the audit entry, checks the permission, and refuses a change that could not be
//! recorded.
//!
//! [`crate::audit::Audit::layer`], which wraps this middleware, writes the entry itself. A handler adds details through
//! [`AuditEntry`] as soon as it knows them, so that the entry contains them however the handler returns.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use piperoll_client::{AuditContext, Category};
use piperoll_protocol::access::Permission;
use serde_json::{Value, json};

use super::error::ApiError;
use super::identify::Caller;
use crate::state::App;

/// Action of a request whose route is not known yet.
const REQUEST: &str = "audit.request";
/// Maximum bytes of a denied request's body that are read for its audit entry.
const DENIED_BODY_BYTES_MAX: usize = 4 * 1024;

/// The audit entry of the current request, stored as a request extension. All clones refer to the same entry.
#[derive(Debug, Clone)]
pub(super) struct AuditEntry {
    activity: AuditContext,
    action: Arc<Mutex<&'static str>>,
}

impl AuditEntry {
    pub(super) fn new(activity: AuditContext) -> Self {
        let entry = Self { activity, action: Arc::new(Mutex::new(REQUEST)) };
        entry.rename(REQUEST);
        entry
    }

    /// Replaces the action.
    pub(super) fn rename(&self, action: &'static str) {
        *self.action.lock().unwrap_or_else(PoisonError::into_inner) = action;
        self.activity.action(Category::Audit, action);
    }

    pub(super) fn action(&self) -> &'static str {
        *self.action.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the members of a JSON object to the details; existing details of the same name are replaced.
    pub(super) fn details(&self, details: Value) {
        self.activity.update(|entry| match details {
            Value::Object(details) => details.into_iter().fold(entry, |entry, (name, value)| entry.detail(name, value)),
            _ => entry,
        });
    }

    pub(super) fn reason(&self, code: &str) {
        self.activity.update(|entry| entry.reason(code));
    }

    pub(super) fn activity(&self) -> &AuditContext {
        &self.activity
    }

    /// Suppresses the audit entry if the request succeeds. Used for answers that tell callers nothing new.
    pub(super) fn skip_on_success(&self) {
        self.activity.skip_on_success();
    }
}

/// Rules for every request to a route.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouteRules {
    /// Action of the route's audit entries.
    pub(super) action: &'static str,
    /// The permission that the route needs; if `None`, any authenticated caller may use it.
    pub(super) needs: Option<Permission>,
    /// Whether the route changes something.
    pub(super) changes: bool,
}

/// Middleware of one route. A change that could not be recorded is refused in advance, because its entry is written
/// only after the change.
pub(super) async fn audited(
    State((app, rules)): State<(Arc<App>, RouteRules)>,
    Extension(caller): Extension<Caller>,
    Extension(entry): Extension<AuditEntry>,
    request: Request,
    next: Next,
) -> Response {
    entry.rename(rules.action);
    let allowed = rules.needs.map_or(Ok(()), |permission| caller.require(permission));
    if let Err(error) = allowed {
        record_request(&entry, request).await;
        return error.into_response();
    }
    if rules.changes
        && let Err(error) = recordable(&app).await
    {
        return error.into_response();
    }
    next.run(request).await
}

/// Records the body of a denied request if it is short and a JSON object.
async fn record_request(entry: &AuditEntry, request: Request) {
    let body = to_bytes(request.into_body(), DENIED_BODY_BYTES_MAX).await.unwrap_or_default();
    if let Ok(body @ Value::Object(_)) = serde_json::from_slice(&body) {
        entry.details(json!({ "request": body }));
    }
}

/// Refuses a change that could not be recorded.
pub(super) async fn recordable(app: &App) -> Result<(), ApiError> {
    let refused = |error| {
        ApiError::new(503, "not_recorded", format!("the change cannot be recorded, so it was not made: {error}"))
    };
    app.audit.ready().await.map_err(refused)
}
