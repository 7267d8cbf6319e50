//! Prints rows as a table on wide terminals, and as blocks on narrow ones.

use piperoll_format::row::RowLine;
use piperoll_format::terminal::escape;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_format::view::EntryView;
use piperoll_query::zone::Zone;

use super::terminal::{paint, width};
use super::text::{columns, cut, pad, wrap, wrap_after};

/// Terminal width below which a row is formatted as a block of lines.
pub(super) const TABLE_WIDTH_MIN: usize = 100;
/// Gap between two columns.
const GAP: usize = 2;
/// Maximum widths of user, action and address. A table uses the first set in `NARROWER` that leaves room for the description.
const ROOMY: Caps = Caps { who: 28, action: 40, from: 39 };
const NARROWER: [Caps; 3] = [ROOMY, Caps { who: 20, action: 28, from: 24 }, Caps { who: 16, action: 22, from: 15 }];
/// Minimum width of the description.
const WHAT_MIN: usize = 28;
/// Minimum terminal widths for printing a stream in columns, and for wider columns. They are fixed, because a stream does not
/// know in advance how wide its rows will be.
const STREAM_WIDTH_MIN: usize = 120;
const STREAM_ROOMY_WIDTH_MIN: usize = 170;

#[derive(Debug, Clone, Copy)]
struct Caps {
    who: usize,
    action: usize,
    from: usize,
}

/// Difference below which the times of occurrence and recording count as the same.
const SAME_TIME_MICROS: i64 = 1_000_000;

/// The time that a table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    Recorded,
    /// Time of the event according to the caller; the rows shown are sorted by this time.
    Occurred {
        newest_first: bool,
    },
}

/// Texts of one row, escaped for a terminal.
struct Cells {
    shown: Option<Timestamp>,
    day: String,
    time: String,
    /// Time of the event, if it differs from the time shown.
    occurred: String,
    place: String,
    who: String,
    action: String,
    what: String,
    from: String,
    outcome: String,
    integrity: &'static str,
    sound: bool,
}

/// Collects all rows, then prints them.
pub(crate) struct RowTable {
    zone: Zone,
    axis: Axis,
    rows: Vec<Cells>,
}

impl RowTable {
    pub(crate) fn new(zone: Zone, axis: Axis) -> Self {
        Self { zone, axis, rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, line: &RowLine<'_>) {
        self.rows.push(Cells::of(line, self.zone, self.axis));
    }

    pub(crate) fn print(mut self) {
        if self.rows.is_empty() {
            return;
        }
        if let Axis::Occurred { newest_first } = self.axis {
            self.rows.sort_by_key(|row| row.shown);
            if newest_first {
                self.rows.reverse();
            }
        }
        let text = render(&self.rows, self.zone, width().into());
        crate::out::write(&mut anstream::stdout(), format_args!("{text}"));
    }
}

/// Formats rows as they arrive, in columns that never become narrower.
pub(crate) struct RowStream {
    zone: Zone,
    day: String,
    /// Current widths of entry, user, action, outcome and address.
    widths: [usize; 5],
}

impl RowStream {
    pub(crate) fn new(zone: Zone) -> Self {
        Self { zone, day: String::new(), widths: [8, 15, 22, 7, 15] }
    }

    /// Formats a row, preceded by its day if the day has changed. `late` means that rows with a later time were already shown.
    pub(crate) fn line(&mut self, line: &RowLine<'_>, late: bool) -> String {
        let cells = Cells::of(line, self.zone, Axis::Recorded);
        let mut out = String::new();
        if cells.day != self.day {
            out.push_str(&format!("{}{} {}{}\n", paint::BOLD, cells.day, self.zone, paint::PLAIN));
            self.day.clone_from(&cells.day);
        }
        let late_columns = if late { GAP + "late".len() } else { 0 };
        let width = usize::from(width()).saturating_sub(late_columns);
        let late = if late { format!("  {}late{}", paint::YELLOW, paint::PLAIN) } else { String::new() };
        let as_block = |out: &mut String| {
            out.push_str(&block(&cells, &cells.time, !cells.sound, width));
            let end = out.trim_end().len();
            out.insert_str(end, &late);
            out.truncate(out.trim_end().len());
        };
        if width < STREAM_WIDTH_MIN {
            as_block(&mut out);
            return out;
        }
        let caps = if width < STREAM_ROOMY_WIDTH_MIN { NARROWER[2] } else { ROOMY };
        let texts = [&cells.place, &cells.who, &cells.action, &cells.outcome, &cells.from];
        let most = [40, caps.who, caps.action, 7, caps.from];
        for (known, (text, most)) in self.widths.iter_mut().zip(texts.into_iter().zip(most)) {
            *known = (*known).max(columns(text)).min(most);
        }
        let [place, who, action, outcome, from] = self.widths;
        let fixed = format!(
            "{}  {}  {}  {}  {}  {}",
            cells.time,
            pad(&cut(&cells.place, place), place),
            pad(&cut(&cells.who, who), who),
            pad(&cut(&cells.action, action), action),
            coloured(&pad(&cells.outcome, outcome)),
            pad(&cut(&cells.from, from), from),
        );
        let used = columns(&cells.time) + place + who + action + outcome + from + 6 * GAP;
        if used + WHAT_MIN > width {
            as_block(&mut out);
            return out;
        }
        let integrity = if cells.sound { String::new() } else { format!("  {}", coloured(cells.integrity)) };
        let room = width.saturating_sub(used + if cells.sound { 0 } else { GAP + cells.integrity.len() }).max(WHAT_MIN);
        out.push_str(format!("{fixed}  {}", cut(&cells.what, room)).trim_end());
        out.push_str(&integrity);
        out.push_str(&late);
        if !cells.occurred.is_empty() {
            out.push_str(&format!("\n{}occurred {}", " ".repeat(columns(&cells.time) + GAP), cells.occurred));
        }
        out
    }
}

/// Formats all rows, with a heading.
fn render(rows: &[Cells], zone: Zone, width: usize) -> String {
    let one_day = rows.iter().all(|row| row.day == rows[0].day) && !rows[0].day.is_empty();
    // Omit the integrity column if all rows are intact and have the same integrity, which the summary below the table states.
    let with_integrity = rows.iter().any(|row| !row.sound || row.integrity != rows[0].integrity);
    let times: Vec<String> = rows
        .iter()
        .map(|row| if one_day { row.time.clone() } else { format!("{} {}", row.day, row.time).trim().to_owned() })
        .collect();
    let heading = if one_day { format!("{} {}", rows[0].day, zone) } else { format!("TIME ({zone})") };
    let mut tables = NARROWER.iter().filter(|_| width >= TABLE_WIDTH_MIN);
    if let Some(table) = tables.find_map(|caps| table(rows, &times, &heading, with_integrity, width, *caps)) {
        return table;
    }
    let mut out = format!("{}{heading}{}\n", paint::BOLD, paint::PLAIN);
    for (row, time) in rows.iter().zip(&times) {
        out.push_str(&block(row, time, with_integrity, width));
    }
    out
}

/// Formats rows as a table; `None` if the terminal has no room for the description.
fn table(
    rows: &[Cells],
    times: &[String],
    heading: &str,
    with_integrity: bool,
    width: usize,
    caps: Caps,
) -> Option<String> {
    let widest = |title: &str, most: usize, text: &dyn Fn(&Cells) -> &str| {
        let widest = rows.iter().map(|row| columns(text(row))).max().unwrap_or(0);
        // Omit a column that is empty in every row.
        if widest == 0 { 0 } else { widest.max(title.len()).min(most) }
    };
    let time = times.iter().map(|time| columns(time)).max().unwrap_or(0).max(columns(heading));
    let occurred = widest("OCCURRED", 24, &|row| &row.occurred);
    let place = widest("NODE/SEQ", usize::MAX, &|row| &row.place);
    let who = widest("USER", caps.who, &|row| &row.who);
    let action = widest("ACTION", caps.action, &|row| &row.action);
    let from = widest("FROM", caps.from, &|row| &row.from);
    let outcome = widest("OUTCOME", usize::MAX, &|row| &row.outcome);
    let integrity = if with_integrity { widest("INTEGRITY", usize::MAX, &|row| row.integrity) } else { 0 };
    let fixed = [time, occurred, place, who, action, outcome, from, integrity];
    let used: usize = fixed.iter().filter(|width| **width > 0).map(|width| width + GAP).sum();
    let room = width.checked_sub(used).filter(|room| *room >= WHAT_MIN)?;
    let what = rows.iter().map(|row| columns(&row.what)).max().unwrap_or(0).max(4).min(room);
    let line = |cells: [&str; 9]| {
        let widths = [time, occurred, place, who, action, what, outcome, from, integrity];
        let shown = cells.into_iter().zip(widths).enumerate().filter(|(_, (_, width))| *width > 0);
        let shown = shown.map(|(at, (text, width))| {
            let padded = pad(&cut(text, width), width);
            if matches!(at, 6 | 8) { coloured(&padded) } else { padded }
        });
        shown.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let titles = line([heading, "OCCURRED", "NODE/SEQ", "USER", "ACTION", "WHAT", "OUTCOME", "FROM", "INTEGRITY"]);
    let mut out = format!("{}{titles}{}\n", paint::BOLD, paint::PLAIN);
    for (row, time) in rows.iter().zip(times) {
        let Cells { occurred, place, who, action, what, outcome, from, integrity, .. } = row;
        out.push_str(&line([time, occurred, place, who, action, what, outcome, from, integrity]));
        out.push('\n');
    }
    Some(out)
}

/// Formats a row as lines: time, entry, user, action and outcome on the first line, and the description below it.
fn block(row: &Cells, time: &str, with_integrity: bool, width: usize) -> String {
    // Color only outcome and integrity: a name could contain the same text.
    let (outcome, integrity) = (coloured(&row.outcome), coloured(if with_integrity { row.integrity } else { "" }));
    let first = [time, &row.place, &row.who, &row.action, &outcome, &integrity];
    let first: Vec<&str> = first.into_iter().filter(|text| !text.is_empty()).collect();
    let mut out = wrap_after(&first.join("  "), width, "  ");
    out.push('\n');
    let occurred = if row.occurred.is_empty() { String::new() } else { format!("occurred {}", row.occurred) };
    let from = if row.from.is_empty() { String::new() } else { format!("from {}", row.from) };
    let rest: Vec<&str> =
        [&row.what, &from, &occurred].into_iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    if !rest.is_empty() {
        out.push_str(&wrap(&rest.join(" · "), width, "    "));
        out.push('\n');
    }
    out
}

/// Texts that are colored unless they are part of a longer word.
const LOUD: [(&str, &str); 5] = [
    ("VIOLATION", paint::RED),
    ("UNKNOWN KEY", paint::RED),
    ("FAILURE", paint::YELLOW),
    ("DENIED", paint::YELLOW),
    ("UNKNOWN", paint::DIM),
];

fn coloured(text: &str) -> String {
    for (word, colour) in LOUD {
        if let Some(at) = text.rfind(word)
            && (at == 0 || text[..at].ends_with(' '))
            && (at + word.len() == text.len() || text[at + word.len()..].starts_with(' '))
        {
            return format!("{}{colour}{word}{}{}", &text[..at], paint::PLAIN, &text[at + word.len()..]);
        }
    }
    text.to_owned()
}

impl Cells {
    fn of(line: &RowLine<'_>, zone: Zone, axis: Axis) -> Self {
        let body = line.entry.get();
        let view = EntryView::parse(body.as_bytes()).unwrap_or_default();
        let place = line.found_at.as_ref();
        let node = place.map_or_else(|| view.node_id.to_string(), |place| place.node_id.clone());
        let seq = place.map_or(view.seq, |place| place.seq);
        let text = |value: Option<&str>| value.map(name).unwrap_or_default();
        let who = match (view.impersonator.as_deref(), view.user.as_deref()) {
            (Some(real), Some(user)) => format!("{} as {}", name(real), name(user)),
            (_, user) => text(user),
        };
        let gone = line.erased.as_ref();
        let timestamp = gone.map_or_else(|| view.timestamp.to_string(), |gone| gone.timestamp.to_text());
        let recorded = Timestamp::parse_rfc3339(&timestamp).ok();
        let happened = view.occurred_at.as_deref().and_then(|text| Timestamp::parse_rfc3339(text).ok());
        let shown = if axis == Axis::Recorded { recorded } else { happened.or(recorded) };
        let (day, time) = match shown {
            Some(time) => (clock(time, zone, "%Y-%m-%d"), clock(time, zone, "%H:%M:%S%.3f")),
            None if timestamp.is_empty() => (String::new(), "?".to_owned()),
            None => (String::new(), escape(&timestamp).into_owned()),
        };
        let differs = |(happened, recorded): &(Timestamp, Timestamp)| {
            (happened.micros() - recorded.micros()).abs() >= SAME_TIME_MICROS
        };
        let occurred = happened.zip(recorded).filter(differs).filter(|_| axis == Axis::Recorded);
        Self {
            shown,
            day,
            time,
            occurred: occurred.map(|(happened, _)| clock(happened, zone, "%Y-%m-%d %H:%M:%S")).unwrap_or_default(),
            place: format!("{}/{seq}", escape(&node)),
            who,
            action: text(view.action.as_deref()),
            what: match (gone, &line.reason) {
                (Some(gone), _) => escape(&gone.describe()).into_owned(),
                (None, Some(reason)) if line.withheld => escape(reason).into_owned(),
                (None, _) => what(&view),
            },
            from: text(view.ip_address.as_deref()),
            outcome: match view.outcome.as_deref() {
                Some("success") => "ok".to_owned(),
                Some(other) => escape(other).to_uppercase(),
                None => String::new(),
            },
            integrity: integrity_word(line),
            sound: line.integrity == Integrity::Ok,
        }
    }
}

/// Formats a time in a zone.
pub(super) fn clock(time: Timestamp, zone: Zone, format: &str) -> String {
    zone.clock(time).0.format(format).to_string()
}

/// Escapes a name, and puts it in quotes if it begins or ends with a space, which would be invisible.
fn name(text: &str) -> String {
    if text.starts_with(' ') || text.ends_with(' ') {
        format!("\"{}\"", escape(text))
    } else {
        escape(text).into_owned()
    }
}

fn what(view: &EntryView<'_>) -> String {
    let entity = match (view.entity_type.as_deref(), view.entity_id.as_deref()) {
        (Some(kind), Some(id)) => Some(format!("{kind}/{id}")),
        (Some(kind), None) => Some(kind.to_owned()),
        _ => None,
    };
    let text =
        view.description.as_deref().map(str::to_owned).or(entity).or_else(|| view.target.as_deref().map(str::to_owned));
    escape(text.as_deref().unwrap_or_default()).into_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fields: &str, integrity: &str) -> String {
        format!(
            r#"{{"entry":{{"v":1,"node_id":"mx1","generation":"g","seq":42,"timestamp":"2026-04-15T08:00:00.123456Z","id":"i",{fields},"via":"cli"}},"signature":"s","integrity":"{integrity}","witnessed":true}}"#
        )
    }

    fn rendered(rows: &[String], width: usize, zone: &str) -> String {
        let zone = Zone::parse(zone).expect("a zone");
        let cells: Vec<Cells> = rows
            .iter()
            .map(|row| Cells::of(&serde_json::from_str::<RowLine<'_>>(row).expect("a row"), zone, Axis::Recorded))
            .collect();
        anstream::adapter::strip_str(&render(&cells, zone, width)).to_string()
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let long =
            "a sentence that is much longer than any terminal has room for, with an address, 2001:db8::1, and more";
        let rows = [
            row(
                &format!(
                    r#""user":"m.keller","category":"auth","action":"auth.login","outcome":"denied","ip_address":"203.0.113.77","description":"{long}""#
                ),
                "ok",
            ),
            row(
                r#""user":"Zürich 東京","category":"data","action":"quarantine.release","occurred_at":"2026-04-01T00:00:00Z","entity_type":"mail","entity_id":"7""#,
                "ok",
            ),
        ];
        for width in [60, 80, 99, 100, 120, 200] {
            let text = rendered(&rows, width, "UTC");
            assert!(text.lines().all(|line| columns(line) <= width), "{width}\n{text}");
            assert!(!text.contains("witnessed") && text.contains("2026-04-15"), "{text}");
            assert!(text.contains("08:00:00.123") && !text.contains("08:00:00.123456"), "{text}");
            assert!(text.contains("2026-04-01"), "when it happened is shown\n{text}");
        }
        assert!(rendered(&rows, 80, "Europe/Berlin").contains("10:00:00.123"));
    }

    #[test]
    fn what_is_not_sound_is_said_in_every_width() {
        let rows = [row(r#""user":"a","category":"auth","action":"auth.login""#, "violation")];
        for width in [60, 120] {
            assert!(rendered(&rows, width, "UTC").contains("VIOLATION"));
        }
    }
}
