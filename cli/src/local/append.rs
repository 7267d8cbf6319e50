//! `piperoll node append`: one entry from flags, or lines from a file, mapped or not.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use piperoll_client::NodeClient;
use piperoll_node::config::NodeConfig;
use piperoll_node::intake::Mapping;
use piperoll_node::store::{Appended, LogDir, OpenError, append_directly, parse_draft};
use piperoll_shared::api::node::{BatchReport, LineResult};
use piperoll_shared::log::limits::BATCH_LINES_MAX;
use piperoll_shared::net::clock::SystemClock;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::place::Place;
use crate::args::AppendArgs;
use crate::exit::Exit;
use crate::show::group_digits;

/// Bytes of lines in one request, well under the node's limit.
const REQUEST_BYTES: usize = 8 * 1024 * 1024;
/// Lines that are read ahead, and how long a pause in them ends a batch.
const LINES_AHEAD: usize = 1_024;
const PAUSE: Duration = Duration::from_millis(100);
/// Refused lines spelled out on stderr.
const ERRORS_SHOWN_MAX: usize = 100;

pub(super) async fn run(args: AppendArgs) -> anyhow::Result<Exit> {
    let place = Place::find(&args.place).await?;
    if args.action.is_some() {
        return append_one(&place, &args).await;
    }
    let mapping = args.map.as_deref().map(Mapping::load).transpose()?;
    let input: Box<dyn BufRead + Send> = match args.input.as_deref() {
        Some(path) if path != Path::new("-") => {
            Box::new(BufReader::new(std::fs::File::open(path).with_context(|| path.display().to_string())?))
        }
        // Waiting for lines that nobody types would look like a hang; say what is expected.
        None if std::io::IsTerminal::is_terminal(&std::io::stdin()) => {
            bail!("nothing to record: give --category and --action, a file of NDJSON lines, or - for standard input")
        }
        _ => Box::new(BufReader::new(std::io::stdin())),
    };
    append_lines(&place, lines_of(input), mapping.as_ref(), args.receipts).await
}

/// Reads lines in a thread of its own, because reading standard input blocks.
fn lines_of(mut input: Box<dyn BufRead + Send>) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (send, receive) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        loop {
            let mut line = Vec::new();
            let read = match input.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => Ok(line),
                Err(error) => Err(error),
            };
            if send.blocking_send(read).is_err() {
                return;
            }
        }
    });
    receive
}

async fn append_one(place: &Place, args: &AppendArgs) -> anyhow::Result<Exit> {
    let entry = entry_from_flags(args)?;
    let report = send(place, entry.to_string().into_bytes(), false).await?;
    match report.results.into_iter().next() {
        Some(LineResult { receipt: Some(receipt), .. }) => {
            outln!("{}", serde_json::to_string(&receipt)?);
            Ok(Exit::Complete)
        }
        Some(LineResult { error, .. }) => bail!("not recorded: {}", error.unwrap_or_default()),
        None => bail!("not recorded: the node said nothing about it"),
    }
}

fn entry_from_flags(args: &AppendArgs) -> anyhow::Result<Value> {
    let mut entry = Map::new();
    let (kind, id) = match args.entity.as_deref().map(|e| e.split_once('/')) {
        Some(Some((kind, id))) => (Some(kind.to_owned()), Some(id.to_owned())),
        Some(None) => (args.entity.clone(), None),
        None => (None, None),
    };
    for (name, value) in [
        ("id", args.id.map(|id| id.to_string())),
        ("category", args.category.clone()),
        ("action", args.action.clone()),
        ("user", args.user.clone()),
        ("impersonator", args.impersonator.clone()),
        ("outcome", args.outcome.clone()),
        ("reason", args.reason.clone()),
        ("entity_type", kind),
        ("entity_id", id),
        ("target", args.target.clone()),
        ("domain", args.domain.clone()),
        ("ip_address", args.ip.clone()),
        ("description", args.description.clone()),
        ("occurred_at", args.occurred_at.clone()),
    ] {
        if let Some(value) = value {
            entry.insert(name.to_owned(), Value::String(value));
        }
    }
    if let Some(details) = &args.details {
        entry.insert("details".to_owned(), serde_json::from_str(details).context("--details is not JSON")?);
    }
    Ok(Value::Object(entry))
}

/// Counts over all requests of one input.
#[derive(Default)]
struct Totals {
    new: u64,
    known: u64,
    refused: u64,
    /// By the mapping.
    passed_over: u64,
}

async fn append_lines(
    place: &Place,
    mut input: mpsc::Receiver<std::io::Result<Vec<u8>>>,
    mapping: Option<&Mapping>,
    receipts: bool,
) -> anyhow::Result<Exit> {
    let bar = if mapping.is_some() { super::verify::progress_bar() } else { ProgressBar::hidden() };
    let mut totals = Totals::default();
    let mut batch = Batch::default();
    let mut number = 0;
    loop {
        let line = match tokio::time::timeout(PAUSE, input.recv()).await {
            Ok(line) => line.transpose()?,
            // A program that writes a line now and then wants it recorded now, not when it ends.
            Err(_) if batch.lines.is_empty() => continue,
            Err(_) => {
                batch.flush(place, mapping.is_some(), receipts, &mut totals).await?;
                continue;
            }
        };
        let full =
            |line: &Vec<u8>| batch.lines.len() == BATCH_LINES_MAX || batch.bytes.len() + line.len() > REQUEST_BYTES;
        if line.as_ref().is_none_or(full) {
            batch.flush(place, mapping.is_some(), receipts, &mut totals).await?;
            bar.set_position(totals.new + totals.known);
        }
        let Some(line) = line else { break };
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let mapped = match mapping {
            None => Ok(Some(line)),
            Some(mapping) => std::str::from_utf8(&line)
                .map_err(anyhow::Error::from)
                .and_then(|record| mapping.apply(record).map_err(anyhow::Error::from))
                .map(|entry| entry.map(String::into_bytes)),
        };
        match mapped {
            Ok(Some(line)) => batch.push(number, &line),
            Ok(None) => totals.passed_over += 1,
            Err(error) => totals.refuse(number, &format!("{error:#}")),
        }
    }
    bar.finish_and_clear();
    eprintln!(
        "{} recorded, {} known already, {} refused{}",
        group_digits(totals.new),
        group_digits(totals.known),
        group_digits(totals.refused),
        match totals.passed_over {
            0 => String::new(),
            count => format!(", {} passed over by the mapping", group_digits(count)),
        }
    );
    Ok(if totals.refused == 0 { Exit::Complete } else { Exit::Failed })
}

impl Totals {
    fn refuse(&mut self, line: u64, error: &str) {
        self.refused += 1;
        if self.refused <= ERRORS_SHOWN_MAX as u64 {
            eprintln!("line {line}: not recorded: {error}");
        }
    }
}

/// Lines of one request and where they came from.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: Vec<u64>,
}

impl Batch {
    fn push(&mut self, number: u64, line: &[u8]) {
        self.bytes.extend_from_slice(line.trim_ascii_end());
        self.bytes.push(b'\n');
        self.lines.push(number);
    }

    async fn flush(&mut self, place: &Place, import: bool, receipts: bool, totals: &mut Totals) -> anyhow::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let first = self.lines.first().copied().unwrap_or_default();
        let report = send(place, std::mem::take(&mut self.bytes), import)
            .await
            .with_context(|| format!("from line {first} on nothing is known to be recorded"))?;
        for result in report.results {
            let number = self.lines.get(result.line.saturating_sub(1)).copied().unwrap_or_default();
            match (&result.receipt, result.status) {
                (Some(receipt), status) => {
                    if status == 200 {
                        totals.known += 1;
                    } else {
                        totals.new += 1;
                    }
                    if receipts {
                        outln!("{}", serde_json::to_string(receipt)?);
                    }
                }
                (None, _) => totals.refuse(number, result.error.as_deref().unwrap_or("no reason given")),
            }
        }
        self.lines.clear();
        Ok(())
    }
}

async fn send(place: &Place, lines: Vec<u8>, import: bool) -> anyhow::Result<BatchReport> {
    match place {
        Place::Socket(client) => Ok(client.append_lines(lines, import).await?),
        Place::Directory(config) => {
            let (here, text) = (config.clone(), lines.clone());
            let tried = tokio::task::spawn_blocking(move || append_to_directory(&here, &text, import)).await?;
            match tried {
                // A daemon has started meanwhile, and has the log for itself: it takes the entries.
                Err(error) if is_in_use(&error) => {
                    let client = NodeClient::new(&config.socket.path)?;
                    if client.status().await.is_err() {
                        return Err(error);
                    }
                    Ok(client.append_lines(lines, import).await?)
                }
                tried => tried,
            }
        }
    }
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<OpenError>(), Some(OpenError::InUse { .. }))
}

/// With the daemon down: takes the writer's lock itself, for as long as this batch lasts.
fn append_to_directory(config: &NodeConfig, lines: &[u8], import: bool) -> anyhow::Result<BatchReport> {
    let via: Arc<str> = Arc::from(if import { "import" } else { "cli" });
    let mut drafts = Vec::new();
    let mut outcomes = Vec::new();
    for (index, line) in lines.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match parse_draft(line, &via, &config.redactor) {
            Ok(draft) => {
                drafts.push(draft);
                outcomes.push((index + 1, None));
            }
            Err(error) => outcomes.push((index + 1, Some(error.to_string()))),
        }
    }
    let dir = LogDir::new(&config.data_dir);
    let mut recorded =
        append_directly(&dir, &config.keys, Arc::new(SystemClock), config.flags.clone(), drafts)?.into_iter();
    let mut report = BatchReport { accepted: 0, rejected: 0, results: Vec::new() };
    for (line, refused) in outcomes {
        let (status, receipt, error) = match refused {
            Some(error) => (400, None, Some(error)),
            None => match recorded.next() {
                Some(Ok(Appended::New(receipt))) => (201, Some(receipt), None),
                Some(Ok(Appended::Known(receipt))) => (200, Some(receipt), None),
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
