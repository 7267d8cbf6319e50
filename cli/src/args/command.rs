//! Top-level commands of the program.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use super::archive::ArchiveCommand;
use super::cluster::ClusterCommand;
use super::demo::DemoArgs;
use super::node::NodeCommand;
use super::remote::{
    ConnectionArgs, RemoteExportArgs, RemoteNodesArgs, RemoteQueryArgs, RemoteShowArgs, RemoteStatsArgs,
    RemoteTailArgs, RemoteVerifyArgs, ReportCommand, VerdictArgs,
};
use super::shared::{AggregatorConfigArg, RoleArg};

/// Tamper-evident audit log for clusters. Every node keeps its own signed log; an aggregator queries all nodes, merges their
/// answers in time order, verifies every signature, and names the nodes that did not answer.
#[derive(Debug, Parser)]
#[command(
    name = "piperoll",
    version,
    after_help = "Exit codes of reading commands: 0 complete and verified, 1 could not run, 2 usage, 3 incomplete, \
4 integrity violation, 5 no node answered.\nStart with: piperoll demo"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a demo cluster: three nodes and an aggregator on loopback, a day of events, one row edited, one node killed
    Demo(DemoArgs),
    /// Create and manage a cluster's certificates, secrets and machine folders
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Serve, append to, read and verify the log on this machine
    #[command(subcommand)]
    Node(NodeCommand),
    /// Archive the nodes' rows to a directory or bucket, and verify the archive
    #[command(subcommand)]
    Archive(Box<ArchiveCommand>),
    /// List the mappings for other systems' records, or try one on a file
    #[command(subcommand)]
    Map(MapCommand),
    /// Run the aggregator and manage its access tokens
    #[command(subcommand)]
    Aggregator(AggregatorCommand),
    /// Query all nodes and merge their entries into one timeline
    #[command(
        after_help = "Examples:\n  piperoll query 'user:alice is:failed' --from 24h\n  piperoll query --json node:mx1 --limit 500 | jq .entry.action"
    )]
    Query(RemoteQueryArgs),
    /// Show the newest entries of all nodes, oldest first; -f follows
    #[command(
        after_help = "Examples:\n  piperoll tail -f\n  piperoll tail -n 50 -f 'is:failed ip:10.0.0.0/8'\n  piperoll tail -f --json 'action:auth.*' | jq .entry.user"
    )]
    Tail(RemoteTailArgs),
    /// Show one entry in full: piperoll show mx1/42
    Show(RemoteShowArgs),
    /// Record a verdict on a flagged entry, as a new entry; the flagged one is not changed
    #[command(
        alias = "judge",
        after_help = "Example:\n  piperoll verdict mx1/42 false-positive --reason 'month-end booking, agreed with accounting'\n\nList verdicts with: piperoll query action:audit.judge"
    )]
    Verdict(VerdictArgs),
    /// Export all matching entries as NDJSON, CSV, or a bundle of evidence that others can verify offline
    #[command(
        after_help = "Examples:\n  piperoll export --bundle april.tar --from 2026-04-01 --to 2026-05-01 --reason 'audit 2026/7'\n  piperoll export --from 2026-04-01 --to 2026-05-01 --format csv\n  piperoll export 'domain:example.org' --output -"
    )]
    Export(RemoteExportArgs),
    /// Count entries over all nodes: totals, top values of fields, a histogram
    #[command(
        after_help = "Examples:\n  piperoll stats --by ip_address 'action:auth.login outcome:failure'\n  piperoll stats --by user,action --bucket 1h --from 24h\n  piperoll stats --by domain --top 5 --json | jq .stats.by[0].top"
    )]
    Stats(RemoteStatsArgs),
    /// Run a report: brute-force logins, four-eyes approvals, user activity, data subject access
    #[command(subcommand)]
    Report(Box<ReportCommand>),
    /// Verify an evidence bundle offline, with public keys only
    #[command(after_help = "Example:\n  piperoll verify-bundle evidence.tar --trust trust.toml")]
    VerifyBundle(piperoll_verify::VerifyBundleArgs),
    /// Read and verify every row of every node
    Verify(RemoteVerifyArgs),
    /// List all nodes: status, last contact, head, clock, verdict
    Nodes(RemoteNodesArgs),
    /// Diagnose the setup of a node or an aggregator on this machine, and say how to fix it
    #[command(
        after_help = "Exits with 1 if a check fails.\n\nExamples:\n  sudo -u piperoll piperoll doctor\n  piperoll doctor --node ./cluster/machines/mx1/node.toml --json | jq 'select(.verdict == \"bad\")'"
    )]
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  piperoll completions bash > /etc/bash_completion.d/piperoll")]
    Completions {
        /// Shell to complete in
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to a directory
    #[command(after_help = "Example:\n  piperoll man /usr/local/share/man/man1")]
    Man {
        /// Directory to write to
        directory: PathBuf,
    },
    /// Print a URL that signs a browser in; it works once, for five minutes
    #[command(after_help = "Example:\n  piperoll browse")]
    Browse(ConnectionArgs),
}

impl Command {
    /// Whether the command only prints, and may therefore be ended by a closed pipe.
    pub(crate) fn only_prints(&self) -> bool {
        match self {
            Self::Query(_) | Self::Show(_) | Self::Export(_) | Self::Verify(_) | Self::Nodes(_) => true,
            Self::Stats(_) | Self::Tail(_) | Self::Report(_) | Self::VerifyBundle(_) | Self::Browse(_) => true,
            Self::Node(command) => !command.changes_something(),
            Self::Archive(command) => {
                matches!(
                    **command,
                    ArchiveCommand::Ls { .. } | ArchiveCommand::Verify { .. } | ArchiveCommand::Status { .. }
                )
            }
            Self::Doctor(_) | Self::Completions { .. } => true,
            Self::Demo(_)
            | Self::Cluster(_)
            | Self::Map(_)
            | Self::Aggregator(_)
            | Self::Man { .. }
            | Self::Verdict(_) => false,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum MapCommand {
    /// List the built-in mappings
    List,
    /// Show the entries that a mapping produces from a file, without recording them
    #[command(
        after_help = "Examples:\n  piperoll map test cloudtrail trail.json.gz\n  piperoll map test my.toml audit.log --json | jq .outcome"
    )]
    Test {
        /// TOML file, or name of a built-in mapping
        map: String,
        /// File of records, or - for standard input
        file: PathBuf,
        /// Print the entries as NDJSON instead of a table
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AggregatorCommand {
    /// Run the aggregator
    Serve {
        /// Configuration file of the aggregator
        #[arg(long, env = "PIPEROLL_AGGREGATOR_CONFIG", default_value = "/etc/piperoll/aggregator.toml")]
        config: PathBuf,
    },
    /// Exit with 0 if the aggregator answers; for health checks
    Health {
        /// Configuration file of the aggregator
        #[arg(long, env = "PIPEROLL_AGGREGATOR_CONFIG", default_value = "/etc/piperoll/aggregator.toml")]
        config: PathBuf,
    },
    /// Create, list and revoke access tokens
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token; it is printed only once
    Create {
        #[command(flatten)]
        config: AggregatorConfigArg,
        /// Name of the token, as `list` and the log show it
        #[arg(long)]
        name: String,
        /// Role of the token
        #[arg(long, value_enum)]
        role: RoleArg,
        /// Expiry: RFC 3339, a date, or a duration from now such as 90d (default: never)
        #[arg(long)]
        expires: Option<String>,
        /// Filter that limits which entries the holder can see, such as 'domain:example.org user:kim,lee'
        #[arg(long)]
        scope: Option<String>,
    },
    /// List names, roles, expiry and scopes; tokens themselves are not stored
    List {
        #[command(flatten)]
        config: AggregatorConfigArg,
    },
    /// Revoke a token immediately
    Revoke {
        #[command(flatten)]
        config: AggregatorConfigArg,
        /// Name of the token, as `list` shows it
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    /// Configuration file of a node; /etc/piperoll/node.toml if it exists
    #[arg(long, env = "PIPEROLL_NODE_CONFIG")]
    pub(crate) node: Option<PathBuf>,
    /// Configuration file of an aggregator; /etc/piperoll/aggregator.toml if it exists
    #[arg(long, env = "PIPEROLL_AGGREGATOR_CONFIG")]
    pub(crate) aggregator: Option<PathBuf>,
    /// Print one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}
