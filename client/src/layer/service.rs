//! The tower layer, its options, and the service that records each request.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use piperoll_protocol::problem::Problem;
use tower::{Layer, Service};

use super::caller::Caller;
use super::context::AuditContext;
use super::refusals::Refusals;
use super::request_entry;
use crate::entry::{Category, Entry, Outcome};
use crate::outcome::EmitError;
use crate::policy::DeliveryPolicy;
use crate::proxies::{TrustedProxies, peer_of};
use crate::recorder::Recorder;

/// Maximum time for which the response to a denied request is delayed until its entry is recorded. If the time runs out, the
/// response is sent first and the entry is recorded afterwards.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(2);

type Identify = dyn Fn(&Parts) -> Option<Caller> + Send + Sync;

/// A tower layer that records one entry for every request that changes something, and for every denied one.
///
/// Add it outside of authentication, so that it sees denied requests. If layers are nested, only the outermost one records.
///
/// ```
/// use axum::{Extension, Router, routing::post};
/// use piperoll_client::{AuditContext, Category, RecordLayer, Recorder};
///
/// async fn rename(Extension(context): Extension<AuditContext>) {
///     context.action(Category::Data, "domain.rename").update(|entry| entry.entity("domain", "example.org"));
/// }
///
/// # fn app(recorder: Recorder) -> Router {
/// Router::new().route("/domains/{name}", post(rename)).layer(RecordLayer::new(recorder))
/// # }
/// ```
#[derive(Clone)]
pub struct RecordLayer(Arc<Settings>);

#[derive(Clone)]
struct Settings {
    recorder: Recorder,
    proxies: TrustedProxies,
    category: Category,
    identify: Option<Arc<Identify>>,
    intents: bool,
    /// Whether requests that only read are recorded as well.
    reads: bool,
    /// Names of parameters in a request's query that are recorded.
    parameters: Vec<String>,
    refusals: Arc<Refusals>,
}

impl RecordLayer {
    /// Creates a layer with the default options: changes and denials are recorded, and an intent is recorded before each strict
    /// change.
    #[must_use]
    pub fn new(recorder: Recorder) -> Self {
        Self(Arc::new(Settings {
            recorder,
            proxies: TrustedProxies::none(),
            category: Category::Data,
            identify: None,
            intents: true,
            reads: false,
            parameters: Vec::new(),
            refusals: Arc::default(),
        }))
    }

    fn with(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        // A clone of this layer may already exist, and must keep its own options.
        set(Arc::make_mut(&mut self.0));
        self
    }

    /// Sets the category of requests for which the handler sets none. The category's policy decides whether an intent is recorded
    /// first.
    #[must_use]
    pub fn category(self, category: Category) -> Self {
        self.with(|settings| settings.category = category)
    }

    /// Sets the proxies whose headers name the client's address.
    #[must_use]
    pub fn proxies(self, proxies: TrustedProxies) -> Self {
        self.with(|settings| settings.proxies = proxies)
    }

    /// Sets a function that determines the caller before the request is handled. Handlers can also set the caller, with
    /// [`AuditContext::caller`].
    #[must_use]
    pub fn identify(self, who: impl Fn(&Parts) -> Option<Caller> + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.identify = Some(Arc::new(who)))
    }

    /// Sets whether a strict operation is recorded before it begins as well as after it; true by default. Without intents, if
    /// recording fails after the operation, the response says that the operation happened but was not recorded.
    #[must_use]
    pub fn record_intents(self, record: bool) -> Self {
        self.with(|settings| settings.intents = record)
    }

    /// Records query parameters with these names under `details.parameters`: each as a text, or as a list if it was given several times.
    /// The first 32 values are kept, each cut to 256 bytes, and secrets are masked. By default no query parameter is recorded, because
    /// queries often hold secrets.
    #[must_use]
    pub fn parameters<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.with(|settings| settings.parameters = names.into_iter().map(Into::into).collect())
    }

    /// Sets whether requests that only read are recorded too, including those whose caller did not wait for the response; false
    /// by default. Handlers can exclude single requests with [`AuditContext::skip_on_success`].
    #[must_use]
    pub fn record_reads(self, record: bool) -> Self {
        self.with(|settings| settings.reads = record)
    }
}

impl<S> Layer<S> for RecordLayer {
    type Service = RecordService<S>;

    fn layer(&self, inner: S) -> RecordService<S> {
        RecordService { inner, settings: Arc::clone(&self.0) }
    }
}

/// The service that [`RecordLayer`] creates around another service.
#[derive(Clone)]
pub struct RecordService<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S, B, R> Service<Request<B>> for RecordService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send + 'static,
    R: From<String> + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Use the instance that `poll_ready` was called on, and leave a clone in its place.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        if request.extensions().get::<AuditContext>().is_some() {
            return Box::pin(inner.call(request));
        }
        let settings = Arc::clone(&self.settings);
        let (mut parts, body) = request.into_parts();
        let is_change = !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
        let activity = AuditContext::new(settings.initial_entry(&parts), is_change, is_change || settings.reads);
        parts.extensions.insert(activity.clone());
        let request = Request::from_parts(parts, body);
        if !is_change && !settings.reads {
            return Box::pin(settings.handle_read(inner, request, activity));
        }
        Box::pin(async move {
            // Run in a separate task: a client that disconnects cancels this future, but the operation must still be finished and
            // recorded.
            let recorder = settings.recorder.clone();
            match recorder.operation(settings.operate(inner, request, activity, is_change)).await {
                Ok(answer) => answer,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Ok(not_recorded("the operation was interrupted; only its start was recorded")),
                },
            }
        })
    }
}

impl Settings {
    fn initial_entry(&self, parts: &Parts) -> Entry {
        let peer = peer_of(&parts.extensions);
        let client = peer.map(|peer| self.proxies.client(peer, &parts.headers));
        let caller = self.identify.as_ref().and_then(|identify| identify(parts));
        let entry = request_entry::initial(parts, self.category, peer, client, caller);
        request_entry::with_parameters(entry, parts, &self.parameters)
    }

    /// Handles a request that may change something, or that is recorded even if its caller does not wait for the response.
    async fn operate<S, B, R>(
        self: Arc<Self>,
        mut inner: S,
        request: Request<B>,
        activity: AuditContext,
        is_change: bool,
    ) -> Result<Response<R>, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>>,
        R: From<String>,
    {
        let is_strict = self.recorder.policy_of(self.category) == DeliveryPolicy::Strict;
        if is_change && is_strict && self.intents {
            // The operation has not begun, and must not begin unless its intent was recorded.
            if let Err(error) = self.recorder.emit(activity.intent()).await {
                return Ok(not_recorded(&format!("nothing was done: the operation could not be recorded: {error}")));
            }
        }
        let answer = match AssertUnwindSafe(inner.call(request)).catch_unwind().await {
            Ok(answer) => answer,
            Err(panic) => {
                // Record the panic in this task, which a client cannot cancel by disconnecting.
                if let Err(error) = self.over(&activity, Outcome::Failure, "panic").await {
                    tracing::error!(%error, "cannot record an operation that panicked");
                }
                std::panic::resume_unwind(panic);
            }
        };
        let (outcome, reason) = match &answer {
            Ok(response) => outcome_of(response.status()),
            Err(_) => (Outcome::Failure, "service_error".to_owned()),
        };
        let withheld = self.finish(activity, outcome, reason).await;
        withheld.map_or(answer, Ok)
    }

    /// Handles a request that only reads. The request is recorded if it is denied, or if its handler asks for that.
    async fn handle_read<S, B, R>(
        self: Arc<Self>,
        mut inner: S,
        request: Request<B>,
        activity: AuditContext,
    ) -> Result<Response<R>, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>>,
        R: From<String>,
    {
        let answer = inner.call(request).await?;
        let (outcome, reason) = outcome_of(answer.status());
        Ok(self.finish(activity, outcome, reason).await.unwrap_or(answer))
    }

    /// Records the result of a request if it needs an entry. If the result cannot be recorded, returns the response to send
    /// instead.
    async fn finish<R: From<String>>(
        self: Arc<Self>,
        activity: AuditContext,
        outcome: Outcome,
        reason: String,
    ) -> Option<Response<R>> {
        if !activity.needs_entry(outcome) {
            return None;
        }
        let (is_refused, is_change) = (outcome == Outcome::Denied || activity.is_turned_away(), activity.is_change());
        // Record in a separate task, so that the result is recorded even if the client disconnects now.
        let recorder = self.recorder.clone();
        let recording = recorder.operation(async move {
            let recorded = self.over(&activity, outcome, &reason).await;
            if let Err(error) = &recorded {
                tracing::error!(%error, "cannot record a request");
            }
            recorded
        });
        if is_refused {
            // A denial is final whether or not it was recorded, so do not delay the response for long.
            let _ = tokio::time::timeout(REFUSAL_PATIENCE, recording).await;
            return None;
        }
        let error = recording.await.unwrap_or(Err(EmitError::Closed)).err()?;
        Some(not_recorded(&match is_change {
            true => format!("the operation finished, but its result could not be recorded: {error}"),
            false => format!("the answer is withheld, because the request could not be recorded: {error}"),
        }))
    }

    /// Records the result of a request, or only counts it if it is a repeated rejection.
    async fn over(&self, activity: &AuditContext, outcome: Outcome, reason: &str) -> Result<(), EmitError> {
        let entry = activity.final_entry(outcome, reason);
        if !activity.is_turned_away() {
            return self.record(activity, entry, outcome, reason).await;
        }
        let Some(first) = self.refusals.first(&self.recorder, &entry) else { return Ok(()) };
        let recorded = self.record(activity, entry, outcome, reason).await;
        if recorded.is_err() {
            self.refusals.missed(first);
        }
        recorded
    }

    /// Records an entry. If it is invalid or refused, records the request without the handler's additions.
    async fn record(
        &self,
        activity: &AuditContext,
        entry: Entry,
        outcome: Outcome,
        reason: &str,
    ) -> Result<(), EmitError> {
        let policy = self.recorder.policy_after_the_fact(entry.category);
        let error = match self.recorder.emit_with_policy(entry, policy).await {
            Err(error @ (EmitError::Invalid(_) | EmitError::Refused(_))) => error,
            result => return result.map(drop),
        };
        tracing::error!(%error, "cannot record the fields set by a handler; recording the request without them");
        let bare = |with_name| {
            activity.minimal_entry(outcome, reason, with_name).detail("handler_words_refused", error.to_string())
        };
        match self.recorder.emit_with_policy(bare(true), policy).await {
            Err(EmitError::Invalid(_) | EmitError::Refused(_)) => {
                self.recorder.emit_with_policy(bare(false), policy).await.map(drop)
            }
            result => result.map(drop),
        }
    }
}

fn outcome_of(status: StatusCode) -> (Outcome, String) {
    let outcome = match status.as_u16() {
        401 | 403 | 407 => Outcome::Denied,
        0..=399 => Outcome::Success,
        _ => Outcome::Failure,
    };
    let reason = if outcome == Outcome::Success { String::new() } else { format!("http_{}", status.as_u16()) };
    (outcome, reason)
}

fn not_recorded<R: From<String>>(detail: &str) -> Response<R> {
    let problem = Problem::new(503, "not_recorded", detail);
    let mut response = Response::new(R::from(serde_json::to_string(&problem).unwrap_or_default()));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(Problem::MEDIA_TYPE));
    response
}

/// Axum's routers are infallible, and a service that wraps a router must be infallible too.
const _: fn(&RecordService<axum::Router>) = |service| {
    fn is_service<S: Service<Request<axum::body::Body>, Error = Infallible>>(_: &S) {}
    is_service(service);
};

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt as _;

    /// Options set on a clone apply to that clone only.
    #[tokio::test]
    async fn a_clone_has_its_own_options() {
        let (recorder, captured) = Recorder::in_memory();
        let changes_only = RecordLayer::new(recorder);
        let reads_too = changes_only.clone().record_reads(true);
        for (layer, wanted) in [(changes_only, 0), (reads_too, 1)] {
            captured.clear();
            let service = layer.layer(Router::new().route("/", get(|| async { "" })));
            service.oneshot(Request::new(Body::empty())).await.expect("an answer");
            assert_eq!(captured.entries().len(), wanted);
        }
    }
}
