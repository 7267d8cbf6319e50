//! Renders a report as a table, as JSON, or as a printable page.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use askama::Template;
use comfy_table::{Cell, ContentArrangement, Table};
use piperoll_format::terminal::escape;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::aggregator::Envelope;
use serde_json::{Map, Value, json};

use crate::args::{ReportArgs, ReportFormat};
use crate::show::{envelope_summary, paint, width};

/// A finished report.
pub(super) struct Report {
    name: &'static str,
    title: String,
    pub(super) headline: String,
    /// Whether the headline reports a problem.
    pub(super) alarming: bool,
    asked: Vec<(String, String)>,
    warnings: Vec<String>,
    notes: Vec<String>,
    pub(super) grids: Vec<Grid>,
}

/// One table of a report.
pub(super) struct Grid {
    caption: String,
    columns: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Report {
    pub(super) fn new(name: &'static str, title: &str, headline: String, alarming: bool) -> Self {
        let (asked, warnings, notes, grids) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { name, title: title.to_owned(), headline, alarming, asked, warnings, notes, grids }
    }

    pub(super) fn asked(&mut self, name: &str, value: String) {
        self.asked.push((name.to_owned(), value));
    }

    pub(super) fn warn(&mut self, message: String) {
        self.warnings.push(message);
    }

    pub(super) fn note(&mut self, message: String) {
        self.notes.push(message);
    }
}

impl Grid {
    pub(super) fn new(caption: &str, columns: &[&'static str]) -> Self {
        Self { caption: caption.to_owned(), columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(super) fn push<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.to_vec());
    }
}

pub(super) fn print(
    report: &Report,
    envelope: &Envelope,
    args: &ReportArgs,
    output: Option<Output>,
) -> anyhow::Result<()> {
    let text = match args.format {
        ReportFormat::Table => return print_table(report, envelope),
        ReportFormat::Json => format!("{}\n", to_json(report, envelope)),
        ReportFormat::Html => to_html(report, envelope)?,
    };
    match output {
        None => Ok(crate::out::stdout().write_all(text.as_bytes())?),
        Some(output) => output.finish(&text),
    }
}

/// A new file for a report. The file is created before anything is read, and removed if no report is written to it.
pub(super) struct Output {
    path: PathBuf,
    file: std::fs::File,
    is_whole: bool,
}

impl Output {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                anyhow::anyhow!(
                    "{} already exists and will not be overwritten; choose another --output",
                    path.display()
                )
            }
            _ => anyhow::anyhow!("cannot create {}: {error}", path.display()),
        })?;
        Ok(Self { path: path.to_owned(), file, is_whole: false })
    }

    fn finish(mut self, text: &str) -> anyhow::Result<()> {
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_all())
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.is_whole = true;
        errln!("report written to {}", self.path.display());
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.is_whole {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn print_table(report: &Report, envelope: &Envelope) -> anyhow::Result<()> {
    let colour = if report.alarming { paint::RED } else { paint::BOLD };
    paintln!("{}{}{}", paint::BOLD, escape(&report.title), paint::PLAIN);
    if !envelope.complete {
        paintln!("{}NOT COMPLETE: entries of missing nodes are not in this report{}", paint::RED, paint::PLAIN);
    }
    paintln!("{colour}{}{}", escape(&report.headline), paint::PLAIN);
    for (name, value) in &report.asked {
        outln!("  {}: {}", escape(name), escape(value));
    }
    for message in &report.warnings {
        paintln!("{}{}{}", paint::RED, escape(message), paint::PLAIN);
    }
    for grid in report.grids.iter().filter(|grid| !grid.rows.is_empty()) {
        paintln!("\n{}{}{}", paint::BOLD, escape(&grid.caption), paint::PLAIN);
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width());
        table.set_header(grid.columns.iter().map(|name| name.to_uppercase()));
        for row in &grid.rows {
            table.add_row(row.iter().map(|cell| Cell::new(escape(cell))));
        }
        table.lines().for_each(|line| outln!("{}", line.trim_end()));
    }
    report.notes.iter().for_each(|message| outln!("\n{}", escape(message)));
    Ok(())
}

fn to_json(report: &Report, envelope: &Envelope) -> Value {
    let grid = |grid: &Grid| {
        let row = |row: &Vec<String>| {
            let cells = grid.columns.iter().zip(row);
            Value::Object(cells.map(|(name, cell)| (name.replace(' ', "_"), json!(cell))).collect::<Map<_, _>>())
        };
        json!({ "caption": grid.caption, "rows": grid.rows.iter().map(row).collect::<Vec<_>>() })
    };
    let asked: Map<String, Value> = report.asked.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "report": report.name, "title": report.title, "headline": report.headline, "alarming": report.alarming,
        "asked": asked, "warnings": report.warnings, "notes": report.notes,
        "tables": report.grids.iter().map(grid).collect::<Vec<_>>(), "final": envelope,
    })
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    envelope: &'a Envelope,
    statement: String,
    made: String,
}

fn to_html(report: &Report, envelope: &Envelope) -> anyhow::Result<String> {
    let statement = anstream::adapter::strip_str(&envelope_summary(envelope).join("\n")).to_string();
    Ok(Page { report, envelope, statement, made: SystemClock.now().to_text() }.render()?)
}
