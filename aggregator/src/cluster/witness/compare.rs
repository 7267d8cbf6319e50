//! Compares a checkpoint with the pinned one. Pure: no clock, no network, no files.

use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::merkle::{Hash, verify_consistency};

/// Result of comparing a checkpoint, whose signature is valid, with the pinned one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Nothing was pinned, or the checkpoint extends the pinned one: pin it.
    Advance,
    /// The same log at the same size.
    Same,
    /// Two histories, both signed by the node.
    Fork(String),
    /// The node signed fewer rows than before, or presents a log of another generation.
    Rollback(String),
}

/// Compares `presented` with `pinned`, the checkpoint that this witness cosigned last. `proof` is the consistency proof between
/// the two.
pub(crate) fn compare(pinned: Option<&Checkpoint>, presented: &Checkpoint, proof: &[Hash]) -> Comparison {
    let Some(pinned) = pinned else { return Comparison::Advance };
    if pinned.origin != presented.origin {
        return Comparison::Rollback(format!(
            "the log {} was witnessed with {} rows, and the node now presents {} instead",
            pinned.origin, pinned.size, presented.origin
        ));
    }
    if presented.size < pinned.size {
        return Comparison::Rollback(format!(
            "{} rows were witnessed, but the node now signs only {}: the end of its log was cut off, or an older copy was put back",
            pinned.size, presented.size
        ));
    }
    if presented.size == pinned.size {
        return if presented.root == pinned.root {
            Comparison::Same
        } else {
            Comparison::Fork(format!("the node signed two different logs of {} rows", pinned.size))
        };
    }
    // An empty log contains nothing that could have been changed since.
    if pinned.size == 0 || verify_consistency(pinned.size, &pinned.root, presented.size, &presented.root, proof).is_ok()
    {
        return Comparison::Advance;
    }
    Comparison::Fork(format!(
        "the {} witnessed rows are not the first of the {} rows that the node now signs",
        pinned.size, presented.size
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use piperoll_format::merkle::{TreeBuilder, leaf_hash};

    fn checkpoint(origin: &str, rows: u64, change: Option<u64>) -> Checkpoint {
        let mut tree = TreeBuilder::default();
        for n in 0..rows {
            let body = if change == Some(n) { n + 1_000 } else { n };
            tree.push(leaf_hash(&body.to_be_bytes(), b""), |_| {});
        }
        Checkpoint { origin: origin.to_owned(), size: rows, root: tree.root() }
    }

    /// Returns the consistency proof from two rows to three, which consists of the third leaf only.
    fn proof_from_two_to_three() -> Vec<Hash> {
        vec![leaf_hash(&2u64.to_be_bytes(), b"")]
    }

    #[test]
    fn every_history_has_its_comparison() {
        let pinned = checkpoint("c/n/1", 2, None);
        let proof = proof_from_two_to_three();
        let compare = |presented: &Checkpoint, proof: &[Hash]| compare(Some(&pinned), presented, proof);
        assert_eq!(super::compare(None, &pinned, &[]), Comparison::Advance);
        assert_eq!(compare(&pinned, &[]), Comparison::Same);
        assert_eq!(compare(&checkpoint("c/n/1", 3, None), &proof), Comparison::Advance);
        assert!(matches!(compare(&checkpoint("c/n/1", 3, None), &[]), Comparison::Fork(_)));
        assert!(matches!(compare(&checkpoint("c/n/1", 3, Some(1)), &proof), Comparison::Fork(_)));
        assert!(matches!(compare(&checkpoint("c/n/1", 2, Some(0)), &[]), Comparison::Fork(_)));
        assert!(matches!(compare(&checkpoint("c/n/1", 1, None), &[]), Comparison::Rollback(_)));
        assert!(matches!(compare(&checkpoint("c/n/2", 9, None), &[]), Comparison::Rollback(_)));
    }
}
