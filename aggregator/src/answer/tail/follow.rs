//! Follows one node, and reconnects at the last position.

use std::sync::Arc;
use std::time::{Duration, Instant};

use piperoll_format::ids::Generation;
use piperoll_format::order::Order;
use piperoll_format::time::Timestamp;
use piperoll_protocol::aggregator::Status;
use piperoll_protocol::node::ScanRequest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::event::ROW_OVERHEAD_BYTES;
use super::position::TailPosition;
use crate::cluster::connection::{Channel, Failure};
use crate::cluster::node_handle::NodeHandle;
use crate::config::FanOutLimits;
use crate::scan::node_reader::{NodeReader, conclude};
use crate::scan::plan::NodeRequest;
use crate::scan::query::Query;
use crate::scan::verified_row::VerifiedRow;

/// Pause before querying a failed node again.
const RETRY: Duration = Duration::from_millis(500);
/// Time after which a node may close a connection that is not read. Such a closed connection is not a failure of the node.
const HELD_UP: Duration = Duration::from_secs(1);
/// Period after a delay of `HELD_UP` in which the end of a connection is attributed to the delay. The end is noticed only after
/// the data in flight has been read.
const HELD_UP_SINCE: Duration = Duration::from_secs(5);

/// News from a followed node.
pub(super) enum News {
    /// The node answers, for the first time or again.
    Begun {
        node: usize,
    },
    Row {
        node: usize,
        generation: Generation,
        row: Box<VerifiedRow>,
        room: OwnedSemaphorePermit,
    },
    /// All rows below `next_seq` were sent, and no row before `time` will follow.
    Mark {
        node: usize,
        generation: Generation,
        next_seq: u64,
        time: Timestamp,
    },
    /// A check of the node failed; it is still followed.
    Fault {
        node: usize,
        message: String,
    },
    /// Rows of a superseded log belong to the tail, but cannot be read.
    Superseded {
        node: usize,
        message: String,
    },
    /// The node does not answer.
    Lost {
        node: usize,
        status: Status,
        reason: String,
    },
}

/// Error returned when the tail has ended, so that no more rows are needed.
struct ClientGone;

/// The end of one connection to a node.
struct Ended {
    failure: Failure,
    /// Whether rows waited for the client for so long that the node may have closed the connection.
    was_held_up: bool,
    /// Last position in the log that was read, if another log has replaced that log.
    replaced: Option<TailPosition>,
}

/// A superseded log, and the position at which reading it continues.
#[derive(Debug, Clone, Copy)]
struct Earlier {
    generation: Generation,
    place: TailPosition,
    /// Whether all witnessed rows of this log are available.
    is_whole: bool,
    /// Number of times that the node refused to read this log.
    refused: u32,
}

/// Number of refusals after which the rows are reported as missing. A single refusal is not enough, because a busy node refuses
/// too.
const EARLIER_TRIES: u32 = 6;

/// Returns the superseded logs of a node that are part of a tail beginning at `time`, oldest first.
fn earlier_since(member: &NodeHandle, time: Timestamp) -> Vec<Earlier> {
    let in_range = member.witness.asides_in(time, Timestamp::MAX);
    let readable = member.witness.logs_before().into_iter().filter_map(|(_, readable)| readable);
    let wanted = readable.filter(|(generation, _)| in_range.iter().any(|(wanted, _)| wanted == generation));
    wanted
        .map(|(generation, is_whole)| Earlier { generation, place: TailPosition::Since(time), is_whole, refused: 0 })
        .collect()
}

/// Returns the rest of a log that was replaced while it was followed, the logs that came after it, and a message if any
/// of these logs are unknown or cannot be read.
fn earlier_from(member: &NodeHandle, place: TailPosition) -> (Vec<Earlier>, Option<String>) {
    let TailPosition::At { generation, .. } = place else { return (Vec::new(), None) };
    let mut logs = vec![Earlier { generation, place, is_whole: true, refused: 0 }];
    let before = member.witness.logs_before();
    let Some(at) = before.iter().position(|(known, _)| *known == generation.to_string()) else {
        let message =
            format!("unknown whether the node had another log between generation {generation} and its current one");
        return (logs, Some(message));
    };
    let mut missing = Vec::new();
    for (generation, readable) in &before[at + 1..] {
        if !matches!(readable, Some((_, true))) {
            missing.push(generation.as_str());
        }
        if let Some((generation, is_whole)) = *readable {
            let place = TailPosition::At { generation, next_seq: 0 };
            logs.push(Earlier { generation, place, is_whole, refused: 0 });
        }
    }
    let message =
        format!("its log of generation {} is unavailable, or lacks rows that were witnessed", missing.join(", "));
    (logs, (!missing.is_empty()).then_some(message))
}

/// Bounds the bytes of a node's rows that wait for their turn or for the client.
pub(super) struct Room {
    semaphore: Arc<Semaphore>,
    bytes: u32,
}

impl Room {
    pub(super) fn new(bytes: u32) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(bytes as usize)), bytes }
    }

    /// Waits until there is room for a row. A row that is larger than the whole room gets all of it.
    async fn take(&self, row: &VerifiedRow) -> Result<OwnedSemaphorePermit, ClientGone> {
        let bytes = u32::try_from(row.body.len() + ROW_OVERHEAD_BYTES).unwrap_or(u32::MAX).min(self.bytes);
        Arc::clone(&self.semaphore).acquire_many_owned(bytes).await.map_err(|_| ClientGone)
    }
}

pub(super) async fn follow(
    member: Arc<NodeHandle>,
    node: usize,
    mut place: TailPosition,
    query: Query,
    limits: FanOutLimits,
    room: Room,
    send: mpsc::Sender<News>,
) {
    let begin = place;
    let mut earlier = if let TailPosition::Since(time) = begin { earlier_since(&member, time) } else { Vec::new() };
    let mut read = Vec::new();
    let mut has_said = false;
    loop {
        let (status, reason) = match member.circuit_open() {
            Some(down) => down,
            None if let Some(log) = earlier.first_mut() => {
                match read_earlier(&member, node, log, &query, &limits, &room, &send).await {
                    Ok(Ok(())) => {
                        read.extend(Some(log.generation).filter(|_| log.is_whole));
                        earlier.remove(0);
                        continue;
                    }
                    // The node answers, but cannot read this log.
                    Ok(Err(Ended { failure: Failure::Error(_), .. })) if log.refused < EARLIER_TRIES => {
                        log.refused += 1;
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                    Ok(Err(Ended { failure: Failure::Error(reason), .. })) => {
                        let message = format!("its log of generation {} cannot be read: {reason}", log.generation);
                        earlier.remove(0);
                        if send.send(News::Superseded { node, message }).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    Ok(Err(Ended { was_held_up: true, .. })) => continue,
                    Ok(Err(Ended { failure, .. })) => words_of(false, &failure),
                    Err(ClientGone) => return,
                }
            }
            None if let (TailPosition::Since(time), false) = (begin, has_said) => {
                has_said = true;
                if let Some(lost) = member.witness.lost_in(time, Timestamp::MAX, &read)
                    && send.send(News::Superseded { node, message: lost.message }).await.is_err()
                {
                    return;
                }
                continue;
            }
            None => match NodeReader::open(&member, &asked(place, &query, None), &limits, Channel::Own).await {
                Err(failure) => {
                    member.failed(&failure);
                    words_of(false, &failure)
                }
                Ok(reader) => match read_on(reader, node, &mut place, &room, &send).await {
                    // Query the node again before reporting anything about it.
                    Ok(Ended { was_held_up: true, .. }) => continue,
                    Ok(Ended { replaced: Some(rest), .. }) => {
                        let message;
                        (earlier, message) = earlier_from(&member, rest);
                        if let Some(message) = message
                            && send.send(News::Superseded { node, message }).await.is_err()
                        {
                            return;
                        }
                        // Pause, so that a node that names another log every time is not queried in a tight loop.
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                    Ok(Ended { failure, .. }) => words_of(true, &failure),
                    Err(ClientGone) => return,
                },
            },
        };
        if send.send(News::Lost { node, status, reason }).await.is_err() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn words_of(began: bool, failure: &Failure) -> (Status, String) {
    let (status, reason) = conclude(&crate::scan::node_reader::NodeCounters::default(), began, Some(failure));
    (status, reason.unwrap_or_default())
}

/// Builds the request that continues at `place`. `earlier` names a superseded log, which is read to its end and not
/// followed.
fn asked(place: TailPosition, query: &Query, earlier: Option<Generation>) -> NodeRequest {
    let (from, from_seq) = match place {
        TailPosition::At { next_seq, .. } => (Timestamp::MIN, Some(next_seq)),
        TailPosition::Since(time) => (time, None),
    };
    let request = ScanRequest {
        filter: query.filter.to_string(),
        from,
        to: Timestamp::MAX,
        order: Order::Asc,
        limit: None,
        after: None,
        from_seq,
        head: None,
        generation: earlier,
        prove: None,
        count: None,
        follow: earlier.is_none(),
    };
    NodeRequest { request, pinned: None, all_there: true, scope: query.scope.clone(), aside: None, archived: None }
}

/// Sends the rest of a superseded log and advances its position.
async fn read_earlier(
    member: &Arc<NodeHandle>,
    node: usize,
    log: &mut Earlier,
    query: &Query,
    limits: &FanOutLimits,
    room: &Room,
    send: &mpsc::Sender<News>,
) -> Result<Result<(), Ended>, ClientGone> {
    let generation = log.generation;
    let ended = |failure, was_held_up| Ended { failure, was_held_up, replaced: None };
    let mut reader =
        match NodeReader::open(member, &asked(log.place, query, Some(generation)), limits, Channel::Own).await {
            Ok(reader) => reader,
            Err(failure) => return Ok(Err(ended(failure, false))),
        };
    if reader.head.generation != generation {
        return Ok(Err(ended(
            Failure::Error("the node answered from a different log than requested".to_owned()),
            false,
        )));
    }
    send_news(send, News::Begun { node }).await?;
    let mut held_up_at: Option<Instant> = None;
    loop {
        match reader.next().await {
            Ok(Some(row)) => {
                held_up_at = hand_over(row, (node, generation), &mut log.place, room, send).await?.or(held_up_at);
            }
            Ok(None) => {
                // A superseded log is not followed, so a mark in its stream is ignored.
                if reader.mark.take().is_some() {
                    continue;
                }
                for message in std::mem::take(&mut reader.counters.faults) {
                    send_news(send, News::Fault { node, message }).await?;
                }
                return Ok(Ok(()));
            }
            Err(failure) => {
                let was_held_up = held_up_at.is_some_and(|at| at.elapsed() < HELD_UP_SINCE);
                return Ok(Err(ended(failure, was_held_up)));
            }
        }
    }
}

/// Sends the node's rows and marks until the connection ends, and advances `place`.
async fn read_on(
    mut reader: NodeReader,
    node: usize,
    place: &mut TailPosition,
    room: &Room,
    send: &mpsc::Sender<News>,
) -> Result<Ended, ClientGone> {
    let ended = |failure| Ended { failure, was_held_up: false, replaced: None };
    let generation = reader.head.generation;
    if let TailPosition::At { generation: known, next_seq } = *place {
        let rows = reader.head.head_seq.map_or(0, |head| head + 1);
        if known != generation {
            let message = format!(
                "the log was replaced: generation {generation} instead of {known}; reading the rest of the archived log, then the new one from its start"
            );
            let replaced = Some(*place);
            *place = TailPosition::At { generation, next_seq: 0 };
            send_news(send, News::Fault { node, message }).await?;
            let failure = Failure::Broken("a new generation began".to_owned());
            return Ok(Ended { failure, was_held_up: false, replaced });
        }
        if rows < next_seq {
            return Ok(ended(Failure::Error(format!(
                "the node reports {rows} rows, but row {} has already been read",
                next_seq - 1
            ))));
        }
    }
    for message in std::mem::take(&mut reader.counters.faults) {
        send_news(send, News::Fault { node, message }).await?;
    }
    send_news(send, News::Begun { node }).await?;
    let mut held_up_at: Option<Instant> = None;
    loop {
        match reader.next().await {
            Ok(Some(row)) => {
                held_up_at = hand_over(row, (node, generation), place, room, send).await?.or(held_up_at);
            }
            Ok(None) => {
                let Some(mark) = reader.mark.take() else {
                    return Ok(ended(Failure::Broken("the node closed the tail stream unexpectedly".to_owned())));
                };
                for message in std::mem::take(&mut reader.counters.faults).into_iter().chain(mark.faults) {
                    send_news(send, News::Fault { node, message }).await?;
                }
                *place = TailPosition::At { generation, next_seq: mark.next_seq };
                send_news(send, News::Mark { node, generation, next_seq: mark.next_seq, time: mark.time }).await?;
            }
            Err(failure) => {
                let was_held_up = held_up_at.is_some_and(|at| at.elapsed() < HELD_UP_SINCE);
                return Ok(Ended { failure, was_held_up, replaced: None });
            }
        }
    }
}

/// Sends a row once there is room for it, and advances `place` past it. Returns the current time if sending took so long that the
/// node may close the connection.
async fn hand_over(
    row: VerifiedRow,
    (node, generation): (usize, Generation),
    place: &mut TailPosition,
    room: &Room,
    send: &mpsc::Sender<News>,
) -> Result<Option<Instant>, ClientGone> {
    let waited = Instant::now();
    let room = room.take(&row).await?;
    let next = TailPosition::At { generation, next_seq: row.key.seq.saturating_add(1) };
    send_news(send, News::Row { node, generation, row: Box::new(row), room }).await?;
    *place = next;
    Ok((waited.elapsed() >= HELD_UP).then(Instant::now))
}

async fn send_news(send: &mpsc::Sender<News>, news: News) -> Result<(), ClientGone> {
    send.send(news).await.map_err(|_| ClientGone)
}
