//! The node table that ends every reading command, on stderr.

use comfy_table::{ContentArrangement, Table};
use piperoll_shared::api::aggregator::{Envelope, NodeReport, Status};
use piperoll_shared::log::terminal::escape;

use super::{counted, group_digits, paint, width};

/// The table of nodes, coloured by status.
pub(crate) fn node_table(nodes: &[NodeReport]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width());
    table.set_header(["NODE", "STATUS", "VERDICT", "ROWS", "INVALID", "HEAD", "LAST SEEN", "CLOCK", "TOOK", "REASON"]);
    for node in nodes {
        table.add_row([
            escape(&node.node_id).into_owned(),
            node.status.as_str().to_uppercase(),
            escape(&node.verdict).into_owned(),
            group_digits(node.rows),
            group_digits(node.invalid),
            head(node),
            node.last_seen.as_deref().map_or("never".to_owned(), |t| t.get(11..19).unwrap_or(t).to_owned()),
            match (node.clock_offset_ms, node.clock_uncertainty_ms) {
                (Some(offset), Some(uncertainty)) => format!("{offset:+.1}±{uncertainty:.1} ms"),
                _ => "-".to_owned(),
            },
            node.took_ms.map_or("-".to_owned(), |ms| format!("{ms:.0} ms")),
            escape(node.reason.as_deref().unwrap_or("")).into_owned(),
        ]);
    }
    let text = table.to_string();
    let mut out = String::new();
    for line in text.lines() {
        let mut line = line.trim_end().to_owned();
        for status in [
            Status::Unreachable,
            Status::Timeout,
            Status::Incomplete,
            Status::Error,
            Status::Invalid,
            Status::Pruned,
            Status::Superseded,
        ] {
            let word = status.as_str().to_uppercase();
            if let Some(at) = line.find(&format!(" {word} ")) {
                line.replace_range(at + 1..at + 1 + word.len(), &format!("{}{word}{}", paint::RED, paint::PLAIN));
                break;
            }
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// The newest row, with the oldest in front when the log does not begin at 0 any more.
fn head(node: &NodeReport) -> String {
    match (node.oldest_seq, node.head_seq) {
        (Some(oldest), Some(head)) if oldest > 0 => format!("{}…{}", group_digits(oldest), group_digits(head)),
        (_, Some(head)) => group_digits(head),
        (_, None) => "-".to_owned(),
    }
}

/// One sentence that can be trusted: what was read, from whom, and who is missing.
pub(crate) fn envelope_summary(envelope: &Envelope) -> String {
    let rows = group_digits(envelope.count);
    let invalid: u64 = envelope.nodes.iter().map(|n| n.invalid).sum();
    let missing: Vec<&str> = envelope
        .nodes
        .iter()
        .filter(|n| !matches!(n.status, Status::Ok | Status::Excluded))
        .map(|n| n.node_id.as_str())
        .collect();
    let order = match envelope.order_uncertainty_ms {
        Some(ms) => format!("order between nodes uncertain by {ms:.1} ms"),
        None => "order between nodes unknown (clocks not measured yet)".to_owned(),
    };
    let newest_first = envelope.order == "desc";
    let head = if envelope.complete && envelope.more {
        let which = if newest_first { "newest" } else { "oldest" };
        format!(
            "{}PAGE COMPLETE{}: the {which} {rows} rows are shown and there are more; {} of {} nodes answered",
            paint::GREEN,
            paint::PLAIN,
            envelope.answered,
            envelope.expected
        )
    } else if envelope.complete {
        format!(
            "{}COMPLETE{}: {rows} rows, {} of {} nodes answered",
            paint::GREEN,
            paint::PLAIN,
            envelope.answered,
            envelope.expected
        )
    } else if let Some(since) = &envelope.complete_since {
        format!(
            "{}COMPLETE SINCE {since}{}: {rows} rows{}, {} of {} nodes answered; older rows were pruned when their time had come",
            paint::GREEN,
            paint::PLAIN,
            if envelope.more { " of a page, and there are more" } else { "" },
            envelope.nodes.iter().filter(|n| n.status == Status::Ok || n.complete_since.is_some()).count(),
            envelope.expected
        )
    } else {
        let towards = if newest_first { "back to" } else { "up to" };
        let through = match &envelope.complete_through {
            Some(time) => format!("nothing is missing {towards} {time}"),
            None => "nothing can be said about any part of the range".to_owned(),
        };
        format!(
            "{}NOT COMPLETE{}: {rows} rows, {} of {} nodes answered in full; not {}; {through}",
            paint::RED,
            paint::PLAIN,
            envelope.answered,
            envelope.expected,
            missing.join(", ")
        )
    };
    let broken = if invalid > 0 {
        format!("; {}{} verification{}", paint::RED, counted(invalid, "row fails", "rows fail"), paint::PLAIN)
    } else {
        String::new()
    };
    let more = match &envelope.next_cursor {
        Some(cursor) if envelope.more => {
            format!(
                "\nthere are more rows: raise --limit, narrow the filter, or continue with --cursor {}",
                escape(cursor)
            )
        }
        _ => String::new(),
    };
    format!("{head}{broken}; {order}\n{}{more}", escape(&envelope.completeness))
}
