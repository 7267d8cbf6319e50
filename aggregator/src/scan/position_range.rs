//! The range of positions that a request asks for.

use std::ops::Range;

use piperoll_format::order::{Order, Position};
use piperoll_format::time::Timestamp;
use piperoll_protocol::node::ScanRequest;

/// Positions of a request's rows, from its time range and the position after which it continues.
pub(super) fn positions(request: &ScanRequest) -> Range<Position> {
    let at = |timestamp: Timestamp| Position { timestamp, seq: 0 };
    let (mut begin, mut end) = (at(request.from), at(request.to));
    match (request.after, request.order) {
        (Some(after), Order::Asc) => begin = begin.max(after.next()),
        (Some(after), Order::Desc) => end = end.min(after),
        (None, _) => {}
    }
    begin..end
}

/// The part of a range up to `last`, the last row of an answer that more rows follow.
pub(super) fn up_to(range: &Range<Position>, order: Order, last: Option<Position>) -> Range<Position> {
    match (last, order) {
        (Some(last), Order::Asc) => range.start..range.end.min(last.next()),
        (Some(last), Order::Desc) => range.start.max(last)..range.end,
        (None, _) => range.clone(),
    }
}
