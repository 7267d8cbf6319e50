//! Runs `query`, `tail`, `show` and `export` on a node.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{anyhow, bail};
use bytes::Bytes;
use piperoll_evidence::csv;
use piperoll_format::order::Order;
use piperoll_format::row::RowLine;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_format::view::EntryView;
use piperoll_protocol::node::{PrunedRows, ScanRequest};
use piperoll_query::filter::Filter;
use piperoll_query::human_time;
use piperoll_query::zone::Zone;
use serde::Deserialize;

use super::place::{Lines, LogAccess};
use crate::address::RowAddress;
use crate::args::{ExportFormat, LocalQueryArgs, LogArgs, OrderArg, OutputArgs, PlaceArgs, QueryArgs, ZoneArgs};
use crate::exit::Exit;
use crate::show::{Axis, RowStream, RowTable, counted, detail, group_digits, say};

/// Interval at which a followed log is read again.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(300);

/// The last line of a local read.
#[derive(Debug, Deserialize)]
struct Final {
    #[serde(rename = "final")]
    summary: Summary,
}

#[derive(Debug, Deserialize)]
struct Summary {
    node_id: String,
    rows: u64,
    scanned: u64,
    more: bool,
    faults: Vec<String>,
    fault: Option<String>,
    #[serde(default)]
    pruned: Option<PrunedRows>,
    /// Number of erased rows in the range that the filter might have selected before their content was erased.
    #[serde(default)]
    erased: u64,
}

impl From<OrderArg> for Order {
    fn from(order: OrderArg) -> Self {
        match order {
            OrderArg::Asc => Self::Asc,
            OrderArg::Desc => Self::Desc,
        }
    }
}

fn request(query: &QueryArgs, order: Order, limit: Option<u64>) -> anyhow::Result<ScanRequest> {
    let now = query.zone.now()?;
    // Set no upper limit for `now`, so that an entry recorded in this very microsecond is included.
    let to = if query.to == "now" { Timestamp::MAX } else { human_time::parse(&query.to, now)? };
    Ok(ScanRequest {
        filter: Filter::parse(&query.filter.join(" "), now)?.to_string(),
        from: human_time::parse(&query.from, now)?,
        to,
        order,
        limit,
        after: None,
        from_seq: None,
        head: None,
        generation: None,
        prove: None,
        count: None,
        follow: false,
    })
}

/// Returns a query for all entries that match a filter, regardless of their time.
fn everything(filter: &[String]) -> QueryArgs {
    let zone = ZoneArgs::default();
    QueryArgs { filter: filter.to_vec(), from: "0001-01-01".to_owned(), to: "now".to_owned(), zone }
}

pub(super) async fn query(args: LocalQueryArgs) -> anyhow::Result<Exit> {
    let place = LogAccess::of_log(&args.log).await?;
    let lines = place.scan(request(&args.query, args.order.into(), Some(args.limit))?).await?;
    if args.output.as_json() {
        return print_json(lines).await;
    }
    let mut table = RowTable::new(args.query.zone.zone()?, Axis::Recorded);
    let read = each_row(lines, |line| {
        table.push(line);
        Ok(())
    })
    .await?;
    table.print();
    Ok(read.report(&args.query))
}

pub(super) async fn show(args: &LogArgs, row: RowAddress, output: OutputArgs) -> anyhow::Result<Exit> {
    let place = LogAccess::of_log(args).await?;
    let seq = place.own_row(row).await?;
    let all = everything(&[]);
    let mut request = request(&all, Order::Asc, None)?;
    request.from_seq = Some(seq);
    request.head = Some(seq);
    let mut found = false;
    let mut violated = false;
    let lines = place.scan(request).await?;
    let read = each_row(lines, |line| {
        found = true;
        violated |= is_bad(line.integrity);
        if output.as_json() {
            let mut text = Vec::new();
            line.to_row().write_json(&mut text);
            outln!("{}", String::from_utf8_lossy(&text));
        } else {
            crate::out::write(&mut anstream::stdout(), format_args!("{}", detail(line)));
        }
        Ok(())
    })
    .await?;
    if let Some(pruned) = read.summary.pruned.filter(|pruned| !found && seq < pruned.to_seq) {
        bail!(
            "row {seq} was pruned together with all rows below {}, as recorded in entry {}",
            pruned.to_seq,
            pruned.entry_seq
        );
    }
    if !found && read.exit() == Exit::Violation {
        // The row should be in the log but is missing, which is a violation.
        return Ok(read.exit());
    }
    if !found {
        bail!("no such entry: {seq}");
    }
    Ok(if violated { Exit::Violation } else { Exit::Complete })
}

pub(super) async fn export(args: &LogArgs, query: &QueryArgs, format: ExportFormat) -> anyhow::Result<Exit> {
    let place = LogAccess::of_log(args).await?;
    let lines = place.scan(request(query, Order::Asc, None)?).await?;
    if format == ExportFormat::Ndjson {
        return print_json(lines).await;
    }
    let mut out = std::io::BufWriter::new(crate::out::stdout());
    out.write_all(&csv::header())?;
    let read = each_row(lines, |line| {
        let mut cells = Vec::new();
        csv::write_row(&line.to_row(), &mut cells);
        Ok(out.write_all(&cells)?)
    })
    .await?;
    out.flush()?;
    Ok(read.exit())
}

pub(super) async fn tail(
    args: &PlaceArgs,
    filter: &[String],
    lines: u64,
    follow: bool,
    output: OutputArgs,
) -> anyhow::Result<Exit> {
    let place = LogAccess::find(args).await?;
    let all = everything(filter);
    let mut newest: Vec<Bytes> = Vec::new();
    let mut read = collect(place.scan(request(&all, Order::Desc, Some(lines))?).await?, &mut newest).await?;
    newest.reverse();
    // Ignore pruned rows, which do not matter when the end of the log is read.
    read.summary.pruned = None;
    let mut exit = read.exit();
    // Follow by seq, not by time: a row's time may be forged, or belong to a new era.
    let mut next = 0;
    let mut rows = RowStream::new(Zone::Utc);
    for line in &newest {
        next = next.max(print_followed(line, output, &mut rows)? + 1);
    }
    if !follow {
        return Ok(exit);
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
            _ = tokio::signal::ctrl_c() => return Ok(exit),
        }
        let mut request = request(&all, Order::Asc, None)?;
        request.from = Timestamp::MIN;
        request.from_seq = Some(next);
        let mut fresh = Vec::new();
        read = collect(place.scan(request).await?, &mut fresh).await?;
        if read.exit() == Exit::Violation {
            exit = Exit::Violation;
        }
        for line in &fresh {
            next = next.max(print_followed(line, output, &mut rows)? + 1);
        }
    }
}

/// Prints a line and returns its seq.
fn print_followed(line: &[u8], output: OutputArgs, rows: &mut RowStream) -> anyhow::Result<u64> {
    let row: RowLine<'_> = serde_json::from_slice(line)?;
    if output.as_json() {
        outln!("{}", String::from_utf8_lossy(line));
    } else {
        paintln!("{}", rows.line(&row, false));
    }
    let view = EntryView::parse(row.entry.get().as_bytes()).unwrap_or_default();
    Ok(row.found_at.as_ref().map_or(view.seq, |place| place.seq))
}

/// Summary of a finished read, and the number of rows that fail verification.
struct Read {
    summary: Summary,
    violations: u64,
}

impl Read {
    fn exit(&self) -> Exit {
        let sound = self.violations == 0 && self.summary.faults.is_empty() && self.summary.fault.is_none();
        match (sound, &self.summary.pruned) {
            (false, _) => Exit::Violation,
            (true, Some(_)) => Exit::Incomplete,
            (true, None) => Exit::Complete,
        }
    }

    /// Prints the summary to standard error, and returns the exit code.
    fn report(&self, query: &QueryArgs) -> Exit {
        let summary = &self.summary;
        for fault in summary.faults.iter().chain(&summary.fault) {
            errln!("{}INTEGRITY VIOLATION{}: {fault}", crate::show::paint::RED, crate::show::paint::PLAIN);
        }
        if let Some(pruned) = &summary.pruned {
            say(&pruned_words(pruned));
        }
        if summary.erased > 0 {
            say(&crate::remote::erased_words(summary.erased));
        }
        let more =
            if summary.more { "; there are more: raise --limit, or narrow the range with --from and --to" } else { "" };
        say(&format!(
            "{}: {} shown, {} read, {}, range {} to {}{more}",
            summary.node_id,
            counted(summary.rows, "row", "rows"),
            group_digits(summary.scanned),
            match self.violations {
                0 => "every signature verified".to_owned(),
                violations => format!("{} verification", counted(violations, "row fails", "rows fail")),
            },
            query.from,
            query.to
        ));
        self.exit()
    }
}

fn pruned_words(pruned: &PrunedRows) -> String {
    format!(
        "the range includes pruned rows: those below {} (the newest from {}), as recorded in entry {}",
        pruned.to_seq, pruned.newest, pruned.entry_seq
    )
}

async fn each_row(mut lines: Lines, mut each: impl FnMut(&RowLine<'_>) -> anyhow::Result<()>) -> anyhow::Result<Read> {
    let (mut violations, mut came) = (0, 0);
    while let Some(line) = lines.next().await? {
        if let Some(summary) = final_line(&line) {
            return concluded(&mut lines, summary, violations, came).await;
        }
        let row: RowLine<'_> = serde_json::from_slice(&line)?;
        came += 1;
        violations += u64::from(is_bad(row.integrity));
        each(&row)?;
    }
    Err(anyhow!("the answer was interrupted; the rows shown are incomplete"))
}

async fn collect(lines: Lines, rows: &mut Vec<Bytes>) -> anyhow::Result<Read> {
    let mut lines = lines;
    let (mut violations, mut came) = (0, 0);
    while let Some(line) = lines.next().await? {
        if let Some(summary) = final_line(&line) {
            return concluded(&mut lines, summary, violations, came).await;
        }
        let row: RowLine<'_> = serde_json::from_slice(&line)?;
        came += 1;
        violations += u64::from(is_bad(row.integrity));
        rows.push(line);
    }
    Err(anyhow!("the answer was interrupted"))
}

/// Checks that the final record is the last line and states the number of rows received; returns the finished read.
async fn concluded(lines: &mut Lines, summary: Summary, violations: u64, came: u64) -> anyhow::Result<Read> {
    if lines.next().await?.is_some() {
        return Err(anyhow!("unexpected text after the final record; the answer cannot be trusted"));
    }
    if summary.rows != came {
        return Err(anyhow!("{}", crate::remote::count_problem(summary.rows, came)));
    }
    Ok(Read { summary, violations })
}

fn is_bad(integrity: Integrity) -> bool {
    !matches!(integrity, Integrity::Ok | Integrity::Erased)
}

fn final_line(line: &[u8]) -> Option<Summary> {
    line.starts_with(crate::remote::FINAL)
        .then(|| serde_json::from_slice::<Final>(line).ok())
        .flatten()
        .map(|f| f.summary)
}

async fn print_json(mut lines: Lines) -> anyhow::Result<Exit> {
    let mut out = std::io::BufWriter::new(crate::out::stdout());
    let (mut violations, mut came) = (0, 0);
    while let Some(line) = lines.next().await? {
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        if let Some(summary) = final_line(&line) {
            out.flush()?;
            return Ok(concluded(&mut lines, summary, violations, came).await?.exit());
        }
        came += 1;
        violations += u64::from(is_bad(serde_json::from_slice::<RowLine<'_>>(&line)?.integrity));
    }
    out.flush()?;
    Err(anyhow!("the answer was interrupted; the rows written are incomplete"))
}
