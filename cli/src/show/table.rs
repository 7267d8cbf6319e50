//! The timeline as a table, one line an entry.

use comfy_table::{Cell, ContentArrangement, Row as TableRow, Table};
use piperoll_shared::log::row::RowLine;
use piperoll_shared::log::terminal::escape;
use piperoll_shared::log::verify::Integrity;
use piperoll_shared::log::view::EntryView;

use super::{paint, width};

/// Words that carry a colour in the finished table.
const LOUD: [(&str, &str); 5] = [
    ("VIOLATION", paint::RED),
    ("UNKNOWN KEY", paint::RED),
    ("FAILURE", paint::YELLOW),
    ("DENIED", paint::YELLOW),
    ("UNKNOWN", paint::DIM),
];

/// Collects rows and prints them when they are all there.
pub(crate) struct RowTable {
    table: Table,
    rows: usize,
}

impl RowTable {
    pub(crate) fn new() -> Self {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width());
        table.set_header(["TIME (UTC)", "NODE/SEQ", "USER", "ACTION", "WHAT", "FROM", "OUTCOME", "INTEGRITY"]);
        // Time and place are never cut; the free fields share what is left.
        for index in [0, 1, 6, 7] {
            if let Some(column) = table.column_mut(index) {
                column.set_constraint(comfy_table::ColumnConstraint::ContentWidth);
            }
        }
        Self { table, rows: 0 }
    }

    pub(crate) fn push(&mut self, line: &RowLine<'_>) {
        let mut row = TableRow::from(cells(line).map(Cell::new));
        row.max_height(1);
        self.table.add_row(row);
        self.rows += 1;
    }

    pub(crate) fn print(&self) {
        if self.rows == 0 {
            return;
        }
        let text = self.table.to_string();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if number == 0 {
                paintln!("{}{line}{}", paint::BOLD, paint::PLAIN);
            } else {
                paintln!("{}", coloured(line));
            }
        }
    }
}

fn coloured(line: &str) -> String {
    let mut out = line.to_owned();
    for (word, colour) in LOUD {
        // Only the outcome and integrity columns, at the end of the line, are ours to colour.
        if let Some(at) = out.rfind(word)
            && at + 40 > out.len()
            && !out[at..].contains('\u{1b}')
        {
            out.replace_range(at..at + word.len(), &format!("{colour}{word}{}", paint::PLAIN));
        }
    }
    out
}

/// The cells of one entry, safe for a terminal.
fn cells(line: &RowLine<'_>) -> [String; 8] {
    let body = line.entry.get();
    let view = EntryView::parse(body.as_bytes()).unwrap_or_default();
    let place = line.found_at.as_ref();
    let node = place.map_or_else(|| view.node_id.to_string(), |p| p.node_id.clone());
    let seq = place.map_or(view.seq, |p| p.seq);
    let text = |value: Option<&str>| escape(value.unwrap_or("-")).into_owned();
    let who = match (view.impersonator.as_deref(), view.user.as_deref()) {
        (Some(real), Some(user)) => format!("{} as {}", escape(real), escape(user)),
        (_, user) => text(user),
    };
    let gone = line.erased.as_ref();
    let time = gone.map_or_else(|| view.timestamp.to_string(), |gone| gone.timestamp.to_text());
    let time = time.trim_end_matches('Z').replace('T', " ");
    [
        if time.is_empty() { "?".to_owned() } else { escape(&time).into_owned() },
        format!("{}/{seq}", escape(&node)),
        who,
        text(view.action.as_deref()),
        match (gone, &line.reason) {
            (Some(gone), _) => escape(&gone.words()).into_owned(),
            (None, Some(reason)) if line.withheld => escape(reason).into_owned(),
            (None, _) => what(&view),
        },
        text(view.ip_address.as_deref()),
        match view.outcome.as_deref() {
            Some("success") => "ok".to_owned(),
            Some(other) => escape(other).to_uppercase(),
            None => "-".to_owned(),
        },
        integrity_word(line).to_owned(),
    ]
}

fn what(view: &EntryView<'_>) -> String {
    let entity = match (view.entity_type.as_deref(), view.entity_id.as_deref()) {
        (Some(kind), Some(id)) => Some(format!("{kind}/{id}")),
        (Some(kind), None) => Some(kind.to_owned()),
        _ => None,
    };
    let text =
        view.description.as_deref().map(str::to_owned).or(entity).or_else(|| view.target.as_deref().map(str::to_owned));
    escape(text.as_deref().unwrap_or("-")).into_owned()
}

pub(super) fn integrity_word(row: &RowLine<'_>) -> &'static str {
    match row.integrity {
        Integrity::Ok if row.witnessed => "witnessed",
        Integrity::Ok => "authentic",
        Integrity::Violation => "VIOLATION",
        Integrity::UnknownKey => "UNKNOWN KEY",
        Integrity::Erased => "erased",
    }
}

/// One entry as one line, for following a log.
pub(crate) fn one_line(line: &RowLine<'_>) -> String {
    let [time, place, who, action, what, from, outcome, integrity] = cells(line);
    coloured(&format!("{time} {place} {who} {action} {from} {what} {outcome} {integrity}"))
}
