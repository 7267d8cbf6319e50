//! Prints one entry in full.

use piperoll_format::row::RowLine;
use piperoll_format::terminal::escape;
use piperoll_format::verify::Integrity;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::rows::integrity_word;
use super::terminal::{paint, terminal_width, width};
use super::text::{columns, wrap};

/// Width of the names, in columns.
const NAME_WIDTH: usize = 14;
/// Length of JSON above which a value is spread over several lines.
const ONE_LINE_BYTES_MAX: usize = 60;
/// Number of nesting levels that are spread over lines; deeper levels stay JSON text.
const LEVELS_MAX: usize = 8;

/// Formats every field of the entry on its own line, followed by the result of its verification.
pub(crate) fn detail(line: &RowLine<'_>) -> String {
    let mut out = String::new();
    let colour = if line.integrity == Integrity::Ok { paint::GREEN } else { paint::RED };
    let mut put = |name: &str, value: &str| out.push_str(&named(name, value));
    if let Some(place) = &line.found_at {
        put("found at", &format!("{}/{}", place.node_id, place.seq));
    }
    match fields(line.entry.get()) {
        Some(fields) => {
            for (name, value) in fields {
                for text in texts(&name, value.get()) {
                    put(&text.0, &text.1);
                }
            }
        }
        None if line.erased.is_some() || line.withheld => {}
        None => put("raw bytes", line.entry.get()),
    }
    match &line.erased {
        Some(gone) => put("timestamp", &gone.timestamp.to_text()),
        None if line.withheld => {}
        None => put("signature", &line.signature),
    }
    let word = if line.erased.is_some() { "" } else { integrity_word(line) };
    out.push_str(&format!("{:>NAME_WIDTH$}  {colour}{word}{}", "integrity", paint::PLAIN));
    if let Some(gone) = &line.erased {
        out.push_str(&escape(&gone.describe()));
    } else if let Some(reason) = &line.reason {
        out.push_str(&format!(": {}", escape(reason)));
    }
    if line.integrity == Integrity::Ok && !line.withheld {
        let message = "(the MAC is valid: that is proof for those who trust the node's MAC key; checkpoints are proof for everyone else)";
        out.push_str(&format!("\n{}", wrap(message, usize::from(width()), &" ".repeat(NAME_WIDTH + 2))));
    }
    out.push('\n');
    out
}

/// Formats one field. On a terminal, a long value is wrapped; for other programs, the field is a single line.
fn named(name: &str, value: &str) -> String {
    let value = escape(value);
    let (name, room) = (escape(name), terminal_width().map(|width| width.saturating_sub(NAME_WIDTH + 2)));
    match room.filter(|room| columns(&value) > *room) {
        None => format!("{name:>NAME_WIDTH$}  {value}\n"),
        Some(_) => {
            let indent = " ".repeat(NAME_WIDTH + 2 + value.len() - value.trim_start().len());
            let wrapped = wrap(value.trim_start(), terminal_width().unwrap_or_default(), &indent);
            format!("{name:>NAME_WIDTH$}{}\n", wrapped.get(NAME_WIDTH..).unwrap_or_default())
        }
    }
}

/// Splits a field into lines; only the first line has the field's name.
fn texts(name: &str, json: &str) -> Vec<(String, String)> {
    let lines = match name {
        "changes" => changes(json),
        "flags" => flags(json),
        "details" => fields(json).map(|members| spread(&members, 0)),
        _ => None,
    };
    let lines = lines.filter(|lines| !lines.is_empty()).unwrap_or_else(|| vec![plain(json)]);
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    names.map(str::to_owned).zip(lines).collect()
}

/// Returns a string without its quotes, and other values as JSON text.
fn plain(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())
}

/// Formats changes, such as `price: 10 → 12`.
fn changes(json: &str) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Change<'a> {
        field: String,
        #[serde(borrow)]
        old: Option<&'a RawValue>,
        #[serde(borrow)]
        new: Option<&'a RawValue>,
    }
    let list: Vec<Change<'_>> = serde_json::from_str(json).ok()?;
    let side = |value: Option<&RawValue>| value.map_or_else(|| "(nothing)".to_owned(), |value| value.get().to_owned());
    Some(
        list.into_iter()
            .map(|change| format!("{}: {} → {}", change.field, side(change.old), side(change.new)))
            .collect(),
    )
}

/// Formats flags, such as `failed_logins: 5 failed logins …`.
fn flags(json: &str) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Flag {
        rule: String,
        reason: String,
    }
    let list: Vec<Flag> = serde_json::from_str(json).ok()?;
    Some(list.into_iter().map(|flag| format!("{}: {}", flag.rule, flag.reason)).collect())
}

type Members = Vec<(String, Box<RawValue>)>;

/// Formats the members of an object, one per line. Long nested objects are spread over indented lines.
fn spread(members: &Members, level: usize) -> Vec<String> {
    let indent = "  ".repeat(level);
    let mut lines = Vec::new();
    for (name, value) in members {
        let json = value.get();
        match fields(json).filter(|_| json.len() > ONE_LINE_BYTES_MAX && level < LEVELS_MAX) {
            Some(inner) => {
                lines.push(format!("{indent}{name}:"));
                lines.extend(spread(&inner, level + 1));
            }
            None => lines.push(format!("{indent}{name}: {}", plain(json))),
        }
    }
    lines
}

/// Returns the members of an object in their original order.
fn fields(json: &str) -> Option<Members> {
    piperoll_node::sources::Pairs::parse(json).map(|pairs| pairs.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_flags_and_details_are_lines() {
        let lines = |name: &str, json: &str| {
            texts(name, json).into_iter().map(|(name, text)| format!("{name}|{text}")).collect::<Vec<_>>()
        };
        assert_eq!(
            lines("changes", r#"[{"field":"price","old":10,"new":12.50},{"field":"role","new":"admin"}]"#),
            ["changes|price: 10 → 12.50", "|role: (nothing) → \"admin\""]
        );
        assert_eq!(lines("flags", r#"[{"rule":"new_device","reason":"why"}]"#), ["flags|new_device: why"]);
        assert_eq!(
            lines(
                "details",
                r#"{"a":"x","n":1.50,"long":{"first":"0123456789012345678901234567890","second":"0123456789012345678901234567890"}}"#
            ),
            [
                "details|a: x",
                "|n: 1.50",
                "|long:",
                "|  first: 0123456789012345678901234567890",
                "|  second: 0123456789012345678901234567890"
            ]
        );
        // A value of an unexpected form is shown unchanged.
        assert_eq!(lines("changes", r#"{"x":1}"#), [r#"changes|{"x":1}"#]);
        assert_eq!(lines("details", "{}"), ["details|{}"]);
    }
}
