//! Prints the completeness statement of an answer, and determines the exit code.

use piperoll_format::terminal::escape;
use piperoll_protocol::aggregator::{Envelope, NodeReport, Status};
use piperoll_protocol::verdict::Verdict;
use piperoll_query::filter::TRIGRAM_CHARS;

use super::connection::Connection;
use crate::exit::Exit;
use crate::show::{all_is_well, envelope_summary, group_digits, node_table, say};

/// Beginning of the last line of a stream of rows; no row's line begins with it, regardless of the row's content. The stream is
/// complete only if nothing follows this line, and if the number of rows received equals the number that the line states.
pub(crate) const FINAL: &[u8] = b"{\"final\":";

/// Describes what is wrong with the end of a stream of rows, if anything.
pub(crate) async fn end_problem(lines: &mut piperoll_client::LineStream, said: u64, came: u64) -> Option<String> {
    match lines.next().await {
        Ok(None) => {}
        Ok(Some(_)) => return Some("unexpected data after the final record; the answer cannot be trusted".to_owned()),
        Err(error) => return Some(format!("the stream was interrupted after its final record ({error})")),
    }
    (said != came).then(|| count_problem(said, came))
}

/// Describes a difference between the number of rows announced and received.
pub(crate) fn count_problem(said: u64, came: u64) -> String {
    format!("the answer announces {said} rows, but {came} were received; nothing can be concluded from it")
}

/// Describes erased rows that a filter can neither select nor exclude.
pub(crate) fn erased_words(erased: u64) -> String {
    let (rows, their) = if erased == 1 { ("row", "its") } else { ("rows", "their") };
    format!(
        "{} erased {rows} in this range can no longer be searched; `is:erased` shows {their} positions",
        group_digits(erased)
    )
}

/// Returns the exit code for an answer.
pub(crate) fn exit_of(envelope: &Envelope) -> Exit {
    let invalid = envelope
        .nodes
        .iter()
        .any(|node| node.status == Status::Invalid || node.invalid > 0 || node.verdict == Verdict::PrunedEarly);
    let gave = |status| {
        matches!(
            status,
            Status::Ok | Status::Archived | Status::Invalid | Status::Incomplete | Status::Pruned | Status::Superseded
        )
    };
    if invalid {
        Exit::Violation
    } else if envelope.is_whole() {
        Exit::Complete
    } else if envelope.nodes.iter().any(|node| gave(node.status))
        || envelope.archives.iter().any(|archive| archive.status == Status::Ok)
    {
        Exit::Incomplete
    } else {
        Exit::Nothing
    }
}

impl Connection {
    /// Prints to standard error which nodes answered, and returns the exit code for the answer.
    pub(crate) fn report(&self, envelope: &Envelope) -> Exit {
        Self::say_who_answered(envelope, self.is_verbose() || !all_is_well(envelope), self.is_verbose())
    }

    fn say_who_answered(envelope: &Envelope, with_nodes: bool, verbose: bool) -> Exit {
        errln!();
        if with_nodes {
            // Nodes that the filter excludes have no part in the answer.
            let has_part = |node: &&NodeReport| verbose || node.status != Status::Excluded;
            let nodes: Vec<NodeReport> = envelope.nodes.iter().filter(has_part).cloned().collect();
            crate::out::write_stderr(format_args!("{}", node_table(&nodes)));
        }
        envelope_summary(envelope).iter().for_each(|sentence| say(sentence));
        if let Some(scope) = &envelope.limited_to {
            say(&format!("limited to your scope: {}", escape(scope)));
        }
        if let Some(time) = &envelope.searched_to {
            let towards = if envelope.order == "desc" { "back" } else { "up" };
            say(&format!(
                "searched {towards} to {} so far; the nodes had not finished when the time limit was reached; --cursor continues from there",
                escape(time)
            ));
        }
        if let Some(erased) = envelope.erased.filter(|erased| *erased > 0) {
            say(&erased_words(erased));
        }
        for hint in &envelope.filter_hints {
            say(&format!("hint: {}", escape(hint)));
        }
        for text in &envelope.unindexed_texts {
            say(&format!(
                "{text:?} is shorter than {TRIGRAM_CHARS} characters, so every row in the range was read to find it"
            ));
        }
        exit_of(envelope)
    }

    /// Reports, like `report`, an answer that was withheld because it does not meet the request's requirements. Such an answer
    /// never counts as complete.
    pub(crate) fn refused(&self, envelope: &Envelope) -> Exit {
        match Self::say_who_answered(envelope, true, self.is_verbose()) {
            Exit::Complete => Exit::Incomplete,
            exit => exit,
        }
    }
}
