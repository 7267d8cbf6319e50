//! One node, followed for as long as it takes: broken off and taken up again at its place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use piperoll_shared::api::aggregator::Status;
use piperoll_shared::api::node::ScanRequest;
use piperoll_shared::log::ids::Generation;
use piperoll_shared::log::order::Order;
use piperoll_shared::log::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::ROW_OVERHEAD_BYTES;
use super::position::Place;
use crate::ask::Asked;
use crate::config::Limits;
use crate::link::{Failure, Lane};
use crate::member::Member;
use crate::placed::PlacedRow;
use crate::query::Query;
use crate::read::{NodeReader, conclude};

/// Before a node that failed is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// A node may end a connection that was not read for so long, which is no failure of the node.
const HELD_UP: Duration = Duration::from_secs(1);
/// How long after that the end of the connection is put down to it: what was under way is read first.
const HELD_UP_SINCE: Duration = Duration::from_secs(5);

/// What is heard of a node.
pub(super) enum News {
    /// It answers again, or for the first time, from this log.
    Begun {
        node: usize,
    },
    Row {
        node: usize,
        generation: Generation,
        row: Box<PlacedRow>,
        room: OwnedSemaphorePermit,
    },
    /// Everything below `next_seq` was handed over, and nothing earlier than `time` comes any more.
    Mark {
        node: usize,
        generation: Generation,
        next_seq: u64,
        time: Timestamp,
    },
    /// Something about it does not fit, which changes nothing about its being followed.
    Fault {
        node: usize,
        words: String,
    },
    /// It does not answer.
    Lost {
        node: usize,
        status: Status,
        reason: String,
    },
}

/// The tail has ended.
struct Gone;

/// The end of one connection to a node.
struct Ended {
    failure: Failure,
    /// Whether the connection waited for the client for so long that the node may have given it up.
    was_held_up: bool,
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

    /// Waits until there is room for a row. One that needs more than all of it gets all of it.
    async fn take(&self, row: &PlacedRow) -> Result<OwnedSemaphorePermit, Gone> {
        let bytes = u32::try_from(row.body.len() + ROW_OVERHEAD_BYTES).unwrap_or(u32::MAX).min(self.bytes);
        Arc::clone(&self.semaphore).acquire_many_owned(bytes).await.map_err(|_| Gone)
    }
}

pub(super) async fn follow(
    member: Arc<Member>,
    node: usize,
    mut place: Place,
    query: Query,
    limits: Limits,
    room: Room,
    send: mpsc::Sender<News>,
) {
    loop {
        let (status, reason) = match member.known_down() {
            Some(down) => down,
            None => match NodeReader::open(&member, &asked(place, &query), &limits, Lane::Own).await {
                Err(failure) => {
                    member.failed(&failure);
                    words_of(false, &failure)
                }
                Ok(reader) => match read_on(reader, node, &mut place, &room, &send).await {
                    // The node is asked again before anything is said about it.
                    Ok(Ended { was_held_up: true, .. }) => continue,
                    Ok(Ended { failure, .. }) => words_of(true, &failure),
                    Err(Gone) => return,
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
    let (status, reason) = conclude(&crate::read::Tally::default(), began, Some(failure));
    (status, reason.unwrap_or_default())
}

fn asked(place: Place, query: &Query) -> Asked {
    let (from, from_seq) = match place {
        Place::At { next_seq, .. } => (Timestamp::MIN, Some(next_seq)),
        Place::Since(time) => (time, None),
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
        generation: None,
        prove: None,
        count: None,
        follow: true,
    };
    Asked { request, pinned: None, all_there: true, scope: query.scope.clone(), aside: None }
}

/// Sends what comes until the node fails, and moves `place` along.
async fn read_on(
    mut reader: NodeReader,
    node: usize,
    place: &mut Place,
    room: &Room,
    send: &mpsc::Sender<News>,
) -> Result<Ended, Gone> {
    let ended = |failure| Ended { failure, was_held_up: false };
    let generation = reader.head.generation;
    if let Place::At { generation: known, next_seq } = *place {
        let rows = reader.head.head_seq.map_or(0, |head| head + 1);
        if known != generation {
            let words =
                format!("its log is another one now, {generation} instead of {known}; it is read from its beginning");
            *place = Place::At { generation, next_seq: 0 };
            tell(send, News::Fault { node, words }).await?;
            return Ok(ended(Failure::Broken("a new generation began".to_owned())));
        }
        if rows < next_seq {
            return Ok(ended(Failure::Error(format!(
                "it says that there are {rows} rows, and row {} was read before",
                next_seq - 1
            ))));
        }
    }
    for words in std::mem::take(&mut reader.tally.faults) {
        tell(send, News::Fault { node, words }).await?;
    }
    tell(send, News::Begun { node }).await?;
    let mut held_up_at: Option<Instant> = None;
    loop {
        match reader.next().await {
            Ok(Some(row)) => {
                let waited = Instant::now();
                let room = room.take(&row).await?;
                let next = Place::At { generation, next_seq: row.key.seq.saturating_add(1) };
                tell(send, News::Row { node, generation, row: Box::new(row), room }).await?;
                *place = next;
                if waited.elapsed() >= HELD_UP {
                    held_up_at = Some(Instant::now());
                }
            }
            Ok(None) => {
                let Some(mark) = reader.mark.take() else {
                    return Ok(ended(Failure::Broken("the node ended a stream that has no end".to_owned())));
                };
                for words in std::mem::take(&mut reader.tally.faults).into_iter().chain(mark.faults) {
                    tell(send, News::Fault { node, words }).await?;
                }
                *place = Place::At { generation, next_seq: mark.next_seq };
                tell(send, News::Mark { node, generation, next_seq: mark.next_seq, time: mark.time }).await?;
            }
            Err(failure) => {
                let was_held_up = held_up_at.is_some_and(|at| at.elapsed() < HELD_UP_SINCE);
                return Ok(Ended { failure, was_held_up });
            }
        }
    }
}

async fn tell(send: &mpsc::Sender<News>, news: News) -> Result<(), Gone> {
    send.send(news).await.map_err(|_| Gone)
}
