//! Prints the completeness statement to stderr, followed by the report of each node if there is more to report.

use comfy_table::{ContentArrangement, Table};
use piperoll_format::terminal::escape;
use piperoll_format::time::span;
use piperoll_protocol::aggregator::{Envelope, NodeReport, Status};
use piperoll_protocol::verdict::Verdict;

use super::rows::TABLE_WIDTH_MIN;
use super::terminal::{counted, group_digits, paint, width};
use super::text::{columns, wrap};

/// Gap between two columns, and minimum width of a reason.
const GAP: usize = 2;
const REASON_MIN: usize = 24;
/// Uncertainty of the row order, in milliseconds, below which it is not mentioned.
const ORDER_UNCERTAIN_MS_MIN: f64 = 1_000.0;

/// Formats every node as a line of a table, colored by status, or as a block of lines if the terminal is narrow.
pub(crate) fn node_table(nodes: &[NodeReport]) -> String {
    let width = usize::from(width());
    if width < TABLE_WIDTH_MIN.max(fixed_columns(nodes) + REASON_MIN) {
        return nodes.iter().map(|node| node_block(node, width)).collect();
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width.try_into().unwrap_or(u16::MAX));
    table.set_header(["NODE", "STATUS", "VERDICT", "ROWS", "INVALID", "HEAD", "LAST SEEN", "CLOCK", "TOOK", "REASON"]);
    for node in nodes {
        table.add_row([
            escape(&node.node_id).into_owned(),
            node.status.as_str().to_uppercase(),
            node.verdict.to_string(),
            group_digits(node.rows),
            group_digits(node.invalid),
            head(node),
            last_seen(node),
            clock(node),
            took(node),
            escape(node.reason.as_deref().unwrap_or("")).into_owned(),
        ]);
    }
    let text = table.to_string();
    let mut out = String::new();
    for (number, line) in text.lines().enumerate() {
        let mut line = line.trim_end().to_owned();
        // Do not color the heading.
        if number > 0
            && let Some((at, word)) = nodes.iter().filter(|node| is_bad(node.status)).find_map(|node| {
                let word = node.status.as_str().to_uppercase();
                line.find(&format!(" {word} ")).map(|at| (at, word))
            })
        {
            line.replace_range(at + 1..at + 1 + word.len(), &format!("{}{word}{}", paint::RED, paint::PLAIN));
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// Returns the total width that the columns other than the reason need so that no name, word or number is broken.
fn fixed_columns(nodes: &[NodeReport]) -> usize {
    let widest = |title: &str, text: &dyn Fn(&NodeReport) -> String| {
        nodes.iter().map(|node| columns(&text(node))).max().unwrap_or(0).max(title.len()) + GAP
    };
    [
        widest("NODE", &|node| escape(&node.node_id).into_owned()),
        widest("STATUS", &|node| node.status.as_str().to_owned()),
        widest("VERDICT", &|node| node.verdict.to_string()),
        widest("ROWS", &|node| group_digits(node.rows)),
        widest("INVALID", &|node| group_digits(node.invalid)),
        widest("HEAD", &head),
        widest("LAST SEEN", &last_seen),
        widest("CLOCK", &clock),
        widest("TOOK", &took),
    ]
    .iter()
    .sum()
}

fn is_bad(status: Status) -> bool {
    !matches!(status, Status::Ok | Status::Archived | Status::Excluded | Status::Retired)
}

fn node_block(node: &NodeReport, width: usize) -> String {
    let status = node.status.as_str().to_uppercase();
    let status = if is_bad(node.status) { format!("{}{status}{}", paint::RED, paint::PLAIN) } else { status };
    let facts = [
        counted(node.rows, "row", "rows"),
        format!("head {}", head(node)),
        format!("last seen {}", last_seen(node)),
        format!("clock {}", clock(node)),
        format!("took {}", took(node)),
    ];
    let invalid = if node.invalid > 0 { format!(", {} invalid", group_digits(node.invalid)) } else { String::new() };
    let mut out = format!("{}  {status}  {}\n", escape(&node.node_id), node.verdict);
    out.push_str(&wrap(&format!("{}{invalid}", facts.join(", ")), width, "    "));
    out.push('\n');
    if let Some(reason) = &node.reason {
        out.push_str(&wrap(&escape(reason), width, "    "));
        out.push('\n');
    }
    out
}

/// Formats the number of the newest row, preceded by that of the oldest if the log no longer begins at 0.
fn head(node: &NodeReport) -> String {
    match (node.oldest_seq, node.head_seq) {
        (Some(oldest), Some(head)) if oldest > 0 => format!("{}…{}", group_digits(oldest), group_digits(head)),
        (_, Some(head)) => group_digits(head),
        (_, None) => "-".to_owned(),
    }
}

fn last_seen(node: &NodeReport) -> String {
    node.last_seen.as_deref().map_or("never".to_owned(), |t| t.get(11..19).unwrap_or(t).to_owned())
}

fn clock(node: &NodeReport) -> String {
    match (node.clock_offset_ms, node.clock_uncertainty_ms) {
        (Some(offset), Some(uncertainty)) => format!("{offset:+.1}±{uncertainty:.1} ms"),
        _ => "-".to_owned(),
    }
}

fn took(node: &NodeReport) -> String {
    node.took_ms.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"))
}

/// Formats milliseconds, rounded to the second.
fn seconds(ms: f64) -> String {
    span(std::time::Duration::from_secs((ms / 1_000.0).round() as u64))
}

/// Whether the summary is sufficient because there is nothing to report about individual nodes.
pub(crate) fn all_is_well(envelope: &Envelope) -> bool {
    let well = |node: &NodeReport| {
        (node.status == Status::Excluded && !is_held_against(node))
            || (node.status == Status::Ok && node.verdict == Verdict::Ok && node.invalid == 0)
            || (node.status == Status::Pruned && node.verdict == Verdict::Pruned && envelope.complete_since.is_some())
    };
    envelope.is_whole() && envelope.nodes.iter().all(well)
}

/// Whether a witness, or an earlier read, has found something wrong with the node's log.
fn is_held_against(node: &NodeReport) -> bool {
    matches!(
        node.verdict,
        Verdict::RowInvalid | Verdict::Rollback | Verdict::Fork | Verdict::UnknownKey | Verdict::FirstSeenAgain
    )
}

/// Summarizes what can be trusted: what was read, from which nodes, which nodes are missing, and what is proven. Each sentence is
/// a separate line, unless there is nothing to report about individual nodes.
pub(crate) fn envelope_summary(envelope: &Envelope) -> Vec<String> {
    let rows = counted(envelope.count, "row", "rows");
    let invalid: u64 = envelope.nodes.iter().map(|n| n.invalid).sum();
    let missing: Vec<&str> = envelope
        .nodes
        .iter()
        .filter(|n| !matches!(n.status, Status::Ok | Status::Archived | Status::Excluded))
        .map(|n| n.node_id.as_str())
        .collect();
    let newest_first = envelope.order == "desc";
    let of = |answered: usize| format!("{answered} of {} answered", counted(envelope.expected as u64, "node", "nodes"));
    let green = |message: &str| format!("{}{message}{}", paint::GREEN, paint::PLAIN);
    // An archive was read instead of nodes that did not answer, so what they recorded later is not known.
    let as_of = envelope.as_of.as_ref().map(|time| format!(" AS OF {}", escape(time))).unwrap_or_default();
    let head = if envelope.complete && envelope.more {
        let which = if newest_first { "newest" } else { "oldest" };
        format!(
            "{}: the {which} {rows} {} shown and there are more; {}",
            green(&format!("PAGE COMPLETE{as_of}")),
            if envelope.count == 1 { "is" } else { "are" },
            of(envelope.answered)
        )
    } else if envelope.complete {
        format!("{}: {rows}, {}", green(&format!("COMPLETE{as_of}")), of(envelope.answered))
    } else if let Some(since) = &envelope.complete_since {
        let is_kept = |n: &&NodeReport| matches!(n.status, Status::Ok | Status::Archived) || n.complete_since.is_some();
        let kept = envelope.nodes.iter().filter(is_kept).count();
        format!(
            "{}: {rows}{}, {}; older rows were pruned after their retention period",
            green(&format!("COMPLETE SINCE {since}")),
            if envelope.more { " on this page, and there are more" } else { "" },
            of(kept)
        )
    } else {
        let towards = if newest_first { "back to" } else { "up to" };
        let through = match &envelope.complete_through {
            Some(time) => format!("nothing is missing {towards} {time}"),
            None => "no part of the range is known to be complete".to_owned(),
        };
        format!(
            "{}NOT COMPLETE{}: {rows}, {} in full; missing: {}; {through}",
            paint::RED,
            paint::PLAIN,
            of(envelope.answered),
            missing.join(", ")
        )
    };
    let broken = if invalid > 0 {
        format!("; {}{} verification{}", paint::RED, counted(invalid, "row fails", "rows fail"), paint::PLAIN)
    } else {
        String::new()
    };
    let mut lines = vec![format!("{head}{broken}")];
    let proven = escape(&envelope.completeness).into_owned();
    if all_is_well(envelope) && !proven.is_empty() {
        lines[0] = format!("{}; {proven}", lines[0]);
    } else if !proven.is_empty() {
        lines.push(proven);
    }
    let held = envelope.nodes.iter().filter(|node| is_held_against(node));
    let held: Vec<String> = held.map(|node| format!("{}: {}", escape(&node.node_id), node.verdict)).collect();
    if !held.is_empty() {
        let message = format!("{}UNRESOLVED VERDICT{}", paint::RED, paint::PLAIN);
        lines.push(format!("{message}: {}; `piperoll nodes` shows why", held.join(", ")));
    }
    for archive in &envelope.archives {
        let rows = counted(archive.rows, "row", "rows");
        let name = escape(&archive.archive);
        lines.push(match &archive.reason {
            None => format!("{rows} from {name} (step {})", archive.step),
            Some(reason) => format!("{rows} from {name}, which could not be read in full: {}", escape(reason)),
        });
    }
    match envelope.order_uncertainty_ms {
        Some(ms) if ms < ORDER_UNCERTAIN_MS_MIN => {}
        Some(ms) => lines.push(format!(
            "the order of rows from different nodes is uncertain by {}, because their clocks differ",
            seconds(ms)
        )),
        None => lines.push(
            "the order of rows from different nodes is unknown, because their clocks have not been measured yet"
                .to_owned(),
        ),
    }
    if let Some(cursor) = envelope.next_cursor.as_ref().filter(|_| envelope.more) {
        lines.push("there are more rows: raise --limit, narrow the filter, or continue with".to_owned());
        lines.push(format!("--cursor {}", escape(cursor)));
    }
    lines
}
