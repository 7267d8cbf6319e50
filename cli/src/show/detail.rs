//! One entry, whole.

use piperoll_shared::log::row::RowLine;
use piperoll_shared::log::terminal::escape;
use piperoll_shared::log::verify::Integrity;
use serde_json::value::RawValue;

use super::paint;
use super::table::integrity_word;

/// Every field of the entry on its own line, then what was concluded about it.
pub(crate) fn detail(line: &RowLine<'_>) -> String {
    let mut out = String::new();
    let colour = if line.integrity == Integrity::Ok { paint::GREEN } else { paint::RED };
    let mut put = |name: &str, value: &str| out.push_str(&format!("{:>14}  {}\n", escape(name), escape(value)));
    if let Some(place) = &line.found_at {
        put("found at", &format!("{}/{}", place.node_id, place.seq));
    }
    match fields(line.entry) {
        Some(fields) => {
            for (name, value) in fields {
                let text = serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned());
                put(&name, &text);
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
    out.push_str(&format!("{:>14}  {colour}{word}{}", "integrity", paint::PLAIN));
    if let Some(gone) = &line.erased {
        out.push_str(&escape(&gone.words()));
    } else if let Some(reason) = &line.reason {
        out.push_str(&format!(": {}", escape(reason)));
    }
    if line.integrity == Integrity::Ok && !line.withheld {
        out.push_str("\n                (the mac fits; whoever holds the node's secret could have made it)");
    }
    out.push('\n');
    out
}

/// The fields in the order they stand in the body.
fn fields(entry: &RawValue) -> Option<Vec<(String, Box<RawValue>)>> {
    piperoll_node::intake::Pairs::parse(entry.get()).map(|pairs| pairs.0)
}
