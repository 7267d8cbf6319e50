//! `piperoll archive`: creates, runs, lists and verifies the cluster's archive.

mod location;
mod objects;
mod rounds;

use crate::args::ArchiveCommand;
use crate::exit::Exit;

pub(crate) async fn run(command: ArchiveCommand) -> anyhow::Result<Exit> {
    match command {
        ArchiveCommand::Init { config } => objects::init(&config.config).await,
        ArchiveCommand::Accept { config } => objects::accept(&config.config).await,
        ArchiveCommand::Run { connection, now, json } => rounds::run(&connection, now, json).await,
        ArchiveCommand::Status { connection, json } => rounds::status(&connection, json).await,
        ArchiveCommand::Row { connection, entry } => rounds::row(&connection, entry).await,
        ArchiveCommand::Ls { place, days, files, json } => objects::ls(&place, &days, files, json).await,
        ArchiveCommand::Verify { place, days, resume, json } => {
            objects::verify(&place, &days, resume.as_deref(), json).await
        }
    }
}
