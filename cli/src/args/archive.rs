//! Arguments of `piperoll archive`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use piperoll_format::ids::NodeId;

use super::remote::ConnectionArgs;
use super::shared::AggregatorConfigArg;
use crate::address::RowAddress;

#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Create the archive that aggregator.toml names, after checking that its store is suitable
    #[command(
        after_help = "Run it on the aggregator's machine, as the aggregator's user:\n  sudo -u piperoll piperoll archive init"
    )]
    Init {
        #[command(flatten)]
        config: AggregatorConfigArg,
    },
    /// Archive everything that is due now, instead of waiting for the aggregator's next round
    #[command(after_help = "Examples:\n  piperoll archive run\n  piperoll archive run --now")]
    Run {
        #[command(flatten)]
        connection: ConnectionArgs,
        /// Archive rows up to the newest witnessed checkpoints, instead of only those of days that have ended
        #[arg(long)]
        now: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show the state of the archive, and how far it has got for every node
    Status {
        #[command(flatten)]
        connection: ConnectionArgs,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// List the files of the archive; only these are part of it
    #[command(
        after_help = "Examples:\n  piperoll archive ls --url s3://audit-archive/prod --trust trust.toml\n  piperoll archive ls --files --from 2026-04-01 --to 2026-04-30"
    )]
    Ls {
        #[command(flatten)]
        place: ArchivePlaceArgs,
        #[command(flatten)]
        days: DayArgs,
        /// Print only the addresses of the files, for engines that accept a list
        #[arg(long, conflicts_with = "json")]
        files: bool,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Verify the archive with public keys only: every step, file, row, checkpoint and tile
    #[command(
        after_help = "Exits with 0 if everything was verified, 4 if anything was changed, removed or added, 3 if something could not be read.\n\nExample:\n  piperoll archive verify --url s3://audit-archive/prod --trust trust.toml"
    )]
    Verify {
        #[command(flatten)]
        place: ArchivePlaceArgs,
        #[command(flatten)]
        days: DayArgs,
        /// Remember in FILE which files were verified. After an interruption, the same command continues
        #[arg(long, value_name = "FILE")]
        resume: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the address of an archived entry, for `piperoll node erase --archived-row`
    #[command(after_help = "Example:\n  piperoll archive row mx1/4711")]
    Row {
        #[command(flatten)]
        connection: ConnectionArgs,
        /// NODE/SEQ, such as mx1/42, or NODE/SEQ@GENERATION for a log that the node replaced
        entry: RowAddress,
    },
    /// Accept the archive as it is now, after a rollback, a fork, or a change of its writer
    #[command(
        after_help = "Stop the aggregator, check the archive with `piperoll archive verify`, then run this as the aggregator's user."
    )]
    Accept {
        #[command(flatten)]
        config: AggregatorConfigArg,
    },
}

/// Location of the archive, and the keys that it is verified with.
#[derive(Debug, ClapArgs)]
pub(crate) struct ArchivePlaceArgs {
    /// Location of the archive, instead of the one in aggregator.toml: file:///DIRECTORY or s3://BUCKET/PREFIX
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Trust file of the cluster (`piperoll cluster trust`)
    #[arg(long)]
    pub(crate) trust: Option<PathBuf>,
    /// File with credentials of the bucket, mode 0600, if they are not in the environment
    #[arg(long)]
    pub(crate) credentials: Option<PathBuf>,
    /// Name of the archive, if the trust file lists several
    #[arg(long)]
    pub(crate) archive: Option<NodeId>,
    /// Configuration file of the aggregator that writes the archive
    #[arg(long, env = "PIPEROLL_AGGREGATOR_CONFIG", default_value = "/etc/piperoll/aggregator.toml")]
    pub(crate) config: PathBuf,
}

/// Range of UTC days.
#[derive(Debug, ClapArgs)]
pub(crate) struct DayArgs {
    /// First day, such as 2026-04-01
    #[arg(long)]
    pub(crate) from: Option<String>,
    /// Last day, inclusive
    #[arg(long)]
    pub(crate) to: Option<String>,
}
