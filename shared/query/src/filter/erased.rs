//! Evaluates a filter on an erased row, of which only the position is known.

use super::expr::{Expr, Filter};
use super::test::{Property, Test};
use crate::column::Column;

/// Whether a filter selects an erased row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErasedFit {
    /// The row's position alone selects the row: the filter refers only to nodes, row numbers and `is:erased`.
    Yes,
    /// The row's position alone rules the row out.
    No,
    /// The content of the row would decide, but it is erased.
    Unknown,
}

impl Filter {
    /// Evaluates the filter on the position of an erased row. The time range of a query is not part of a filter.
    pub fn on_erased(&self, node_id: &str, seq: u64) -> ErasedFit {
        all_of(&self.all, node_id, seq)
    }

    /// Returns the filter `-is:erased`, which matches every entry and no erased row.
    pub fn without_erased() -> Self {
        Self::of(Expr::not(Expr::Test(Test::Is(vec![Property::Erased]))))
    }

    /// Whether the result of [`Self::on_erased`] depends on the row number, so that one result does not apply to all rows of a node.
    pub fn names_seqs(&self) -> bool {
        self.tests().any(|test| matches!(test, Test::Seq(_)))
    }
}

fn all_of(parts: &[Expr], node_id: &str, seq: u64) -> ErasedFit {
    let mut all = ErasedFit::Yes;
    for part in parts {
        match part.on_erased(node_id, seq) {
            ErasedFit::No => return ErasedFit::No,
            ErasedFit::Unknown => all = ErasedFit::Unknown,
            ErasedFit::Yes => {}
        }
    }
    all
}

impl ErasedFit {
    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }
}

impl Expr {
    /// Evaluates with three-valued logic: if one part is unknown, the result is unknown unless the other parts decide it.
    fn on_erased(&self, node_id: &str, seq: u64) -> ErasedFit {
        let holds = match self {
            Self::Not(part) => return part.on_erased(node_id, seq).not(),
            Self::All(parts) => return all_of(parts, node_id, seq),
            Self::Any(parts) => {
                let fits: Vec<ErasedFit> = parts.iter().map(|part| part.on_erased(node_id, seq)).collect();
                let has = |fit| fits.contains(&fit);
                return if has(ErasedFit::Yes) {
                    ErasedFit::Yes
                } else if has(ErasedFit::Unknown) {
                    ErasedFit::Unknown
                } else {
                    ErasedFit::No
                };
            }
            Self::Test(Test::Field(Column::Node, names)) => names.iter().any(|name| name.matches(node_id)),
            Self::Test(Test::Seq(ranges)) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&seq)),
            Self::Test(Test::Is(properties)) if properties.contains(&Property::Erased) => true,
            Self::Test(_) => return ErasedFit::Unknown,
        };
        if holds { ErasedFit::Yes } else { ErasedFit::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piperoll_format::time::Timestamp;

    #[test]
    fn only_a_place_can_say_that_an_erased_row_fits() {
        for (text, fits) in [
            ("", ErasedFit::Yes),
            ("node:mx1", ErasedFit::Yes),
            ("node:mx2", ErasedFit::No),
            ("-node:mx1", ErasedFit::No),
            ("-node:mx2", ErasedFit::Yes),
            ("seq:7", ErasedFit::Yes),
            ("seq:1..6,8", ErasedFit::No),
            ("seq:7 node:mx1 is:erased", ErasedFit::Yes),
            ("is:erased", ErasedFit::Yes),
            ("is:failed,erased", ErasedFit::Yes),
            ("-is:erased", ErasedFit::No),
            ("-is:erased user:alice", ErasedFit::No),
            ("is:failed", ErasedFit::Unknown),
            ("-is:failed", ErasedFit::Unknown),
            ("user:alice", ErasedFit::Unknown),
            ("-user:alice", ErasedFit::Unknown),
            ("user:alice node:mx1", ErasedFit::Unknown),
            ("user:alice node:mx2", ErasedFit::No),
            ("user:alice is:erased", ErasedFit::Unknown),
            ("occurred:2026-04-15", ErasedFit::Unknown),
            ("details:x", ErasedFit::Unknown),
            ("words", ErasedFit::Unknown),
            ("node:mx*", ErasedFit::Yes),
            ("user:alice OR node:mx1", ErasedFit::Yes),
            ("user:alice OR node:mx2", ErasedFit::Unknown),
            ("node:mx2 OR seq:9", ErasedFit::No),
            ("NOT (user:alice OR node:mx1)", ErasedFit::No),
            ("NOT (node:mx2 OR seq:9)", ErasedFit::Yes),
            ("NOT (user:alice seq:7)", ErasedFit::Unknown),
            ("(user:alice OR is:erased) node:mx1", ErasedFit::Yes),
            ("id:0198c0de-0000-7000-8000-000000000001", ErasedFit::Unknown),
        ] {
            let filter = Filter::parse(text, Timestamp::from_micros(0)).expect(text);
            assert_eq!(filter.on_erased("mx1", 7), fits, "{text}");
        }
    }
}
