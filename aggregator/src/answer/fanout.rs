//! Outcome of every node of a query, and the completeness statement.

use piperoll_evidence::bundle::PolicyFit;
use piperoll_format::cursor::{Cursor, Head, Incomplete, Snapshot};
use piperoll_format::ids::NodeId;
use piperoll_format::order::{Key, Order};
use piperoll_format::time::Timestamp;
use piperoll_protocol::aggregator::{Envelope, NodeReport, Status};
use piperoll_protocol::verdict::Verdict;

use crate::answer::archived::{archives, as_of, read_instead};
use crate::answer::outcome::NodeOutcome;
use crate::cluster::witness::log_start::LogStart;
use crate::cluster::witness::status::WitnessStatus;
use crate::scan::node_reader::COUNTED_THERE;
use crate::scan::proof_verifier::RangeCompleteness;
use crate::scan::query::Query;

/// Maximum number of characters that a cursor keeps of the reason why a node is incomplete.
const CURSOR_REASON_CHARS_MAX: usize = 120;

impl NodeOutcome {
    /// Returns the outcome to report for this query. Even a node that answers in full lacks rows of the range if they were only
    /// in a superseded log that was not read.
    pub(crate) fn within(&self, query: &Query) -> Self {
        let mut part = self.snapshot();
        if part.status == Status::Excluded || query.one_row {
            return part;
        }
        let joined = part.member.node.life.from;
        let silent = matches!(part.status, Status::Unreachable | Status::Timeout | Status::Error);
        if query.to <= joined && silent && part.member.witness.saw_rows_in(query.from, query.to).is_none() {
            // The node joined after the range. It is queried anyway because its clock may have been wrong, but it does not
            // count as missing.
            part.status = Status::Excluded;
            part.reason = Some(format!("joined the cluster at {joined}, after this range"));
            return part;
        }
        part.hold_against_policy(query);
        part.let_go(query);
        if let Some(lost) = part.member.witness.lost_in(query.from, query.to, &part.read) {
            if matches!(part.status, Status::Ok | Status::Archived | Status::Pruned) {
                let pruned = part.reason.take().map(|message| format!("; {message}")).unwrap_or_default();
                part.since = None;
                part.status = Status::Superseded;
                let unread: String = part.unread.iter().map(|message| format!("; {message}")).collect();
                part.reason = Some(format!("{}{pruned}{unread}", lost.message));
            }
            part.counters.proof =
                RangeCompleteness::Not("rows of this range were in a log that was replaced".to_owned());
            part.lost = Some(lost);
        }
        part
    }

    /// Determines whether pruned rows were kept for as long as the cluster's policy requires, were pruned too early, or
    /// cannot be shown to have been kept.
    fn hold_against_policy(&mut self, query: &Query) {
        if query.all_there {
            // The query does not ask for pruned rows, so a proof from the first retained row on covers the complete range.
            if let RangeCompleteness::Since(_) = self.counters.proof {
                self.counters.proof = RangeCompleteness::Whole;
            }
            return;
        }
        if self.status != Status::Pruned || self.held {
            return;
        }
        self.held = true;
        let floor = self.counters.floor.and_then(|to_seq| self.member.witness.floor(to_seq));
        let early = self.member.witness.pruned_early(query.from);
        let message = match (early, floor) {
            (Some(message), _) => {
                self.early = true;
                message
            }
            (None, Some(LogStart { fit: PolicyFit::Kept, since, .. })) => {
                let proven = if let RangeCompleteness::Since(time) = self.counters.proof { time } else { since };
                self.since = Some(since.max(proven).max(query.from));
                "they had been kept for as long as the cluster's policy requires".to_owned()
            }
            (None, Some(LogStart { fit: PolicyFit::Unshown(message) | PolicyFit::Early(message), .. })) => message,
            (None, None) => {
                "the entry that records the prune has not been read and checked against the policy yet".to_owned()
            }
        };
        let reason = self.reason.take().unwrap_or_default();
        self.reason = Some(format!("{reason}; {message}"));
    }

    /// Accounts for logs of the range that were pruned together with the first rows of their successor: their rows count
    /// as pruned, not as missing.
    fn let_go(&mut self, query: &Query) {
        if query.all_there || !matches!(self.status, Status::Ok | Status::Archived | Status::Pruned) {
            return;
        }
        let Some(gone) = self.member.witness.gone_in(query.from, query.to, &self.read) else { return };
        let since = gone.until.plus_micros(1);
        if matches!(self.status, Status::Ok | Status::Archived) {
            // The current log has not lost any row of the range; only rows of the deleted log are gone.
            self.status = Status::Pruned;
            self.since = Some(since);
            self.reason =
                Some(format!("{}; they had been kept for as long as the cluster's policy requires", gone.message));
            self.held = true;
        }
        self.since = self.since.map(|known| known.max(since));
        self.counters.proof = match std::mem::replace(&mut self.counters.proof, RangeCompleteness::Whole) {
            RangeCompleteness::Whole => RangeCompleteness::Since(since),
            RangeCompleteness::Since(known) => RangeCompleteness::Since(known.max(since)),
            not @ RangeCompleteness::Not(_) => not,
        };
    }

    pub(crate) fn report(&self, rows: u64) -> NodeReport {
        let clock = self.member.clock();
        let standing = self.member.witness.standing();
        let ms = |micros: i64| micros as f64 / 1_000.0;
        NodeReport {
            node_id: self.member.node.id.to_string(),
            generation: self.generation.map(|g| g.to_string()),
            status: self.status,
            proven: Some(self.counters.proof == RangeCompleteness::Whole),
            complete_since: self.since.map(Timestamp::to_text),
            unproven: match &self.counters.proof {
                RangeCompleteness::Whole => None,
                RangeCompleteness::Since(time) => {
                    Some(format!("proven complete from {time} on; older rows were pruned"))
                }
                RangeCompleteness::Not(message) => Some(message.clone()),
            },
            rows_witnessed: self.counters.witnessed,
            verdict: self.verdict(&standing),
            witnessed: standing.size,
            witnessed_at: standing.seen.map(|seen| seen.to_text()),
            unwitnessed: self
                .head_seq
                .map(|head| head.saturating_add(1).saturating_sub(standing.size.unwrap_or_default())),
            reason: match (&self.reason, &standing.reason) {
                // Report both reasons.
                (Some(own), Some(held)) if standing.is_held_against() && !own.contains(held) => {
                    Some(format!("{own}; {held}"))
                }
                (own, held) => own.clone().or_else(|| held.clone()),
            },
            rows,
            erased: Some(self.counters.erased).filter(|erased| *erased > 0),
            archived: self.archived_report(),
            verified: self.counters.verified,
            invalid: self.counters.invalid,
            took_ms: self.took.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3),
            head_seq: self.head_seq,
            oldest_seq: self.oldest_seq,
            last_seen: self.member.last_seen().map(|t| t.to_text()),
            clock_offset_ms: clock.map(|c| ms(c.offset_micros)),
            clock_uncertainty_ms: clock.map(|c| ms(c.uncertainty_micros)),
        }
    }

    /// Returns the node's verdict. Findings in its rows take precedence over the witness's findings, which take
    /// precedence over the status of its answer.
    fn verdict(&self, standing: &WitnessStatus) -> Verdict {
        match self.status {
            _ if self.counters.invalid == 0 && standing.is_held_against() => standing.verdict,
            _ if self.counters.invalid > 0 || (self.status == Status::Invalid && self.counters.unknown_key == 0) => {
                Verdict::RowInvalid
            }
            _ if self.counters.unknown_key > 0 => Verdict::UnknownKey,
            Status::Archived if self.member.has_left() => Verdict::Retired,
            Status::Unreachable | Status::Timeout | Status::Archived => Verdict::Unreachable,
            Status::Error | Status::Incomplete | Status::Excluded => Verdict::Unverifiable,
            Status::Pruned if self.early => Verdict::PrunedEarly,
            Status::Pruned if self.since.is_none() => Verdict::PrunedUnshown,
            Status::Pruned => Verdict::Pruned,
            Status::Superseded => Verdict::Superseded,
            Status::Retired => Verdict::Retired,
            Status::Ok | Status::Invalid => standing.verdict,
        }
    }
}

/// Function that returns the number of a node's rows in the finished answer.
pub(crate) type RowsOf<'a> = &'a dyn Fn(&NodeId) -> u64;

/// Cursors to the next and the previous page.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    pub(crate) next: Option<String>,
    pub(crate) previous: Option<String>,
}

/// Builds the completeness statement. `through` is the last row of the answer if there are more rows after it.
pub(crate) fn envelope(
    parts: &[NodeOutcome],
    query: &Query,
    rows_of: RowsOf<'_>,
    through: Option<&Key>,
    cursors: Cursors,
) -> Envelope {
    let parts: &[NodeOutcome] = &by_node(parts).iter().map(|part| part.within(query)).collect::<Vec<_>>();
    let expected = parts.iter().filter(|part| part.status != Status::Excluded).count();
    let answered = parts.iter().filter(|part| matches!(part.status, Status::Ok | Status::Archived)).count();
    let nodes: Vec<NodeReport> = parts.iter().map(|part| part.report(rows_of(&part.member.node.id))).collect();
    let rows_in_answer = nodes.iter().map(|node| node.rows).sum();
    // Nothing can be proven about a range in the future.
    let future = query.from > query.asked_at;
    let proven = answered > 0 && answered == expected && !future && nodes.iter().all(NodeReport::is_proven);
    let end = if query.to == Timestamp::MAX { query.asked_at.max(query.from) } else { query.to };
    // Nothing is guaranteed for the time after the query was made.
    let reached = complete_through(parts, query, through).map(|time| time.min(query.asked_at.max(query.from)).min(end));
    let read_instead = read_instead(parts);
    let since = complete_since(parts).filter(|_| !future);
    let completeness = match (proven, through) {
        _ if future => "not proven: the range begins in the future".to_owned(),
        (true, Some(last)) => part_proven(&nodes, last.timestamp, query.order),
        (true, None) if query.to != Timestamp::MAX && query.to > query.asked_at => format!(
            "{} (up to {}, the time of the query; the rest of the range is in the future)",
            completeness(&nodes, proven, query.count.is_some()),
            query.asked_at
        ),
        _ => match since {
            Some(since) => rest_words(parts, since, query),
            None => completeness(&nodes, proven, query.count.is_some()),
        },
    } + &read_instead;
    Envelope {
        complete: answered == expected,
        archives: archives(parts),
        as_of: as_of(parts).map(Timestamp::to_text),
        complete_since: since.map(Timestamp::to_text),
        proven,
        completeness,
        complete_through: reached.map(Timestamp::to_text),
        more: through.is_some(),
        order: query.order.as_str().to_owned(),
        order_uncertainty_ms: order_uncertainty(parts),
        expected,
        answered,
        count: rows_in_answer,
        nodes,
        next_cursor: cursors.next,
        previous_cursor: cursors.previous,
        from: query.from.to_text(),
        to: end.to_text(),
        limited_to: query.scope.describe(),
        filter_hints: query.hints(rows_in_answer == 0 && through.is_none()),
        searched_to: None,
        erased: query.scope.text().is_none().then(|| parts.iter().map(|part| part.counters.erased).sum()),
        unindexed_texts: query.filter.too_short_to_index().into_iter().map(str::to_owned).collect(),
    }
}

/// Merges the outcomes into one for each node. In `parts`, the outcomes of a node's superseded logs come after the outcome of its
/// current log.
pub(crate) fn by_node(parts: &[NodeOutcome]) -> Vec<NodeOutcome> {
    let mut nodes: Vec<NodeOutcome> = Vec::new();
    for part in parts {
        match nodes.last_mut() {
            Some(node) if part.archived.is_some() => node.take_archived(part),
            Some(node) if part.aside.is_some() => node.take_in(part),
            _ => nodes.push(part.snapshot()),
        }
    }
    nodes
}

/// If an answer lacks only rows that were pruned after the policy's retention period, returns the time from which the answer is
/// complete.
fn complete_since(parts: &[NodeOutcome]) -> Option<Timestamp> {
    let all = parts.iter().all(|part| !part.missing() || part.since.is_some());
    parts.iter().filter_map(|part| part.since).max().filter(|_| all)
}

/// Describes an answer that is complete from `since` on.
fn rest_words(parts: &[NodeOutcome], since: Timestamp, query: &Query) -> String {
    let pruned: Vec<&str> =
        parts.iter().filter(|part| part.since.is_some()).map(|part| part.member.node.id.as_str()).collect();
    let proven = |part: &NodeOutcome| {
        matches!(part.counters.proof, RangeCompleteness::Whole | RangeCompleteness::Since(_))
            || part.status == Status::Excluded
    };
    let from_there = if parts.iter().all(proven) {
        format!("proven complete from {since} on: no row is missing")
    } else if query.count.is_some() {
        format!("no row is known to be missing from {since} on, but the counts are not verified: {COUNTED_THERE}")
    } else {
        format!(
            "no row is known to be missing from {since} on, but it is not proven that every matching row was returned"
        )
    };
    format!(
        "{from_there}; older rows of {} were pruned after being kept for as long as the cluster's policy requires (`--from {since}` gives a complete answer)",
        pruned.join(", ")
    )
}

/// Describes what a part of a longer answer proves: nothing is missing between its first row and its last.
fn part_proven(nodes: &[NodeReport], last: Timestamp, order: Order) -> String {
    let towards = if order == Order::Desc { "back to" } else { "up to" };
    let newer: u64 = nodes.iter().map(|node| node.verified - node.rows_witnessed.min(node.verified)).sum();
    let rest = if newer == 0 { String::new() } else { format!("; {newer} of the rows shown are not witnessed yet") };
    format!("proven complete {towards} {last}, where this page ends{rest}")
}

/// Describes what the answer proves beyond the signatures of its rows.
fn completeness(nodes: &[NodeReport], proven: bool, counted: bool) -> String {
    if proven {
        let newer: u64 = nodes.iter().map(|node| node.verified - node.rows_witnessed.min(node.verified)).sum();
        return match newer {
            0 => "proven complete: no row of this range is missing".to_owned(),
            1 => "proven complete up to the last cosigned checkpoints; 1 newer row is authentic but not proven"
                .to_owned(),
            n => format!(
                "proven complete up to the last cosigned checkpoints; {n} newer rows are authentic but not proven"
            ),
        };
    }
    let broken: Vec<&str> =
        nodes.iter().filter(|node| node.status == Status::Invalid).map(|node| node.node_id.as_str()).collect();
    if !broken.is_empty() {
        return format!(
            "not proven: invalid answer from {} (see the reason reported for each node)",
            broken.join(", ")
        );
    }
    if counted {
        return format!("not verified: {COUNTED_THERE}");
    }
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for node in nodes.iter().filter(|node| !node.is_proven()) {
        let reason = match (&node.unproven, node.status) {
            (Some(message), Status::Ok | Status::Archived | Status::Invalid | Status::Superseded) => message.as_str(),
            _ => "did not answer in full",
        };
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(&node.node_id),
            None => reasons.push((reason, vec![&node.node_id])),
        }
    }
    let all = reasons.len() == 1 && nodes.iter().all(|node| !node.is_proven());
    let message: Vec<String> = reasons
        .into_iter()
        .map(|(reason, names)| if all { reason.to_owned() } else { format!("{}: {reason}", names.join(", ")) })
        .collect();
    format!("authentic, completeness not proven ({})", message.join("; "))
}

/// Returns the time up to which nothing is missing, in the order of the query: the end of the answer, or the point
/// where the first node stopped early. Returns `None` if a node delivered nothing at all.
fn complete_through(parts: &[NodeOutcome], query: &Query, through: Option<&Key>) -> Option<Timestamp> {
    let end = match (through, query.order) {
        (Some(key), _) => key.timestamp,
        (None, Order::Asc) => query.to,
        (None, Order::Desc) => query.from,
    };
    // The times of lost rows are bounded, so the answer is complete up to these bounds.
    let end = parts.iter().filter_map(|part| part.lost.as_ref()).try_fold(end, |end, lost| match query.order {
        Order::Asc => Some(end.min(lost.oldest?)),
        Order::Desc => Some(end.max(lost.until)),
    })?;
    parts.iter().filter(|part| part.cut_short() || part.has_gaps()).try_fold(end, |end, part| {
        if part.has_gaps() {
            // Missing rows are reported only as messages without a time, so no time up to which the answer is complete is known.
            return None;
        }
        let reached = part.last.as_ref()?.timestamp;
        Some(match query.order {
            Order::Asc => end.min(reached),
            Order::Desc => end.max(reached),
        })
    })
}

/// Largest possible difference between the clocks of two answering nodes; `None` if one of these clocks has not been measured.
fn order_uncertainty(parts: &[NodeOutcome]) -> Option<f64> {
    let clocks: Option<Vec<_>> = parts
        .iter()
        .filter(|part| part.status == Status::Ok || part.counters.rows > 0)
        .map(|part| part.member.clock())
        .collect();
    let clocks = clocks?;
    let mut worst = 0;
    for (i, a) in clocks.iter().enumerate() {
        for b in &clocks[i + 1..] {
            worst = worst.max((a.offset_micros - b.offset_micros).abs() + a.uncertainty_micros + b.uncertainty_micros);
        }
    }
    Some(worst as f64 / 1_000.0)
}

/// Builds the cursor that continues after `last`. It contains the snapshot of the first page and the nodes that have become
/// incomplete so far.
pub(crate) fn next_cursor(parts: &[NodeOutcome], query: &Query, last: &Key) -> Cursor {
    // A superseded log whose answer ended early is not queried again for the rows that it failed to deliver: its node
    // is incomplete from this page on.
    let broke_off = |head: &Head| {
        let mut asides = parts.iter().filter_map(|part| Some((part, part.aside?.generation)));
        asides.any(|(part, generation)| {
            part.member.node.id == head.node_id && generation == head.generation && part.cut_short()
        })
    };
    let mut heads: Vec<Head> = match &query.cursor {
        Some(cursor) => cursor.heads.clone(),
        None => parts
            .iter()
            .filter(|part| !part.adds_to_live_log())
            .filter_map(|part| {
                let generation = part.generation?;
                Some(Head { node_id: part.member.node.id.clone(), generation, head_seq: part.head_seq })
            })
            .collect(),
    };
    heads.retain(|head| !broke_off(head));
    let mut incomplete = query.cursor.as_ref().map(|cursor| cursor.incomplete.clone()).unwrap_or_default();
    // A superseded log that cannot be read does not remove its node from the answer.
    let current: Vec<NodeOutcome> = by_node(parts);
    let instead_of_node =
        |id: &NodeId| current.iter().any(|node| &node.member.node.id == id && node.status == Status::Archived);
    let live = parts.iter().filter(|part| part.aside.is_none() && part.archived.is_none());
    for part in live.filter(|part| part.cut_short() && !instead_of_node(&part.member.node.id)) {
        if incomplete.iter().all(|lost| lost.node_id != part.member.node.id) {
            incomplete.push(Incomplete {
                node_id: part.member.node.id.clone(),
                status: part.status.as_str().to_owned(),
                // The node's reason becomes part of a cursor in a URL, which has a length limit of its own.
                reason: part.reason.clone().unwrap_or_default().chars().take(CURSOR_REASON_CHARS_MAX).collect(),
            });
        }
    }
    let snapshot = Snapshot {
        asked_at: query.asked_at,
        from: query.from,
        to: query.to,
        heads,
        filter_version: query.filter_version,
    };
    let mut without_archive = query.cursor.as_ref().map(|cursor| cursor.without_archive.clone()).unwrap_or_default();
    for part in parts.iter().filter(|part| part.archived.is_some() && part.cut_short()) {
        if !without_archive.contains(&part.member.node.id) {
            without_archive.push(part.member.node.id.clone());
        }
    }
    Cursor::new(&query.hash, snapshot, last.clone(), incomplete).without_archive(without_archive)
}
