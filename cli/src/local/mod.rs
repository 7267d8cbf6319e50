//! `piperoll node …`: commands for the log on this machine, through the node's socket or, if the daemon is down, offline through
//! the log's directory.

mod admin;
mod append;
mod checkpoint;
mod forward;
mod place;
mod read;
mod reindex;
mod token;
mod verify;

pub(crate) use forward::{behind, state};
pub(crate) use verify::progress_bar;

use crate::args::NodeCommand;
use crate::exit::{Exit, UsageError};

pub(crate) async fn run(command: NodeCommand) -> anyhow::Result<Exit> {
    match command {
        NodeCommand::Serve { config } => crate::serve::node(&config).await,
        NodeCommand::Append(args) => append::run(*args).await,
        NodeCommand::Query(args) => read::query(args).await,
        NodeCommand::Tail { place, filter, lines, follow, output } => {
            read::tail(&place, &filter, lines, follow, output).await
        }
        NodeCommand::Show { log, row, output } => read::show(&log, row, output).await,
        NodeCommand::Export { log, query, format } => read::export(&log, &query, format).await,
        NodeCommand::Verify { log, output } => verify::run(&log, output).await,
        NodeCommand::Token(command) => token::run(command).await,
        NodeCommand::Forward(command) => forward::run(command).await,
        NodeCommand::Hold(command) => admin::hold(command).await,
        NodeCommand::Prune(args) => admin::prune(*args).await,
        NodeCommand::ConfirmTimes { place, reason, dry_run } => admin::confirm_times(&place, reason, dry_run).await,
        NodeCommand::NewGeneration { place, reason } => admin::new_generation(&place, &reason).await,
        NodeCommand::Erase { log, seq: Some(seq), reason, .. } => admin::erase(&log, seq, reason).await,
        NodeCommand::Erase { log, archived_row: Some(row), reason, .. } => {
            admin::erase_archived(&log, row, reason).await
        }
        NodeCommand::Erase { .. } => Err(UsageError("erase needs --seq or --archived-row".to_owned()).into()),
        NodeCommand::Reindex { place } => reindex::run(&place).await,
        NodeCommand::Checkpoint { log, witnessed, key } => checkpoint::run(&log, witnessed, key).await,
        NodeCommand::Status { log, output, health } => verify::status(&log, output, health).await,
    }
}
