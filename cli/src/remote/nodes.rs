//! `piperoll nodes`: prints the state of every node, and accepts a node's log.

use anyhow::{Context as _, bail};
use piperoll_format::terminal::escape;
use piperoll_protocol::aggregator::{AcceptRequest, NodeInfo, NodesAnswer, Status};
use piperoll_protocol::verdict::Verdict;
use reqwest::Method;

use super::connection::{Answer, Connection, PAGE_TIMEOUT};
use crate::args::{ConnectionArgs, NodesCommand, RemoteNodesArgs};
use crate::exit::Exit;
use crate::local::{behind, state};
use crate::show::{counted, node_table, paint};

pub(crate) async fn nodes(args: RemoteNodesArgs) -> anyhow::Result<Exit> {
    if let Some(NodesCommand::Accept { connection, node, new_generation, reason }) = args.command {
        return accept(&connection, &node, new_generation, reason).await;
    }
    let connection = Connection::open(&args.connection)?;
    let response = match connection.send(connection.request(Method::GET, "/api/v1/nodes").timeout(PAGE_TIMEOUT)).await?
    {
        Answer::Good(response) => response,
        Answer::Unavailable(envelope) => return Ok(connection.refused(&envelope)),
    };
    let text = response.text().await?;
    let answer: NodesAnswer = serde_json::from_str(&text)?;
    if args.output.as_json() {
        outln!("{text}");
    } else {
        let reports: Vec<_> = answer.nodes.iter().map(|node| node.report.clone()).collect();
        crate::out::write(&mut anstream::stdout(), format_args!("{}", node_table(&reports)));
        for node in &answer.nodes {
            if let Some(fault) = &node.write_fault {
                paintln!("{}{} refuses appends{}: {}", paint::RED, node.report.node_id, paint::PLAIN, escape(fault));
            }
        }
        for node in &answer.nodes {
            for forward in node
                .forward
                .iter()
                .filter(|forward| forward.paused.is_some() || forward.problem.is_some() || forward.lag_rows > 0)
            {
                let color = if forward.problem.is_some() { paint::RED } else { paint::YELLOW };
                paintln!(
                    "{color}{} forwards to {}{}: lag {}, {}",
                    node.report.node_id,
                    escape(&forward.name),
                    paint::PLAIN,
                    behind(forward),
                    state(forward)
                );
            }
        }
        outln!("{} of {} answered", answer.answered, counted(answer.expected as u64, "node", "nodes"));
    }
    // A verdict against a node counts whether or not the node answers now.
    let held = |node: &NodeInfo| matches!(node.report.verdict, Verdict::RowInvalid | Verdict::Rollback | Verdict::Fork);
    let invalid = answer.nodes.iter().any(|node| node.report.status == Status::Invalid || held(node));
    // A node that answers, but whose checkpoint cannot be checked, has not proven that its log is complete.
    let unchecked = |node: &NodeInfo| {
        node.report.status == Status::Ok
            && matches!(node.report.verdict, Verdict::Unverifiable | Verdict::FirstSeenAgain)
    };
    let complete = answer.complete && !answer.nodes.iter().any(unchecked);
    Ok(match (invalid, complete, answer.answered) {
        (true, _, _) => Exit::Violation,
        (false, true, _) => Exit::Complete,
        (false, false, 0) => Exit::Nothing,
        (false, false, _) => Exit::Incomplete,
    })
}

/// Prints the log that the node presents, and accepts only that log, because the node may present another log by the time the
/// request arrives.
async fn accept(connection: &ConnectionArgs, node: &str, generation: String, reason: String) -> anyhow::Result<Exit> {
    let connection = Connection::open(connection)?;
    let response = match connection.send(connection.request(Method::GET, "/api/v1/nodes").timeout(PAGE_TIMEOUT)).await?
    {
        Answer::Good(response) => response,
        Answer::Unavailable(envelope) => return Ok(connection.refused(&envelope)),
    };
    let answer: NodesAnswer = serde_json::from_str(&response.text().await?)?;
    let info = answer.nodes.iter().find(|info| info.report.node_id == node);
    let info = info.with_context(|| format!("{node:?} is not in the roster"))?;
    let presented = info.alarm.as_ref().and_then(|alarm| alarm.presented.as_ref());
    if let Some(presented) = presented.filter(|presented| presented.generation != generation) {
        bail!(
            "{node} presents generation {} with {}; to accept it, pass that generation to --new-generation",
            presented.generation,
            counted(presented.size, "row", "rows")
        );
    }
    if info.alarm.is_some() && presented.is_none() {
        bail!(
            "{node} has presented no signed checkpoint since the alarm; restore its log, or start a new generation, and try again"
        );
    }
    if let Some(presented) = presented {
        outln!("{node} presents a log of {} with the root {}", counted(presented.size, "row", "rows"), presented.root);
    }
    let (size, root) = presented.map(|presented| (presented.size, presented.root.clone())).unzip();
    let request = AcceptRequest { generation, reason, size, root };
    let path = format!("/api/v1/nodes/{node}/accept");
    match connection.send(connection.request(Method::POST, &path).json(&request).timeout(PAGE_TIMEOUT)).await? {
        Answer::Good(_) => {
            outln!("accepted: this log and its extensions are witnessed from now on; the acceptance was recorded");
            Ok(Exit::Complete)
        }
        Answer::Unavailable(envelope) => Ok(connection.refused(&envelope)),
    }
}
