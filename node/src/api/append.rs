//! `POST /v1/entries`: one object, or a batch of lines.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use piperoll_shared::api::node::{BatchReport, LineResult, NDJSON};
use piperoll_shared::log::limits::BATCH_LINES_MAX;
use piperoll_shared::net::serve::UnixPeer;

use super::App;
use super::error::{ApiError, append_status};
use crate::store::{AppendError, Appended, Draft, parse_draft};

/// Header by which the command line says that a batch comes from an import, not from an application. It
/// lowers trust only, so anyone may set it.
const IMPORT_HEADER: &str = "piperoll-import";

pub(super) async fn append(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<UnixPeer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let word = if headers.contains_key(IMPORT_HEADER) { "import" } else { "socket" };
    let via: Arc<str> = Arc::from(format!("{word} uid={}", peer.uid));
    let media = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    match media.split(';').next().unwrap_or_default().trim() {
        "application/json" => append_one(&app, &body, &via).await,
        NDJSON => append_batch(&app, &body, &via).await,
        other => Err(ApiError::new(
            415,
            "media_type",
            format!("{other:?} is not spoken here; send application/json or {NDJSON}"),
        )),
    }
}

async fn append_one(app: &App, body: &[u8], via: &Arc<str>) -> Result<Response, ApiError> {
    let draft = parse_draft(body, via).map_err(|e| {
        app.metrics.refused.inc();
        ApiError::from(AppendError::Entry(e))
    })?;
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
        match parse_draft(line, via) {
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
