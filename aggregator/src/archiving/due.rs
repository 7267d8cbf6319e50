//! Decides which rows are due.

use std::time::Duration;

use piperoll_archive::row::{Day, LogId};
use piperoll_archive::write::Due;
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::note::Note;
use piperoll_format::time::Timestamp;

use crate::cluster::node_handle::NodeHandle;
use crate::cluster::roster::Cluster;

/// Which checkpoints end a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// For each log, the last checkpoint that was cosigned on a UTC day that ended at least this long ago.
    EndedDays(Duration),
    /// The newest cosigned checkpoint.
    Now,
}

/// Returns the rows that are due of all logs, in the order of the roster.
pub(super) fn due(cluster: &Cluster, until: Until, now: Timestamp) -> Vec<Due> {
    cluster.members.iter().flat_map(|member| due_of(member, until, now)).collect()
}

fn due_of(member: &NodeHandle, until: Until, now: Timestamp) -> Vec<Due> {
    // The checkpoints of an alarmed node are those that were cosigned before the alarm, so they stay valid.
    let mut due: Vec<(LogId, u64, String)> = Vec::new();
    let mut add = |note: &str| {
        let Some((log, size)) = log_of(member, note) else { return };
        match due.iter_mut().find(|(known, ..)| *known == log) {
            Some(known) if known.1 < size => *known = (log, size, note.to_owned()),
            Some(_) => {}
            None => due.push((log, size, note.to_owned())),
        }
    };
    for day in member.witness.day_checkpoints() {
        if has_ended(day.seen, until, now) {
            add(&day.note);
        }
    }
    // Logs that the current one replaced, if the node can still read them, up to the last checkpoint that was pinned.
    let replaced = member.witness.asides_in(Timestamp::MIN, Timestamp::MAX);
    for pinned in replaced.into_iter().filter_map(|(_, pinned)| pinned) {
        if has_ended(pinned.seen, until, now) {
            add(&pinned.note);
        }
    }
    if until == Until::Now
        && let Some(pinned) = member.witness.pinned()
    {
        add(&pinned.note);
    }
    due.into_iter().map(|(log, _, checkpoint)| Due { log, checkpoint }).collect()
}

/// Whether the day of a checkpoint ended long enough ago.
fn has_ended(seen: Timestamp, until: Until, now: Timestamp) -> bool {
    match until {
        Until::Now => true,
        Until::EndedDays(after) => Day::of(seen).end() <= now.minus(after),
    }
}

fn log_of(member: &NodeHandle, note: &str) -> Option<(LogId, u64)> {
    let note = Note::parse(note).ok()?;
    let checkpoint = Checkpoint::parse(note.text()).ok()?;
    let generation = checkpoint.origin.rsplit('/').next()?.parse().ok()?;
    Some((LogId { node_id: member.node.id.clone(), generation }, checkpoint.size))
}
