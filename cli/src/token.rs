//! `piperoll aggregator token`: edits the token file directly, so the command itself needs no token.

use std::path::Path;

use piperoll_aggregator::access::tokens::TokenStore;
use piperoll_aggregator::config::AggregatorConfig;
use piperoll_client::NodeClient;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::access::Role;
use piperoll_query::human_time;
use serde_json::json;

use crate::args::{RoleArg, TokenCommand};
use crate::exit::Exit;

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Viewer => Self::Viewer,
            RoleArg::Auditor => Self::Auditor,
            RoleArg::Admin => Self::Admin,
        }
    }
}

pub(crate) async fn run(command: TokenCommand) -> anyhow::Result<Exit> {
    match command {
        TokenCommand::Create { config, name, role, expires, scope } => {
            let (store, config) = open(&config.config)?;
            let now = SystemClock.now();
            let expires = expires.as_deref().map(|text| human_time::parse_expiry(text, now)).transpose()?;
            let created = store.create(&name, role.into(), scope.as_deref(), expires, now)?;
            record(
                &config,
                "audit.token_create",
                json!({ "token_name": name, "role": created.info.role, "expires": created.info.expires, "scope": created.info.scope }),
            )
            .await;
            errln!("This is the only time the token is shown:");
            outln!("{}", created.token);
        }
        TokenCommand::List { config } => {
            let now = SystemClock.now();
            for token in open(&config.config)?.0.list()? {
                let role = format!("{:?}", token.role).to_lowercase();
                let expires = match token.expires {
                    None => "never expires".to_owned(),
                    Some(time) if time <= now.to_text() => format!("EXPIRED {time}"),
                    Some(time) => format!("expires {time}"),
                };
                let scope = token.scope.map_or(String::new(), |scope| format!("  limited to {scope}"));
                outln!("{:<24} {role:<8} created {}  {expires}{scope}", token.name, token.created);
            }
        }
        TokenCommand::Revoke { config, name } => {
            let (store, config) = open(&config.config)?;
            store.revoke(&name)?;
            record(&config, "audit.token_revoke", json!({ "token_name": name })).await;
            outln!("{name} revoked");
        }
    }
    Ok(Exit::Complete)
}

fn open(config: &Path) -> anyhow::Result<(TokenStore, AggregatorConfig)> {
    let config = AggregatorConfig::load(config)?;
    Ok((TokenStore::open(&config.state_dir)?, config))
}

/// Records a change of tokens as an entry. If the node is down, prints a warning.
async fn record(config: &AggregatorConfig, action: &str, details: serde_json::Value) {
    let uid = nix::unistd::getuid();
    let entry = json!({
        "category": "audit", "action": action, "outcome": "success", "user": format!("uid {uid}"), "auth_method": "local",
        "description": "changed on the command line", "details": details,
    });
    let recorded = match NodeClient::new(&config.audit_socket) {
        Ok(node) => node.append(&entry).await.map(|_| ()),
        Err(error) => Err(error),
    };
    if let Err(error) = recorded {
        errln!("warning: this change is in the token file but not in the log: {error}");
    }
}
