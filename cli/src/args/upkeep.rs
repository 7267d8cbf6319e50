//! What can be typed to `piperoll node hold`, `prune` and `token`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::shared::{LogArgs, PlaceArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Keep rows of a time range until the hold is released
    #[command(
        after_help = "Example:\n  piperoll node hold add case-2026-12 --from 2026-01-01 --to 2026-07-01 --reason 'court order 12 O 345/26'"
    )]
    Add {
        #[command(flatten)]
        log: LogArgs,
        /// What it is called, in up to 128 bytes
        name: String,
        /// Rows recorded from this time on; from the beginning by default
        #[arg(long)]
        from: Option<String>,
        /// Up to but not including this time; open by default
        #[arg(long)]
        to: Option<String>,
        /// Why; it becomes part of the entry that records the hold
        #[arg(long)]
        reason: String,
    },
    /// All holds
    List {
        #[command(flatten)]
        log: LogArgs,
        #[arg(long)]
        json: bool,
    },
    /// Keep them no longer
    Release {
        #[command(flatten)]
        log: LogArgs,
        /// The hold's name, as `piperoll node hold list` shows it
        name: String,
        /// Why; it becomes part of the entry that records the release
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Rows recorded before this time: RFC 3339, a date, or an age such as 400d
    #[arg(long)]
    pub(crate) before: String,
    /// Only say what would go, and what keeps the rest
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Drop rows too that were not witnessed for 90 days as far as the node knows: you answer for every clock
    #[arg(long)]
    pub(crate) confirm: bool,
    /// Write the rows and their proof to this file first, and check it; `piperoll verify-bundle` reads it
    #[arg(long)]
    pub(crate) archive: Option<PathBuf>,
    /// How long to wait for a witness and for the rows to be gone; the node goes on by itself
    #[arg(long, default_value = "60s")]
    pub(crate) wait: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecordingTokenCommand {
    /// Make a token; it is printed once and kept nowhere
    #[command(after_help = "Example:\n  piperoll node token create billing > /run/secrets/piperoll-token")]
    Create {
        /// Stands in `via` of everything that is recorded with it
        name: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Their names
    List {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Refuse a token from now on
    Revoke {
        name: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ForwardCommand {
    /// Every destination: how far it is, what fails, who paused it
    List {
        #[command(flatten)]
        place: PlaceArgs,
        #[arg(long)]
        json: bool,
    },
    /// Hold a destination back; what is recorded meanwhile is handed on later
    #[command(after_help = "Example:\n  piperoll node forward pause siem --reason 'receiver is moved, ticket 812'")]
    Pause {
        /// The destination's name, as `piperoll node forward list` shows it
        name: String,
        /// Why; it becomes part of the entry that records the pause
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Go on where it was held back
    Resume {
        name: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
}
