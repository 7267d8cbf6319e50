//! `piperoll node checkpoint`: prints the newest checkpoint, or the public key that verifies it.

use anyhow::{Context as _, bail};
use piperoll_format::note::KeyKind;
use piperoll_node::config::NodeConfig;
use piperoll_node::store::StoredNote;

use super::place::{LogAccess, open};
use crate::args::{LogArgs, PlaceArgs};
use crate::exit::Exit;

pub(super) async fn run(args: &LogArgs, witnessed: bool, key: bool) -> anyhow::Result<Exit> {
    if key {
        return print_key(&args.place);
    }
    let kept = if witnessed { StoredNote::Witnessed } else { StoredNote::Signed };
    let note = match LogAccess::of_log(args).await? {
        LogAccess::Socket(client) if !witnessed => Some(client.checkpoint().await?),
        LogAccess::Socket(_) => open(&NodeConfig::load(&args.place.config)?)?.kept_note(kept)?,
        LogAccess::Directory(config) => open(&config)?.kept_note(kept)?,
    };
    match note {
        Some(note) => crate::out::write(&mut std::io::stdout(), format_args!("{note}")),
        None if witnessed => bail!("no witness has cosigned a checkpoint of this log yet"),
        None => bail!("no checkpoint has been signed yet; a running node signs one within a second of its first entry"),
    }
    Ok(Exit::Complete)
}

/// Prints the public key, named after the log's current generation.
fn print_key(args: &PlaceArgs) -> anyhow::Result<Exit> {
    let config = NodeConfig::load(&args.config)?;
    let origin = config.keys.origin(open(&config)?.generation());
    let key =
        config.keys.checkpoint.named(&origin, KeyKind::Log).context("the log's origin is not a valid key name")?;
    outln!("{}", key.public());
    Ok(Exit::Complete)
}
