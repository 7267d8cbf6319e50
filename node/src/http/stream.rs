//! Streams scans and verifications as response bodies: one short read per chunk.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream::{self, Stream};
use piperoll_format::row::{FoundAt, Row};
use piperoll_format::verify::Integrity;
use piperoll_net::fair_share::{Share, Shares};
use piperoll_protocol::frame;
use piperoll_protocol::node::{Mark, ScanRequest, StreamEnd, StreamHead, VerifyLine};
use piperoll_query::stats::Counter;
use serde_json::json;

use super::app::App;
use super::error::ApiError;
use crate::store::{Batch, Check, ErasedBy, ReadError, Scan, Store, StoredRow};

/// Interval at which a following stream checks for new rows, and time for which it sends nothing if there are none. They are long
/// enough that a hundred followers cost little, and short enough that people notice no delay.
const FOLLOW_POLL: Duration = Duration::from_millis(50);
const FOLLOW_SILENCE: Duration = Duration::from_millis(250);

/// Maximum time that a scan waits for other scans of the same caller.
const ROOM_WAIT: Duration = Duration::from_secs(10);

/// Takes a slot for a scan; it is released when the response has been read or aborted.
pub(super) async fn room(shares: &Shares, caller: &str) -> Result<Share, ApiError> {
    shares
        .wait(caller, ROOM_WAIT)
        .await
        .map_err(|full| ApiError::new(429, "busy", format!("too many concurrent scans: {full}")))
}

/// Encoding of rows for one kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For aggregators: the bytes of the rows unchanged, so that the aggregator can verify them, and also the position that was
    /// reached if the aggregator requested it.
    Frames { places: bool },
    /// For people on this machine: rows with the result of the daemon's verification.
    Lines,
}

impl Form {
    fn is_frames(self) -> bool {
        matches!(self, Self::Frames { .. })
    }
}

/// Plans a scan and turns it into a body. Any refusal happens before the first byte is sent.
pub(super) async fn scan_body(app: &Arc<App>, request: ScanRequest, form: Form, room: Share) -> Result<Body, ApiError> {
    let extent = app.store.extent().await?;
    let follow = (request.follow && form.is_frames()).then(|| request.clone());
    let (scan, mark) = match &follow {
        Some(request) => next_part(&app.store, request.clone()).await?,
        None => (app.store.scan(request).await?, None),
    };
    let health = app.store.health();
    // An archived log has a generation and an extent of its own, and the daemon's faults concern only the current log.
    let (generation, head_seq, oldest_seq, fault) = match scan.log_aside() {
        Some((generation, extent)) => (generation, extent.head_seq, extent.oldest_seq, None),
        None => (app.store.generation(), health.head(), extent.oldest_seq, health.read_fault()),
    };
    let head = StreamHead {
        cluster: app.cluster.clone(),
        node_id: app.node_id.clone(),
        generation,
        head_seq,
        oldest_seq,
        pruned: scan.floor().map(crate::store::LogStart::rows),
        epochs: scan.epochs().to_vec(),
        fault,
        erased: scan.erased(),
    };
    let app = Arc::clone(app);
    let follow = follow.zip(mark).map(|(request, mark)| Box::new(Follow { request, mark }));
    let state = StreamState { app, form, step: Step::Head(scan, Box::new(head)), follow, _room: room };
    Ok(Body::from_stream(stream::unfold(state, next_chunk)))
}

struct StreamState {
    app: Arc<App>,
    form: Form,
    step: Step,
    follow: Option<Box<Follow>>,
    _room: Share,
}

/// A stream that continues with rows recorded later.
struct Follow {
    request: ScanRequest,
    /// Position of the stream after the current scan.
    mark: Mark,
}

/// Plans a scan of the rows that exist now. Also returns the position that the scan will reach.
async fn next_part(store: &Store, mut request: ScanRequest) -> Result<(Scan, Option<Mark>), ReadError> {
    let (rows, time) = store.watermark();
    request.head = rows.checked_sub(1);
    let mark = Mark { next_seq: rows.max(request.from_seq.unwrap_or(0)), time, faults: Vec::new() };
    Ok((store.scan(request).await?, Some(mark)))
}

/// Waits for rows after those that were read, but no longer than the stream may stay silent.
async fn wait_for_more(app: &App, follow: &mut Follow) -> Result<Option<Scan>, ReadError> {
    follow.request.from_seq = Some(follow.mark.next_seq);
    let waited = tokio::time::Instant::now();
    while waited.elapsed() < FOLLOW_SILENCE {
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_POLL) => {}
            // Do not delay the stop because of a client that follows the log: the client will connect again.
            () = app.stopping.cancelled() => return Err(ReadError::Stopping),
        }
        if app.store.watermark().0 > follow.mark.next_seq {
            let (scan, mark) = next_part(&app.store, follow.request.clone()).await?;
            follow.mark = mark.unwrap_or_else(|| follow.mark.clone());
            return Ok(Some(scan));
        }
    }
    let (rows, time) = app.store.watermark();
    if rows <= follow.mark.next_seq {
        follow.mark.time = time;
    }
    Ok(None)
}

enum Step {
    Head(Scan, Box<StreamHead>),
    Rows(Scan),
    /// Wait for more rows to be recorded.
    Wait,
    Over,
}

async fn wait(state: &mut StreamState) -> Result<Option<Scan>, ReadError> {
    match &mut state.follow {
        Some(follow) => wait_for_more(&state.app, follow).await,
        None => Ok(None),
    }
}

async fn next_chunk(mut state: StreamState) -> Option<(Result<Bytes, ReadError>, StreamState)> {
    let mut out = Vec::new();
    let scan = match std::mem::replace(&mut state.step, Step::Over) {
        Step::Over => return None,
        Step::Head(scan, head) => {
            if state.form.is_frames() {
                // Send the head as a chunk of its own, because it tells a client at once that the node is alive.
                frame::write_head(&mut out, &head);
                state.step = Step::Rows(scan);
                return Some((Ok(Bytes::from(out)), state));
            }
            scan
        }
        Step::Rows(scan) => scan,
        Step::Wait => match wait(&mut state).await {
            Ok(Some(scan)) => scan,
            Ok(None) => {
                state.step = Step::Wait;
                if let Some(follow) = &state.follow {
                    frame::write_mark(&mut out, &follow.mark);
                }
                return Some((Ok(Bytes::from(out)), state));
            }
            Err(error) => return Some((Err(error), state)),
        },
    };
    match state.app.store.next_batch(scan).await {
        Ok((mut scan, batch)) => {
            state.app.metrics.scanned_rows.inc_by(u64::try_from(batch.rows.len()).unwrap_or(0));
            if batch.done && state.form.is_frames() {
                let counts = scan.take_counts().map(Counter::into_parts).unwrap_or_default();
                counts.iter().for_each(|part| frame::write_count(&mut out, part));
            }
            match &mut state.follow {
                Some(follow) if batch.done => {
                    let mark = Mark { faults: scan.faults(), ..follow.mark.clone() };
                    write_batch(&state.app, state.form, &mut scan, &Batch { done: false, ..batch }, &mut out);
                    frame::write_mark(&mut out, &mark);
                    state.step = Step::Wait;
                }
                _ => {
                    write_batch(&state.app, state.form, &mut scan, &batch, &mut out);
                    if !batch.done {
                        state.step = Step::Rows(scan);
                    }
                }
            }
            Some((Ok(Bytes::from(out)), state))
        }
        // End the stream without its end record, so that clients see that it is incomplete.
        Err(error) => {
            tracing::error!(%error, "scan failed");
            Some((Err(error), state))
        }
    }
}

fn write_batch(app: &App, form: Form, scan: &mut Scan, batch: &Batch, out: &mut Vec<u8>) {
    match form {
        Form::Frames { places } => {
            for row in &batch.rows {
                match &row.erased {
                    None => frame::write_entry(out, &entry_parts(row)),
                    Some(erased) => frame::write_erased(out, row.seq, &statement_parts(row, erased)),
                }
            }
            if let Some(proof) = &batch.proof {
                frame::write_proof(out, proof);
            }
            for row in &batch.borders {
                match &row.erased {
                    None => frame::write_border(out, &entry_parts(row)),
                    Some(erased) => frame::write_erased_border(out, row.seq, &statement_parts(row, erased)),
                }
            }
            if let Some(proof) = &batch.borders_proof {
                frame::write_proof(out, proof);
            }
            if batch.done {
                let end = StreamEnd {
                    rows: scan.sent(),
                    scanned: scan.scanned(),
                    more: scan.limit_reached(),
                    faults: scan.faults(),
                };
                frame::write_end(out, &end);
            } else {
                frame::write_progress(out, scan.scanned(), scan.reached().filter(|_| places));
            }
        }
        Form::Lines => {
            for row in &batch.rows {
                local_row(app.node_id.as_str(), row).write_json(out);
                out.push(b'\n');
            }
            if batch.done {
                let counts = scan.take_counts().map(Counter::finish);
                let last = json!({ "final": {
                    "node_id": app.node_id, "generation": app.store.generation(), "rows": scan.sent(),
                    "scanned": scan.scanned(), "more": scan.limit_reached(), "faults": scan.faults(),
                    "fault": app.store.health().read_fault(), "pruned": scan.reaches_pruned(), "counts": counts, "erased": scan.erased(),
                }});
                out.extend_from_slice(last.to_string().as_bytes());
                out.push(b'\n');
            }
        }
    }
}

fn entry_parts(row: &StoredRow) -> frame::EntryParts<'_> {
    let StoredRow { seq, place, timestamp, epoch, mac, body, .. } = row;
    frame::EntryParts { seq: *seq, place: *place, timestamp: *timestamp, epoch: *epoch, mac, body }
}

/// Returns the entry that erased a row, with the position of that row.
fn statement_parts<'a>(row: &StoredRow, erased: &'a ErasedBy) -> frame::EntryParts<'a> {
    let ErasedBy { entry_seq, timestamp, epoch, mac, body, .. } = erased;
    frame::EntryParts { seq: *entry_seq, place: row.place, timestamp: *timestamp, epoch: *epoch, mac, body }
}

fn local_row<'a>(node_id: &str, row: &'a StoredRow) -> Row<'a> {
    if let Some(erased) = &row.erased {
        return Row::erased(node_id, &erased.statement, erased.entry_seq, false);
    }
    Row {
        body: row.body.as_slice().into(),
        mac: row.mac.as_slice().into(),
        integrity: row.checked.integrity,
        // Only an aggregator sets this field, based on its own witness; a node's claim about its own rows would prove nothing.
        witnessed: false,
        reason: row.checked.reason.map(Into::into),
        found_at: (row.checked.integrity != Integrity::Ok)
            .then(|| FoundAt { node_id: node_id.to_owned(), seq: row.seq }),
        erased: None,
        withheld: false,
    }
}

impl StoredRow {
    /// Returns the row as shown to people; for a row that is not intact, this includes the position at which it was found.
    pub fn to_row(&self, node_id: &str) -> Row<'_> {
        local_row(node_id, self)
    }
}

/// Runs a full check and returns its results as NDJSON of [`VerifyLine`]. The results begin with the one fault that only the
/// daemon can detect: that the open file is no longer the one at the log's path.
pub(super) async fn check_body(app: &Arc<App>, room: Share) -> Body {
    app.store.check_file().await;
    let check = app.store.check().with_fault(app.store.health().read_fault());
    Body::from_stream(check_stream((Arc::clone(app), Some(check), room)))
}

fn check_stream(state: (Arc<App>, Option<Check>, Share)) -> impl Stream<Item = Result<Bytes, ReadError>> {
    stream::unfold(state, |(app, check, room)| async move {
        let check = check?;
        match app.store.check_step(check).await {
            Ok((check, lines)) => {
                let rest = (!check.done()).then_some(check);
                Some((Ok(check_lines(&lines)), (app, rest, room)))
            }
            Err(error) => Some((Err(error), (app, None, room))),
        }
    })
}

fn check_lines(lines: &[VerifyLine]) -> Bytes {
    let mut out = Vec::new();
    for line in lines {
        out.extend_from_slice(serde_json::to_string(line).unwrap_or_default().as_bytes());
        out.push(b'\n');
    }
    Bytes::from(out)
}
