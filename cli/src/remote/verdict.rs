//! `piperoll verdict`: records a verdict on a flagged entry.

use piperoll_protocol::access::{FlagVerdict, RecordVerdict};
use reqwest::Method;

use super::connection::{Answer, Connection, PAGE_TIMEOUT};
use crate::args::{VerdictArg, VerdictArgs};
use crate::exit::Exit;

pub(crate) async fn verdict(args: VerdictArgs) -> anyhow::Result<Exit> {
    let (node, seq, generation) = args.entry.with_node()?;
    let shown = format!("{node}/{seq}");
    let verdict = match args.verdict {
        VerdictArg::TruePositive => FlagVerdict::TruePositive,
        VerdictArg::FalsePositive => FlagVerdict::FalsePositive,
    };
    let request = RecordVerdict { node, seq, generation, verdict, reason: args.reason };
    let connection = Connection::open(&args.connection)?;
    let sending = connection.request(Method::POST, "/api/v1/verdicts").json(&request).timeout(PAGE_TIMEOUT);
    match connection.send(sending).await? {
        Answer::Good(_) => {
            outln!("verdict recorded; {shown} itself is unchanged");
            Ok(Exit::Complete)
        }
        Answer::Unavailable(envelope) => Ok(connection.refused(&envelope)),
    }
}
