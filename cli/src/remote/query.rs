//! Runs `piperoll query` and `piperoll show`.

use anyhow::{Context as _, bail};
use piperoll_format::limits::PAGE_ROWS_MAX;
use piperoll_format::row::RowLine;
use piperoll_protocol::aggregator::Envelope;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::connection::{Answer, Connection, PAGE_TIMEOUT};
use super::outcome::count_problem;
use super::question::{self, row_path};
use crate::args::{AxisArg, OrderArg, OutputArgs, RemoteQueryArgs, RemoteShowArgs};
use crate::exit::{Exit, UsageError};
use crate::show::{Axis, RowTable, detail, say};

/// The rows of a page; the envelope is read from the same text.
#[derive(Deserialize)]
struct PageRows<'a> {
    #[serde(borrow)]
    entries: Vec<&'a RawValue>,
}

pub(crate) async fn query(args: RemoteQueryArgs) -> anyhow::Result<Exit> {
    if !(1..=PAGE_ROWS_MAX).contains(&args.limit) {
        return Err(UsageError(format!("--limit must be 1 to {PAGE_ROWS_MAX}; use `piperoll export` for more")).into());
    }
    let connection = Connection::open(&args.connection)?;
    let zone = args.query.zone.zone()?;
    let axis = match (args.axis, args.order) {
        (AxisArg::Recorded, _) => Axis::Recorded,
        (AxisArg::Occurred, OrderArg::Asc) => Axis::Occurred { newest_first: false },
        (AxisArg::Occurred, OrderArg::Desc) => Axis::Occurred { newest_first: true },
    };
    let without_audit = question::leaves_out_audit(&args.query.filter, args.all, args.output);
    let mut pairs = question::pairs(&args.query)?;
    if without_audit {
        pairs.push(("filter", question::WITHOUT_AUDIT.to_owned()));
    }
    pairs.extend([
        ("limit", args.limit.to_string()),
        ("order", if args.order == OrderArg::Asc { "asc" } else { "desc" }.to_owned()),
        ("require", if args.require_complete { "all" } else { "any" }.to_owned()),
    ]);
    pairs.extend(args.cursor.clone().map(|cursor| ("cursor", cursor)));
    let request = connection.request(Method::GET, "/api/v1/audit-log").query(&pairs).timeout(PAGE_TIMEOUT);
    let exit = answer(&connection, request, args.output, |lines| {
        let mut table = RowTable::new(zone, axis);
        for line in lines {
            table.push(line);
        }
        table.print();
    })
    .await?;
    if without_audit {
        say(question::WITHOUT_AUDIT_WORDS);
    }
    Ok(match exit {
        // `--require-complete` requires all rows, but there are more pages, or some rows have been pruned.
        (Exit::Complete, false) if args.require_complete => Exit::Incomplete,
        (exit, _) => exit,
    })
}

pub(crate) async fn show(args: RemoteShowArgs) -> anyhow::Result<Exit> {
    let (node, seq, generation) = args.entry.with_node()?;
    let connection = Connection::open(&args.connection)?;
    let path = row_path(&node, seq, generation.as_deref(), "");
    let request = connection.request(Method::GET, &path).timeout(PAGE_TIMEOUT);
    let (exit, _) = answer(&connection, request, args.output, |lines| {
        for line in lines {
            crate::out::write(&mut anstream::stdout(), format_args!("{}", detail(line)));
        }
    })
    .await?;
    Ok(exit)
}

/// Prints a page as NDJSON or with `table`, and then reports which nodes answered. Also returns whether the answer is complete
/// and the page is the last one.
async fn answer(
    connection: &Connection,
    request: reqwest::RequestBuilder,
    output: OutputArgs,
    table: impl Fn(&[RowLine<'_>]),
) -> anyhow::Result<(Exit, bool)> {
    let response = match connection.send(request).await? {
        Answer::Good(response) => response,
        Answer::Unavailable(envelope) => {
            if output.as_json() {
                outln!("{}", serde_json::json!({ "final": &*envelope }));
            }
            return Ok((connection.refused(&envelope), false));
        }
    };
    let text = response.text().await?;
    let envelope: Envelope = serde_json::from_str(&text).context("cannot parse the answer")?;
    let rows: PageRows<'_> = serde_json::from_str(&text).context("cannot parse the answer")?;
    // Check the number of rows: if the text of a row broke out of its element and added another one to the array, the number
    // would differ from that in the envelope.
    let came = rows.entries.len() as u64;
    if came != envelope.count {
        bail!("{}", count_problem(envelope.count, came));
    }
    if output.as_json() {
        for row in &rows.entries {
            outln!("{}", row.get());
        }
        outln!("{}", serde_json::json!({ "final": &envelope }));
    } else {
        let lines: Vec<RowLine<'_>> =
            rows.entries.iter().map(|row| serde_json::from_str(row.get())).collect::<Result<_, _>>()?;
        table(&lines);
    }
    Ok((connection.report(&envelope), envelope.complete && !envelope.more))
}
