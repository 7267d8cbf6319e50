//! `POST /v1/entries`: one object, or a batch of lines.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use piperoll_shared::api::node::{BatchReport, GAP_TEXT_BYTES_MAX, GapReport, LineResult, NDJSON};
use piperoll_shared::log::entry::lifecycle;
use piperoll_shared::log::limits::{BATCH_BYTES_MAX, BATCH_LINES_MAX, CALLER_ENTRY_BYTES_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::App;
use super::body::{BODY_TIMEOUT, Typed, receive};
use super::error::{ApiError, append_status};
use super::http::Sender;
use crate::store::{AppendError, Appended, Draft, parse_draft};

/// Header by which the command line says that a batch comes from an import, not from an application. It
/// lowers trust only, so anyone may set it.
const IMPORT_HEADER: &str = "piperoll-import";

/// Bytes of batches that are being received or recorded at one time, and the unit they are counted in.
const BATCHES_BYTES_MAX: usize = 192 * 1024 * 1024;
const ROOM_UNIT_BYTES: usize = 1024;
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
            let body = receive(body, CALLER_ENTRY_BYTES_MAX).await?;
            append_one(&app, &body, &via).await
        }
        NDJSON => {
            // Held until the report is made: the parsed entries are as large as the text they came from.
            let _room = room_for(&app.batch_room, &headers).await?;
            let body = receive(body, BATCH_BYTES_MAX).await?;
            append_batch(&app, &body, &via).await
        }
        other => Err(ApiError::new(
            415,
            "media_type",
            format!("{other:?} is not spoken here; send application/json or {NDJSON}"),
        )),
    }
}

/// `POST /v1/gaps`: what is known to be lost stands in the log itself.
pub(super) async fn gap(
    State(app): State<Arc<App>>,
    sender: Sender,
    Typed(report): Typed<GapReport>,
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
    recorded_one(&app, Draft { entry, via: Arc::from("node") }).await
}

/// A share of the memory that all batches together may take; waits for it, then gives up.
async fn room_for(room: &Arc<Semaphore>, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, ApiError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    let bytes = announced.unwrap_or(BATCH_BYTES_MAX).min(BATCH_BYTES_MAX);
    let share = u32::try_from(bytes.div_ceil(ROOM_UNIT_BYTES)).unwrap_or(u32::MAX);
    match tokio::time::timeout(BODY_TIMEOUT, Arc::clone(room).acquire_many_owned(share)).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(ApiError::new(
            503,
            "busy",
            "too many large batches are under way; send it again in a moment, or in smaller pieces. Nothing was recorded",
        )),
    }
}

/// The memory that batches may take together.
pub(super) fn batch_room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(BATCHES_BYTES_MAX / ROOM_UNIT_BYTES))
}

async fn append_one(app: &App, body: &[u8], via: &Arc<str>) -> Result<Response, ApiError> {
    let draft = parse_draft(body, via, &app.redactor).map_err(|e| {
        app.metrics.refused.inc();
        ApiError::from(AppendError::Entry(e))
    })?;
    recorded_one(app, draft).await
}

async fn recorded_one(app: &App, draft: Draft) -> Result<Response, ApiError> {
    let result = app.store.append(vec![draft]).await.pop().unwrap_or(Err(AppendError::Stopping));
    count(app, &result);
    let (status, receipt) = match result? {
        Appended::New(receipt) => (StatusCode::CREATED, receipt),
        Appended::Known(receipt) => (StatusCode::OK, receipt),
    };
    Ok((status, Json(receipt)).into_response())
}

/// Good lines are recorded and bad ones reported; blank lines count but say nothing.
async fn append_batch(app: &App, body: &[u8], via: &Arc<str>) -> Result<Response, ApiError> {
    let lines: Vec<(usize, &[u8])> = body
        .split(|b| *b == b'\n')
        .enumerate()
        .map(|(i, line)| (i + 1, line))
        .filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace))
        .collect();
    if lines.len() > BATCH_LINES_MAX {
        let detail = format!(
            "{} lines, more than the {BATCH_LINES_MAX} of one request; split it. Nothing was recorded",
            lines.len()
        );
        return Err(ApiError::new(413, "too_many_lines", detail));
    }
    let mut drafts: Vec<Draft> = Vec::with_capacity(lines.len());
    let mut outcomes: Vec<(usize, Option<AppendError>)> = Vec::with_capacity(lines.len());
    for (number, line) in lines {
        match parse_draft(line, via, &app.redactor) {
            Ok(draft) => {
                drafts.push(draft);
                outcomes.push((number, None));
            }
            Err(error) => outcomes.push((number, Some(error.into()))),
        }
    }
    let mut recorded = app.store.append(drafts).await.into_iter();
    let mut report = BatchReport { accepted: 0, rejected: 0, results: Vec::with_capacity(outcomes.len()) };
    let mut status = StatusCode::OK;
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
    Ok((status, Json(report)).into_response())
}

trait Push {
    fn push(&mut self, line: usize, result: Result<Appended, AppendError>);
}

impl Push for BatchReport {
    fn push(&mut self, line: usize, result: Result<Appended, AppendError>) {
        let (status, receipt, error) = match result {
            Ok(Appended::New(receipt)) => (201, Some(receipt), None),
            Ok(Appended::Known(receipt)) => (200, Some(receipt), None),
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
        Ok(Appended::Known(_)) => app.metrics.repeated.inc(),
        Err(_) => app.metrics.refused.inc(),
    };
}
