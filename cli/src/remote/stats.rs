//! `piperoll stats`: prints counts over all nodes.

use anyhow::Context as _;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use piperoll_format::terminal::escape;
use piperoll_format::time::Timestamp;
use piperoll_protocol::aggregator::StatsAnswer;
use piperoll_query::stats::{Bucket, FieldCounts, Histogram, Totals};
use reqwest::Method;
use serde_json::json;

use super::connection::{Answer, Connection};
use super::question;
use crate::args::{AxisArg, RemoteStatsArgs};
use crate::exit::Exit;
use crate::show::{counted, group_digits, paint, width};

/// Width of the longest bar, in columns.
const BAR_WIDTH: u64 = 30;
/// Histograms with more lines than this are printed without their empty buckets.
const EMPTY_BUCKETS_SHOWN_MAX: i64 = 400;

pub(crate) async fn stats(args: RemoteStatsArgs) -> anyhow::Result<Exit> {
    let connection = Connection::open(&args.connection)?;
    let mut pairs = question::pairs(&args.query)?;
    pairs.extend([
        ("top", args.top.to_string()),
        ("require", if args.require_complete { "all" } else { "any" }.to_owned()),
    ]);
    pairs.extend((args.axis == AxisArg::Occurred).then(|| ("axis", "occurred".to_owned())));
    pairs.extend(args.verify.then(|| ("verify", "true".to_owned())));
    pairs.extend(args.by.iter().map(|field| ("by", field.clone())));
    pairs.extend(args.bucket.clone().map(|bucket| ("bucket", bucket)));
    // No time limit: every row of the range may have to be read.
    let answer = connection.send(connection.request(Method::GET, "/api/v1/stats").query(&pairs)).await?;
    let response = match answer {
        Answer::Good(response) => response,
        Answer::Unavailable(envelope) => {
            if args.output.as_json() {
                outln!("{}", json!({ "final": &*envelope }));
            }
            return Ok(connection.refused(&envelope));
        }
    };
    let text = response.text().await.context("the count was interrupted; no result is available")?;
    let answer: StatsAnswer = serde_json::from_str(&text).context("cannot parse the answer")?;
    if args.output.as_json() {
        outln!("{}", serde_json::to_string(&answer)?);
    } else {
        // A node may have failed after the aggregator began to answer.
        if answer.envelope.complete || !args.require_complete {
            print(&answer, args.bucket.is_some());
        }
    }
    Ok(connection.report(&answer.envelope))
}

fn print(answer: &StatsAnswer, with_histogram: bool) {
    let stats = &answer.stats;
    let Totals { entries, failed, denied, flagged } = stats.totals;
    // The rows of missing nodes are not counted, so each number is a lower bound.
    let least =
        if answer.envelope.complete { String::new() } else { format!("{}AT LEAST{} ", paint::RED, paint::PLAIN) };
    let users = stats.distinct_users.map_or("too many users to count".to_owned(), |n| counted(n, "user", "users"));
    let erased = if stats.erased > 0 { format!(", and {} erased", group_digits(stats.erased)) } else { String::new() };
    paintln!(
        "{least}{}{}{}: {} failed, {} denied, {} flagged; {users}{erased}",
        paint::BOLD,
        counted(entries, "entry", "entries"),
        paint::PLAIN,
        group_digits(failed),
        group_digits(denied),
        group_digits(flagged),
    );
    if stats.unreadable > 0 {
        paintln!(
            "{} could not be parsed by this version of piperoll",
            counted(stats.unreadable, "authentic row", "authentic rows")
        );
    }
    for field in &stats.by {
        print_field(field, entries, answer.envelope.complete);
    }
    match &stats.histogram {
        Some(histogram) => print_histogram(histogram),
        None if with_histogram => outln!("\ntoo many buckets to count; narrow the range or use wider buckets"),
        None => {}
    }
}

fn print_field(field: &FieldCounts, entries: u64, complete: bool) {
    outln!();
    let name = escape(&field.field);
    if field.distinct.is_none() {
        outln!("{name}: too many distinct values to count; narrow the range or the filter");
        return;
    }
    let mut table = table([name.as_ref(), "COUNT", "SHARE", ""]);
    let most = field.top.first().map_or(0, |first| first.count);
    let mut row = |name: String, count: u64, bar: String| {
        // A share of incomplete counts is meaningless.
        let share = match entries {
            1.. if complete => format!("{:.1} %", count as f64 / entries as f64 * 100.0),
            _ => "-".to_owned(),
        };
        let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([Cell::new(name), number(group_digits(count)), number(share), Cell::new(bar)]);
    };
    for value in &field.top {
        row(escape(&value.value).into_owned(), value.count, bar(value.count, most));
    }
    let others = field.distinct.unwrap_or_default().saturating_sub(field.top.len() as u64);
    if others > 0 {
        row(format!("({} others)", group_digits(others)), field.other, String::new());
    }
    if field.none > 0 {
        row("(none)".to_owned(), field.none, String::new());
    }
    print_table(&table);
}

fn print_histogram(histogram: &Histogram) {
    outln!();
    let mut table = table(["FROM (UTC)", "COUNT", "FAILED", "DENIED", "FLAGGED", ""]);
    let most = histogram.buckets.iter().map(|bucket| bucket.totals.entries).max().unwrap_or(0);
    for Bucket { from, totals } in filled(histogram) {
        let number = |n| Cell::new(group_digits(n)).set_alignment(CellAlignment::Right);
        table.add_row([
            Cell::new(escape(from.get(..19).unwrap_or(&from)).replace('T', " ")),
            number(totals.entries),
            number(totals.failed),
            number(totals.denied),
            number(totals.flagged),
            Cell::new(bar(totals.entries, most)),
        ]);
    }
    print_table(&table);
}

/// Returns the buckets, with the empty ones between them unless there would be more than `EMPTY_BUCKETS_SHOWN_MAX` buckets.
fn filled(histogram: &Histogram) -> Vec<Bucket> {
    let micros = |bucket: &Bucket| Timestamp::parse_rfc3339(&bucket.from).map(Timestamp::micros).unwrap_or_default();
    let width = i64::try_from(histogram.bucket_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX).max(1);
    let mut filled: Vec<Bucket> = Vec::new();
    let times = || histogram.buckets.iter().map(micros);
    let span = times().max().zip(times().min()).map_or(0, |(last, first)| last - first);
    if span / width > EMPTY_BUCKETS_SHOWN_MAX || !times().is_sorted() {
        return histogram.buckets.clone();
    }
    for bucket in &histogram.buckets {
        while let Some(next) =
            filled.last().map(|last| micros(last).saturating_add(width)).filter(|next| *next < micros(bucket))
        {
            filled.push(Bucket { from: Timestamp::from_micros(next).to_text(), totals: Totals::default() });
        }
        filled.push(bucket.clone());
    }
    filled
}

fn bar(count: u64, most: u64) -> String {
    let columns = count.saturating_mul(BAR_WIDTH).div_ceil(most.max(1)).min(BAR_WIDTH);
    "█".repeat(usize::try_from(columns).unwrap_or_default())
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width());
    table.set_header(header.map(|name| Cell::new(name.to_uppercase())));
    table
}

fn print_table(table: &Table) {
    for (number, line) in table.to_string().lines().enumerate() {
        let line = line.trim_end();
        if number == 0 {
            paintln!("{}{line}{}", paint::BOLD, paint::PLAIN);
        } else {
            paintln!("{line}");
        }
    }
}
