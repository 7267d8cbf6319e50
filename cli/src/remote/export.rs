//! `piperoll export`: everything that matches, into a file whose name says what is inside.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use piperoll_client::LineStream;
use piperoll_shared::api::aggregator::{Envelope, FinalRecord};
use reqwest::Method;
use reqwest::header::CONTENT_DISPOSITION;

use super::connection::{Answer, Connection};
use super::{exit_of, report};
use crate::args::{ExportFormat, OrderArg, RemoteExportArgs};
use crate::exit::Exit;

pub(crate) async fn export(args: RemoteExportArgs) -> anyhow::Result<Exit> {
    let connection = Connection::open(&args.connection)?;
    let pairs = [
        ("filter", args.query.filter.join(" ")),
        ("from", args.query.from.clone()),
        ("to", args.query.to.clone()),
        ("format", if args.format == ExportFormat::Csv { "csv" } else { "ndjson" }.to_owned()),
        ("order", if args.order == OrderArg::Asc { "asc" } else { "desc" }.to_owned()),
        ("require", if args.require_complete { "all" } else { "any" }.to_owned()),
    ];
    let request = connection.request(Method::GET, "/api/v1/audit-log").query(&pairs);
    let response = match connection.send(request).await? {
        Answer::Good(response) => response,
        Answer::Unavailable(envelope) => return Ok(report(&envelope)),
    };
    let whole = response.headers().get("audit-complete").is_some_and(|v| v == "pending");
    let mut target = Target::open(args.output.as_deref(), suggested_name(&response))?;
    let bar = crate::local::progress_bar();
    let mut lines = LineStream::new(response);
    let mut rows = 0;
    let ended = loop {
        match lines.next().await {
            Ok(Some(line)) => {
                if args.format == ExportFormat::Ndjson && line.starts_with(b"{\"final\":") {
                    break Some(final_record(&mut target, &line)?);
                }
                target.line(&line)?;
                rows += 1;
                bar.set_position(rows);
            }
            Ok(None) => break None,
            Err(error) => {
                bar.finish_and_clear();
                let name = target.finish(false)?;
                eprintln!("the stream broke off ({error}); {name} holds the part that came");
                return Ok(Exit::Incomplete);
            }
        }
    };
    bar.finish_and_clear();
    match (ended, args.format) {
        (Some(envelope), _) => {
            let name = target.finish(envelope.complete)?;
            eprintln!("{} rows in {name}", envelope.count);
            report(&envelope);
            Ok(exit_of(&envelope))
        }
        // CSV has no final record: a broken stream was an error above, and who was missing stands in the header.
        (None, ExportFormat::Csv) => {
            let name = target.finish(whole)?;
            eprintln!("{} lines in {name}", rows.saturating_sub(1));
            if violations(&name)? > 0 {
                eprintln!("rows fail verification; the column `integrity` says which");
                return Ok(Exit::Violation);
            }
            if !whole {
                eprintln!("not complete: a node did not answer; `piperoll nodes` says which");
            }
            Ok(if whole { Exit::Complete } else { Exit::Incomplete })
        }
        (None, ExportFormat::Ndjson) => {
            let name = target.finish(false)?;
            eprintln!("the stream ended without its final record; {name} holds the part that came");
            Ok(Exit::Incomplete)
        }
    }
}

/// Rows of a written CSV file that fail verification; standard output cannot be read again.
fn violations(name: &str) -> anyhow::Result<usize> {
    if !Path::new(name).exists() {
        return Ok(0);
    }
    let mut reader = csv::Reader::from_path(name)?;
    let column = reader.headers()?.iter().position(|header| header == "integrity");
    let mut count = 0;
    for record in reader.records() {
        count +=
            usize::from(column.and_then(|c| record.as_ref().ok()?.get(c).map(|word| word != "ok")).unwrap_or(false));
    }
    Ok(count)
}

fn final_record(target: &mut Target, line: &Bytes) -> anyhow::Result<Envelope> {
    target.line(line)?;
    let last: FinalRecord = serde_json::from_slice(line).context("the final record cannot be read")?;
    Ok(last.envelope)
}

/// The name the aggregator made of range and filter; only its last component, whatever it says.
fn suggested_name(response: &reqwest::Response) -> PathBuf {
    let name = response
        .headers()
        .get(CONTENT_DISPOSITION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split("filename=\"").nth(1))
        .and_then(|value| value.split('"').next())
        .and_then(|name| Path::new(name).file_name().map(PathBuf::from));
    name.unwrap_or_else(|| PathBuf::from("audit-export"))
}

/// A file under a temporary name until it is known what it is, or standard output.
enum Target {
    Stdout(std::io::BufWriter<std::io::Stdout>),
    File { file: std::io::BufWriter<std::fs::File>, temporary: PathBuf, wanted: PathBuf },
}

impl Target {
    fn open(asked: Option<&Path>, suggested: PathBuf) -> anyhow::Result<Self> {
        let wanted = match asked {
            Some(path) if path == Path::new("-") => {
                return Ok(Self::Stdout(std::io::BufWriter::new(std::io::stdout())));
            }
            Some(path) => path.to_owned(),
            None => suggested,
        };
        anyhow::ensure!(
            !wanted.exists(),
            "{} exists already and is not overwritten; choose another --output",
            wanted.display()
        );
        let mut temporary = wanted.clone().into_os_string();
        temporary.push(".part");
        let temporary = PathBuf::from(temporary);
        let file = std::fs::File::create(&temporary).with_context(|| temporary.display().to_string())?;
        Ok(Self::File { file: std::io::BufWriter::new(file), temporary, wanted })
    }

    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let out: &mut dyn Write = match self {
            Self::Stdout(out) => out,
            Self::File { file, .. } => file,
        };
        out.write_all(line)?;
        Ok(out.write_all(b"\n")?)
    }

    /// Gives the file its name; one that is not whole carries PARTIAL in it.
    fn finish(self, whole: bool) -> anyhow::Result<String> {
        match self {
            Self::Stdout(mut out) => {
                out.flush()?;
                Ok("standard output".to_owned())
            }
            Self::File { mut file, temporary, wanted } => {
                file.flush()?;
                file.get_ref().sync_all()?;
                let named = wanted.to_string_lossy().contains("PARTIAL");
                let wanted = if whole || named { wanted } else { partial_name(&wanted) };
                std::fs::rename(&temporary, &wanted)?;
                Ok(wanted.display().to_string())
            }
        }
    }
}

fn partial_name(path: &Path) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or(String::new(), |e| format!(".{}", e.to_string_lossy()));
    path.with_file_name(format!("{stem}_PARTIAL{extension}"))
}
