//! Prints the heading of a demo step, and checks its result.

use std::process::ExitStatus;

use anyhow::{bail, ensure};
use piperoll_format::row::RowLine;
use piperoll_format::verify::Integrity;
use piperoll_protocol::aggregator::{Envelope, FinalRecord};

use crate::exit::Exit;
use crate::show::paint;

pub(super) fn step(number: u32, text: &str) {
    paintln!("\n{}{number}. {text}{}", paint::BOLD, paint::PLAIN);
}

pub(super) fn expect(status: ExitStatus, exit: Exit) -> anyhow::Result<()> {
    ensure!(status.code() == Some(exit as i32), "exit code {:?}, expected {} ({exit:?})", status.code(), exit as i32);
    Ok(())
}

/// Answer to a `--json` query.
pub(super) struct QueryAnswer {
    pub(super) envelope: Envelope,
    /// `node/seq` of rows that fail verification.
    pub(super) violations: Vec<String>,
}

impl QueryAnswer {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut violations = Vec::new();
        for line in text.lines() {
            if let Ok(last) = serde_json::from_str::<FinalRecord>(line) {
                return Ok(Self { envelope: last.envelope, violations });
            }
            let row: RowLine<'_> = serde_json::from_str(line)?;
            if row.integrity != Integrity::Ok
                && let Some(place) = row.found_at
            {
                violations.push(format!("{}/{}", place.node_id, place.seq));
            }
        }
        bail!("the answer has no final record")
    }
}
