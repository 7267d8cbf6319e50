//! Queries the aggregator during faults: answers must be true and must come within their time limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use piperoll_format::time::Timestamp;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::checks::{self, Outcome};
use super::model::{Model, Row};
use super::report::Counters;

/// Time limit for a page. The aggregator ends a page after 5 s; the rest allows for a busy machine.
const PAGE_LIMIT: Duration = Duration::from_secs(15);
/// Time limit for a stream. The aggregator waits at most 2 s for each frame of a node, so streams of these small logs end long
/// before this limit.
const STREAM_LIMIT: Duration = Duration::from_secs(60);

/// Filter that selects the entries of the writers; the nodes answer it from their indexes.
pub(crate) const WRITTEN: &str = "action:campaign.write";

/// Client of the aggregator that checks its answers.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) model: Model,
    pub(crate) tally: Counters,
}

/// The rows of a stream, and the contents of its final record.
pub(crate) struct Stream {
    pub(crate) rows: Vec<Row>,
    pub(crate) is_complete: bool,
    pub(crate) envelope: String,
}

impl Asker {
    pub(crate) async fn get(&self, path: &str, limit: Duration) -> Result<(u16, String), String> {
        let asked = Instant::now();
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.token).timeout(limit * 2);
        let response = request.send().await.map_err(|e| format!("{path}: {e:?}"))?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(|e| format!("{path}: {e:?}"))?;
        self.tally.took(asked.elapsed());
        self.tally.check("time limit", checks::within(path, asked.elapsed(), limit))?;
        Ok((status, text))
    }

    pub(crate) async fn json(&self, path: &str) -> Result<Value, String> {
        let (status, text) = self.get(path, PAGE_LIMIT).await?;
        if status != 200 {
            return Err(format!("{path}: {status} {text}"));
        }
        serde_json::from_str(&text).map_err(|e| format!("{path}: {e}: {text}"))
    }

    /// Reads all rows since `from`, and checks them against the entries acknowledged before the request. `filter` must be empty
    /// or `WRITTEN`, because these two filters match all of those entries.
    pub(crate) async fn stream(&self, from: Timestamp, filter: &str) -> Result<Stream, String> {
        let to = super::clock::ahead();
        let range = from.micros()..to.micros();
        let known = self.model.known(|known| range.contains(&known.micros));
        let range = format!("filter={filter}&from={}&to={}", from.to_text(), to.to_text());
        let path = format!("/api/v1/audit-log?format=ndjson&order=asc&{range}");
        let (status, text) = self.get(&path, STREAM_LIMIT).await?;
        if status != 200 {
            return Err(format!("{path}: {status} {text}"));
        }
        let stream = parse(&text)?;
        let is_erased = |known: &_| self.model.is_erased(known);
        let outcome = checks::complete_is_true(stream.is_complete, &known, &stream.rows, is_erased);
        self.tally
            .check("complete is true", outcome.map_err(|found| format!("{found} ({path}): {}", stream.envelope)))?;
        let outcome = checks::nothing_changed_is_shown_as_sound(&known, &stream.rows);
        self.tally.check("sound rows are unchanged", outcome)?;
        Ok(stream)
    }

    async fn once(&self, from: Timestamp, number: usize) -> Outcome {
        if number.is_multiple_of(3) {
            let (status, text) = self.get("/api/v1/audit-log?limit=50", PAGE_LIMIT).await?;
            // 503 is right while no node answers.
            if status != 200 && status != 503 {
                return Err(format!("a page was answered with {status}: {text}"));
            }
            return Ok(());
        }
        let filter = if number % 3 == 1 { "" } else { WRITTEN };
        self.stream(from, filter)
            .await
            .map(|_| ())
            .or_else(|found| if found.contains(": 503 ") { Ok(()) } else { Err(found) })
    }
}

pub(crate) fn parse(text: &str) -> Result<Stream, String> {
    let mut rows = Vec::new();
    for line in text.lines() {
        rows.extend(Row::parse(line)?);
    }
    let last = text.lines().last().unwrap_or_default();
    let last: Value = serde_json::from_str(last).map_err(|e| format!("no final record: {e}: {last}"))?;
    let envelope = &last["final"];
    let is_complete = envelope["complete"].as_bool().ok_or_else(|| format!("no final record: {last}"))?;
    Ok(Stream { rows, is_complete, envelope: envelope.to_string() })
}

/// A task that queries the aggregator until `end` is called.
pub(crate) struct Probe {
    is_over: Arc<AtomicBool>,
    task: JoinHandle<Outcome>,
}

impl Probe {
    /// Starts the task. If `may_fail` is set, requests may fail or be late, because the aggregator itself is disturbed, but no
    /// answer may be false.
    pub(crate) fn start(asker: Asker, from: Timestamp, may_fail: bool) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let task = tokio::spawn(async move {
            let mut number = 0_usize;
            while !until.load(Ordering::Relaxed) {
                match asker.once(from, number).await {
                    Err(found) if !may_fail || is_untrue(&found) => return Err(found),
                    _ => {}
                }
                number += 1;
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            Ok(())
        });
        Self { is_over, task }
    }

    pub(crate) async fn end(self) -> Outcome {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await.map_err(|e| e.to_string())?.map_err(|found| format!("while faults happened: {found}"))
    }
}

pub(crate) fn is_untrue(found: &str) -> bool {
    ["complete is true", "sound rows are unchanged"].iter().any(|check| found.starts_with(check))
}
