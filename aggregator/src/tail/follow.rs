//! One node, followed for as long as it takes: broken off and taken up again at its place.

use std::sync::Arc;
use std::time::Duration;

use piperoll_shared::api::aggregator::Status;
use piperoll_shared::api::node::ScanRequest;
use piperoll_shared::log::ids::Generation;
use piperoll_shared::log::order::Order;
use piperoll_shared::log::time::Timestamp;
use tokio::sync::mpsc;

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

/// Nobody is interested any more.
struct Gone;

pub(super) async fn follow(
    member: Arc<Member>,
    node: usize,
    mut place: Place,
    query: Query,
    limits: Limits,
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
                Ok(reader) => match read_on(reader, node, &mut place, &send).await {
                    Ok(failure) => words_of(true, &failure),
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

/// Hands on what comes until the node fails; the place moves along.
async fn read_on(
    mut reader: NodeReader,
    node: usize,
    place: &mut Place,
    send: &mpsc::Sender<News>,
) -> Result<Failure, Gone> {
    let generation = reader.head.generation;
    if let Place::At { generation: known, next_seq } = *place {
        let rows = reader.head.head_seq.map_or(0, |head| head + 1);
        if known != generation {
            let words =
                format!("its log is another one now, {generation} instead of {known}; it is read from its beginning");
            *place = Place::At { generation, next_seq: 0 };
            tell(send, News::Fault { node, words }).await?;
            return Ok(Failure::Broken("a new generation began".to_owned()));
        }
        if rows < next_seq {
            return Ok(Failure::Error(format!(
                "it says that there are {rows} rows, and row {} was read before",
                next_seq - 1
            )));
        }
    }
    for words in std::mem::take(&mut reader.tally.faults) {
        tell(send, News::Fault { node, words }).await?;
    }
    tell(send, News::Begun { node }).await?;
    loop {
        match reader.next().await {
            Ok(Some(row)) => {
                *place = Place::At { generation, next_seq: row.key.seq.saturating_add(1) };
                tell(send, News::Row { node, generation, row: Box::new(row) }).await?;
            }
            Ok(None) => {
                let Some(mark) = reader.mark.take() else {
                    return Ok(Failure::Broken("the node ended a stream that has no end".to_owned()));
                };
                for words in std::mem::take(&mut reader.tally.faults).into_iter().chain(mark.faults) {
                    tell(send, News::Fault { node, words }).await?;
                }
                *place = Place::At { generation, next_seq: mark.next_seq };
                tell(send, News::Mark { node, generation, next_seq: mark.next_seq, time: mark.time }).await?;
            }
            Err(failure) => return Ok(failure),
        }
    }
}

async fn tell(send: &mpsc::Sender<News>, news: News) -> Result<(), Gone> {
    send.send(news).await.map_err(|_| Gone)
}
