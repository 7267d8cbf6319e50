//! CSV export of entries. Cells are modified to keep spreadsheets from running formulas; therefore, only the NDJSON is evidence.

use std::borrow::Cow;

use piperoll_format::entry::is_one_object;
use piperoll_format::row::Row;
use piperoll_format::verify::Integrity;
use piperoll_format::view::EntryView;

/// Column names. The first nine, which simple importers rely on, never change.
pub const COLUMNS: [&str; 37] = [
    "timestamp",
    "node_id",
    "user",
    "action",
    "target",
    "ip_address",
    "user_agent",
    "success",
    "signature",
    "integrity",
    "seq",
    "generation",
    "era",
    "id",
    "occurred_at",
    "user_type",
    "impersonator",
    "session",
    "auth_method",
    "credential",
    "category",
    "outcome",
    "reason",
    "entity_type",
    "entity_id",
    "entity_name",
    "domain",
    "peer_address",
    "method",
    "path",
    "request_id",
    "description",
    "changes",
    "details",
    "flags",
    "redacted",
    "via",
];

/// Characters with which a formula begins, including the full-width and small forms, which spreadsheets treat alike.
const FORMULA_SIGNS: [char; 13] = ['=', '+', '-', '@', '|', '＝', '＋', '－', '＠', '﹦', '﹢', '﹣', '﹫'];
/// Characters that separate cells in some locale. A program that splits text at one of them begins a new cell after it.
const CELL_SEPARATORS: [char; 5] = [';', '\t', '\n', '\r', '|'];

/// Returns whether a character is invisible: a control character, or one of the format characters (Unicode's general category Cf)
/// that occur in ordinary text.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Prefixes an apostrophe to every formula that a spreadsheet would run: at the start of the cell, and wherever a spreadsheet
/// with another locale would begin a new cell.
fn cell(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let (mut copied, mut begins) = (0, true);
    for (at, c) in text.char_indices() {
        if begins && (FORMULA_SIGNS.contains(&c) || at == 0 && matches!(c, '\t' | '\r')) {
            out.push_str(&text[copied..at]);
            out.push('\'');
            copied = at;
        }
        // A sign still counts as the first character of a cell if only white space, quotes and invisible characters precede it.
        begins = CELL_SEPARATORS.contains(&c) || begins && (c.is_whitespace() || c == '"' || is_unseen(c));
    }
    if out.is_empty() && copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// Returns the header line.
pub fn header() -> Vec<u8> {
    line(COLUMNS.map(Cow::Borrowed).iter().map(AsRef::as_ref))
}

/// Appends an entry as one line of CSV, including its line end.
pub fn write_row(row: &Row<'_>, out: &mut Vec<u8>) {
    let view = EntryView::parse(&row.body).filter(|_| is_one_object(&row.body)).unwrap_or_default();
    let signature = hex::encode(&row.mac);
    let (seq, era) = (view.seq.to_string(), view.era.to_string());
    // An entry's own `node_id` and `seq` are not reliable unless its integrity is intact, so prefer the position at which it was
    // found.
    let place = row.found_at.as_ref();
    let success = match view.outcome.as_deref() {
        Some("success") => "true",
        Some("failure" | "denied") => "false",
        _ => "",
    };
    let unreadable = String::from_utf8_lossy(&row.body);
    let text = |value: &Option<Cow<'_, str>>| value.as_deref().unwrap_or_default().to_owned();
    let raw = |value: Option<&serde_json::value::RawValue>| value.map(|v| v.get().to_owned()).unwrap_or_default();
    // A body that is no longer JSON goes into `description` in full rather than being dropped.
    let broken = row.integrity != Integrity::Ok && view.id.is_empty();
    let tombstone = row.erased.as_ref();
    let description = match tombstone {
        Some(tombstone) => tombstone.describe(),
        None if broken => unreadable.into_owned(),
        None => text(&view.description),
    };
    let cells: [String; 37] = [
        tombstone.map_or_else(|| view.timestamp.to_string(), |tombstone| tombstone.timestamp.to_text()),
        place.map_or_else(|| view.node_id.to_string(), |p| p.node_id.clone()),
        text(&view.user),
        text(&view.action),
        text(&view.target),
        text(&view.ip_address),
        text(&view.user_agent),
        success.to_owned(),
        signature,
        row.integrity.as_str().to_owned(),
        place.map_or(seq, |p| p.seq.to_string()),
        view.generation.to_string(),
        era,
        view.id.to_string(),
        text(&view.occurred_at),
        text(&view.user_type),
        text(&view.impersonator),
        text(&view.session),
        text(&view.auth_method),
        text(&view.credential),
        text(&view.category),
        text(&view.outcome),
        text(&view.reason),
        text(&view.entity_type),
        text(&view.entity_id),
        text(&view.entity_name),
        text(&view.domain),
        text(&view.peer_address),
        text(&view.method),
        text(&view.path),
        text(&view.request_id),
        description,
        raw(view.changes),
        raw(view.details),
        raw(view.flags),
        raw(view.redacted),
        view.via.to_string(),
    ];
    out.extend_from_slice(&line(cells.iter().map(String::as_str)));
}

fn line<'a>(cells: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory cannot fail.
    let _ = writer.write_record(cells.map(|c| cell(c).into_owned()));
    writer.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formula_is_neutralised_wherever_a_cell_may_begin() {
        for (text, shown) in [
            ("=1+1", "'=1+1"),
            ("a;=HYPERLINK(0)", "a;'=HYPERLINK(0)"),
            (";=1+1", ";'=1+1"),
            ("\n=1+1", "\n'=1+1"),
            ("x\t=1", "x\t'=1"),
            ("＝1＋1", "'＝1＋1"),
            ("  =1", "  '=1"),
            ("\"=1", "\"'=1"),
            ("\u{feff}@SUM(1)", "\u{feff}'@SUM(1)"),
            ("a\r\n+1;-2", "a\r\n'+1;'-2"),
            ("\tx", "'\tx"),
            ("\u{0}=1", "\u{0}'=1"),
            ("\u{1f}\u{202e}\u{2060}\u{ad}=1", "\u{1f}\u{202e}\u{2060}\u{ad}'=1"),
            ("a;\u{200e}﹦1", "a;\u{200e}'﹦1"),
        ] {
            assert_eq!(cell(text), shown);
            assert_eq!(cell(shown), shown, "neutralising again changes nothing");
        }
        for plain in ["", "a=b", "2026-01-01", "x-1", "a@b.org", "1;2"] {
            assert_eq!(cell(plain), plain);
        }
    }

    #[test]
    fn formulas_are_neutralised_and_nine_columns_lead() {
        let row = Row {
            body: Cow::Borrowed(br#"{"v":1,"node_id":"mx1","seq":1,"id":"x","user":"=cmd()","action":"auth.login","outcome":"denied","user_agent":"a,\"b\""}"#),
            mac: Cow::Borrowed(&[0xab]),
            integrity: Integrity::Ok,
            witnessed: false,
            reason: None,
            found_at: None,
            erased: None,
            withheld: false,
        };
        let mut out = Vec::new();
        write_row(&row, &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.starts_with(",mx1,'=cmd(),auth.login,,,\"a,\"\"b\"\"\",false,ab,ok,1,"), "{text}");
        assert!(
            String::from_utf8(header())
                .expect("UTF-8")
                .starts_with("timestamp,node_id,user,action,target,ip_address,user_agent,success,signature,")
        );
    }
}
