//! `piperoll export`: writes all matching entries to a file.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use piperoll_client::LineStream;
use piperoll_evidence::csv;
use piperoll_format::row::RowLine;
use piperoll_protocol::aggregator::FinalRecord;
use reqwest::Method;
use reqwest::header::CONTENT_DISPOSITION;

use super::bundle::{bundle, row};
use super::connection::{Answer, Connection};
use super::outcome::{FINAL, end_problem};
use super::question;
use super::target::Target;
use crate::args::{ExportFormat, OrderArg, RemoteExportArgs};
use crate::exit::Exit;
use crate::show::counted;

pub(crate) async fn export(args: RemoteExportArgs) -> anyhow::Result<Exit> {
    let connection = Connection::open(&args.connection)?;
    for address in &args.row {
        row(&connection, address.clone()).await?;
    }
    if let Some(path) = &args.bundle {
        return bundle(&args, path, &connection).await;
    }
    if !args.row.is_empty() {
        return Ok(Exit::Complete);
    }
    // Always request NDJSON with its final record. CSV cannot contain that record, so CSV is produced here, from a stream whose
    // end can be checked.
    let mut pairs = question::pairs(&args.query)?;
    pairs.extend([
        ("format", "ndjson".to_owned()),
        ("order", if args.order == OrderArg::Asc { "asc" } else { "desc" }.to_owned()),
        ("require", if args.require_complete { "all" } else { "any" }.to_owned()),
    ]);
    let request = connection.request(Method::GET, "/api/v1/audit-log").query(&pairs);
    // Open the file first, so that a failure to open it is reported before any rows are read and before the read is recorded.
    let opened = args.output.as_deref().map(|path| Target::open(Some(path), PathBuf::new())).transpose()?;
    let response = match connection.send(request).await {
        Ok(Answer::Good(response)) => response,
        Ok(Answer::Unavailable(envelope)) => {
            opened.into_iter().for_each(Target::discard);
            return Ok(connection.refused(&envelope));
        }
        Err(error) => {
            opened.into_iter().for_each(Target::discard);
            return Err(error);
        }
    };
    let mut target = match opened {
        Some(target) => target,
        None => Target::open(None, suggested_name(&response, args.format))?,
    };
    if args.format == ExportFormat::Csv {
        target.write(&csv::header())?;
    }
    let bar = crate::local::progress_bar();
    let mut lines = LineStream::new(response.bytes_stream());
    let mut rows = 0;
    let ended = loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => break Err("the stream ended without its final record".to_owned()),
            Err(error) => break Err(format!("the stream was interrupted ({error})")),
        };
        if line.starts_with(FINAL) {
            let last: FinalRecord = serde_json::from_slice(&line).context("cannot parse the final record")?;
            if let Some(problem) = end_problem(&mut lines, last.envelope.count, rows).await {
                break Err(problem);
            }
            if args.format == ExportFormat::Ndjson {
                target.write(&line)?;
                target.write(b"\n")?;
            }
            break Ok(last.envelope);
        }
        match args.format {
            ExportFormat::Ndjson => {
                target.write(&line)?;
                target.write(b"\n")?;
            }
            ExportFormat::Csv => {
                let row: RowLine<'_> = serde_json::from_slice(&line).context("cannot parse a row")?;
                let mut cells = Vec::new();
                csv::write_row(&row.to_row(), &mut cells);
                target.write(&cells)?;
            }
        }
        rows += 1;
        bar.set_position(rows);
    };
    bar.finish_and_clear();
    match ended {
        Ok(envelope) => {
            let name = target.finish(envelope.is_whole())?;
            errln!("{} in {name}", counted(envelope.count, "row", "rows"));
            Ok(connection.report(&envelope))
        }
        Err(problem) => {
            let name = target.finish(false)?;
            errln!("{problem}; {name} holds the part that was received");
            Ok(Exit::Incomplete)
        }
    }
}

/// Returns the file name suggested in `Content-Disposition`, without directories and with the extension of `format`; defaults to
/// `audit-export`.
fn suggested_name(response: &reqwest::Response, format: ExportFormat) -> PathBuf {
    let name = response
        .headers()
        .get(CONTENT_DISPOSITION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split("filename=\"").nth(1))
        .and_then(|value| value.split('"').next())
        .and_then(|name| Path::new(name).file_name().map(PathBuf::from));
    let name = name.unwrap_or_else(|| PathBuf::from("audit-export"));
    name.with_extension(if format == ExportFormat::Csv { "csv" } else { "ndjson" })
}
