//! Answers a query with one page. Each node is queried for its share of the page. If the rows received from a node end
//! before the page does although the node has more, the node is queried again. The merge then takes the first rows.
//! Completeness is known before the first byte is sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use piperoll_format::ids::Generation;
use piperoll_format::order::{Key, Order, Position};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::aggregator::{Envelope, NodeReport, Status};
use piperoll_query::filter::Filter;
use tokio::time::timeout_at;

use crate::access::scope::Scope;
use crate::answer::archived::{by_member, needed_from_archive};
use crate::answer::fanout::{Cursors, envelope, next_cursor};
use crate::answer::merge::Merge;
use crate::answer::outcome::NodeOutcome;
use crate::answer::prefetch::Counts;
use crate::cluster::connection::{Channel, Failure};
use crate::cluster::node_handle::NodeHandle;
use crate::cluster::roster::Cluster;
use crate::scan::archive_plan::{ArchivePlan, ask_archive_row};
use crate::scan::log_reader::LogReader;
use crate::scan::node_reader::conclude;
use crate::scan::plan::{NodePlan, NodeRequest, ask, ask_asides, ask_log};
use crate::scan::proof_verifier::RangeCompleteness;
use crate::scan::query::Query;
use crate::scan::verified_row::VerifiedRow;

/// Bytes counted for a row in addition to its body.
const ROW_OVERHEAD_BYTES: usize = 256;
/// Interval at which a searching node is checked for progress.
const SEARCH_STEP: Duration = Duration::from_millis(500);

/// A finished page.
pub(crate) struct Page {
    pub(crate) rows: Vec<VerifiedRow>,
    pub(crate) envelope: Envelope,
    /// Position up to which all rows had been read, if nodes were still searching when the page ended.
    searched: Option<Key>,
}

/// Minimum number of rows to request from a node. By default a node is asked for one and a half times its even share of
/// the page, and not for more, because proving rows that are not shown costs more than a second request.
const SHARE_MIN: usize = 4;

/// Rows and outcome of one node.
struct NodeAnswer {
    part: NodeOutcome,
    rows: VecDeque<VerifiedRow>,
    /// Position up to which the node had read every row, if reading was stopped while the node was still searching.
    reached: Option<Key>,
    /// The request that was sent, used to request the rows after the last one received.
    asked: Option<NodeRequest>,
    /// Whether to request no more rows from this node, because its byte limit was reached or its search was stopped.
    is_full: bool,
}

pub(crate) async fn page(cluster: &Cluster, query: &Query) -> Page {
    let limit = query.limit.unwrap_or(usize::MAX);
    match query.in_front_of() {
        None => assemble(cluster, query, read_page(cluster, query).await, limit, None),
        Some(anchor) => page_in_front(cluster, query, anchor, limit).await,
    }
}

/// Reads the page before a row. Reading backward finds the position at which the page begins; the rows are then read forward from
/// there, as for every other page. A row that fails verification is placed next to the intact row that was read before it, so its
/// position depends on the direction, and all pages must use the same direction.
async fn page_in_front(cluster: &Cluster, query: &Query, anchor: &Key, limit: usize) -> Page {
    let mut look = limit.saturating_add(1);
    let after = loop {
        let back = Query { order: query.order.reversed(), limit: Some(look), ..query.clone() };
        let Page { rows: found, envelope, searched } =
            assemble(cluster, &back, read_page(cluster, &back).await, look, None);
        // Rows that fail verification may move when they are read forward; intact rows keep their positions.
        let is_sound = |row: &VerifiedRow| matches!(row.integrity, Integrity::Ok | Integrity::Erased);
        let sound = found.iter().enumerate().filter(|(_, row)| is_sound(row));
        let begins = sound.map(|(index, _)| index).nth(limit.saturating_sub(1));
        let behind = begins.and_then(|index| found.get(index + 1));
        // If no node has more rows, the page begins where the query begins.
        let broke_off = |node: &NodeReport| matches!(node.status, Status::Incomplete | Status::Timeout | Status::Error);
        let is_all = envelope.next_cursor.is_none() && !envelope.nodes.iter().any(broke_off);
        if behind.is_some() || is_all || found.is_empty() {
            break behind.map(|row| row.key.clone()).or(searched);
        }
        // The search ended early because of a node that may have more rows, the byte limit, or very many rows that fail
        // verification: the page begins with the last row found, and there is another page before it.
        if found.len() < look || look > limit.saturating_mul(LOOK_BACK_MAX) {
            break found.last().map(|row| beyond(&row.key, query.order.reversed()));
        }
        look = look.saturating_mul(2);
    };
    let room = look.saturating_mul(2);
    let forward = Query { after, limit: Some(room), ..query.clone() };
    assemble(cluster, &forward, read_page(cluster, &forward).await, room, Some(anchor))
}

/// Maximum number of pages of rows, including those that fail verification, that are read to find one page of intact rows.
const LOOK_BACK_MAX: usize = 4;

/// Reads the rows of all nodes for one page.
async fn read_page(cluster: &Cluster, query: &Query) -> Vec<NodeAnswer> {
    let limit = query.limit.unwrap_or(usize::MAX);
    let deadline = tokio::time::Instant::now() + cluster.limits.page;
    let asides = |member: &Arc<NodeHandle>| {
        ask_asides(member, query, None).into_iter().map(|asked| NodePlan::Scan(Box::new(asked)))
    };
    let asks: Vec<_> = cluster
        .members
        .iter()
        .flat_map(|member| {
            std::iter::once(ask(member, query, None)).chain(asides(member)).map(move |ask| (member, ask))
        })
        .collect();
    let dialed = asks.iter().filter(|(_, ask)| matches!(ask, NodePlan::Scan(_))).count();
    let share = (limit.saturating_mul(3) / (2 * dialed.max(1))).max(SHARE_MIN).min(limit);
    let mut under_way = Vec::new();
    for (member, ask) in asks {
        match ask {
            NodePlan::Absent => {}
            NodePlan::Not { status, reason } => {
                let none = NodeAnswer::none(NodeOutcome::unasked(member, status, reason));
                under_way.push((member, tokio::spawn(std::future::ready(none))));
            }
            NodePlan::Scan(mut asked) => {
                asked.request.limit = u64::try_from(share).ok();
                under_way.push((
                    member,
                    tokio::spawn(answer(Arc::clone(member), *asked, cluster.limits, query.page_bytes, deadline)),
                ));
            }
        }
    }
    let mut answers = Vec::with_capacity(under_way.len());
    for (member, task) in under_way {
        // A task fails only if it panics, which is a bug. The node must be listed even then.
        answers.push(task.await.unwrap_or_else(|error| NodeAnswer::none(NodeOutcome::given_up(member, &error))));
    }
    let mut answers = with_archive(cluster, query, answers, share, deadline).await;
    refill(cluster, query, &mut answers, limit, deadline).await;
    answers
}

/// Adds the rows that are read from the archive: those of each node follow the node's own.
async fn with_archive(
    cluster: &Cluster,
    query: &Query,
    answers: Vec<NodeAnswer>,
    share: usize,
    deadline: tokio::time::Instant,
) -> Vec<NodeAnswer> {
    if cluster.archive.is_none() {
        return answers;
    }
    let limit = u64::try_from(share).ok();
    let mut under_way = Vec::new();
    for of_node in by_member(answers, |answer| &answer.part) {
        let parts: Vec<&NodeOutcome> = of_node.iter().map(|answer| &answer.part).collect();
        let plans = needed_from_archive(cluster.archive.as_deref(), query, limit, &parts);
        let member = of_node.first().map(|answer| Arc::clone(&answer.part.member));
        for answer in of_node {
            let member = Arc::clone(&answer.part.member);
            under_way.push((member, tokio::spawn(std::future::ready(answer))));
        }
        let Some(member) = member else { continue };
        // The nodes may have used up the page's time limit; the archive still gets some time.
        let deadline = deadline.max(tokio::time::Instant::now() + cluster.limits.first_row);
        for plan in plans {
            let task = match plan {
                ArchivePlan::Read(asked) => {
                    tokio::spawn(answer(Arc::clone(&member), *asked, cluster.limits, query.page_bytes, deadline))
                }
                ArchivePlan::Not { part, reason } => {
                    let none = NodeAnswer::none(NodeOutcome::without_archive(&member, part, reason));
                    tokio::spawn(std::future::ready(none))
                }
            };
            under_way.push((Arc::clone(&member), task));
        }
    }
    let mut answers = Vec::with_capacity(under_way.len());
    for (member, task) in under_way {
        answers.push(task.await.unwrap_or_else(|error| NodeAnswer::none(NodeOutcome::given_up(&member, &error))));
    }
    answers
}

/// Repeatedly queries the nodes whose remaining rows may come before the page's last row, until there are no such nodes.
async fn refill(
    cluster: &Cluster,
    query: &Query,
    answers: &mut [NodeAnswer],
    limit: usize,
    deadline: tokio::time::Instant,
) {
    loop {
        let short = fall_short(answers, limit, query.order);
        if short.is_empty() {
            return;
        }
        // The search may have used up the page's time limit; nodes that are queried again still get some time.
        let deadline = deadline.max(tokio::time::Instant::now() + cluster.limits.first_row);
        let mut under_way = Vec::new();
        for index in short {
            let Some(asked) = answers[index].next_request(limit) else { return };
            let member = Arc::clone(&answers[index].part.member);
            let room = query.page_bytes.saturating_sub(answers[index].bytes());
            under_way.push((index, tokio::spawn(answer(member, asked, cluster.limits, room, deadline))));
        }
        for (index, task) in under_way {
            let member = Arc::clone(&answers[index].part.member);
            let more = task.await.unwrap_or_else(|error| NodeAnswer::none(NodeOutcome::given_up(&member, &error)));
            answers[index].extend(more);
        }
    }
}

/// Returns the nodes whose received rows end before the page's last row although the nodes have more.
fn fall_short(answers: &[NodeAnswer], limit: usize, order: Order) -> Vec<usize> {
    let mut keys: Vec<&Key> = answers.iter().flat_map(|answer| answer.rows.iter().map(|row| &row.key)).collect();
    keys.sort_unstable_by(
        |a, b| if order.before(a, b) { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater },
    );
    let last = limit.checked_sub(1).and_then(|place| keys.get(place));
    let ends_early = |answer: &NodeAnswer| {
        answer.part.counters.more
            && !answer.is_full
            && answer.rows.back().is_some_and(|row| last.is_none_or(|last| order.before(&row.key, *last)))
    };
    (0..answers.len()).filter(|index| ends_early(&answers[*index])).collect()
}

impl NodeAnswer {
    fn none(part: NodeOutcome) -> Self {
        Self { part, rows: VecDeque::new(), reached: None, asked: None, is_full: false }
    }

    fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row.body.len() + ROW_OVERHEAD_BYTES).sum()
    }

    /// Builds the request for the rest of a page after the last row received, over the same rows as the first request.
    fn next_request(&self, limit: usize) -> Option<NodeRequest> {
        let mut asked = self.asked.clone()?;
        let last = &self.rows.back()?.key;
        asked.request.after = Some(Position { timestamp: last.timestamp, seq: last.seq });
        asked.request.limit = u64::try_from(limit.saturating_sub(self.rows.len()).max(SHARE_MIN)).ok();
        asked.request.head = asked.request.head.or(self.part.head_seq);
        asked.request.generation = self.part.generation;
        Some(asked)
    }

    /// Merges in the answer to a follow-up request (see `next_request`). If this request failed, the rows received earlier stay.
    fn extend(&mut self, more: Self) {
        let before = std::mem::take(&mut self.part.counters);
        // A node reports the erased rows of the whole range every time; the archive counts those that were read.
        let erased = self.part.archived.as_ref().map(|_| before.erased + more.part.counters.erased);
        let NodeOutcome { status, reason, last, took, counters, .. } = more.part;
        self.part.counters = before.and(counters);
        self.part.counters.erased = erased.unwrap_or(self.part.counters.erased);
        (self.part.status, self.part.reason) = (status, reason);
        self.part.last = last.or(self.part.last.take());
        self.part.took = self.part.took.zip(took).map(|(first, second)| first + second);
        self.rows.extend(more.rows);
        self.is_full = more.is_full;
        self.reached = more.reached;
    }
}

/// Reads one node within the page's time limit. Rows received before a failure are kept.
async fn answer(
    member: Arc<NodeHandle>,
    asked: NodeRequest,
    limits: crate::config::FanOutLimits,
    room: usize,
    deadline: tokio::time::Instant,
) -> NodeAnswer {
    let (aside, archived) = (asked.aside, asked.archived.as_ref().map(|rows| rows.part.clone()));
    let part = |part: NodeOutcome| NodeOutcome { aside, archived: archived.clone(), ..part };
    if let Some((status, reason)) = member.circuit_open().filter(|_| archived.is_none()) {
        return NodeAnswer::none(part(NodeOutcome::unasked(&member, status, reason)));
    }
    let started = Instant::now();
    let late = |limit: Duration| Failure::Timeout(format!("not finished within {} ms", limit.as_millis()));
    let opened = timeout_at(deadline, LogReader::open(&member, &asked, &limits, Channel::Shared)).await;
    let mut reader = match opened.unwrap_or_else(|_| Err(late(limits.page))) {
        Ok(reader) => reader,
        Err(failure) => {
            if archived.is_none() {
                member.failed(&failure);
            }
            let mut part = part(NodeOutcome::asked(&member, started));
            (part.status, part.reason) = conclude(&part.counters, false, Some(&failure));
            return NodeAnswer::none(part);
        }
    };
    let (mut rows, mut bytes) = (VecDeque::new(), 0);
    let (mut is_full, mut reached) = (false, None);
    let (mut until, last) = (deadline, deadline + limits.search.saturating_sub(limits.page));
    let failure = loop {
        let Ok(next) = timeout_at(until, reader.next()).await else {
            // Do not give up a node that is still reading, even if it finds few rows. Interrupting `next` to check the
            // time loses no data.
            if !reader.advances() {
                break Some(late(limits.page));
            }
            if until < last {
                until = last.min(until + SEARCH_STEP);
                continue;
            }
            reached = reader.stop_here();
            is_full = true;
            let message = format!("still searching after {} ms; narrow the range", limits.search.as_millis());
            break if reached.is_some() { None } else { Some(Failure::Timeout(message)) };
        };
        match next {
            Ok(Some(row)) => {
                if asked.request.limit.is_some_and(|limit| rows.len() as u64 >= limit) {
                    break Some(Failure::Error("the node sent more rows than were requested".to_owned()));
                }
                bytes += row.body.len() + ROW_OVERHEAD_BYTES;
                rows.push_back(row);
                if bytes > room {
                    is_full = true;
                    reader.counters_mut().ended = true;
                    reader.counters_mut().more = true;
                    break None;
                }
            }
            Ok(None) => break None,
            Err(failure) => break Some(failure),
        }
    };
    rows.extend(reader.rest());
    let mut part = part(NodeOutcome::asked(&member, started));
    let head = reader.head();
    part.generation = Some(head.generation);
    part.head_seq = head.head_seq;
    part.oldest_seq = head.oldest_seq;
    part.last = rows.back().map(|row: &VerifiedRow| row.key.clone());
    part.counters = reader.counters().clone();
    (part.status, part.reason) = conclude(&part.counters, true, failure.as_ref());
    NodeAnswer { part, rows, reached, asked: Some(asked), is_full }
}

/// Takes up to `limit` rows from the merge, as long as they come before `anchor`. The page ends early where a node has
/// more rows than it sent.
fn assemble(
    cluster: &Cluster,
    query: &Query,
    mut answers: Vec<NodeAnswer>,
    limit: usize,
    anchor: Option<&Key>,
) -> Page {
    let mut merge = Merge::new(query.order);
    // The nodes that are still searching may have rows after this position that are not known yet.
    let barrier = answers.iter().filter_map(|answer| answer.reached.clone());
    let barrier = barrier.reduce(|a, b| if query.order.before(&a, &b) { a } else { b });
    let mut fronts: Vec<Option<VerifiedRow>> = Vec::with_capacity(answers.len());
    let mut short = false;
    for (index, answer) in answers.iter_mut().enumerate() {
        let front = answer.rows.pop_front();
        if let Some(row) = &front {
            merge.offer(index, row.key.timestamp, row.key.seq);
        }
        fronts.push(front);
    }
    let (mut rows, mut bytes): (Vec<VerifiedRow>, usize) = (Vec::new(), 0);
    let mut taken = vec![Counts::default(); answers.len()];
    while rows.len() < limit && (bytes < query.page_bytes || anchor.is_some()) {
        let Some(index) = merge.take() else { break };
        let Some(row) = fronts[index].take() else { break };
        if barrier.as_ref().is_some_and(|barrier| query.order.before(barrier, &row.key)) {
            fronts[index] = Some(row);
            break;
        }
        if anchor.is_some_and(|anchor| !query.order.before(&row.key, anchor)) {
            fronts[index] = Some(row);
            break;
        }
        bytes += row.body.len() + ROW_OVERHEAD_BYTES;
        taken[index].add(&row);
        rows.push(row);
        fronts[index] = answers[index].rows.pop_front();
        match &fronts[index] {
            Some(row) => merge.offer(index, row.key.timestamp, row.key.seq),
            None if answers[index].part.counters.more && answers[index].reached.is_none() => {
                short = true;
                break;
            }
            None => {}
        }
    }
    let left = fronts.iter().any(Option::is_some);
    let more = left || short || answers.iter().any(|answer| answer.part.counters.more);
    let here = answers.into_iter().zip(&fronts).zip(&taken);
    let parts: Vec<NodeOutcome> =
        here.map(|((answer, front), taken)| finish_outcome(answer.part, front.is_some(), taken)).collect();
    // With an `anchor`, `last` is set even if there are no more rows: a page that was reached through `previous_cursor`
    // always has a next page.
    let full = rows.len() >= limit || bytes >= query.page_bytes || short;
    let searched = barrier.filter(|_| !full);
    let last = rows.last().map(|row| row.key.clone()).filter(|_| more || anchor.is_some());
    // Everything up to the searched position was read, so the next page begins there and not after the last row found.
    let last = searched.clone().or(last);
    let last = last
        .or_else(|| anchor.map(|anchor| query.after.clone().unwrap_or_else(|| beyond(anchor, query.order.reversed()))));
    let first = query
        .after
        .as_ref()
        .map(|after| rows.first().map_or_else(|| beyond(after, query.order), |row| row.key.clone()));
    let place = |key: &Key| next_cursor(&parts, query, key);
    let cursors = Cursors {
        next: last.as_ref().map(|last| place(last).encode(&cluster.cursor_key)),
        previous: first.map(|first| place(&first).back_from(first).encode(&cluster.cursor_key)),
    };
    let count = |id: &_| rows.iter().filter(|row| &row.key.node_id == id).count().try_into().unwrap_or(0);
    let mut envelope = envelope(&parts, query, &count, last.as_ref(), cursors);
    envelope.searched_to = searched.as_ref().map(|searched| searched.timestamp.to_text());
    Page { rows, envelope, searched }
}

/// Returns the position one microsecond after `last` in reading order. Used as the position of a page without a row of its own,
/// such as the last page if the page before it happened to be exactly full.
fn beyond(last: &Key, order: Order) -> Key {
    let step = if order == Order::Asc { 1 } else { -1 };
    Key { timestamp: last.timestamp.plus_micros(step), ..last.clone() }
}

/// Adjusts a node's outcome to the rows on this page. A failure after the page's last row does not make the page incomplete.
fn finish_outcome(mut part: NodeOutcome, has_more_here: bool, taken: &Counts) -> NodeOutcome {
    let counters = taken.into_counters(part.counters.clone());
    let broke_off_later = has_more_here && matches!(part.status, Status::Incomplete | Status::Timeout | Status::Error);
    if broke_off_later || matches!(part.status, Status::Ok | Status::Invalid) {
        (part.status, part.reason) = conclude(&counters, true, None);
    }
    part.counters = counters;
    part
}

/// Reads one row of one node as a page, and expects an answer from that node only. Returns `None` if the node has no readable log
/// of this generation.
pub(crate) async fn one_row(
    cluster: &Cluster,
    member: &Arc<NodeHandle>,
    seq: u64,
    generation: Option<Generation>,
    scope: &Scope,
) -> Option<(Page, Query)> {
    let mut query =
        Query::everything(Filter::default(), (Timestamp::MIN, Timestamp::MAX), Order::Asc, SystemClock.now());
    query.limit = Some(1);
    query.one_row = true;
    query.scope = scope.clone();
    let read = async |mut asked: NodeRequest| {
        asked.request.from_seq = Some(seq);
        asked.request.head = Some(seq);
        let deadline = tokio::time::Instant::now() + cluster.limits.page;
        answer(Arc::clone(member), asked, cluster.limits, query.page_bytes, deadline).await
    };
    let mut live = match ask_log(member, &query, Some(1), generation) {
        Some(NodePlan::Scan(asked)) => Some(read(*asked).await),
        Some(NodePlan::Not { status, reason }) => Some(NodeAnswer::none(NodeOutcome::unasked(member, status, reason))),
        Some(NodePlan::Absent) => {
            Some(NodeAnswer::none(NodeOutcome::unasked(member, Status::Unreachable, "retired".to_owned())))
        }
        None => None,
    };
    let is_above = |part: &NodeOutcome| part.head_seq.is_some_and(|head| head < seq);
    if live.as_ref().is_none_or(|live| live.rows.is_empty() && !is_above(&live.part)) {
        let answered = live.as_ref().and_then(|live| live.part.generation);
        let (log, is_live) = (generation.or(answered), answered.is_some());
        let row_of = |archive| ask_archive_row(archive, member, &query, log, seq, is_live);
        let asked = cluster.archive.as_deref().and_then(row_of);
        if let Some(asked) = asked {
            let archived = read(asked).await;
            if archived.rows.is_empty() {
                // The node's own answer says more than an archive that cannot be read.
                live = live.or(Some(archived));
            } else {
                live = Some(archived);
            }
        }
    }
    let mut found = live?;
    // The one outcome of the answer is that of the node, wherever the row was read.
    let archived = found.part.archived.take();
    // Reaching the limit of one row does not mean that there are more rows.
    found.part.counters.more = false;
    found.part.counters.proof = RangeCompleteness::Not("only one row was requested".to_owned());
    let pruned = found.part.oldest_seq.filter(|oldest| seq < *oldest && found.part.status == Status::Ok);
    if let Some(oldest) = pruned {
        (found.part.status, found.part.reason) =
            (Status::Pruned, Some(format!("row {seq} was pruned; the log now starts at row {oldest}")));
    }
    if let Some(part) = archived {
        found.part.note_archive(part);
    }
    let mut page = assemble(cluster, &query, vec![found], 1, None);
    // If the head is below the requested row, nothing is missing: the row was never written.
    if page.rows.is_empty()
        && page.envelope.nodes.iter().all(|n| n.head_seq.is_some_and(|head| head < seq) && n.status == Status::Ok)
    {
        page.envelope.complete = true;
    }
    Some((page, query))
}
