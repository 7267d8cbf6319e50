//! Last checkpoints of days, with which the archive's steps end.

use piperoll_archive::row::Day;
use piperoll_format::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The last checkpoint that was cosigned on a UTC day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DayCheckpoint {
    /// The node's checkpoint with this witness's cosignature.
    pub(crate) note: String,
    pub(crate) seen: Timestamp,
}

/// Maximum number of days kept. A later checkpoint of a log covers the rows of an earlier one, so dropping the oldest days loses
/// nothing but the option to end a step there.
const DAYS_MAX: usize = 64;

/// Adds the checkpoint of a pin to `days` if it is the last one of its day, that is, if another one is pinned at `now`, on a later day.
pub(crate) fn note_day(days: &mut Vec<DayCheckpoint>, note: &str, seen: Timestamp, now: Timestamp) {
    if Day::of(seen) >= Day::of(now) {
        return;
    }
    if days.len() >= DAYS_MAX {
        days.remove(0);
    }
    days.push(DayCheckpoint { note: note.to_owned(), seen });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_checkpoint_of_a_day_is_kept() {
        let hour = |hours: i64| Timestamp::from_micros(hours * 3_600 * 1_000_000);
        let mut days = Vec::new();
        // A poll every six hours for three days.
        for poll in 1..13 {
            note_day(&mut days, &format!("note {}", poll - 1), hour((poll - 1) * 6), hour(poll * 6));
        }
        let kept: Vec<&str> = days.iter().map(|day| day.note.as_str()).collect();
        assert_eq!(kept, ["note 3", "note 7", "note 11"]);
        (4..200).for_each(|day| note_day(&mut days, "later", hour((day - 1) * 24), hour(day * 24)));
        assert_eq!(days.len(), DAYS_MAX);
    }
}
