//! State of the witness about one node, written to disk before it takes effect.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use piperoll_format::ids::{Generation, NodeId};
use piperoll_format::statement::EarlierPruned;
use piperoll_format::time::Timestamp;
use piperoll_net::checked_json;
use piperoll_protocol::verdict::Verdict;
use serde::{Deserialize, Serialize};

use super::day_checkpoint::DayCheckpoint;

/// The largest consistent log that the witness has seen from a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pin {
    pub(crate) origin: String,
    pub(crate) size: u64,
    /// The node's checkpoint with this witness's cosignature.
    pub(crate) note: String,
    /// Time at which the node last confirmed the pin.
    pub(crate) seen: Timestamp,
    /// Times of the log's rows, as reported by the node. Missing in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) span: Option<Span>,
}

/// Time span of the rows of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Span {
    /// Lower bound for the times of the rows; `None` if the node's clock ever stepped back, because an older row may
    /// then have any time.
    pub(crate) oldest: Option<Timestamp>,
    /// Time of the last row.
    pub(crate) newest: Option<Timestamp>,
    pub(crate) era: u32,
    /// Latest value that `newest` ever had. It can be later than `newest`, because the node's clock may have run ahead.
    #[serde(default)]
    pub(crate) latest: Option<Timestamp>,
}

impl Span {
    /// Merges this report of a node with an earlier one about the same log. Reports are not signed, so they may only
    /// widen the known time span.
    pub(crate) fn after(self, before: Option<Self>) -> Self {
        let Some(before) = before else { return self };
        Self {
            oldest: before.oldest.zip(self.oldest).map(|(a, b)| a.min(b)),
            latest: before.latest.max(before.newest).max(self.newest),
            ..self
        }
    }
}

/// A cosigned size with its root. Used to find how far a log that was restored from a copy agrees with the pinned one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mark {
    pub(crate) size: u64,
    /// Base64.
    pub(crate) root: String,
    pub(crate) seen: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) span: Option<Span>,
}

/// Rows of a former log that are missing from the log accepted in its place. The record is permanent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lost {
    pub(crate) generation: String,
    /// Half-open range `from_seq..to_seq`. Both are 0 if the number of rows is unknown.
    pub(crate) from_seq: u64,
    pub(crate) to_seq: u64,
    /// Lower bound for the times of the rows; `None` if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oldest: Option<Timestamp>,
    /// Upper bound for the times of the rows.
    pub(crate) until: Timestamp,
    /// Time at which the last of the rows was witnessed. For a log that is known only from the log that replaced it,
    /// the time of the replacement.
    pub(crate) witnessed: Timestamp,
    /// Whether the log was never witnessed here and is known only from the log that replaced it.
    #[serde(default)]
    pub(crate) learned: bool,
    /// Last pinned checkpoint of the log. If its rows can still be read, they are verified against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// Set if the log was deleted together with the first rows of the log that replaced it, according to a proven entry of the
    /// replacement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gone: Option<GoneWith>,
}

/// The prune that deleted a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GoneWith {
    /// Generation of the log that replaced the deleted one. `to_seq` is the first retained row of the replacement.
    pub(crate) generation: String,
    pub(crate) to_seq: u64,
    /// Number of rows that the deleted log had, according to the `log.pruned` entry of the replacement.
    pub(crate) rows: u64,
    /// Whether the rows had been kept for as long as the policy requires.
    pub(crate) is_kept: bool,
}

/// Maximum number of recorded losses, more than are expected in practice. Further losses widen the last record.
pub(crate) const LOST_MAX: usize = 256;

impl Lost {
    /// Whether rows of this range may be among the lost ones.
    pub(crate) fn touches(&self, from: Timestamp, to: Timestamp) -> bool {
        from <= self.until && self.oldest.is_none_or(|oldest| oldest < to)
    }

    pub(crate) fn describe(&self) -> String {
        let Self { generation, from_seq, to_seq, witnessed, learned, .. } = self;
        if let Some(gone) = &self.gone {
            return format!(
                "the log of generation {generation} was deleted with the rows below {} of generation {}",
                gone.to_seq, gone.generation
            );
        }
        if *learned || from_seq == to_seq {
            return format!("the log of generation {generation}, which was replaced at {witnessed}, is unavailable");
        }
        format!(
            "rows {from_seq} to {} of generation {generation}, last witnessed at {witnessed}, are not in the log that was accepted",
            to_seq - 1
        )
    }
}

/// A fork or a rollback. The alarm stays until an operator accepts it; a node cannot clear it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Alarm {
    /// `Fork` or `Rollback`.
    pub(crate) verdict: Verdict,
    pub(crate) reason: String,
    pub(crate) since: Timestamp,
    /// Generation that the node presented last. An operator who accepts the alarm names this generation.
    pub(crate) generation: String,
    /// Signed note that the node presented last. An acceptance refers to this log, at this size or a larger one.
    /// Missing in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) presented: Option<String>,
}

/// A row that failed verification when it was read. The finding remains until an operator accepts it, regardless of later reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BadRow {
    pub(crate) generation: String,
    /// Seq of the row, as claimed by the node.
    pub(crate) seq: u64,
    /// Why it failed.
    pub(crate) reason: String,
    pub(crate) found: Timestamp,
}

impl BadRow {
    pub(crate) fn describe(&self) -> String {
        let Self { generation, seq, reason, found } = self;
        format!("row {seq} of generation {generation} failed verification when it was read at {found}: {reason}")
    }
}

/// Contents of one node's state file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remembered {
    pub(crate) pin: Option<Pin>,
    pub(crate) alarm: Option<Alarm>,
    /// The first row that failed verification since an operator last accepted such a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bad_row: Option<BadRow>,
    /// Cosigned sizes of the pinned generation, ascending.
    #[serde(default)]
    pub(crate) marks: Vec<Mark>,
    #[serde(default)]
    pub(crate) lost: Vec<Lost>,
    /// Rows that were pruned earlier than the cluster's policy allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) early: Vec<EarlyPrune>,
    /// Log starts of the node with the times at which they were first seen, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) floors: Vec<SeenFloor>,
    /// Conflicting checkpoints that the node showed to other aggregators and that were reported. Once accepted, a
    /// checkpoint is not reported again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) splits: Vec<Split>,
    /// Set if the witness lost what it had stored about the node. The loss is reported until an operator accepts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) again: Option<Again>,
    /// The last checkpoint of each UTC day, oldest first. Kept if this aggregator writes an archive, whose steps end with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) days: Vec<DayCheckpoint>,
    /// The last witnessed row, if it could be read. Kept if this aggregator writes an archive, which needs it to be read instead of a node
    /// that does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) edge: Option<WitnessedEdge>,
}

/// The last row below a pinned checkpoint, read from the node with its MAC and its proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WitnessedEdge {
    /// Size and root (base64) of the checkpoint.
    pub(crate) size: u64,
    pub(crate) root: String,
    pub(crate) era: u32,
}

/// A log start above row 0, and when it was first seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeenFloor {
    pub(crate) generation: String,
    pub(crate) to_seq: u64,
    pub(crate) seen: Timestamp,
}

/// Maximum number of log starts kept. Only the newest one of a log is looked up.
const FLOORS_MAX: usize = 64;

/// A checkpoint that another aggregator pinned and that contradicts the log shown here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Split {
    pub(crate) generation: String,
    pub(crate) size: u64,
    /// Base64.
    pub(crate) root: String,
}

/// Maximum number of recorded splits. Beyond it, the oldest one is forgotten, and is reported again if it still applies.
const SPLITS_MAX: usize = 64;

/// Marks a node that was witnessed before, but whose log is now treated as if it were seen for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Again {
    pub(crate) since: Timestamp,
    /// Description of what is still known about the node.
    /// The stored name is the one that the first version used.
    #[serde(rename = "words")]
    pub(crate) message: String,
}

/// Rows that a node pruned earlier than the policy allows. The record is permanent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EarlyPrune {
    pub(crate) generation: String,
    /// Seq of the first retained row.
    pub(crate) to_seq: u64,
    /// Time of the newest pruned row.
    pub(crate) newest: Timestamp,
    /// Description of the finding. The stored name is the one that the first version used.
    #[serde(rename = "words")]
    pub(crate) message: String,
    pub(crate) found: Timestamp,
}

impl EarlyPrune {
    pub(crate) fn describe(&self) -> String {
        let Self { generation, to_seq, message, .. } = self;
        format!(
            "rows below {to_seq} of generation {generation} were pruned earlier than the cluster's policy allows: {message}"
        )
    }
}

/// Maximum number of recorded early prunes. Further early prunes widen the last record.
const EARLY_MAX: usize = 256;

/// Minimum time between two marks. If there are too many marks, every second mark of the older half is dropped.
const MARK_INTERVAL_MICROS: i64 = 3_600 * 1_000_000;
const MARKS_MAX: usize = 1_024;

impl Remembered {
    /// Records lost rows permanently.
    pub(crate) fn lose(&mut self, lost: Lost) {
        if self.lost.len() < LOST_MAX {
            self.lost.push(lost);
        } else if let Some(last) = self.lost.last_mut() {
            last.oldest = last.oldest.zip(lost.oldest).map(|(a, b)| a.min(b));
            last.until = last.until.max(lost.until);
            // The record now covers other losses too.
            last.gone = None;
        }
    }

    /// Records that logs were deleted together with the first `to_seq` rows of another log. A log is marked as deleted only if it
    /// was replaced completely and `logs` covers all of its rows, so a log of unknown length is not marked.
    pub(crate) fn let_go(&mut self, logs: &[EarlierPruned], with: &Generation, to_seq: u64, is_kept: bool) {
        for log in logs {
            let generation = log.generation.to_string();
            let gone = GoneWith { generation: with.to_string(), to_seq, rows: log.rows, is_kept };
            let whole = |lost: &&mut Lost| (lost.note.is_some() || lost.learned) && lost.to_seq > 0;
            let of_it = self.lost.iter_mut().filter(|lost| lost.generation == generation).filter(whole);
            for lost in of_it.filter(|lost| lost.to_seq <= log.rows) {
                // When the deletion was first found, the key of a witness may not have been configured here yet, so a
                // later check may still find that the rows were kept long enough.
                if lost.gone.as_ref().is_none_or(|known| !known.is_kept && is_kept) {
                    lost.gone = Some(gone.clone());
                }
            }
        }
    }

    /// Records a split view that was reported.
    pub(crate) fn note_split(&mut self, split: Split) {
        if self.splits.len() >= SPLITS_MAX {
            self.splits.remove(0);
        }
        self.splits.push(split);
    }

    /// Records when a log start was first seen.
    pub(crate) fn note_floor(&mut self, floor: SeenFloor) {
        if self.floors.len() >= FLOORS_MAX {
            self.floors.remove(0);
        }
        self.floors.push(floor);
    }

    /// Records that rows were pruned too early. Returns false if this prune is on record already.
    pub(crate) fn note_early(&mut self, early: EarlyPrune) -> bool {
        if self.early.iter().any(|known| known.generation == early.generation && known.to_seq == early.to_seq) {
            return false;
        }
        if self.early.len() < EARLY_MAX {
            self.early.push(early);
        } else if let Some(last) = self.early.last_mut() {
            last.newest = last.newest.max(early.newest);
        }
        true
    }

    /// Records a cosigned size, unless one was recorded a short while ago.
    pub(crate) fn mark(&mut self, mark: Mark) {
        let due = self.marks.last().is_none_or(|last| {
            last.size < mark.size && mark.seen.micros() - last.seen.micros() >= MARK_INTERVAL_MICROS
        });
        if !due {
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            let mut place = 0;
            self.marks.retain(|_| {
                place += 1;
                place > MARKS_MAX / 2 || place % 2 == 0
            });
        }
        self.marks.push(mark);
    }
}

/// A line of the permanent evidence: two signed notes that cannot both be true, or an acceptance.
#[derive(Debug, Serialize)]
pub(crate) struct Evidence<'a> {
    pub(crate) at: Timestamp,
    pub(crate) what: &'a str,
    /// Description of the finding, or reason for the acceptance. The stored name is the one that the first version used.
    #[serde(rename = "words")]
    pub(crate) message: &'a str,
    pub(crate) pinned: Option<&'a str>,
    pub(crate) presented: Option<&'a str>,
    /// The row that failed verification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) row: Option<&'a BadRow>,
}

/// Value of `what` in an evidence line that records an operator's acceptance of the lines before it.
pub(crate) const ACCEPTED: &str = "accepted";
/// Verdict on a node that returned a row that fails verification.
pub(crate) const ROW_INVALID: &str = Verdict::RowInvalid.as_str();

/// Files of one node: `state/witness/<node>.json` and `<node>.evidence.ndjson`.
pub(crate) struct Memory {
    dir: PathBuf,
    node: NodeId,
}

impl Memory {
    pub(crate) fn open(state_dir: &Path, node: &NodeId) -> std::io::Result<(Self, Remembered)> {
        let dir = state_dir.join("witness");
        if !dir.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        }
        let memory = Self { dir, node: node.clone() };
        let path = memory.path();
        let remembered = match std::fs::read(&path) {
            // An empty file is treated like a missing one.
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => memory.without_memory(node),
            // Starting without the file would let a node present any history as the first one.
            Ok(bytes) => checked_json::from_bytes(&bytes).map_err(|error| {
                std::io::Error::other(format!(
                    "{}: {error}; restore the file from a backup: without it, this aggregator does not know which checkpoints the node has signed",
                    path.display()
                ))
            })?,
            // The file is gone. If evidence remains that no operator accepted, the alarm remains too.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => memory.without_memory(node),
            Err(error) => return Err(error),
        };
        Ok((memory, remembered))
    }

    fn without_memory(&self, node: &NodeId) -> Remembered {
        let (alarm, bad_row) = self.unaccepted();
        let reasons = alarm.iter().map(|alarm| alarm.reason.clone()).chain(bad_row.iter().map(BadRow::describe));
        for reason in reasons {
            tracing::error!(%node, reason, "the witnessed state of a node is missing, but evidence against the node remains");
        }
        Remembered { alarm, bad_row, ..Remembered::default() }
    }

    /// Whether evidence against the node, or an acceptance, was ever recorded.
    pub(crate) fn has_evidence(&self) -> bool {
        self.dir.join(format!("{}.evidence.ndjson", self.node)).exists()
    }

    fn path(&self) -> PathBuf {
        self.dir.join(format!("{}.json", self.node))
    }

    /// Returns the findings in the evidence that no operator has accepted since.
    fn unaccepted(&self) -> (Option<Alarm>, Option<BadRow>) {
        #[derive(Deserialize)]
        struct StoredEvidence {
            at: Timestamp,
            what: String,
            /// Description of the finding, or reason for the acceptance. The stored name is the one that the first version used.
            #[serde(rename = "words")]
            message: String,
            presented: Option<String>,
            #[serde(default)]
            row: Option<BadRow>,
        }
        let (mut alarm, mut bad_row) = (None, None);
        let text = std::fs::read_to_string(self.dir.join(format!("{}.evidence.ndjson", self.node))).unwrap_or_default();
        // A line that a crash cut short belongs to a finding that was never reported.
        for kept in text.lines().filter_map(|line| serde_json::from_str::<StoredEvidence>(line).ok()) {
            match kept.what.as_str() {
                ACCEPTED => (alarm, bad_row) = (None, None),
                ROW_INVALID => bad_row = bad_row.or(kept.row),
                _ => {
                    let origin = kept.presented.as_deref().and_then(|note| note.lines().next()).unwrap_or_default();
                    let generation = origin.rsplit('/').next().unwrap_or_default().to_owned();
                    let reason =
                        format!("{}; the earlier witness state is missing from the state directory", kept.message);
                    // Besides rows and acceptances, the evidence contains only forks and rollbacks.
                    let verdict = if kept.what == Verdict::Fork.as_str() { Verdict::Fork } else { Verdict::Rollback };
                    let (since, presented) = (kept.at, kept.presented);
                    alarm = Some(Alarm { verdict, reason, since, generation, presented });
                }
            }
        }
        (alarm, bad_row)
    }

    /// Replaces the whole file and syncs it, so that a crash leaves either the previous or the new state.
    pub(crate) fn store(&self, remembered: &Remembered) -> std::io::Result<()> {
        checked_json::write(&self.path(), remembered)
    }

    pub(crate) fn keep(&self, evidence: &Evidence<'_>) -> std::io::Result<()> {
        let path = self.dir.join(format!("{}.evidence.ndjson", self.node));
        let mut line = serde_json::to_vec(evidence).unwrap_or_default();
        line.push(b'\n');
        // A line that a crash cut short must not damage the next one.
        let cut = std::fs::read(&path).is_ok_and(|known| known.last().is_some_and(|last| *last != b'\n'));
        if cut {
            line.insert(0, b'\n');
        }
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        file.write_all(&line)?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn span(oldest: Option<i64>, newest: i64) -> Span {
        Span { oldest: oldest.map(at), newest: Some(at(newest)), era: 0, latest: Some(at(newest)) }
    }

    /// A node's reports are not signed, so a later report about the same log only widens the known time span.
    #[test]
    fn what_a_node_says_of_its_times_only_widens() {
        let known = span(Some(100), 900);
        let later = span(Some(800), 850).after(Some(known));
        assert_eq!((later.oldest, later.newest, later.latest), (Some(at(100)), Some(at(850)), Some(at(900))));
        assert_eq!(span(None, 1_000).after(Some(known)).oldest, None, "unknown from some time on");
        assert_eq!(span(Some(5), 1_000).after(Some(span(None, 1))).oldest, None, "and it stays unknown");
        assert_eq!(span(Some(800), 850).after(None), span(Some(800), 850));
    }

    #[test]
    fn only_a_log_whose_rows_all_went_is_let_go() {
        let log = Generation::from_bytes([7; 16]);
        let lost = |to_seq: u64, note: Option<&str>, learned: bool| Lost {
            generation: log.to_string(),
            from_seq: 0,
            to_seq,
            oldest: None,
            until: at(200),
            witnessed: at(190),
            learned,
            note: note.map(str::to_owned),
            gone: None,
        };
        let with = Generation::from_bytes([8; 16]);
        for (what, lost, goes) in [
            ("replaced whole", lost(9, Some("note"), false), true),
            ("learned of", lost(9, None, true), true),
            ("more rows than the statement says", lost(10, Some("note"), false), false),
            ("rows inside of a log", lost(9, None, false), false),
            ("of unknown length", lost(0, None, true), false),
            ("another log", Lost { generation: "other".to_owned(), ..lost(9, Some("note"), false) }, false),
        ] {
            let mut remembered = Remembered { lost: vec![lost], ..Remembered::default() };
            for (is_kept, known) in [(false, false), (true, true), (false, true)] {
                let went = EarlierPruned { generation: log, rows: 9, added: None };
                remembered.let_go(&[went], &with, 256, is_kept);
                let gone = remembered.lost[0].gone.as_ref();
                assert_eq!(gone.map(|gone| gone.is_kept), goes.then_some(known), "{what}");
            }
        }
    }

    #[test]
    fn lost_rows_touch_the_ranges_that_they_may_be_in() {
        let lost = |oldest: Option<i64>| Lost {
            generation: "g".to_owned(),
            from_seq: 3,
            to_seq: 9,
            oldest: oldest.map(at),
            until: at(200),
            witnessed: at(190),
            learned: false,
            note: None,
            gone: None,
        };
        for (oldest, from, to, touches) in [
            (Some(100), 0, 100, false),
            (Some(100), 0, 101, true),
            (Some(100), 200, 300, true),
            (Some(100), 201, 300, false),
            (None, -5, -4, true),
            (None, 201, 300, false),
        ] {
            assert_eq!(lost(oldest).touches(at(from), at(to)), touches, "{oldest:?} {from} {to}");
        }
        let mut remembered = Remembered::default();
        for n in 0..300 {
            remembered.lose(Lost { until: at(n), ..lost(Some(1_000 - n)) });
        }
        assert_eq!(remembered.lost.len(), LOST_MAX);
        let last = remembered.lost.last().expect("one");
        assert_eq!((last.until, last.oldest), (at(299), Some(at(701))), "nothing is forgotten");
    }

    #[test]
    fn marks_are_kept_by_the_hour_and_thinned() {
        let mut remembered = Remembered::default();
        for n in 0..4_000u32 {
            let seen = at(i64::from(n) * MARK_INTERVAL_MICROS / 2);
            remembered.mark(Mark { size: u64::from(n), root: String::new(), seen, span: None });
        }
        let marks = &remembered.marks;
        assert!(marks.len() <= MARKS_MAX && marks.len() > MARKS_MAX / 2, "{}", marks.len());
        assert!(marks.is_sorted_by_key(|mark| mark.size));
        assert_eq!(marks.last().map(|mark| mark.size), Some(3_998));
    }
}
