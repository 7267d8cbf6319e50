//! `piperoll judge`: records a verdict on a flagged entry.

use piperoll_protocol::access::{Judge, Judgement};
use reqwest::Method;

use super::connection::{Answer, Connection, PAGE_TIMEOUT};
use crate::args::{JudgeArgs, JudgementArg};
use crate::exit::Exit;

pub(crate) async fn judge(args: JudgeArgs) -> anyhow::Result<Exit> {
    let (node, seq, generation) = args.entry.with_node()?;
    let shown = format!("{node}/{seq}");
    let judgement = match args.judgement {
        JudgementArg::Reviewed => Judgement::Reviewed,
        JudgementArg::FalseAlarm => Judgement::FalseAlarm,
    };
    let request = Judge { node, seq, generation, judgement, reason: args.reason };
    let connection = Connection::open(&args.connection)?;
    let sending = connection.request(Method::POST, "/api/v1/judgements").json(&request).timeout(PAGE_TIMEOUT);
    match connection.send(sending).await? {
        Answer::Good(_) => {
            outln!("verdict recorded; {shown} itself is unchanged");
            Ok(Exit::Complete)
        }
        Answer::Unavailable(envelope) => Ok(connection.refused(&envelope)),
    }
}
