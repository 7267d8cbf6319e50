//! Arguments of `piperoll node hold`, `prune`, `token` and `forward`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::shared::{LogArgs, PlaceArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Keep the rows of a time range until the hold is released
    #[command(
        after_help = "Example:\n  piperoll node hold add case-2026-12 --from 2026-01-01 --to 2026-07-01 --reason 'court order 12 O 345/26'"
    )]
    Add {
        #[command(flatten)]
        log: LogArgs,
        /// Name of the hold, up to 128 bytes
        name: String,
        /// Start of the range; the beginning of the log by default
        #[arg(long)]
        from: Option<String>,
        /// End of the range, exclusive; open by default
        #[arg(long)]
        to: Option<String>,
        /// Reason, which is recorded
        #[arg(long)]
        reason: String,
    },
    /// List all holds
    List {
        #[command(flatten)]
        log: LogArgs,
        /// Print NDJSON
        #[arg(long)]
        json: bool,
    },
    /// Release a hold
    Release {
        #[command(flatten)]
        log: LogArgs,
        /// Name of the hold, as `piperoll node hold list` shows it
        name: String,
        /// Reason, which is recorded
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Delete rows recorded before this time: RFC 3339, a date, or an age such as 400d
    #[arg(long)]
    pub(crate) before: String,
    /// Show what would be deleted, and what is retained and why
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also delete rows that the node cannot show to have been witnessed for 90 days; you vouch for their times
    #[arg(long)]
    pub(crate) confirm: bool,
    /// First write the rows with their proof to this file and verify it; `piperoll verify-bundle` reads it
    #[arg(long)]
    pub(crate) archive: Option<PathBuf>,
    /// How long to wait for a witness and for the deletion; the node finishes on its own after that
    #[arg(long, default_value = "60s")]
    pub(crate) wait: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecordingTokenCommand {
    /// Create a token; it is printed once and not stored
    #[command(after_help = "Example:\n  piperoll node token create billing > /run/secrets/piperoll-token")]
    Create {
        /// Name of the token; `via` of entries recorded with it contains the name
        name: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// List the names of all tokens
    List {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Revoke a token immediately
    Revoke {
        /// Name of the token
        name: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ForwardCommand {
    /// List all destinations: lag, errors, and who paused them
    List {
        #[command(flatten)]
        place: PlaceArgs,
        /// Print NDJSON
        #[arg(long)]
        json: bool,
    },
    /// Pause a destination; entries recorded meanwhile are forwarded later
    #[command(
        after_help = "Example:\n  piperoll node forward pause siem --reason 'receiver is being moved, ticket 812'"
    )]
    Pause {
        /// Name of the destination, as `piperoll node forward list` shows it
        name: String,
        /// Reason, which is recorded
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Resume a destination where it was paused
    Resume {
        /// Name of the destination
        name: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
}
