//! `/audit-log` and `/verify`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as Pairs, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use futures::stream;
use piperoll_format::ids::Generation;
use piperoll_format::order::Order;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_net::serve::Held;
use piperoll_protocol::access::Permission;
use piperoll_protocol::aggregator::{COMPLETE_SINCE_HEADER, Envelope, PURPOSE_HEADER, PURPOSE_REPORT, Status};
use piperoll_protocol::node::NDJSON;
use piperoll_query::filter::{Filter, NodeName};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::auth::{Caller, Done};
use super::error::{ApiError, RefusalReason};
use crate::answer::export::RETRY_PAUSE;
use crate::answer::page::{Page, page};
use crate::answer::stream::{Output, Stream};
use crate::scan::query::{Format, PAGE_BYTES_SMALL, Query, Require, range};
use crate::state::App;
use piperoll_net::fair_share::{Full, Share, Shares};

/// Between two looks at whether the reader of a stream may still read.
const RECHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How long a count waits for another one of the same caller.
const COUNT_WAIT: Duration = Duration::from_secs(20);
/// The mac of a row that is given as its bytes, in hexadecimal.
const SIGNATURE: HeaderName = HeaderName::from_static("piperoll-signature");
pub(super) const AUDIT_COMPLETE: HeaderName = HeaderName::from_static("audit-complete");
/// From when on it is complete that is not only because rows were pruned which had outlived the policy.
pub(super) const AUDIT_COMPLETE_SINCE: HeaderName = HeaderName::from_static(COMPLETE_SINCE_HEADER);

/// `GET /audit-log`.
pub(super) async fn audit_log(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    pairs: Result<Pairs<Vec<(String, String)>>, QueryRejection>,
) -> Response {
    let Ok(Pairs(pairs)) = pairs else {
        return ApiError::new(400, "bad_parameter", "the query string cannot be read").into_response();
    };
    let mut query = match Query::parse(pairs, SystemClock.now(), &app.cluster.cursor_key, caller.scope()) {
        Ok(query) => query,
        Err(error) => return with_done(ApiError::from(error), "audit.view", json!({})),
    };
    let asked = describe(&query);
    if let Err(error) = known_nodes(&app, &query) {
        return with_done(error, "audit.view", asked);
    }
    let is_report = headers.get(PURPOSE_HEADER).is_some_and(|purpose| purpose == PURPOSE_REPORT);
    let (action, permission) = match query.format {
        Format::Json => ("audit.view", Permission::View),
        Format::Ndjson if is_report => ("audit.report", Permission::Export),
        Format::Ndjson | Format::Csv => ("audit.export", Permission::Export),
    };
    if let Err(error) = caller.require(permission) {
        return with_done(error, action, asked);
    }
    match query.format {
        Format::Json => {
            let room = app.pages.take(caller.name()).ok();
            if room.is_none() {
                query.page_bytes = PAGE_BYTES_SMALL;
            }
            let mut response = answer_page(page(&app.cluster, &query).await, &query, asked);
            response.extensions_mut().insert(Held(Arc::new(room)));
            response
        }
        Format::Ndjson => answer_stream(&app, &caller, query, Asking::now(Output::Ndjson, action, asked)).await,
        Format::Csv => answer_stream(&app, &caller, query, Asking::now(Output::Csv, action, asked)).await,
    }
}

/// A misspelt node would make an empty answer look complete.
pub(super) fn known_nodes(app: &App, query: &Query) -> Result<(), ApiError> {
    let known = |name: &NodeName<'_>| app.cluster.members.iter().any(|member| name.matches(member.node.id.as_str()));
    let names = query.filter.named_nodes();
    match names.iter().map(|name| (name.text(), known(name))).find(|(text, known)| !known && !query.scope.names(text)) {
        None => Ok(()),
        Some((name, _)) => {
            let roster: Vec<&str> = app.cluster.members.iter().map(|member| member.node.id.as_str()).collect();
            let detail = format!("{name:?} is not in the roster; the nodes are {}", roster.join(", "));
            Err(ApiError::new(400, "no_such_node", detail))
        }
    }
}

pub(super) fn describe(query: &Query) -> Value {
    json!({
        "filter": query.filter.to_string(), "from": query.from, "to": query.to, "order": query.order,
        "format": format!("{:?}", query.format).to_lowercase(), "continued": query.cursor.is_some(),
    })
}

/// What an entry says about a look at one row.
pub(super) fn describe_row(node: &str, seq: &str) -> Value {
    let cut = |text: &str, max: usize| text.chars().take(max).collect::<String>();
    json!({ "node": cut(node, 64), "seq": cut(seq, 20) })
}

pub(super) fn with_done(response: impl IntoResponse, action: &'static str, details: Value) -> Response {
    let mut response = response.into_response();
    response.extensions_mut().insert(Done { action, details });
    response
}

/// What the entry says about the answer.
pub(super) fn outcome(mut asked: Value, envelope: &Envelope) -> Value {
    asked["rows"] = json!(envelope.count);
    asked["complete"] = json!(envelope.complete);
    let missing: Vec<&str> = envelope
        .nodes
        .iter()
        .filter(|node| !matches!(node.status, Status::Ok | Status::Excluded))
        .map(|node| node.node_id.as_str())
        .collect();
    asked["not_ok"] = json!(missing);
    asked
}

/// 200 for complete or partial; 503 with the same body when the caller wants all or when nobody answered.
fn status_of(envelope: &Envelope, require: Require) -> (StatusCode, Option<&'static str>) {
    let gave_rows = |status| {
        matches!(status, Status::Ok | Status::Invalid | Status::Incomplete | Status::Pruned | Status::Superseded)
    };
    if require == Require::All && !envelope.complete {
        (StatusCode::SERVICE_UNAVAILABLE, Some("not_complete"))
    } else if envelope.expected > 0 && !envelope.nodes.iter().any(|node| gave_rows(node.status)) {
        (StatusCode::SERVICE_UNAVAILABLE, Some("no_node_answered"))
    } else {
        (StatusCode::OK, None)
    }
}

fn answer_page(page: Page, query: &Query, asked: Value) -> Response {
    let (status, refused) = status_of(&page.envelope, query.require);
    let details = outcome(asked, &page.envelope);
    let mut body = serde_json::to_vec(&page.envelope).unwrap_or_default();
    // The envelope is an object; the rows go in verbatim as its last member.
    body.pop();
    body.extend_from_slice(b",\"entries\":[");
    if refused != Some("not_complete") {
        for (number, row) in page.rows.iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            row.to_row().write_json(&mut body);
        }
    }
    body.extend_from_slice(b"]}");
    let complete = if page.envelope.complete { "true" } else { "false" };
    let headers = [(CONTENT_TYPE, "application/json"), (AUDIT_COMPLETE, complete)];
    let mut response = (status, headers, body).into_response();
    if let Some(reason) = refused {
        response.extensions_mut().insert(RefusalReason(reason.to_owned()));
    }
    with_done(response, "audit.view", details)
}

/// A stream that is wanted, and what its entry says.
pub(super) struct Asking {
    pub(super) output: Output,
    pub(super) action: &'static str,
    pub(super) asked: Value,
    /// How long to try again while nodes are missing.
    pub(super) patience: Duration,
}

impl Asking {
    pub(super) fn now(output: Output, action: &'static str, asked: Value) -> Self {
        Self { output, action, asked, patience: Duration::ZERO }
    }
}

/// A place for a stream. A page asks for two counts at once, so a count waits a moment for the one before it.
async fn room(rooms: &Shares, caller: &Caller, waits: bool) -> Result<Share, Full> {
    if waits { rooms.wait(caller.name(), COUNT_WAIT).await } else { rooms.take(caller.name()) }
}

pub(super) async fn answer_stream(app: &Arc<App>, caller: &Caller, query: Query, asking: Asking) -> Response {
    let Asking { output, action, asked, patience } = asking;
    let rooms = if matches!(output, Output::Stats(_)) { &app.counts } else { &app.streams };
    let require = query.require;
    let name = file_name(&query);
    let started = Instant::now();
    let (room, stream) = loop {
        let room = match room(rooms, caller, matches!(output, Output::Stats(_))).await {
            Ok(room) => room,
            Err(full) => return with_done(busy(full), action, asked),
        };
        let stream = Stream::open(&app.cluster, query.clone()).await;
        if stream.opening().complete || started.elapsed() + RETRY_PAUSE >= patience {
            break (room, stream);
        }
        // Whoever waits takes nobody's room.
        drop((room, stream));
        tokio::time::sleep(RETRY_PAUSE).await;
    };
    let opening = stream.opening();
    let (status, refused) = status_of(&opening, require);
    // The entry is written before the first row leaves, so it cannot count them.
    let mut details = outcome(asked, &opening);
    if let Some(fields) = details.as_object_mut() {
        fields.remove("rows");
    }
    if let Some(reason) = refused {
        let headers = [(CONTENT_TYPE, "application/json"), (AUDIT_COMPLETE, "false")];
        let mut response = (status, headers, Json(opening)).into_response();
        response.extensions_mut().insert(RefusalReason(reason.to_owned()));
        return with_done(response, action, details);
    }
    let mut headers = HeaderMap::new();
    let (media, extension) = match output {
        Output::Csv => ("text/csv; charset=utf-8", Some("csv")),
        Output::Ndjson | Output::Check => (NDJSON, Some("ndjson")),
        Output::Stats(_) => ("application/json", None),
    };
    let partial = if opening.is_whole() { "" } else { "_PARTIAL" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(AUDIT_COMPLETE, HeaderValue::from_static(if opening.complete { "pending" } else { "false" }));
    let file = extension.map(|extension| format!("attachment; filename=\"{name}{partial}.{extension}\""));
    if let Some(value) = file.and_then(|file| HeaderValue::from_str(&file).ok()) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    let reading = Reading { chunks: stream.run(output, room), app: Arc::clone(app), caller: caller.clone() };
    let body = Body::from_stream(stream::unfold(Some(reading), |reading| async move { reading?.next().await }));
    with_done((headers, body), action, details)
}

/// A stream on its way to its reader.
struct Reading {
    chunks: mpsc::Receiver<std::io::Result<Bytes>>,
    app: Arc<App>,
    caller: Caller,
}

impl Reading {
    /// The next piece. The answer breaks off when what the caller has shown does not hold any more: a token that was revoked, a
    /// session that ended. It has no final record then, so nobody takes it for whole.
    async fn next(mut self) -> Option<(std::io::Result<Bytes>, Option<Self>)> {
        loop {
            tokio::select! {
                chunk = self.chunks.recv() => {
                    let chunk = chunk?;
                    if !self.app.still_holds(&self.caller, SystemClock.now()) {
                        return Some((Err(no_longer()), None));
                    }
                    return Some((chunk, Some(self)));
                }
                () = tokio::time::sleep(RECHECK_INTERVAL) => if !self.app.still_holds(&self.caller, SystemClock.now()) {
                    return Some((Err(no_longer()), None));
                },
            }
        }
    }
}

fn no_longer() -> std::io::Error {
    std::io::Error::other("the caller's token or session does not hold any more")
}

pub(super) fn busy(full: Full) -> ApiError {
    ApiError::new(429, "busy", format!("too many exports, checks or counts at one time: {full}"))
}

/// `audit-2026-04-15_to_2026-05-12_user-admin`: what is inside, in a name every system accepts.
pub(super) fn file_name(query: &Query) -> String {
    let day = |time: Timestamp| time.to_text()[..10].to_owned();
    let to = query.to.min(SystemClock.now());
    let filter: String = query
        .filter
        .to_string()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' })
        .take(80)
        .collect();
    let filter = if filter.is_empty() { String::new() } else { format!("_{filter}") };
    format!("audit-{}_to_{}{filter}", day(query.from), day(to))
}

/// Which of a node's logs a row is in; the present one where it is not said.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfLog {
    pub(super) generation: Option<String>,
}

impl OfLog {
    pub(super) fn generation(&self) -> Result<Option<Generation>, ApiError> {
        let bad = |_| ApiError::new(400, "bad_generation", "the generation is 32 hexadecimal digits");
        self.generation.as_deref().map(|text| text.parse().map_err(bad)).transpose()
    }
}

/// The query string of a row's address.
pub(super) type LogOfRow = Result<Pairs<OfLog>, QueryRejection>;

pub(super) fn log_of_row(asked: LogOfRow) -> Result<Option<Generation>, ApiError> {
    let bad = |_| ApiError::new(400, "bad_parameter", "a row's address has the parameter generation, and no other");
    asked.map_err(bad)?.0.generation()
}

/// `GET /audit-log/{node}/{seq}`.
pub(super) async fn entry(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((node, seq)): Path<(String, String)>,
    log: LogOfRow,
) -> Response {
    let asked = describe_row(&node, &seq);
    match find_entry(&app, &caller, &node, &seq, log_of_row(log)).await {
        Ok(found) => answer_page(found.0, &found.1, asked),
        Err(error) => with_done(error, "audit.view", asked),
    }
}

/// `GET /audit-log/{node}/{seq}/body`: the row's bytes as they are stored and signed, for whoever wants to hash them.
pub(super) async fn body(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((node, seq)): Path<(String, String)>,
    log: LogOfRow,
) -> Response {
    let asked = describe_row(&node, &seq);
    let found = match find_entry(&app, &caller, &node, &seq, log_of_row(log)).await {
        Ok((page, query)) if page.rows.is_empty() => return answer_page(page, &query, asked),
        Ok((page, _)) => page.rows.into_iter().next(),
        Err(error) => return with_done(error, "audit.view", asked),
    };
    let row = found.filter(|row| row.integrity != Integrity::Erased);
    let Some(row) = row else {
        return with_done(ApiError::new(410, "erased", "the content of this row was erased"), "audit.view", asked);
    };
    let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned()), (SIGNATURE, hex::encode(&row.mac))];
    with_done((headers, row.body), "audit.view", asked)
}

pub(super) async fn find_entry(
    app: &App,
    caller: &Caller,
    node: &str,
    seq: &str,
    log: Result<Option<Generation>, ApiError>,
) -> Result<(Page, Query), ApiError> {
    caller.require(Permission::View)?;
    let log = log?;
    let not_found = || ApiError::new(404, "no_such_node", format!("{node:?} is not in the roster"));
    let member = app.cluster.members.iter().find(|m| m.node.id.as_str() == node).ok_or_else(not_found)?;
    let seq: u64 = seq.parse().map_err(|_| ApiError::new(400, "bad_seq", format!("{seq:?} is not a row number")))?;
    let found = crate::answer::page::one_row(&app.cluster, member, seq, log, caller.scope()).await;
    let (page, query) = found.ok_or_else(|| no_such_log(node, log))?;
    let answered = page.envelope.nodes.iter().any(|n| matches!(n.status, Status::Ok | Status::Invalid));
    if page.rows.is_empty() && answered && page.envelope.complete {
        return Err(ApiError::new(404, "no_such_entry", format!("{node} has no row {seq}")));
    }
    if let Some(scope) = caller.scope().words().filter(|_| page.rows.iter().any(|row| row.withheld)) {
        let detail = format!("{node} has no row {seq} that you may see: you are limited to {scope}");
        return Err(ApiError::new(404, "no_such_entry", detail));
    }
    Ok((page, query))
}

/// No log of this generation can be read.
pub(super) fn no_such_log(node: &str, generation: Option<Generation>) -> ApiError {
    let generation = generation.map(|generation| generation.to_string()).unwrap_or_default();
    ApiError::new(404, "no_such_log", format!("{node} has no log of generation {generation} that can be read"))
}

/// What to check; everything by default.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifyRequest {
    /// RFC 3339, a date, or an age.
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    to: Option<String>,
}

/// `POST /verify`: reads every row of every node in the range and checks it here. The answer is NDJSON: rows
/// that fail, progress, and the final record.
pub(super) async fn verify(State(app): State<Arc<App>>, Extension(caller): Extension<Caller>, body: Bytes) -> Response {
    let request: Result<VerifyRequest, _> =
        if body.is_empty() { Ok(VerifyRequest::default()) } else { serde_json::from_slice(&body) };
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            return with_done(ApiError::new(400, "bad_request", error.to_string()), "audit.verify", json!({}));
        }
    };
    let now = SystemClock.now();
    // Without a bound everything is read, whatever time it claims.
    let range = match &request.from {
        Some(from) => range(Some(from), request.to.as_deref(), now),
        None => range(Some("0001-01-01"), request.to.as_deref(), now).map(|(_, to)| (Timestamp::MIN, to)),
    };
    let (from, to) = match range {
        Ok(range) => range,
        Err(error) => return with_done(ApiError::from(error), "audit.verify", json!({})),
    };
    let query = Query::everything(Filter::default(), (from, to), Order::Asc, now);
    let asked = describe(&query);
    if let Err(error) = caller.require(Permission::Verify).and_then(|()| caller.require_everything()) {
        return with_done(error, "audit.verify", asked);
    }
    answer_stream(&app, &caller, query, Asking::now(Output::Check, "audit.verify", asked)).await
}
