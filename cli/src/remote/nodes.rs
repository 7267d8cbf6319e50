//! `piperoll nodes`.

use piperoll_shared::api::aggregator::{AcceptRequest, NodesAnswer, Status};
use piperoll_shared::log::terminal::escape;
use reqwest::Method;

use super::connection::{Answer, Connection, PAGE_TIMEOUT};
use crate::args::{ConnectionArgs, NodesCommand, RemoteNodesArgs};
use crate::exit::Exit;
use crate::local::{behind, state};
use crate::show::{node_table, paint};

pub(crate) async fn nodes(args: RemoteNodesArgs) -> anyhow::Result<Exit> {
    if let Some(NodesCommand::Accept { connection, node, new_generation, reason }) = args.command {
        return accept(&connection, &node, AcceptRequest { generation: new_generation, reason }).await;
    }
    let connection = Connection::open(&args.connection)?;
    let response = match connection.send(connection.request(Method::GET, "/api/v1/nodes").timeout(PAGE_TIMEOUT)).await?
    {
        Answer::Good(response) => response,
        Answer::Unavailable(envelope) => return Ok(super::report(&envelope)),
    };
    let text = response.text().await?;
    let answer: NodesAnswer = serde_json::from_str(&text)?;
    if args.output.as_json() {
        println!("{text}");
    } else {
        let reports: Vec<_> = answer.nodes.iter().map(|node| node.report.clone()).collect();
        anstream::print!("{}", node_table(&reports));
        for node in &answer.nodes {
            if let Some(fault) = &node.write_fault {
                anstream::println!(
                    "{}{} refuses appends{}: {}",
                    paint::RED,
                    node.report.node_id,
                    paint::PLAIN,
                    escape(fault)
                );
            }
        }
        for node in &answer.nodes {
            for forward in node
                .forward
                .iter()
                .filter(|forward| forward.paused.is_some() || forward.problem.is_some() || forward.lag_rows > 0)
            {
                let color = if forward.problem.is_some() { paint::RED } else { paint::YELLOW };
                anstream::println!(
                    "{color}{} hands on to {}{}: behind by {}, {}",
                    node.report.node_id,
                    escape(&forward.name),
                    paint::PLAIN,
                    behind(forward),
                    state(forward)
                );
            }
        }
        println!("{} of {} nodes answered", answer.answered, answer.expected);
    }
    let invalid = answer.nodes.iter().any(|node| node.report.status == Status::Invalid);
    Ok(match (invalid, answer.complete, answer.answered) {
        (true, _, _) => Exit::Violation,
        (false, true, _) => Exit::Complete,
        (false, false, 0) => Exit::Nothing,
        (false, false, _) => Exit::Incomplete,
    })
}

async fn accept(connection: &ConnectionArgs, node: &str, request: AcceptRequest) -> anyhow::Result<Exit> {
    let connection = Connection::open(connection)?;
    let path = format!("/api/v1/nodes/{node}/accept");
    match connection.send(connection.request(Method::POST, &path).json(&request).timeout(PAGE_TIMEOUT)).await? {
        Answer::Good(_) => {
            println!("accepted: what {node} presents now will be witnessed from here on; this was recorded");
            Ok(Exit::Complete)
        }
        Answer::Unavailable(envelope) => Ok(super::report(&envelope)),
    }
}
