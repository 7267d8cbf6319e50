//! Arguments of `piperoll node`.

use std::path::PathBuf;

use clap::Subcommand;
use piperoll_protocol::ArchivedRowRef;

use super::admin::{ForwardCommand, HoldCommand, PruneArgs, RecordingTokenCommand};
use crate::address::RowAddress;

use super::shared::{AppendArgs, ExportFormat, FILTER_HELP, LocalQueryArgs, LogArgs, OutputArgs, PlaceArgs, QueryArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Run the node
    Serve {
        /// Configuration file of the node
        #[arg(long, env = "PIPEROLL_NODE_CONFIG", default_value = "/etc/piperoll/node.toml")]
        config: PathBuf,
    },
    /// Record one entry from flags, or NDJSON lines from a file or standard input
    #[command(
        after_help = "Examples:\n  piperoll node append --category auth --action auth.login --user alice --ip 192.0.2.7 --outcome success\n  \
my-program | piperoll node append -\n  piperoll node append --map cloudtrail events.ndjson"
    )]
    Append(Box<AppendArgs>),
    /// Query the entries of this node, newest first
    Query(LocalQueryArgs),
    /// Show the newest entries of this node, oldest first; -f follows
    Tail {
        #[command(flatten)]
        place: PlaceArgs,
        #[arg(help = FILTER_HELP)]
        filter: Vec<String>,
        /// Number of entries to start with
        #[arg(short = 'n', long, default_value_t = 10)]
        lines: u64,
        /// Keep printing new entries
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show one entry in full
    Show {
        #[command(flatten)]
        log: LogArgs,
        /// SEQ, or NODE/SEQ of this node
        row: RowAddress,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Export all matching entries to standard output as NDJSON or CSV, oldest first
    Export {
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        query: QueryArgs,
        /// Output format
        #[arg(long, value_enum, default_value_t = ExportFormat::Ndjson)]
        format: ExportFormat,
    },
    /// Verify every signature, the sequence, all derived data, and the database file
    Verify {
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print the latest checkpoint: the size and the root hash of the log, signed by the node
    #[command(
        after_help = "Examples:\n  piperoll node checkpoint                 a C2SP signed note\n  piperoll node checkpoint --witnessed     the latest one that a witness cosigned\n  piperoll node checkpoint --key           the public key to verify it with (C2SP vkey)"
    )]
    Checkpoint {
        #[command(flatten)]
        log: LogArgs,
        /// Print the latest checkpoint that a witness cosigned
        #[arg(long)]
        witnessed: bool,
        /// Print the public key that verifies it instead
        #[arg(long, conflicts_with = "witnessed")]
        key: bool,
    },
    /// Manage tokens for recording over HTTPS on loopback (section `http` of node.toml)
    #[command(subcommand)]
    Token(RecordingTokenCommand),
    /// Manage forwarding (sections `forward` of node.toml): list, pause and resume destinations
    #[command(subcommand)]
    Forward(ForwardCommand),
    /// Manage holds, which keep the rows of a time range regardless of retention
    #[command(subcommand)]
    Hold(HoldCommand),
    /// Delete the oldest rows, once a witness has seen the prune statement
    #[command(
        after_help = "Deletes whole tiles of 256 rows; never rows that are younger than 90 days, not witnessed yet, or on hold.\n\nExamples:\n  piperoll node prune --before 400d --dry-run\n  piperoll node prune --before 2025-01-01 --archive mx1-until-2025.tar"
    )]
    Prune(Box<PruneArgs>),
    /// Let retention trust the recorded times of rows from before this node tracked witnessed time
    #[command(
        after_help = "Retention deletes rows once they have been witnessed for the configured time. After an upgrade, that time starts over for older rows unless\nyou vouch for the clock that they were recorded with. This is recorded, and is possible only once.\n\nExamples:\n  piperoll node confirm-times --dry-run\n  piperoll node confirm-times --reason 'NTP has been on since the machine was set up'"
    )]
    ConfirmTimes {
        #[command(flatten)]
        place: PlaceArgs,
        /// Reason why these times can be trusted; it is recorded
        #[arg(long, required_unless_present = "dry_run")]
        reason: Option<String>,
        /// Show the affected rows without confirming
        #[arg(long)]
        dry_run: bool,
    },
    /// Permanently erase the content of one entry, for privacy requests; its number and hash stay, and the erasure is recorded
    #[command(
        after_help = "Examples:\n  piperoll node erase --seq 4711 --reason 'request 2026/12, art. 17'\n\nFor an entry that the node pruned and that is in the archive, run `piperoll archive row NODE/SEQ`, and on the node:\n  piperoll node erase --archived-row ROW --reason 'request 2026/12, art. 17'"
    )]
    Erase {
        #[command(flatten)]
        log: LogArgs,
        /// SEQ, or NODE/SEQ of this node
        #[arg(long, value_name = "SEQ", required_unless_present = "archived_row", conflicts_with = "archived_row")]
        seq: Option<RowAddress>,
        /// Entry that this node pruned and that is in the archive, as `piperoll archive row` prints it
        #[arg(long, value_name = "ROW")]
        archived_row: Option<ArchivedRowRef>,
        /// Reason, kept in the log forever: name no person in it
        #[arg(long)]
        reason: String,
    },
    /// Rebuild the search index; searches meanwhile read the rows that it does not cover yet
    #[command(
        after_help = "Example, after `piperoll node verify` reported a bad index block:\n  piperoll node reindex"
    )]
    Reindex {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Archive the current log unchanged and start a new generation, after a break-in, a restore or damage
    #[command(
        after_help = "Stop the node first. The witness reports a rollback until someone accepts the new generation\n(piperoll nodes accept). After a break-in, create new keys first: piperoll cluster new-generation."
    )]
    NewGeneration {
        #[command(flatten)]
        place: PlaceArgs,
        /// Reason; it is recorded in the first entry of the new log
        #[arg(long)]
        reason: String,
    },
    /// Show head, faults, disk space and certificate
    Status {
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        output: OutputArgs,
        /// Print nothing; exit with 0 only if the node records entries
        #[arg(long)]
        health: bool,
    },
}

impl NodeCommand {
    pub(super) fn changes_something(&self) -> bool {
        matches!(
            self,
            Self::Serve { .. }
                | Self::Append(_)
                | Self::Token(_)
                | Self::Forward(_)
                | Self::Hold(_)
                | Self::Prune(_)
                | Self::ConfirmTimes { .. }
                | Self::Erase { .. }
                | Self::Reindex { .. }
                | Self::NewGeneration { .. }
        )
    }
}
