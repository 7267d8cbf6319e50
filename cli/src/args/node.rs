//! What can be typed to `piperoll node`.

use std::path::PathBuf;

use clap::Subcommand;

use super::upkeep::{ForwardCommand, HoldCommand, PruneArgs, RecordingTokenCommand};
use crate::address::RowAddress;

use super::shared::{AppendArgs, ExportFormat, FILTER_HELP, LocalQueryArgs, LogArgs, OutputArgs, PlaceArgs, QueryArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Run the node
    Serve {
        #[arg(long, env = "PIPEROLL_NODE_CONFIG", default_value = "/etc/piperoll/node.toml")]
        config: PathBuf,
    },
    /// Record entries: one from flags, or NDJSON lines from a file or standard input
    #[command(
        after_help = "Examples:\n  piperoll node append --category auth --action auth.login --user alice --ip 192.0.2.7 --outcome success\n  \
my-program | piperoll node append -\n  piperoll node append --map cloudtrail events.ndjson"
    )]
    Append(Box<AppendArgs>),
    /// Entries of this node, newest first
    Query(LocalQueryArgs),
    /// The newest entries of this node, oldest first; -f follows
    Tail {
        #[command(flatten)]
        place: PlaceArgs,
        #[arg(help = FILTER_HELP)]
        filter: Vec<String>,
        /// How many entries to begin with
        #[arg(short = 'n', long, default_value_t = 10)]
        lines: u64,
        /// Keep printing new entries
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// One entry, whole
    Show {
        #[command(flatten)]
        log: LogArgs,
        /// SEQ, or NODE/SEQ of this node
        row: RowAddress,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Everything that matches, oldest first, as NDJSON or CSV on standard output
    Export {
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        query: QueryArgs,
        #[arg(long, value_enum, default_value_t = ExportFormat::Ndjson)]
        format: ExportFormat,
    },
    /// Check every mac, every gap, everything derived, and the file itself
    Verify {
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print the newest checkpoint: how many rows there are and what they are, signed with the node's own key
    #[command(
        after_help = "Examples:\n  piperoll node checkpoint                 a C2SP signed note, for programs and for keeping\n  piperoll node checkpoint --witnessed     the newest one that came back with a witness's cosignature\n  piperoll node checkpoint --key           the public key that it verifies with (C2SP vkey)"
    )]
    Checkpoint {
        #[command(flatten)]
        log: LogArgs,
        /// The newest one that a witness has cosigned
        #[arg(long)]
        witnessed: bool,
        /// The key it verifies with instead
        #[arg(long, conflicts_with = "witnessed")]
        key: bool,
    },
    /// Tokens for recording over HTTPS on loopback ([http] in node.toml)
    #[command(subcommand)]
    Token(RecordingTokenCommand),
    /// Where this node hands entries on to ([[forward]] in node.toml): how far it is, hold it back, go on
    #[command(subcommand)]
    Forward(ForwardCommand),
    /// Keep rows of a time range, whatever retention says; every change is recorded
    #[command(subcommand)]
    Hold(HoldCommand),
    /// Drop the oldest rows, after a witness has seen the statement about it
    #[command(
        after_help = "Rows go in whole tiles of 256, never younger than 90 days, never past what is witnessed or held.\n\nExamples:\n  piperoll node prune --before 400d --dry-run\n  piperoll node prune --before 2025-01-01 --archive mx1-until-2025.tar"
    )]
    Prune(Box<PruneArgs>),
    /// Let retention go by their own times for rows recorded before this node counted witnessed time
    #[command(
        after_help = "Rows go by themselves when they were witnessed for as long as retention says. After an upgrade that takes as long again for older\nrows, unless you answer for the clock of the time when they were recorded. It is recorded, and can be done once.\n\nExamples:\n  piperoll node confirm-times --dry-run\n  piperoll node confirm-times --reason 'NTP was on since the machine was set up'"
    )]
    ConfirmTimes {
        #[command(flatten)]
        place: PlaceArgs,
        /// Why these times can be believed; it becomes part of the entry that records it
        #[arg(long, required_unless_present = "dry_run")]
        reason: Option<String>,
        /// Only say which rows these are
        #[arg(long)]
        dry_run: bool,
    },
    /// Empty one row for good, for privacy law; its place and hash stay, and an entry says so
    #[command(after_help = "Example:\n  piperoll node erase --seq 4711 --reason 'request 2026/12, art. 17'")]
    Erase {
        #[command(flatten)]
        log: LogArgs,
        /// SEQ, or NODE/SEQ of this node
        #[arg(long, value_name = "SEQ")]
        seq: RowAddress,
        /// Stands in the log for ever, so it names no person
        #[arg(long)]
        reason: String,
    },
    /// Make the index anew from the rows; searches read what it does not know yet
    #[command(
        after_help = "Example, after `piperoll node verify` has found something about a block of the index:\n  piperoll node reindex"
    )]
    Reindex {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Put the log aside untouched and begin an empty one, after a break-in, a restore or a damage
    #[command(
        after_help = "The node is stopped first. The witness reports a rollback until somebody accepts the new generation\n(piperoll nodes accept). After a break-in, make new keys before: piperoll cluster new-generation."
    )]
    NewGeneration {
        #[command(flatten)]
        place: PlaceArgs,
        /// Stands in the first entry of the new log
        #[arg(long)]
        reason: String,
    },
    /// Head, faults, disk, certificate
    Status {
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        output: OutputArgs,
        /// Say nothing; exit 0 only while the node records entries
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
