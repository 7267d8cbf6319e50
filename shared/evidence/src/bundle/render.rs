//! Formats a verdict as text.

use std::fmt::Write as _;

use super::manifest::Manifest;
use super::verdict::{NodeVerdict, Verdict};
use piperoll_format::terminal::escape;
use piperoll_format::time::Timestamp;
use piperoll_query::filter::Filter;

/// Outcome of a verification, as an exit code. All Piperoll commands that read entries use the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Complete and verified.
    Verified = 0,
    /// Not checked against trusted keys, but at most against the keys in the bundle.
    Unchecked = 1,
    /// No conclusion: the file or the trust file is not the intended one.
    Usage = 2,
    /// Authentic, but something that should be in the bundle is missing.
    Incomplete = 3,
    /// Altered or forged: not what its signers signed.
    Refused = 4,
}

impl Outcome {
    /// Derives the outcome from a verdict. A bundle that could not be checked takes precedence, then a refusal, then missing
    /// trust, then missing parts.
    pub fn of(verdict: &Verdict) -> Self {
        if verdict.not_checked {
            Self::Usage
        } else if !verdict.is_sound() {
            Self::Refused
        } else if !verdict.trusted {
            Self::Unchecked
        } else if verdict.complete || verdict.complete_since.is_some() {
            Self::Verified
        } else {
            Self::Incomplete
        }
    }

    /// Returns the outcome's name for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unchecked => "unchecked",
            Self::Usage => "not_checked",
            Self::Incomplete => "incomplete",
            Self::Refused => "refused",
        }
    }
}

/// Formats everything that an auditor needs to know, including what was not checked.
pub fn render_verdict(verdict: &Verdict, outcome: Outcome) -> String {
    let mut out = String::new();
    if outcome == Outcome::Usage {
        let why = verdict.findings.first().map_or("", |finding| finding.what.as_str());
        return format!("NOT CHECKED: {}\n", escape(why));
    }
    if let Some(manifest) = &verdict.manifest {
        heading(&mut out, manifest);
    }
    if let Some(head) = &verdict.archive {
        let (from, last) = (head.from_seq, head.to_seq.saturating_sub(1));
        let _ = writeln!(
            out,
            "Rows {from} to {last} of {}/{}, archived before they were pruned\n",
            head.cluster, head.node_id
        );
    }
    for node in &verdict.nodes {
        line(&mut out, node);
    }
    for note in &verdict.notes {
        let _ = writeln!(out, "  NOTE   {}", escape(note));
    }
    for finding in &verdict.findings {
        let node = finding.node_id.as_deref().map(|id| format!("{id}: ")).unwrap_or_default();
        let _ = writeln!(out, "  WRONG  {}{}", escape(&node), escape(&finding.what));
    }
    if verdict.findings_count > verdict.findings.len() {
        let _ = writeln!(out, "  and {} more", verdict.findings_count - verdict.findings.len());
    }
    let _ = writeln!(out, "\n{}", conclusion(verdict, outcome));
    out
}

fn heading(out: &mut String, manifest: &Manifest) {
    let asked = &manifest.asked;
    let bound = |time: Timestamp| match time {
        Timestamp::MIN => "the beginning".to_owned(),
        Timestamp::MAX => format!("the export at {}", manifest.created),
        time => time.to_text(),
    };
    let what = match Filter::parse_stored(&asked.filter, manifest.created) {
        Ok(filter) if filter.is_empty() => "every entry".to_owned(),
        Ok(filter) => format!("entries that match {}", filter.typed()),
        Err(_) => format!("entries that match {}", asked.filter),
    };
    let _ = writeln!(
        out,
        "Evidence from {}, exported {} by {}",
        manifest.cluster,
        manifest.created,
        escape(&manifest.exporter)
    );
    let _ = writeln!(out, "  requested by {}: {}", escape(&asked.by), escape(&asked.reason));
    let _ = writeln!(out, "  {} from {} to {}\n", escape(&what), bound(asked.from), bound(asked.to));
}

fn line(out: &mut String, node: &NodeVerdict) {
    let _ = write!(out, "  {:<12} ", escape(&node.node_id));
    match (&node.missing, node.size, node.witnessed_at) {
        (Some(why), ..) => {
            let _ = write!(out, "MISSING  {}", escape(why));
        }
        (None, Some(size), Some(time)) => {
            let _ = write!(
                out,
                "{}; {} witnessed, last at {time}",
                counted(node.rows, "entry", "entries"),
                counted(size, "row was", "rows were")
            );
            if node.unproven.is_some() {
                let _ = write!(out, "; {} of them not shown", node.withheld);
            }
            if let Some(pruned) = node.pruned {
                let _ = write!(out, "; rows below {pruned} were pruned by the node");
                if let Some(since) = node.complete_since {
                    let _ = write!(out, " after the policy's retention period; nothing is missing from {since} on");
                }
            }
            if node.erased > 0 {
                let _ = write!(
                    out,
                    "; the content of {} of the entries was erased, as recorded in entries shown here",
                    node.erased
                );
            }
            if let Some(erased) = node.erased_apart {
                let rows = if erased == 1 { "row of the range is" } else { "rows of the range are" };
                let _ = write!(
                    out,
                    "; {erased} erased {rows} not shown, according to the exporter: only the erased content could show whether the filter matches"
                );
            }
        }
        (None, ..) => {
            let _ = write!(out, "not part of the query ({})", escape(&node.status));
        }
    }
    out.push('\n');
    for log in &node.earlier {
        let (generation, size) = (log.generation.as_deref().unwrap_or_default(), log.size.unwrap_or_default());
        let time = log.witnessed_at.map(Timestamp::to_text).unwrap_or_default();
        let _ = write!(
            out,
            "  {:<12} {} of its archived log, generation {}; {} witnessed, last at {time}",
            "",
            counted(log.rows, "entry", "entries"),
            escape(generation),
            counted(size, "row was", "rows were")
        );
        if log.unproven.is_some() {
            let _ = write!(out, "; {} of them not shown", log.withheld);
        }
        if let Some(pruned) = log.pruned {
            let _ = write!(out, "; rows below {pruned} were pruned by the node");
        }
        if log.erased > 0 {
            let _ = write!(
                out,
                "; the content of {} of the entries was erased, as recorded in entries shown here",
                log.erased
            );
        }
        out.push('\n');
    }
}

/// Formats a number with its noun in singular or plural.
fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn conclusion(verdict: &Verdict, outcome: Outcome) -> String {
    let rows = counted(verdict.rows, "entry", "entries");
    let authentic = "each byte for byte as its node recorded and signed it, and as a witness saw it";
    match outcome {
        Outcome::Refused => {
            "REFUSED: the bundle is not what its signers produced. Keep it unchanged, and find out where it was altered."
                .to_owned()
        }
        Outcome::Usage => "NOT CHECKED".to_owned(),
        Outcome::Unchecked => format!(
            "UNCHECKED (self-asserted): {rows} checked only against the keys in the bundle itself. Anyone who forged the \
             entries could have replaced those keys as well. Verify again with --trust and a trust file from the cluster's administrators."
        ),
        Outcome::Incomplete => {
            let missing: Vec<&str> =
                verdict.nodes.iter().filter(|node| node.missing.is_some()).map(|node| node.node_id.as_str()).collect();
            format!("INCOMPLETE: {rows}, {authentic}; missing or incomplete: {}.", escape(&missing.join(", ")))
        }
        Outcome::Verified if verdict.archive.is_some() => {
            format!("VERIFIED: {rows}, {authentic}. None of these rows is missing.")
        }
        Outcome::Verified if verdict.complete_since.is_some() => {
            let since = verdict.complete_since.map(Timestamp::to_text).unwrap_or_default();
            format!(
                "VERIFIED: {rows}, {authentic}. From {since} on, nothing in this range is missing; older entries were kept for as long \
                 as the cluster's policy requires, and then pruned."
            )
        }
        Outcome::Verified if verdict.proven => {
            format!("VERIFIED: {rows}, {authentic}. Nothing in this range is missing.")
        }
        Outcome::Verified => format!(
            "VERIFIED: {rows}, {authentic}. The export is filtered, so it is not proven that no matching entry was left out."
        ),
    }
}
