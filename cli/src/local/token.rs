//! `piperoll node token`: edits the token file, and records each change.

use piperoll_client::NodeClient;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_node::config::NodeConfig;
use piperoll_node::tokens::RecordingTokens;
use serde_json::json;

use crate::args::RecordingTokenCommand;
use crate::exit::Exit;

pub(super) async fn run(command: RecordingTokenCommand) -> anyhow::Result<Exit> {
    match command {
        RecordingTokenCommand::Create { name, place } => {
            let config = NodeConfig::load(&place.config)?;
            let token = RecordingTokens::new(&config.http.tokens).create(&name, SystemClock.now())?;
            record(&config, "recording.token_create", &name).await;
            if config.http.listen.is_none() {
                errln!(
                    "the node does not listen for HTTPS yet: set `listen` under [http] in {}",
                    place.config.display()
                );
            }
            errln!("This is the only time the token is shown:");
            outln!("{token}");
        }
        RecordingTokenCommand::List { place } => {
            let config = NodeConfig::load(&place.config)?;
            for token in RecordingTokens::new(&config.http.tokens).list()? {
                outln!("{:<24} created {}", token.name, token.created);
            }
        }
        RecordingTokenCommand::Revoke { name, place } => {
            let config = NodeConfig::load(&place.config)?;
            RecordingTokens::new(&config.http.tokens).revoke(&name)?;
            record(&config, "recording.token_revoke", &name).await;
            outln!("revoked {name}");
        }
    }
    Ok(Exit::Complete)
}

/// Records a change that was made to the token file. If the node is down, prints that the change could not be recorded.
async fn record(config: &NodeConfig, action: &str, name: &str) {
    let entry = json!({
        "category": "security", "action": action, "outcome": "success", "entity_type": "recording_token", "entity_id": name,
        "details": { "by": format!("uid={}", nix::unistd::getuid()) },
    });
    let recorded = match NodeClient::new(&config.socket.path) {
        Ok(client) => client.append(&entry).await.map(|_| ()),
        Err(error) => Err(error),
    };
    if let Err(error) = recorded {
        errln!("this change could not be recorded: {error}");
    }
}
