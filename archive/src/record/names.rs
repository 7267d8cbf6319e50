//! Names of the objects of an archive.

use piperoll_format::digest::sha256;

use super::signed::Digest;
use crate::row::{Day, LogId};

/// The object that identifies the archive.
pub const ARCHIVE: &str = "archive";
/// Folders of an archive.
pub const DATA: &str = "data";
pub const PLANS: &str = "plans";
pub const STEPS: &str = "steps";
pub const TILES: &str = "tile";
pub const CHECKPOINTS: &str = "checkpoints";
pub const PROBE: &str = "probe";

/// Digits of a step's number in a name, so that names sort like numbers.
const NUMBER_DIGITS: usize = 8;
/// Hexadecimal digits of a digest in a name.
const SUM_DIGITS: usize = 16;
const TREE_SUFFIX: &str = ".tree";

pub fn plan(number: u64) -> String {
    format!("{PLANS}/{number:0NUMBER_DIGITS$}")
}

/// Name of a further plan of a step: an attempt that creates other files than the first one names them before it creates them.
pub fn plan_again(number: u64, digest: &Digest) -> String {
    format!("{PLANS}/{number:0NUMBER_DIGITS$}.{}", short(digest))
}

/// Returns the number of the step that a plan is for.
pub fn number_of_plan(name: &str) -> Option<u64> {
    let (first, again) = name.rsplit_once('.').map_or((name, None), |(first, again)| (first, Some(again)));
    number_in(PLANS, first).filter(|_| again.is_none_or(is_short))
}

fn is_short(text: &str) -> bool {
    text.len() == SUM_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub fn step(number: u64) -> String {
    format!("{STEPS}/{number:0NUMBER_DIGITS$}")
}

/// Name of a step's hashes. It contains the digest of the content: an interrupted attempt may have created another object for
/// the same step.
pub fn tree(number: u64, digest: &Digest) -> String {
    format!("{STEPS}/{number:0NUMBER_DIGITS$}.{}{TREE_SUFFIX}", short(digest))
}

/// Returns the number of the step or plan in a name of `folder`; `None` for any other name.
pub fn number_in(folder: &str, name: &str) -> Option<u64> {
    let digits = name.strip_prefix(folder)?.strip_prefix('/')?;
    let number: u64 = digits.parse().ok()?;
    (format!("{number:0NUMBER_DIGITS$}") == digits).then_some(number)
}

/// Returns the number of the step whose hashes have this name.
pub fn number_of_tree(name: &str) -> Option<u64> {
    let (step, sum) = name.strip_suffix(TREE_SUFFIX)?.rsplit_once('.')?;
    number_in(STEPS, step).filter(|_| is_short(sum))
}

/// Name of a file of rows: its day, its first row, the number of its rows, and the beginning of their digest. A file with an
/// erased row has another name than one with the row's content.
pub fn data(day: Day, log: &LogId, first_seq: u64, rows: u64, sum: &Digest) -> String {
    format!("{DATA}/day={day}/{}-{first_seq}-{rows}-{}.parquet", log.node_id, short(sum))
}

/// Name of a checkpoint with the signatures of its log, its witness and the mirror.
pub fn checkpoint(origin: &str, number: u64) -> String {
    format!("{CHECKPOINTS}/{}/{number:0NUMBER_DIGITS$}", origin_hash(origin))
}

/// Name of a full tile (C2SP tlog-tiles, "Merkle Tree"): the index in groups of three digits, of which all but the last begin
/// with `x`.
pub fn tile(origin: &str, level: u32, index: u64) -> String {
    let mut groups = vec![format!("{:03}", index % 1_000)];
    let mut rest = index / 1_000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1_000));
        rest /= 1_000;
    }
    groups.reverse();
    format!("{TILES}/{}/{level}/{}", origin_hash(origin), groups.join("/"))
}

/// Hash under which the objects of a log are found.
pub fn origin_hash(origin: &str) -> String {
    hex::encode(sha256([origin.as_bytes()]))
}

fn short(digest: &Digest) -> String {
    let mut text = digest.to_string();
    text.truncate(SUM_DIGITS);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::digest_of;
    use piperoll_format::time::Timestamp;

    /// The names of docs/archive.md.
    #[test]
    fn names_are_fixed() {
        let log = LogId {
            node_id: "mx1".parse().expect("an id"),
            generation: "07".repeat(16).parse().expect("a generation"),
        };
        let day = Day::of(Timestamp::parse_rfc3339("2026-11-27T12:00:00Z").expect("a time"));
        let sum = digest_of(b"rows");
        assert_eq!(
            data(day, &log, 512, 300, &sum),
            format!("data/day=2026-11-27/mx1-512-300-{}.parquet", &sum.to_string()[..16])
        );
        assert_eq!((plan(42), step(42)), ("plans/00000042".to_owned(), "steps/00000042".to_owned()));
        assert_eq!(number_in(STEPS, "steps/00000042"), Some(42));
        assert_eq!(number_of_tree(&tree(42, &sum)), Some(42));
        for other in ["steps/42", "steps/+0000042", "steps/0000004x", "plans/00000042", "steps/00000042.tree"] {
            assert_eq!(number_in(STEPS, other), None, "{other}");
        }
        assert_eq!((number_of_plan(&plan(7)), number_of_plan(&plan_again(7, &sum))), (Some(7), Some(7)));
        assert_eq!((number_of_plan("plans/00000007.x"), number_of_tree("steps/00000007.any/thing.tree")), (None, None));
        let origin = origin_hash("example/mx1/07");
        assert_eq!(tile("example/mx1/07", 1, 1_234_067), format!("tile/{origin}/1/x001/x234/067"));
        assert_eq!(tile("example/mx1/07", 2, 5), format!("tile/{origin}/2/005"));
    }
}
