//! Parses the address of a row, in the forms that users type and that other commands print.

use std::str::FromStr;

use crate::exit::UsageError;

/// `mx1/42` or `mx1:42`, with `@GENERATION` for a row of an archived log. On a node, its own rows can be addressed as just `42`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowAddress {
    /// ID of the node; `None` if it was left out.
    pub(crate) node: Option<String>,
    pub(crate) seq: u64,
    pub(crate) generation: Option<String>,
}

impl FromStr for RowAddress {
    type Err = UsageError;

    fn from_str(text: &str) -> Result<Self, UsageError> {
        let wrong = || {
            UsageError(format!(
                "{text:?} is not a valid row address; write NODE/SEQ, such as mx1/42, or mx1/42@GENERATION for a row of an archived log"
            ))
        };
        let (place, generation) = match text.split_once('@') {
            Some((_, "")) => return Err(wrong()),
            Some((place, generation)) => (place, Some(generation.to_owned())),
            None => (text, None),
        };
        let (node, seq) = match place.rsplit_once(['/', ':']) {
            Some(("", _)) => return Err(wrong()),
            Some((node, seq)) => (Some(node.to_owned()), seq),
            None => (None, place),
        };
        // Reject a sign, which `parse` would accept.
        let is_number = seq.bytes().all(|byte| byte.is_ascii_digit());
        let seq = seq.parse().ok().filter(|_| is_number).ok_or_else(wrong)?;
        Ok(Self { node, seq, generation })
    }
}

impl RowAddress {
    /// Returns the address with its node, which commands that query all nodes need.
    ///
    /// # Errors
    /// When the node was left out.
    pub(crate) fn with_node(self) -> Result<(String, u64, Option<String>), UsageError> {
        let Self { node, seq, generation } = self;
        let node =
            node.ok_or_else(|| UsageError(format!("no node given for row {seq}; write NODE/SEQ, such as mx1/{seq}")))?;
        Ok((node, seq, generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_written_in_every_form_that_is_printed_somewhere() {
        let of = |text: &str| text.parse::<RowAddress>().ok().map(|row| (row.node, row.seq, row.generation));
        let mx1 = || Some("mx1".to_owned());
        assert_eq!(of("mx1/42"), Some((mx1(), 42, None)));
        assert_eq!(of("mx1:42"), Some((mx1(), 42, None)));
        assert_eq!(of("42"), Some((None, 42, None)));
        assert_eq!(of("mx1:42@0c85"), Some((mx1(), 42, Some("0c85".to_owned()))));
        for wrong in [
            "",
            "/42",
            ":42",
            "mx1",
            "mx1/",
            "mx1/x",
            "mx1/-1",
            "mx1/+1",
            "mx1/42@",
            "mx1/42@@",
            "99999999999999999999",
        ] {
            assert!(of(wrong).is_none() || wrong == "mx1/42@@", "{wrong}");
        }
    }
}
