//! `/audit-log`: pages, streams and single rows of the merged log. `/verify`: verification of a range.

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
use piperoll_protocol::problem::Problem;
use piperoll_query::filter::{Filter, NodeName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::audited::AuditEntry;
use super::error::ApiError;
use super::identify::Caller;
use crate::answer::export::RETRY_PAUSE;
use crate::answer::page::{Page, page};
use crate::answer::stream::{Output, Stream};
use crate::scan::query::{Format, PAGE_BYTES_SMALL, Query, Require, range};
use crate::scan::verified_row::VerifiedRow;
use crate::state::App;
use piperoll_net::fair_share::{Full, Share, Shares};

/// Interval at which a stream checks that its client is still authorized.
const RECHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum time that a count waits for another count of the same caller.
const COUNT_WAIT: Duration = Duration::from_secs(20);
/// MAC of a row whose body is the response, in hexadecimal.
const SIGNATURE: HeaderName = HeaderName::from_static("piperoll-signature");
pub(super) const AUDIT_COMPLETE: HeaderName = HeaderName::from_static("audit-complete");
/// Header with the time from which an answer is complete. Set if the answer lacks only rows that were pruned after the policy's
/// retention period.
pub(super) const AUDIT_COMPLETE_SINCE: HeaderName = HeaderName::from_static(COMPLETE_SINCE_HEADER);

/// Reads one page of the merged log, or streams all rows of a range.
#[utoipa::path(get, path = "/audit-log", tag = "log", params(
    ("filter" = Option<String>, Query, description = "Filter string; filter keys are also accepted as separate parameters"),
    ("from" = Option<String>, Query, description = "Start of the range: RFC 3339, a date, or an age such as 24h; 7d by default"),
    ("to" = Option<String>, Query, description = "End of the range, exclusive; now by default"),
    ("tz" = Option<String>, Query, description = "Time zone for dates and times without one: UTC (the default), +02:00, or Europe/Berlin"),
    ("order" = Option<String>, Query, description = "desc (default) or asc"),
    ("format" = Option<String>, Query, description = "json (a page, default), ndjson or csv (a stream; needs auditor or admin)"),
    ("limit" = Option<usize>, Query, description = "Number of rows; 50 by default, at most 1,000 for a page"),
    ("cursor" = Option<String>, Query, description = "next_cursor or previous_cursor of another page"),
    ("require" = Option<String>, Query, description = "any (default), or all to get status 503 unless every expected node answers"),
), responses(
    (status = 200, description = "Complete or partial, as stated in the header audit-complete. In addition to the envelope, a page has `entries`: rows of {entry, signature, integrity, witnessed}; for an erased row, `entry` is null and `erased` is {entry_seq, timestamp, reason}. An NDJSON stream ends with a final record", content((Envelope = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"))),
    (status = 400, description = "Invalid filter, range, parameter or cursor", body = Problem),
    (status = 429, description = "Too many concurrent exports and checks", body = Problem),
    (status = 503, description = "No node answered, or require=all is not met; the same body as 200", body = Envelope),
))]
pub(super) async fn audit_log(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
    headers: HeaderMap,
    pairs: Result<Pairs<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, ApiError> {
    let mut query = Query::parse(pairs_of(pairs)?, SystemClock.now(), &app.cluster.cursor_key, caller.scope())?;
    audit.details(describe(&query));
    known_nodes(&app, &query)?;
    let is_report = headers.get(PURPOSE_HEADER).is_some_and(|purpose| purpose == PURPOSE_REPORT);
    let output = match query.format {
        Format::Json => {
            let room = app.pages.take(caller.name()).ok();
            if room.is_none() {
                query.page_bytes = PAGE_BYTES_SMALL;
            }
            let mut response = answer_page(&audit, &page(&app.cluster, &query).await, query.require);
            response.extensions_mut().insert(Held(Arc::new(room)));
            return Ok(response);
        }
        Format::Ndjson => Output::Ndjson,
        Format::Csv => Output::Csv,
    };
    audit.rename(if is_report && query.format == Format::Ndjson { "audit.report" } else { "audit.export" });
    caller.require(Permission::Export)?;
    answer_stream(&app, &caller, &audit, query, output, Duration::ZERO).await
}

/// Returns the parameters of a query string, in the order in which they were given.
pub(super) fn pairs_of(
    pairs: Result<Pairs<Vec<(String, String)>>, QueryRejection>,
) -> Result<Vec<(String, String)>, ApiError> {
    let Pairs(pairs) = pairs.map_err(|_| ApiError::new(400, "bad_parameter", "cannot parse the query string"))?;
    Ok(pairs)
}

/// Refuses a filter that names an unknown node, because a misspelled node would make an empty answer look complete.
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

/// Returns the details of the audit entry about a request for one row.
pub(super) fn describe_row(node: &str, seq: &str) -> Value {
    let cut = |text: &str, max: usize| text.chars().take(max).collect::<String>();
    json!({ "node": cut(node, 64), "seq": cut(seq, 20) })
}

/// Returns the details of the audit entry about an answer.
pub(super) fn outcome(envelope: &Envelope) -> Value {
    let missing: Vec<&str> = envelope
        .nodes
        .iter()
        .filter(|node| !matches!(node.status, Status::Ok | Status::Archived | Status::Excluded))
        .map(|node| node.node_id.as_str())
        .collect();
    json!({ "rows": envelope.count, "complete": envelope.complete, "not_ok": missing })
}

/// Returns 200 for a complete or partial answer. Returns 503 if neither a node nor an archive answered, or if the caller requires all nodes and the
/// answer is not complete; the body is the same.
fn status_of(envelope: &Envelope, require: Require) -> (StatusCode, Option<&'static str>) {
    let gave_rows = |status| {
        matches!(
            status,
            Status::Ok | Status::Archived | Status::Invalid | Status::Incomplete | Status::Pruned | Status::Superseded
        )
    };
    let is_answered = envelope.nodes.iter().any(|node| gave_rows(node.status))
        || envelope.archives.iter().any(|archive| archive.status == Status::Ok);
    if require == Require::All && !envelope.complete {
        (StatusCode::SERVICE_UNAVAILABLE, Some("not_complete"))
    } else if envelope.expected > 0 && !is_answered {
        (StatusCode::SERVICE_UNAVAILABLE, Some("no_node_answered"))
    } else {
        (StatusCode::OK, None)
    }
}

/// A page: the envelope, and the rows as its last member.
#[derive(Serialize)]
struct PageBody<'a> {
    #[serde(flatten)]
    envelope: &'a Envelope,
    entries: &'a RawValue,
}

fn page_body(envelope: &Envelope, rows: &[VerifiedRow]) -> serde_json::Result<Vec<u8>> {
    let mut list = vec![b'['];
    for (number, row) in rows.iter().enumerate() {
        if number > 0 {
            list.push(b',');
        }
        row.to_row().write_json(&mut list);
    }
    list.push(b']');
    serde_json::to_vec(&PageBody { envelope, entries: serde_json::from_slice(&list)? })
}

fn answer_page(audit: &AuditEntry, page: &Page, require: Require) -> Response {
    let (status, refused) = status_of(&page.envelope, require);
    audit.details(outcome(&page.envelope));
    if let Some(reason) = refused {
        audit.reason(reason);
    }
    let rows: &[VerifiedRow] = if refused == Some("not_complete") { &[] } else { &page.rows };
    let body = page_body(&page.envelope, rows).unwrap_or_default();
    let complete = if page.envelope.complete { "true" } else { "false" };
    (status, [(CONTENT_TYPE, "application/json"), (AUDIT_COMPLETE, complete)], body).into_response()
}

/// Takes a slot for a stream. A web page requests two counts at once, so a count (`waits`) waits for the caller's other count.
async fn room(rooms: &Shares, caller: &Caller, waits: bool) -> Result<Share, Full> {
    if waits { rooms.wait(caller.name(), COUNT_WAIT).await } else { rooms.take(caller.name()) }
}

/// Streams rows, counts or a check. Retries for `patience` while nodes are missing.
pub(super) async fn answer_stream(
    app: &Arc<App>,
    caller: &Caller,
    audit: &AuditEntry,
    query: Query,
    output: Output,
    patience: Duration,
) -> Result<Response, ApiError> {
    let rooms = if matches!(output, Output::Stats(_)) { &app.counts } else { &app.streams };
    let require = query.require;
    let name = file_name(&query);
    let started = Instant::now();
    let (room, stream) = loop {
        let room = room(rooms, caller, matches!(output, Output::Stats(_))).await.map_err(busy)?;
        let stream = Stream::open(&app.cluster, query.clone()).await;
        if stream.opening().complete || started.elapsed() + RETRY_PAUSE >= patience {
            break (room, stream);
        }
        // Release the slot and the connections while waiting for the next attempt.
        drop((room, stream));
        tokio::time::sleep(RETRY_PAUSE).await;
    };
    let opening = stream.opening();
    let (status, refused) = status_of(&opening, require);
    // The entry is written before the first row is sent, so it cannot contain the number of rows.
    let mut details = outcome(&opening);
    if let Some(fields) = details.as_object_mut() {
        fields.remove("rows");
    }
    audit.details(details);
    if let Some(reason) = refused {
        audit.reason(reason);
        let headers = [(CONTENT_TYPE, "application/json"), (AUDIT_COMPLETE, "false")];
        return Ok((status, headers, Json(opening)).into_response());
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
    Ok((headers, body).into_response())
}

/// A stream that is being sent to its client.
struct Reading {
    chunks: mpsc::Receiver<std::io::Result<Bytes>>,
    app: Arc<App>,
    caller: Caller,
}

impl Reading {
    /// Returns the next chunk. The stream ends early when the caller's credential is no longer valid: the token was
    /// revoked, or the session ended. It then has no final record, so no client mistakes it for a complete one.
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
    std::io::Error::other("the caller's token or session is no longer valid")
}

pub(super) fn busy(full: Full) -> ApiError {
    ApiError::new(429, "busy", format!("too many concurrent exports, checks or counts: {full}"))
}

/// Builds a file name from range and filter, such as `audit-2026-04-15_to_2026-05-12_user-admin`, that is valid on
/// every system.
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

/// Query parameters of a row's address: the log that contains the row, by default the node's current log.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfLog {
    pub(super) generation: Option<String>,
}

impl OfLog {
    pub(super) fn generation(&self) -> Result<Option<Generation>, ApiError> {
        let bad = |_| ApiError::new(400, "bad_generation", "the generation must be 32 hexadecimal digits");
        self.generation.as_deref().map(|text| text.parse().map_err(bad)).transpose()
    }
}

/// The query string of a row's address, parsed.
pub(super) type LogOfRow = Result<Pairs<OfLog>, QueryRejection>;

pub(super) fn log_of_row(asked: LogOfRow) -> Result<Option<Generation>, ApiError> {
    let bad = |_| ApiError::new(400, "bad_parameter", "the URL of a row accepts only the parameter `generation`");
    asked.map_err(bad)?.0.generation()
}

/// Reads one row.
#[utoipa::path(get, path = "/audit-log/{node}/{seq}", tag = "log", params(
    ("node" = String, Path, description = "Node id", example = "mx1"),
    ("seq" = u64, Path, description = "Row number in that node's log", example = 1),
    ("generation" = Option<String>, Query, description = "Generation of the log that contains the row, as given in the row; the node's current log by default"),
), responses(
    (status = 200, description = "A page of one row", body = Envelope),
    (status = 404, description = "No such node or row", body = Problem),
    (status = 503, description = "The node did not answer", body = Envelope),
))]
pub(super) async fn entry(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
    Path((node, seq)): Path<(String, String)>,
    log: LogOfRow,
) -> Result<Response, ApiError> {
    audit.details(describe_row(&node, &seq));
    let (page, query) = find_entry(&app, &caller, &node, &seq, log_of_row(log)).await?;
    Ok(answer_page(&audit, &page, query.require))
}

/// Reads one row's bytes as they are stored and signed, so that anyone can hash them.
#[utoipa::path(get, path = "/audit-log/{node}/{seq}/body", tag = "evidence", params(
    ("node" = String, Path, description = "Node id", example = "mx1"),
    ("seq" = u64, Path, description = "Row number in that node's log", example = 1),
    ("generation" = Option<String>, Query, description = "Generation of the log that contains the row, as given in the row; the node's current log by default"),
), responses(
    (status = 200, description = "The row's bytes as they are stored and signed; the header piperoll-signature is their MAC in hexadecimal", body = Vec<u8>, content_type = "application/octet-stream"),
    (status = 404, description = "No such node or row", body = Problem),
    (status = 410, description = "The content of the row was erased", body = Problem),
    (status = 503, description = "The node did not answer", body = Envelope),
))]
pub(super) async fn body(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
    Path((node, seq)): Path<(String, String)>,
    log: LogOfRow,
) -> Result<Response, ApiError> {
    audit.details(describe_row(&node, &seq));
    let (page, query) = find_entry(&app, &caller, &node, &seq, log_of_row(log)).await?;
    let Some(row) = page.rows.first() else { return Ok(answer_page(&audit, &page, query.require)) };
    if row.integrity == Integrity::Erased {
        return Err(ApiError::new(410, "erased", "the content of this row was erased"));
    }
    let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned()), (SIGNATURE, hex::encode(&row.mac))];
    Ok((headers, row.body.clone()).into_response())
}

pub(super) async fn find_entry(
    app: &App,
    caller: &Caller,
    node: &str,
    seq: &str,
    log: Result<Option<Generation>, ApiError>,
) -> Result<(Page, Query), ApiError> {
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
    if let Some(scope) = caller.scope().describe().filter(|_| page.rows.iter().any(|row| row.withheld)) {
        let detail = format!("{node} has no row {seq} that you may see: you are limited to {scope}");
        return Err(ApiError::new(404, "no_such_entry", detail));
    }
    Ok((page, query))
}

/// Returns the error for a generation whose log cannot be read.
pub(super) fn no_such_log(node: &str, generation: Option<Generation>) -> ApiError {
    let generation = generation.map(|generation| generation.to_string()).unwrap_or_default();
    ApiError::new(404, "no_such_log", format!("{node} has no log of generation {generation} that can be read"))
}

/// Range to verify; everything by default.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifyRequest {
    /// RFC 3339, a date, or an age.
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    to: Option<String>,
}

/// Reads and verifies every row of every node in a range.
///
/// The answer is NDJSON: rows that fail, progress, and the final record.
#[utoipa::path(post, path = "/verify", tag = "log", request_body = VerifyRequest, responses(
    (status = 200, description = "Rows that fail verification, {\"progress\":n}, and a final record, one per line", body = String, content_type = "application/x-ndjson"),
    (status = 503, description = "No node answered", body = Envelope),
))]
pub(super) async fn verify(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let request: VerifyRequest = match &body[..] {
        [] => VerifyRequest::default(),
        body => serde_json::from_slice(body).map_err(|error| ApiError::new(400, "bad_request", error.to_string()))?,
    };
    let now = SystemClock.now();
    // Without `from`, all rows are read, regardless of their timestamps.
    let (from, to) = match &request.from {
        Some(from) => range(Some(from), request.to.as_deref(), now)?,
        None => (Timestamp::MIN, range(Some("0001-01-01"), request.to.as_deref(), now)?.1),
    };
    let query = Query::everything(Filter::default(), (from, to), Order::Asc, now);
    audit.details(describe(&query));
    caller.require_everything()?;
    answer_stream(&app, &caller, &audit, query, Output::Check, Duration::ZERO).await
}
