//! `piperoll judge`.

use anyhow::Context as _;
use piperoll_shared::api::access::{Judge, Judgement};
use reqwest::Method;

use super::connection::{Answer, Connection, PAGE_TIMEOUT};
use crate::args::{JudgeArgs, JudgementArg};
use crate::exit::Exit;

pub(crate) async fn judge(args: JudgeArgs) -> anyhow::Result<Exit> {
    let (node, seq) = args.entry.split_once('/').context("write NODE/SEQ, such as mx1/42")?;
    let seq: u64 = seq.parse().with_context(|| format!("{seq:?} is not a row number"))?;
    let judgement = match args.judgement {
        JudgementArg::Reviewed => Judgement::Reviewed,
        JudgementArg::FalseAlarm => Judgement::FalseAlarm,
    };
    let request = Judge { node: node.to_owned(), seq, judgement, reason: args.reason };
    let connection = Connection::open(&args.connection)?;
    let sending = connection.request(Method::POST, "/api/v1/judgements").json(&request).timeout(PAGE_TIMEOUT);
    match connection.send(sending).await? {
        Answer::Good(_) => {
            outln!("judged: this was recorded, and {} stays as it is", args.entry);
            Ok(Exit::Complete)
        }
        Answer::Unavailable(envelope) => Ok(super::refused(&envelope)),
    }
}
