//! `piperoll map`: lists the built-in mappings, and tries one on a file.

use std::collections::BTreeMap;
use std::path::Path;

use comfy_table::{ContentArrangement, Table};
use piperoll_format::entry::CallerEntry;
use piperoll_format::terminal::escape;
use piperoll_node::sources::{Mapped, Mapping};
use piperoll_redact::Redactor;
use serde_json::Value;

use crate::args::MapCommand;
use crate::documents::Documents;
use crate::exit::Exit;
use crate::show::{counted, group_digits, width};

/// Maximum number of rows in the table; further rows are only counted.
const ROWS_SHOWN_MAX: usize = 200;
/// Maximum number of different reasons shown for records that do not become entries.
const REASONS_SHOWN_MAX: usize = 20;
/// Columns of the table, each with the entry fields that can fill it.
const COLUMNS: [(&str, &[&str]); 7] = [
    ("OCCURRED AT", &["occurred_at"]),
    ("USER", &["user"]),
    ("ACTION", &["action"]),
    ("OUTCOME", &["outcome"]),
    ("CATEGORY", &["category"]),
    ("TARGET", &["target", "entity_name", "entity_id"]),
    ("FROM", &["ip_address", "peer_address"]),
];

pub(crate) fn run(command: MapCommand) -> anyhow::Result<Exit> {
    match command {
        MapCommand::List => {
            let mut table = plain_table();
            table.set_header(["NAME", "RECORDS", "WHERE THEY ARE"]);
            for built_in in Mapping::built_in() {
                table.add_row([built_in.name, &built_in.description, &built_in.source]);
            }
            print_table(&table);
            Ok(Exit::Complete)
        }
        MapCommand::Test { map, file, json } => test(&map, &file, json),
    }
}

/// Counts of the results for the records of a file.
#[derive(Default)]
struct Counts {
    entries: u64,
    without_id: u64,
    passed_over: u64,
    unmapped: u64,
    /// For each reason, the number of the first line to which it applies, and the number of records.
    reasons: BTreeMap<String, (u64, u64)>,
}

impl Counts {
    fn unmapped(&mut self, line: u64, reason: &str) {
        self.unmapped += 1;
        self.reasons.entry(reason.to_owned()).or_insert((line, 0)).1 += 1;
    }
}

fn test(map: &str, file: &Path, json: bool) -> anyhow::Result<Exit> {
    let mapping = Mapping::load(map)?;
    let redactor = Redactor::default();
    let mut counts = Counts::default();
    let mut table = plain_table();
    table.set_header(COLUMNS.map(|(title, _)| title));
    let mut rows = 0;
    for document in Documents::open(file, mapping.join().cloned(), mapping.reads_lines())? {
        let document = document?;
        let outcomes = match document.text.map(|text| mapping.read(&text, &redactor)) {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(error)) => {
                counts.unmapped(document.line, &error.to_string());
                continue;
            }
            Err(problem) => {
                counts.unmapped(document.line, &problem);
                continue;
            }
        };
        for outcome in outcomes {
            let (text, has_id) = match outcome.result {
                Ok(Mapped::Entry { text, has_id }) => (text, has_id),
                Ok(Mapped::PassedOver) => {
                    counts.passed_over += 1;
                    continue;
                }
                Err(error) => {
                    counts.unmapped(document.line, &error.to_string());
                    continue;
                }
            };
            // Check the entry against the limits of a node.
            let checked = CallerEntry::parse(text.as_bytes()).and_then(|entry| entry.check_size());
            if let Err(error) = checked {
                counts.unmapped(document.line, &error.to_string());
                continue;
            }
            counts.entries += 1;
            counts.without_id += u64::from(!has_id);
            if json {
                outln!("{text}");
            } else if rows < ROWS_SHOWN_MAX {
                rows += 1;
                table.add_row(cells(&text));
            }
        }
    }
    if !json && rows > 0 {
        print_table(&table);
    }
    say(&counts, rows, json);
    Ok(if counts.unmapped == 0 { Exit::Complete } else { Exit::Failed })
}

fn cells(entry: &str) -> Vec<String> {
    let entry: Value = serde_json::from_str(entry).unwrap_or_default();
    let cell = |fields: &[&str]| {
        let value = fields.iter().find_map(|field| entry[*field].as_str()).unwrap_or("-");
        escape(value).into_owned()
    };
    COLUMNS.iter().map(|(_, fields)| cell(fields)).collect()
}

fn say(counts: &Counts, rows: usize, json: bool) {
    if !json && counts.entries > rows as u64 {
        errln!("the first {rows} entries are shown; --json prints all");
    }
    errln!(
        "{}, {} skipped by the mapping, {} not mapped; nothing was recorded",
        counted(counts.entries, "entry", "entries"),
        group_digits(counts.passed_over),
        group_digits(counts.unmapped)
    );
    if counts.without_id > 0 {
        errln!(
            "entries without an ID of their own: {}; importing the file twice would record them twice",
            group_digits(counts.without_id)
        );
    }
    let mut reasons: Vec<_> = counts.reasons.iter().collect();
    reasons.sort_by_key(|(_, (_, count))| std::cmp::Reverse(*count));
    for (reason, (line, count)) in reasons.iter().take(REASONS_SHOWN_MAX) {
        errln!("  {} not mapped, first on line {line}: {}", group_digits(*count), escape(reason));
    }
    if reasons.len() > REASONS_SHOWN_MAX {
        errln!("  and {} other reasons", reasons.len() - REASONS_SHOWN_MAX);
    }
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width());
    table
}

fn print_table(table: &Table) {
    for line in table.to_string().lines() {
        outln!("{}", line.trim_end());
    }
}
