//! `POST /v1/entries`: one object, or a batch of lines.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use piperoll_format::entry::lifecycle;
use piperoll_format::limits::{BATCH_BYTES_MAX, BATCH_LINES_MAX, CALLER_ENTRY_BYTES_MAX};
use piperoll_protocol::node::{BatchReport, GAP_TEXT_BYTES_MAX, GapReport, LineResult, NDJSON};

use super::app::App;
use super::body::{JsonBody, receive};
use super::error::{ApiError, append_status};
use super::sender::Sender;
use crate::store::{AppendError, Appended, NewEntry, parse_new_entry};

/// Header with which the command line marks a batch as an import, not as entries from an application. The mark only lowers the
/// trust in the entries, so any client may set it.
const IMPORT_HEADER: &str = "piperoll-import";

/// Maximum size of the parts in which a batch is parsed and recorded.
const PART_LINES_MAX: usize = 1_000;
const PART_BYTES_MAX: usize = 1024 * 1024;
pub(super) async fn append(
    State(app): State<Arc<App>>,
    sender: Sender,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let word = if headers.contains_key(IMPORT_HEADER) { "import" } else { sender.way() };
    let via: Arc<str> = Arc::from(format!("{word} {}", sender.0));
    let media = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    match media.split(';').next().unwrap_or_default().trim() {
        "application/json" => {
            let _room = app.batch_room.take(&sender, &headers, CALLER_ENTRY_BYTES_MAX).await?;
            let body = receive(body, CALLER_ENTRY_BYTES_MAX).await?;
            within_quota(&app, &sender, body.len())?;
            append_one(&app, &body, &via).await
        }
        NDJSON => {
            // Held until the report is complete, because the parsed entries are as large as the text that they came from.
            let _room = app.batch_room.take(&sender, &headers, BATCH_BYTES_MAX).await?;
            let body = receive(body, BATCH_BYTES_MAX).await?;
            within_quota(&app, &sender, body.len())?;
            append_batch(&app, body, &via).await
        }
        other => Err(ApiError::new(
            415,
            "media_type",
            format!("unsupported content type {other:?}; send application/json or {NDJSON}"),
        )),
    }
}

/// `POST /v1/gaps`: records a known loss as an entry in the log itself.
pub(super) async fn gap(
    State(app): State<Arc<App>>,
    sender: Sender,
    JsonBody(report): JsonBody<GapReport>,
) -> Result<Response, ApiError> {
    for (name, text) in [("cause", Some(&report.cause)), ("source", report.source.as_ref())] {
        let Some(text) = text else { continue };
        if text.is_empty() || text.len() > GAP_TEXT_BYTES_MAX || text.chars().any(char::is_control) {
            let detail = format!("`{name}` must be one line of 1 to {GAP_TEXT_BYTES_MAX} bytes. Nothing was recorded");
            return Err(ApiError::new(400, "bad_gap", detail));
        }
    }
    let mut details = serde_json::json!({
        "count": report.count, "cause": app.redactor.text(&report.cause), "reported_by": format!("{} {}", sender.way(), sender.0),
    });
    for (name, time) in [("from", report.from), ("to", report.to)] {
        if let Some(time) = time {
            details[name] = serde_json::json!(time);
        }
    }
    if let Some(source) = &report.source {
        details["source"] = serde_json::json!(app.redactor.text(source));
    }
    let mut entry = lifecycle("log.gap", "an application reports events that were lost", &details);
    entry.id = Some(report.id);
    recorded_one(&app, NewEntry { entry, via: Arc::from("node") }).await
}

/// Takes a body's bytes from the sender's quota. Root and the daemon's own user have no quota: they could bypass the daemon
/// anyway.
fn within_quota(app: &App, sender: &Sender, bytes: usize) -> Result<(), ApiError> {
    let owners = [0, nix::unistd::geteuid().as_raw()].map(|uid| format!("uid={uid}"));
    if owners.contains(&sender.0) {
        return Ok(());
    }
    app.quotas.take(&sender.0, bytes as u64).map_err(|wait| {
        let detail = format!(
            "{} has used up its quota of socket.bytes_per_hour; retry in {} s. Nothing was recorded",
            sender.0,
            wait.as_secs() + 1
        );
        ApiError::new(429, "quota", detail)
    })
}

async fn append_one(app: &App, body: &[u8], via: &Arc<str>) -> Result<Response, ApiError> {
    let new_entry = parse_new_entry(body, via, &app.redactor).map_err(|e| {
        app.metrics.refused.inc();
        ApiError::from(AppendError::Entry(e))
    })?;
    recorded_one(app, new_entry).await
}

async fn recorded_one(app: &App, new_entry: NewEntry) -> Result<Response, ApiError> {
    let result = app.store.append(vec![new_entry]).await.pop().unwrap_or(Err(AppendError::Stopping));
    count(app, &result);
    let (status, receipt) = match result? {
        Appended::New(receipt) => (StatusCode::CREATED, receipt),
        Appended::Duplicate(receipt) => (StatusCode::OK, receipt),
    };
    Ok((status, Json(receipt)).into_response())
}

/// Records valid lines and reports invalid ones; blank lines are numbered but not reported. Lines are parsed and masked in parts,
/// so that a batch takes little more memory than its bytes, and on threads that no other request waits for.
async fn append_batch(app: &Arc<App>, body: Bytes, via: &Arc<str>) -> Result<Response, ApiError> {
    let lines: Vec<(usize, Bytes)> = body
        .split(|b| *b == b'\n')
        .enumerate()
        .map(|(i, line)| (i + 1, line))
        .filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace))
        .take(BATCH_LINES_MAX + 1)
        .map(|(i, line)| (i, body.slice_ref(line)))
        .collect();
    if lines.len() > BATCH_LINES_MAX {
        let detail = format!("a request may have at most {BATCH_LINES_MAX} lines; split it. Nothing was recorded");
        return Err(ApiError::new(413, "too_many_lines", detail));
    }
    let mut report = BatchReport { accepted: 0, rejected: 0, results: Vec::with_capacity(lines.len()) };
    let mut status = StatusCode::OK;
    let mut lines = lines.into_iter().peekable();
    while lines.peek().is_some() {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while let Some((_, line)) = lines.peek()
            && part.len() < PART_LINES_MAX
            && (part.is_empty() || bytes + line.len() <= PART_BYTES_MAX)
        {
            bytes += line.len();
            part.extend(lines.next());
        }
        let (parser, via) = (Arc::clone(app), Arc::clone(via));
        let work = move || -> Vec<(usize, Result<NewEntry, AppendError>)> {
            part.iter().map(|(number, line)| (*number, parse_line(line, &via, &parser))).collect()
        };
        let parsed = tokio::task::spawn_blocking(work).await.map_err(|_| {
            ApiError::new(500, "internal", "part of the batch could not be parsed; see the daemon's log")
        })?;
        let mut new_entries = Vec::with_capacity(parsed.len());
        let mut outcomes = Vec::with_capacity(parsed.len());
        for (number, result) in parsed {
            match result {
                Ok(new_entry) => {
                    new_entries.push(new_entry);
                    outcomes.push((number, None));
                }
                Err(error) => outcomes.push((number, Some(error))),
            }
        }
        let mut recorded = app.store.append(new_entries).await.into_iter();
        for (line, refused) in outcomes {
            let result = match refused {
                Some(error) => Err(error),
                None => recorded.next().unwrap_or(Err(AppendError::Stopping)),
            };
            count(app, &result);
            if let Err(error @ (AppendError::DiskFull | AppendError::Fault(_) | AppendError::Stopping)) = &result {
                status = StatusCode::from_u16(append_status(error).0).unwrap_or(status);
            }
            report.push(line, result);
        }
    }
    Ok((status, Json(report)).into_response())
}

fn parse_line(line: &[u8], via: &Arc<str>, app: &App) -> Result<NewEntry, AppendError> {
    Ok(parse_new_entry(line, via, &app.redactor)?)
}

trait Push {
    fn push(&mut self, line: usize, result: Result<Appended, AppendError>);
}

impl Push for BatchReport {
    fn push(&mut self, line: usize, result: Result<Appended, AppendError>) {
        let (status, receipt, error) = match result {
            Ok(Appended::New(receipt)) => (201, Some(receipt), None),
            Ok(Appended::Duplicate(receipt)) => (200, Some(receipt), None),
            Err(error) => (append_status(&error).0, None, Some(error.to_string())),
        };
        if receipt.is_some() {
            self.accepted += 1;
        } else {
            self.rejected += 1;
        }
        self.results.push(LineResult { line, status, receipt, error });
    }
}

fn count(app: &App, result: &Result<Appended, AppendError>) {
    match result {
        Ok(Appended::New(_)) => app.metrics.appended.inc(),
        Ok(Appended::Duplicate(_)) => app.metrics.repeated.inc(),
        Err(_) => app.metrics.refused.inc(),
    };
}
