//! `piperoll verify`: reads and verifies every row of every node.

use anyhow::bail;
use piperoll_client::LineStream;
use piperoll_format::row::RowLine;
use piperoll_format::terminal::escape;
use piperoll_protocol::aggregator::FinalRecord;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::connection::{Answer, Connection};
use super::question;
use crate::args::RemoteVerifyArgs;
use crate::exit::Exit;
use crate::show::paint;

#[derive(Deserialize)]
struct Progress {
    progress: u64,
}

pub(crate) async fn verify(args: RemoteVerifyArgs) -> anyhow::Result<Exit> {
    let connection = Connection::open(&args.connection)?;
    let mut range = json!({});
    for (name, value) in [("from", &args.from), ("to", &args.to)] {
        if let Some(value) = value {
            range[name] = json!(question::time(value, &args.zone)?);
        }
    }
    let response = match connection.send(connection.request(Method::POST, "/api/v1/verify").json(&range)).await? {
        Answer::Good(response) => response,
        Answer::Unavailable(envelope) => return Ok(connection.refused(&envelope)),
    };
    let as_json = args.output.as_json();
    let bar = crate::local::progress_bar();
    let mut lines = LineStream::new(response.bytes_stream());
    while let Some(line) = lines.next().await? {
        if as_json {
            outln!("{}", String::from_utf8_lossy(&line));
        }
        if let Ok(progress) = serde_json::from_slice::<Progress>(&line) {
            bar.set_position(progress.progress);
        } else if let Ok(last) = serde_json::from_slice::<FinalRecord>(&line) {
            bar.finish_and_clear();
            return Ok(connection.report(&last.envelope));
        } else if !as_json {
            let row: RowLine<'_> = serde_json::from_slice(&line)?;
            let place = row.found_at.as_ref().map_or("?".to_owned(), |p| format!("{}/{}", p.node_id, p.seq));
            let reason = row.reason.as_deref().unwrap_or("");
            if row.erased.is_some() {
                bar.suspend(|| outln!("{}: {}", escape(&place), escape(reason)));
                continue;
            }
            bar.suspend(|| paintln!("{}VIOLATION{} {}: {}", paint::RED, paint::PLAIN, escape(&place), escape(reason)));
        }
    }
    bail!("the verification was interrupted; nothing can be concluded from it")
}
