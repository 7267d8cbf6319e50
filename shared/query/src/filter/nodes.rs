//! Determines the nodes that a filter selects.

use super::expr::{Expr, Filter};
use super::pattern::Pattern;
use super::test::Test;
use crate::column::Column;

/// Name of a node in a filter, or a pattern of names.
#[derive(Debug, Clone, Copy)]
pub struct NodeName<'a>(&'a Pattern);

impl NodeName<'_> {
    pub fn matches(self, node: &str) -> bool {
        self.0.matches(node)
    }

    /// Returns the name as people type it.
    pub fn text(self) -> String {
        self.0.pieces().join("*")
    }
}

impl Filter {
    /// Returns every node that the filter names, whether it is included or excluded.
    pub fn named_nodes(&self) -> Vec<NodeName<'_>> {
        let names = self.tests().filter_map(|test| match test {
            Test::Field(Column::Node, names) => Some(names.iter().map(NodeName)),
            _ => None,
        });
        names.flatten().collect()
    }

    /// Whether the filter can match only nodes that it names. Other nodes are then neither queried nor expected to answer.
    pub fn limits_nodes(&self) -> bool {
        self.all.iter().any(Expr::limits_nodes)
    }

    /// Whether entries of this node can match, judging by the nodes that the filter names. A negated name excludes no node.
    pub fn concerns_node(&self, node: &str) -> bool {
        concerns(&self.all, node)
    }
}

/// Whether entries of this node can match a list of conditions that must all hold. The first condition that limits the nodes
/// decides.
fn concerns(all: &[Expr], node: &str) -> bool {
    all.iter().find(|part| part.limits_nodes()).is_none_or(|part| part.concerns_node(node))
}

impl Expr {
    fn limits_nodes(&self) -> bool {
        match self {
            Self::Test(test) => matches!(test, Test::Field(Column::Node, _)),
            Self::Any(parts) => parts.iter().all(Self::limits_nodes),
            Self::All(parts) => parts.iter().any(Self::limits_nodes),
            Self::Not(_) => false,
        }
    }

    fn concerns_node(&self, node: &str) -> bool {
        match self {
            Self::Test(Test::Field(Column::Node, names)) => names.iter().any(|name| name.matches(node)),
            Self::Any(parts) => parts.iter().any(|part| part.concerns_node(node)),
            Self::All(parts) => concerns(parts, node),
            Self::Test(_) | Self::Not(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::expr::no_time;
    use super::*;

    #[test]
    fn nodes_that_no_entry_can_be_of_are_left_out() {
        for (text, mx1, mx2) in [
            ("", true, true),
            ("node:mx1", true, false),
            ("-node:mx1", true, true),
            ("node:mx*", true, true),
            ("node:mx1 user:a", true, false),
            ("node:mx1 OR node:mx2", true, true),
            ("node:mx1 OR user:a", true, true),
            ("(node:mx1 user:a) OR (node:mx1 user:b)", true, false),
            ("node:mx1 node:mx2", true, false),
            ("NOT (node:mx1 OR user:a)", true, true),
        ] {
            let filter = Filter::parse(text, no_time()).expect(text);
            assert_eq!((filter.concerns_node("mx1"), filter.concerns_node("mx2")), (mx1, mx2), "{text}");
            assert_eq!(
                filter.limits_nodes(),
                !(mx1 && mx2) || text.contains("node:mx1 OR node") || text == "node:mx*",
                "{text}"
            );
        }
    }
}
