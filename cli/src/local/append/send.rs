//! Sends entries to the node, or appends them to its log, until they are recorded or refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use piperoll_client::{ClientError, NodeClient};
use piperoll_format::time::span;
use piperoll_net::clock::SystemClock;
use piperoll_node::config::NodeConfig;
use piperoll_node::store::{Appended, LogDir, OpenError, append_offline, parse_new_entry};
use piperoll_protocol::node::{BatchReport, LineResult};

use super::super::place::LogAccess;
use crate::args::PlaceArgs;

/// Shortest and longest pause between two attempts.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Log to which entries are appended.
pub(super) struct Target {
    place: LogAccess,
    /// Configuration through which the node was found; needed to open the node's log if the node stops in the meantime.
    config: Option<Box<NodeConfig>>,
    /// Maximum time for which the same entries are retried while the node cannot accept them.
    retry_for: Duration,
}

impl Target {
    pub(super) async fn find(args: &PlaceArgs, retry_for: Duration) -> anyhow::Result<Self> {
        let place = LogAccess::find(args).await?;
        let config = match (&place, &args.socket) {
            (LogAccess::Socket(_), None) => NodeConfig::load(&args.config).ok().map(Box::new),
            _ => None,
        };
        Ok(Self { place, config, retry_for })
    }
}

/// Sends lines, and retries while the node cannot accept them. A line that may be sent twice must have an id.
pub(super) async fn send(target: &Target, lines: &[u8], import: bool) -> anyhow::Result<BatchReport> {
    let begun = Instant::now();
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(RETRY_MIN)
        .with_max_delay(RETRY_MAX)
        .with_jitter()
        .without_max_times()
        .build();
    let mut is_said = false;
    loop {
        let error = match send_once(target, lines, import).await {
            Ok(report) => match transient_error(&report) {
                None => return Ok(report),
                Some(_) if begun.elapsed() >= target.retry_for => return Ok(report),
                Some(reason) => reason,
            },
            Err(error) if begun.elapsed() < target.retry_for && is_transient(&error) => format!("{error:#}"),
            Err(error) => return Err(error),
        };
        if !is_said {
            errln!("retrying for up to {}: {error}", span(target.retry_for));
            is_said = true;
        }
        tokio::time::sleep(pauses.next().unwrap_or(RETRY_MAX)).await;
    }
}

/// Returns why a valid line was not recorded; `None` if every line was recorded or permanently refused.
fn transient_error(report: &BatchReport) -> Option<String> {
    let waiting = report.results.iter().find(|result| result.status >= 500 && result.receipt.is_none())?;
    Some(waiting.error.clone().unwrap_or_default())
}

fn is_transient(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Permission { .. }) => false,
        Some(error) => error.is_transient(),
        None => is_in_use(error),
    }
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<OpenError>(), Some(OpenError::InUse { .. }))
}

async fn send_once(target: &Target, lines: &[u8], import: bool) -> anyhow::Result<BatchReport> {
    match &target.place {
        LogAccess::Socket(client) => match client.append_lines(lines.to_vec(), import).await {
            // The node has stopped since it was found. If its log cannot be opened either, the node may be starting again.
            Err(error) if error.is_down() => {
                let Some(config) = target.config.clone() else { return Err(error.into()) };
                let text = lines.to_vec();
                let tried = tokio::task::spawn_blocking(move || append_to_directory(&config, &text, import)).await?;
                tried.map_err(|_| error.into())
            }
            sent => Ok(sent?),
        },
        LogAccess::Directory(config) => {
            let (here, text) = (config.clone(), lines.to_vec());
            let tried = tokio::task::spawn_blocking(move || append_to_directory(&here, &text, import)).await?;
            match tried {
                // A daemon has started in the meantime and holds the log's lock, so send the entries to it.
                Err(error) if is_in_use(&error) => {
                    let client = NodeClient::new(&config.socket.path)?;
                    if client.status().await.is_err() {
                        return Err(error);
                    }
                    Ok(client.append_lines(lines.to_vec(), import).await?)
                }
                tried => tried,
            }
        }
    }
}

/// Appends lines while the daemon is down. Takes the writer's lock for the duration of this batch.
fn append_to_directory(config: &NodeConfig, lines: &[u8], import: bool) -> anyhow::Result<BatchReport> {
    let via: Arc<str> = Arc::from(if import { "import" } else { "cli" });
    let mut new_entries = Vec::new();
    let mut outcomes = Vec::new();
    for (index, line) in lines.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match parse_new_entry(line, &via, &config.redactor) {
            Ok(new_entry) => {
                new_entries.push(new_entry);
                outcomes.push((index + 1, None));
            }
            Err(error) => outcomes.push((index + 1, Some(error.to_string()))),
        }
    }
    let dir = LogDir::new(&config.data_dir);
    let mut recorded =
        append_offline(&dir, &config.keys, Arc::new(SystemClock), config.flags.clone(), new_entries)?.into_iter();
    let mut report = BatchReport { accepted: 0, rejected: 0, results: Vec::new() };
    for (line, refused) in outcomes {
        let (status, receipt, error) = match refused {
            Some(error) => (400, None, Some(error)),
            None => match recorded.next() {
                Some(Ok(Appended::New(receipt))) => (201, Some(receipt), None),
                Some(Ok(Appended::Duplicate(receipt))) => (200, Some(receipt), None),
                Some(Err(error)) => (400, None, Some(error.to_string())),
                None => (500, None, Some("no result".to_owned())),
            },
        };
        report.accepted += usize::from(receipt.is_some());
        report.rejected += usize::from(receipt.is_none());
        report.results.push(LineResult { line, status, receipt, error });
    }
    Ok(report)
}
