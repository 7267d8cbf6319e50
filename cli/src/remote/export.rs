//! `piperoll export`: everything that matches, into a file whose name says what is inside.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use piperoll_client::LineStream;
use piperoll_shared::api::aggregator::FinalRecord;
use piperoll_shared::log::csv;
use piperoll_shared::log::row::RowLine;
use reqwest::Method;
use reqwest::header::CONTENT_DISPOSITION;

use super::bundle::{bundle, row};
use super::connection::{Answer, Connection};
use super::{FINAL, end_problem, question};
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
    // Always the rows with their final record: a spreadsheet has no place for it, so its cells are made here, from
    // a stream whose end is known.
    let mut pairs = question::pairs(&args.query)?;
    pairs.extend([
        ("format", "ndjson".to_owned()),
        ("order", if args.order == OrderArg::Asc { "asc" } else { "desc" }.to_owned()),
        ("require", if args.require_complete { "all" } else { "any" }.to_owned()),
    ]);
    let request = connection.request(Method::GET, "/api/v1/audit-log").query(&pairs);
    // A file that cannot be written is said before anything is read, and recorded as read.
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
    let mut lines = LineStream::new(response);
    let mut rows = 0;
    let ended = loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => break Err("the stream ended without its final record".to_owned()),
            Err(error) => break Err(format!("the stream broke off ({error})")),
        };
        if line.starts_with(FINAL) {
            let last: FinalRecord = serde_json::from_slice(&line).context("the final record cannot be read")?;
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
                let row: RowLine<'_> = serde_json::from_slice(&line).context("a row cannot be read")?;
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
            errln!("{problem}; {name} holds the part that came");
            Ok(Exit::Incomplete)
        }
    }
}

/// The name the aggregator made of range and filter; only its last component, whatever it says.
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

/// A file under a temporary name until it is known what it is, or standard output.
pub(super) enum Target {
    Stdout(std::io::BufWriter<crate::out::Stdout>),
    File { file: std::io::BufWriter<std::fs::File>, temporary: PathBuf, wanted: PathBuf },
}

impl Target {
    pub(super) fn open(asked: Option<&Path>, suggested: PathBuf) -> anyhow::Result<Self> {
        let wanted = match asked {
            Some(path) if path == Path::new("-") => {
                return Ok(Self::Stdout(std::io::BufWriter::new(crate::out::stdout())));
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
        // Nobody else reads an export, and a link that somebody put there is not followed.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&temporary).with_context(|| {
            format!("cannot create {}; remove it if an earlier export left it", temporary.display())
        })?;
        Ok(Self::File { file: std::io::BufWriter::new(file), temporary, wanted })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let out: &mut dyn Write = match self {
            Self::Stdout(out) => out,
            Self::File { file, .. } => file,
        };
        Ok(out.write_all(bytes)?)
    }

    /// Removes what came of an export that was refused.
    pub(super) fn discard(self) {
        if let Self::File { temporary, .. } = self {
            let _ = std::fs::remove_file(temporary);
        }
    }

    /// Gives the file its name; one that is not whole carries PARTIAL in it.
    pub(super) fn finish(self, whole: bool) -> anyhow::Result<String> {
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

/// A name with PARTIAL in it that is still free: a second try must not overwrite what the first one got.
fn partial_name(path: &Path) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or(String::new(), |e| format!(".{}", e.to_string_lossy()));
    let named = |number: String| path.with_file_name(format!("{stem}_PARTIAL{number}{extension}"));
    let first = named(String::new());
    if !first.exists() {
        return first;
    }
    (2u32..).map(|number| named(format!("-{number}"))).find(|name| !name.exists()).unwrap_or(first)
}
