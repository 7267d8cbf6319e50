//! Reads the entries of a report, evaluates them, and prints the result.

use anyhow::{Context as _, bail};
use piperoll_client::LineStream;
use piperoll_format::row::RowLine;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::aggregator::{Envelope, FinalRecord, PURPOSE_HEADER, PURPOSE_REPORT};
use piperoll_query::filter::Filter;
use piperoll_query::human_time;
use reqwest::Method;

use super::asked::{BundleRequest, quoted};
use super::event::{self, Event};
use super::render::{self, Output, Report};
use super::{access, brute_force, four_eyes, subject};
use crate::args::{ReportArgs, ReportCommand, ReportFormat};
use crate::exit::Exit;
use crate::remote::{Answer, Connection, FINAL, end_problem};

/// Maximum number of entries in one report; use statistics for more.
const EVENTS_MAX: usize = 500_000;

pub(crate) async fn run(command: ReportCommand) -> anyhow::Result<Exit> {
    let now = SystemClock.now();
    match command {
        ReportCommand::BruteForce { common, action, failures, window } => {
            let rule = brute_force::Rule { failures: failures as usize, window: event::duration(&window)? };
            make(&common, &brute_force::filter(&action), Margin::default(), |events, _| {
                brute_force::report(events, &rule)
            })
            .await
        }
        ReportCommand::FourEyes { common, rules } => {
            let rules = four_eyes::Rules::load(rules.as_deref())?;
            let margin = Margin { before: rules.longest_before(), after: rules.longest_after() };
            make(&common, &rules.filter(), margin, |events, range| four_eyes::report(events, &rules, range, now)).await
        }
        ReportCommand::Access { common, user } => {
            let filter = format!("actor:{}", quoted(&user));
            make(&common, &filter, Margin::default(), |events, _| access::report(events, &user)).await
        }
        ReportCommand::Subject { common, subject } => {
            let filter = format!("subject:{}", quoted(&subject));
            make(&common, &filter, Margin::default(), |events, _| subject::report(events, &subject)).await
        }
    }
}

/// Time before and after the range, in microseconds, that is read as well because its entries affect the result.
#[derive(Debug, Clone, Copy, Default)]
struct Margin {
    before: i64,
    after: i64,
}

async fn make(
    args: &ReportArgs,
    filter: &str,
    margin: Margin,
    work: impl FnOnce(&[Event], BundleRequest) -> Report,
) -> anyhow::Result<Exit> {
    let now = args.zone.now()?;
    let time = |text: &str| human_time::parse(text, now);
    let asked = BundleRequest { from: time(&args.from)?, to: time(&args.to)? };
    let further = Filter::parse(&args.filter.join(" "), now)?;
    let filter = Filter::parse(filter, now)?.and(further).typed();
    let connection = Connection::open(&args.connection)?;
    let output =
        args.output.as_deref().filter(|_| args.format != ReportFormat::Table).map(Output::create).transpose()?;
    let range = (asked.from.plus_micros(-margin.before), asked.to.plus_micros(margin.after));
    let Some((mut events, unsound, envelope)) = read(&connection, &Filter::portable(&filter, now), range).await? else {
        return Ok(Exit::Nothing);
    };
    events.sort_by(|a, b| (a.time, &a.node, a.seq).cmp(&(b.time, &b.node, b.seq)));
    let mut report = work(&events, asked);
    report.asked("Range", format!("{} to {} (exclusive)", asked.from, asked.to));
    report.asked("Filter", filter);
    report.asked("Entries read", events.len().to_string());
    if unsound > 0 {
        report
            .warn(format!("{unsound} rows that fail verification are not in this report; `piperoll query` shows them"));
    }
    render::print(&report, &envelope, args, output)?;
    Ok(connection.report(&envelope))
}

/// Reads every entry that matches a filter and range; `None` if no node answered.
async fn read(
    connection: &Connection,
    filter: &str,
    (from, to): (Timestamp, Timestamp),
) -> anyhow::Result<Option<(Vec<Event>, u64, Envelope)>> {
    let pairs = [
        ("filter", filter.to_owned()),
        ("from", from.to_text()),
        ("to", to.to_text()),
        ("order", "asc".to_owned()),
        ("format", "ndjson".to_owned()),
    ];
    let request =
        connection.request(Method::GET, "/api/v1/audit-log").query(&pairs).header(PURPOSE_HEADER, PURPOSE_REPORT);
    let response = match connection.send(request).await? {
        Answer::Good(response) => response,
        Answer::Unavailable(envelope) => {
            connection.report(&envelope);
            return Ok(None);
        }
    };
    let mut lines = LineStream::new(response.bytes_stream());
    let (mut events, mut unsound, mut rows) = (Vec::new(), 0, 0);
    while let Some(line) = lines.next().await? {
        if line.starts_with(FINAL) {
            let last: FinalRecord = serde_json::from_slice(&line).context("cannot parse the final record")?;
            if let Some(problem) = end_problem(&mut lines, last.envelope.count, rows).await {
                bail!("{problem}");
            }
            return Ok(Some((events, unsound, last.envelope)));
        }
        let row: RowLine<'_> = serde_json::from_slice(&line).context("cannot parse a row")?;
        rows += 1;
        match row.integrity {
            Integrity::Ok => events.extend(Event::read(row.entry.get())),
            Integrity::Erased => {}
            Integrity::Violation | Integrity::UnknownKey => unsound += 1,
        }
        if events.len() > EVENTS_MAX {
            bail!("the report covers more than {EVENTS_MAX} entries; narrow --from and --to or add a filter");
        }
    }
    bail!("the response was incomplete; no report was written")
}
