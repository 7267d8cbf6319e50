//! `piperoll node append`: records one entry from flags, or lines from a file, with or without a mapping.

mod input;
mod send;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use piperoll_format::limits::BATCH_LINES_MAX;
use piperoll_node::config::NodeConfig;
use piperoll_node::sources::{Mapping, unpacked};
use piperoll_protocol::node::LineResult;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use self::input::{Item, entries_of, records_of};
use self::send::{Target, send};
use crate::args::AppendArgs;
use crate::documents::Documents;
use crate::exit::Exit;
use crate::show::group_digits;

/// Maximum size of the lines in one request, well under the node's limit.
const REQUEST_BYTES: usize = 8 * 1024 * 1024;
/// Maximum time that a line waits for other lines before it is sent.
const BATCH_WAIT: Duration = Duration::from_millis(100);
/// Maximum number of refused lines that are printed to standard error.
const ERRORS_SHOWN_MAX: usize = 100;

pub(super) async fn run(args: AppendArgs) -> anyhow::Result<Exit> {
    let target = Target::find(&args.place, args.retry_for).await?;
    if args.action.is_some() {
        return append_one(&target, &args).await;
    }
    let mapping = args.map.as_deref().map(Mapping::load).transpose()?;
    let input: Box<dyn BufRead + Send> = match args.input.as_deref() {
        Some(path) if path != Path::new("-") => {
            Box::new(BufReader::new(std::fs::File::open(path).with_context(|| path.display().to_string())?))
        }
        // Reading from a terminal would look like a hang, so fail with a message that says what is expected.
        None if std::io::IsTerminal::is_terminal(&std::io::stdin()) => {
            bail!("nothing to record: give --category and --action, a file of NDJSON lines, or - for standard input")
        }
        _ => Box::new(BufReader::new(std::io::stdin())),
    };
    let import = mapping.is_some();
    let items = match mapping {
        None => entries_of(unpacked(input)?),
        Some(mapping) => {
            let documents = Documents::of(input, mapping.join().cloned(), mapping.reads_lines())?;
            // Mask secrets here, before texts are cut; the node masks again, with its own list of secret names.
            let redactor = NodeConfig::load(&args.place.config).map(|config| config.redactor).unwrap_or_default();
            records_of(documents, mapping, redactor)
        }
    };
    append_items(&target, items, import, args.receipts).await
}

async fn append_one(target: &Target, args: &AppendArgs) -> anyhow::Result<Exit> {
    let entry = with_id(entry_from_flags(args)?.into_bytes()).0;
    let report = send(target, &entry, false).await?;
    match report.results.into_iter().next() {
        Some(LineResult { receipt: Some(receipt), .. }) => {
            outln!("{}", serde_json::to_string(&receipt)?);
            Ok(Exit::Complete)
        }
        Some(LineResult { error, .. }) => bail!("not recorded: {}", error.unwrap_or_default()),
        None => bail!("not recorded: the node returned no result"),
    }
}

/// Builds the entry as JSON text, with `--details` included verbatim, so that the order of its keys and the digits of its
/// numbers are kept.
fn entry_from_flags(args: &AppendArgs) -> anyhow::Result<String> {
    let mut members = Vec::new();
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
            members.push(format!("{name:?}:{}", serde_json::to_string(&value)?));
        }
    }
    if let Some(details) = &args.details {
        let raw: &RawValue = serde_json::from_str(details).context("--details is not JSON")?;
        // A line break between two values would end the entry.
        members.push(format!("\"details\":{}", raw.get().replace(['\n', '\r'], " ")));
    }
    Ok(format!("{{{}}}", members.join(",")))
}

/// Adds an id to an entry that has none, so that a retry does not record the entry twice. Also returns whether an id was added.
fn with_id(line: Vec<u8>) -> (Vec<u8>, bool) {
    #[derive(Deserialize)]
    struct Identified<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    let begin = line.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    // Leave a line unchanged if it has an id, or if it is not an object, which the node will refuse.
    let (Ok(Identified { id: None }), Some(b'{')) = (serde_json::from_slice(&line), line.get(begin)) else {
        return (line, false);
    };
    let is_empty = line[begin + 1..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
    let mut identified = format!("{{\"id\":\"{}\"{}", Uuid::now_v7(), if is_empty { "" } else { "," }).into_bytes();
    identified.extend_from_slice(&line[begin + 1..]);
    (identified, true)
}

/// Totals over all requests of one input.
#[derive(Default)]
struct Totals {
    new: u64,
    known: u64,
    refused: u64,
    /// Records that the mapping does not cover.
    passed_over: u64,
    /// Foreign records that have no id of their own.
    without_id: u64,
}

async fn append_items(
    target: &Target,
    mut input: mpsc::Receiver<std::io::Result<Item>>,
    import: bool,
    receipts: bool,
) -> anyhow::Result<Exit> {
    let bar = if import { super::verify::progress_bar() } else { ProgressBar::hidden() };
    let mut totals = Totals::default();
    let appended = append_all(target, &mut input, import, receipts, &mut totals, &bar).await;
    bar.finish_and_clear();
    // Print the totals even after an error: entries recorded before the error remain recorded.
    totals.say();
    appended?;
    Ok(if totals.refused == 0 { Exit::Complete } else { Exit::Failed })
}

async fn append_all(
    target: &Target,
    input: &mut mpsc::Receiver<std::io::Result<Item>>,
    import: bool,
    receipts: bool,
    totals: &mut Totals,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let mut batch = Batch::default();
    loop {
        // Wait for more input only until `due`, so that lines that were already read are recorded promptly when the input pauses.
        let due = batch.begun.map(|begun| begun + BATCH_WAIT);
        let received = match due {
            None => input.recv().await,
            Some(due) => match tokio::time::timeout_at(due, input.recv()).await {
                Ok(received) => received,
                Err(_) => {
                    batch.flush(target, import, receipts, totals).await?;
                    continue;
                }
            },
        };
        let item = match received {
            Some(Ok(item)) => item,
            // Record the lines read so far, even if the input cannot be read any further.
            end => {
                batch.flush(target, import, receipts, totals).await?;
                bar.set_position(totals.new + totals.known);
                return end.transpose().map(|_| ()).context("cannot continue reading the input");
            }
        };
        match item {
            Item::Entry { line, text, has_id } => {
                if batch.is_full(text.len()) {
                    batch.flush(target, import, receipts, totals).await?;
                    bar.set_position(totals.new + totals.known);
                }
                totals.without_id += u64::from(import && !has_id);
                batch.push(line, text);
            }
            Item::PassedOver => totals.passed_over += 1,
            Item::Refused { line, problem } => totals.refuse(line, &problem),
        }
        // Flush the batch here too, because the wait above never times out if the input does not pause.
        if batch.begun.is_some_and(|begun| begun.elapsed() >= BATCH_WAIT) {
            batch.flush(target, import, receipts, totals).await?;
            bar.set_position(totals.new + totals.known);
        }
    }
}

impl Totals {
    fn say(&self) {
        errln!(
            "{} recorded, {} duplicate, {} refused{}",
            group_digits(self.new),
            group_digits(self.known),
            group_digits(self.refused),
            match self.passed_over {
                0 => String::new(),
                count => format!(", {} skipped by the mapping", group_digits(count)),
            }
        );
        if self.without_id > 0 {
            errln!(
                "entries without an ID of their own: {}; importing them again would record them twice",
                group_digits(self.without_id)
            );
        }
    }

    fn refuse(&mut self, line: u64, error: &str) {
        self.refused += 1;
        if self.refused <= ERRORS_SHOWN_MAX as u64 {
            errln!("line {line}: not recorded: {error}");
        }
    }
}

/// Lines of one request and where they came from.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Number of each line, and whether `with_id` added its id.
    lines: Vec<(u64, bool)>,
    /// Time at which the first line was added.
    begun: Option<Instant>,
}

impl Batch {
    /// Whether there is no room for another line of `bytes` bytes.
    fn is_full(&self, bytes: usize) -> bool {
        self.lines.len() == BATCH_LINES_MAX || self.bytes.len() + bytes > REQUEST_BYTES
    }

    fn push(&mut self, number: u64, line: Vec<u8>) {
        let (line, is_given) = with_id(line);
        self.bytes.extend_from_slice(line.trim_ascii_end());
        self.bytes.push(b'\n');
        self.lines.push((number, is_given));
        self.begun.get_or_insert_with(Instant::now);
    }

    async fn flush(
        &mut self,
        target: &Target,
        import: bool,
        receipts: bool,
        totals: &mut Totals,
    ) -> anyhow::Result<()> {
        self.begun = None;
        let Some((first, _)) = self.lines.first() else { return Ok(()) };
        let report = send(target, &std::mem::take(&mut self.bytes), import)
            .await
            .with_context(|| format!("cannot tell whether line {first} and the lines after it were recorded"))?;
        for result in report.results {
            let (number, is_given) = self.lines.get(result.line.saturating_sub(1)).copied().unwrap_or_default();
            match (&result.receipt, result.status) {
                (Some(receipt), status) => {
                    // If `with_id` added the line's id, a duplicate can only come from an earlier attempt of this run, so count
                    // the line as new.
                    if status == 200 && !is_given {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_without_an_id_get_one() {
        let text = |line: &str| {
            let (line, is_given) = with_id(line.as_bytes().to_vec());
            (String::from_utf8(line).expect("text"), is_given)
        };
        for (line, rest) in [("{}", "}"), (" { \"a\" : 1.50 }", "\"a\" : 1.50 }")] {
            let (identified, is_given) = text(line);
            assert!(is_given && identified.starts_with("{\"id\":\"") && identified.ends_with(rest), "{identified}");
            assert!(serde_json::from_str::<serde_json::Value>(&identified).is_ok(), "{identified}");
        }
        for line in ["{\"id\":\"x\"}", "{\"id\":1}", "[1]", "no JSON", "", "{\"a\":"] {
            assert_eq!(text(line), (line.to_owned(), false));
        }
    }
}
