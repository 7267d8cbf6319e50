//! `piperoll tail`: prints the newest entries of all nodes, and with -f also new ones.

use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use piperoll_format::limits::PAGE_ROWS_MAX;
use piperoll_format::row::RowLine;
use piperoll_format::terminal::escape;
use piperoll_format::verify::Integrity;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::aggregator::Envelope;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::connection::{Answer, Connection, PAGE_TIMEOUT, last_cause};
use super::outcome::{count_problem, exit_of};
use super::question;
use crate::args::{OutputArgs, RemoteTailArgs};
use crate::exit::{Exit, UsageError};
use crate::show::{RowStream, paint, say};

/// Pause before reconnecting.
const RETRY: Duration = Duration::from_secs(1);
/// Silence after which a connection counts as lost. The aggregator sends something every five seconds.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Maximum size of one event, several times that of the longest entry.
const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// A time later than that of any row.
const END_OF_TIME: &str = "9999-01-01T00:00:00Z";

#[derive(Deserialize)]
struct PageRows<'a> {
    #[serde(borrow)]
    entries: Vec<&'a RawValue>,
}

pub(crate) async fn tail(args: RemoteTailArgs) -> anyhow::Result<Exit> {
    if !(1..=PAGE_ROWS_MAX).contains(&args.lines) {
        return Err(UsageError(format!("-n must be 1 to {PAGE_ROWS_MAX}; use `piperoll export` for more")).into());
    }
    let connection = Connection::open(&args.connection)?;
    let without_audit = question::leaves_out_audit(&args.filter, args.all, args.output);
    let filter = match without_audit {
        true => question::WITHOUT_AUDIT.to_owned(),
        false => question::filter_text(&args.filter, args.zone.now()?)?,
    };
    let mut printer = Printer { output: args.output, rows: RowStream::new(args.zone.zone()?) };
    let mut pairs = vec![
        ("filter", filter.clone()),
        ("from", args.from.clone()),
        ("to", END_OF_TIME.to_owned()),
        ("limit", args.lines.to_string()),
        ("order", "desc".to_owned()),
    ];
    let zone = question::zone_pair(&args.zone)?;
    pairs.extend(zone.clone());
    let request = connection.request(Method::GET, "/api/v1/audit-log").query(&pairs).timeout(PAGE_TIMEOUT);
    let envelope = match connection.send(request).await? {
        Answer::Good(response) => {
            let text = response.text().await?;
            let rows: PageRows<'_> = serde_json::from_str(&text).context("cannot parse the answer")?;
            let mut envelope: Envelope = serde_json::from_str(&text).context("cannot parse the answer")?;
            // Remove the cursor: a tail does not continue to earlier entries.
            envelope.next_cursor = None;
            let came = rows.entries.len() as u64;
            if came != envelope.count {
                bail!("{}", count_problem(envelope.count, came));
            }
            for row in rows.entries.iter().rev() {
                printer.print(row.get())?;
            }
            envelope
        }
        Answer::Unavailable(envelope) => *envelope,
    };
    let exit = connection.report(&envelope);
    if without_audit {
        say(question::WITHOUT_AUDIT_WORDS);
    }
    if !args.follow {
        return Ok(exit);
    }
    errln!("following new entries; press Ctrl-C to stop");
    let since = SystemClock.now().to_text();
    let mut following = Following { filter, zone, after: places(&envelope), since, printer };
    let mut worst = exit_of(&envelope);
    tokio::select! {
        ended = following.run(&connection, &mut worst) => ended?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(worst)
}

/// Returns the position of every node at the time of the page, in the form that a tail request accepts.
fn places(envelope: &Envelope) -> String {
    let place = |node: &piperoll_protocol::aggregator::NodeReport| {
        let (generation, head) = (node.generation.as_ref()?, node.head_seq?);
        Some(format!("{}:{generation}:{}", node.node_id, head + 1))
    };
    envelope.nodes.iter().filter_map(place).collect::<Vec<_>>().join(",")
}

/// Prints the rows of a tail.
struct Printer {
    output: OutputArgs,
    rows: RowStream,
}

impl Printer {
    /// Prints a row, marked if it is late, and returns its integrity.
    fn print(&mut self, text: &str) -> anyhow::Result<Integrity> {
        #[derive(Deserialize)]
        struct Late {
            #[serde(default)]
            late: bool,
        }
        let row: RowLine<'_> = serde_json::from_str(text).context("cannot parse a row")?;
        if self.output.as_json() {
            outln!("{text}");
        } else {
            let late = serde_json::from_str::<Late>(text).is_ok_and(|late| late.late);
            paintln!("{}", self.rows.line(&row, late));
        }
        Ok(row.integrity)
    }
}

struct Following {
    filter: String,
    /// Query parameter (name and value) for the time zone of dates in the filter.
    zone: Option<(&'static str, String)>,
    /// Id of the last event; initially the positions of the nodes.
    after: String,
    /// Start time for nodes that no event has named yet.
    since: String,
    printer: Printer,
}

/// One server-sent event (HTML Living Standard, section 9.2.6).
#[derive(Debug, Default, PartialEq, Eq)]
struct ServerSentEvent {
    name: String,
    id: Option<String>,
    data: String,
}

impl Following {
    async fn run(&mut self, connection: &Connection, worst: &mut Exit) -> anyhow::Result<()> {
        loop {
            let mut pairs = vec![("filter", &self.filter), ("after", &self.after), ("from", &self.since)];
            pairs.extend(self.zone.as_ref().map(|(name, zone)| (*name, zone)));
            let request = connection.request(Method::GET, "/api/v1/audit-log/tail").query(&pairs);
            let why = match connection.send(request).await {
                Ok(Answer::Good(response)) => self.read(response, worst).await?,
                Ok(Answer::Unavailable(_)) => "the aggregator could not answer".to_owned(),
                // Retry if the connection fails; a refusal by the aggregator is final.
                Err(error) if error.to_string().starts_with("https://") => error.to_string(),
                Err(error) => return Err(error),
            };
            errln!("{}{} - trying again{}", paint::YELLOW, escape(&why), paint::PLAIN);
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Prints events as they arrive; returns why the stream ended.
    async fn read(&mut self, response: reqwest::Response, worst: &mut Exit) -> anyhow::Result<String> {
        let mut chunks = response.bytes_stream();
        let mut events = Events::default();
        loop {
            let chunk = match tokio::time::timeout(SILENCE_MAX, chunks.next()).await {
                Err(_) => return Ok(format!("nothing was received for {} s", SILENCE_MAX.as_secs())),
                Ok(None) => return Ok("the aggregator ended the stream".to_owned()),
                Ok(Some(Err(error))) => return Ok(last_cause(&error)),
                Ok(Some(Ok(chunk))) => chunk,
            };
            events.push(&chunk)?;
            while let Some(event) = events.next()? {
                self.take(&event, worst)?;
                if let Some(id) = event.id {
                    self.after = id;
                }
            }
        }
    }

    fn take(&mut self, event: &ServerSentEvent, worst: &mut Exit) -> anyhow::Result<()> {
        match event.name.as_str() {
            "entry" => {
                let integrity = self.printer.print(&event.data)?;
                if !matches!(integrity, Integrity::Ok | Integrity::Erased) {
                    *worst = Exit::Violation;
                }
            }
            "node" => {
                let node: serde_json::Value = serde_json::from_str(&event.data).context("cannot parse an event")?;
                let text = |field: &str| escape(node[field].as_str().unwrap_or("-")).into_owned();
                let (id, status, reason) = (text("node_id"), text("status"), text("reason"));
                match status.as_str() {
                    "ok" => errln!("{}{id} {reason}{}", paint::GREEN, paint::PLAIN),
                    "invalid" => {
                        *worst = Exit::Violation;
                        errln!("{}{id} INVALID: {reason}{}", paint::RED, paint::PLAIN);
                    }
                    _ => {
                        if *worst == Exit::Complete {
                            *worst = Exit::Incomplete;
                        }
                        errln!("{}{id} MISSING ({status}): {reason}{}", paint::RED, paint::PLAIN);
                    }
                }
                if self.printer.output.as_json() {
                    outln!("{}", serde_json::json!({ "node": node }));
                }
            }
            "dropped" => {
                errln!(
                    "the aggregator dropped this tail because this client read too slowly; resuming after the last entry"
                )
            }
            _ => {}
        }
        Ok(())
    }
}

/// Splits received bytes into events.
#[derive(Default)]
struct Events {
    bytes: Vec<u8>,
    open: ServerSentEvent,
}

impl Events {
    fn push(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * EVENT_BYTES_MAX {
            bail!("the aggregator sent a line that is too long");
        }
        Ok(())
    }

    /// Returns the next whole event.
    fn next(&mut self) -> anyhow::Result<Option<ServerSentEvent>> {
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8(line).context("an event is not valid UTF-8")?;
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                let event = std::mem::take(&mut self.open);
                if event != ServerSentEvent::default() {
                    return Ok(Some(event));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.open.name),
                "id" => self.open.id = Some(value.to_owned()),
                "data" => {
                    if !self.open.data.is_empty() {
                        self.open.data.push('\n');
                    }
                    self.open.data.push_str(value);
                }
                // Ignore comments and fields of later versions.
                _ => {}
            }
            if self.open.data.len() > EVENT_BYTES_MAX {
                bail!("the aggregator sent an event of more than {EVENT_BYTES_MAX} bytes");
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_they_are_cut() -> anyhow::Result<()> {
        let text = ": a comment\n\nevent: entry\nid: mx1@4\ndata: {\"a\":1}\n\nevent:node\ndata:one\ndata: two\r\n\r\n";
        for cut in 1..text.len() {
            let (mut events, mut found) = (Events::default(), Vec::new());
            for piece in text.as_bytes().chunks(cut) {
                events.push(piece)?;
                while let Some(event) = events.next()? {
                    found.push((event.name, event.id, event.data));
                }
            }
            let entry = ("entry".to_owned(), Some("mx1@4".to_owned()), "{\"a\":1}".to_owned());
            assert_eq!(found, [entry, ("node".to_owned(), None, "one\ntwo".to_owned())]);
        }
        Ok(())
    }
}
