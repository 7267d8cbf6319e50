//! The commands of the program.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use super::cluster::ClusterCommand;
use super::demo::DemoArgs;
use super::node::NodeCommand;
use super::remote::{
    ConnectionArgs, JudgeArgs, RemoteExportArgs, RemoteNodesArgs, RemoteQueryArgs, RemoteShowArgs, RemoteStatsArgs,
    RemoteTailArgs, RemoteVerifyArgs, ReportCommand,
};
use super::shared::RoleArg;

/// Tamper-evident audit log for clusters: every node keeps its own signed log; a reader merges what the
/// nodes answer and names those that did not.
#[derive(Debug, Parser)]
#[command(
    name = "piperoll",
    version,
    after_help = "Exit codes of reading commands: 0 complete and verified, 1 could not run, 2 usage, 3 incomplete, \
4 integrity violation, 5 nothing answered.\nStart with: piperoll demo"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Three nodes and an aggregator on loopback, real TLS, a day of events, one row edited, one node killed
    Demo(DemoArgs),
    /// Make a cluster's certificates, secrets and machine folders
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// The log on this machine: serve it, append to it, read it, check it
    #[command(subcommand)]
    Node(NodeCommand),
    /// List the mappings of foreign records, or try one
    #[command(subcommand)]
    Map(MapCommand),
    /// The reader of all nodes: serve it, manage its tokens
    #[command(subcommand)]
    Aggregator(AggregatorCommand),
    /// One merged timeline of all nodes
    #[command(
        after_help = "Examples:\n  piperoll query 'user:alice is:failed' --from 24h\n  piperoll query --json node:mx1 --limit 500 | jq .entry.action"
    )]
    Query(RemoteQueryArgs),
    /// The newest entries of all nodes, oldest first; -f follows
    #[command(
        after_help = "Examples:\n  piperoll tail -f\n  piperoll tail -n 50 -f 'is:failed ip:10.0.0.0/8'\n  piperoll tail -f --json 'action:auth.*' | jq .entry.user"
    )]
    Tail(RemoteTailArgs),
    /// One entry, whole: piperoll show mx1/42
    Show(RemoteShowArgs),
    /// Say what a flagged entry meant; the entry stays as it is, and the judgement is one of its own
    #[command(
        after_help = "Example:\n  piperoll judge mx1/42 false-alarm --reason 'month-end booking, agreed with accounting'\n\nJudgements are found with: piperoll query action:audit.judge"
    )]
    Judge(JudgeArgs),
    /// Everything that matches, as NDJSON, as CSV, or as evidence that others can check
    #[command(
        after_help = "Examples:\n  piperoll export --bundle april.tar --from 2026-04-01 --to 2026-05-01 --reason 'audit 2026/7'\n  piperoll export --from 2026-04-01 --to 2026-05-01 --format csv\n  piperoll export 'domain:example.org' --output -"
    )]
    Export(RemoteExportArgs),
    /// Counts over all nodes: totals, the values of fields, a histogram
    #[command(
        after_help = "Examples:\n  piperoll stats --by ip_address 'action:auth.login outcome:failure'\n  piperoll stats --by user,action --bucket 1h --from 24h\n  piperoll stats --by domain --top 5 --json | jq .stats.by[0].top"
    )]
    Stats(RemoteStatsArgs),
    /// Guessed passwords, second persons, one person's doings, a data subject
    #[command(subcommand)]
    Report(Box<ReportCommand>),
    /// Check an evidence bundle offline, with public keys only
    #[command(after_help = "Example:\n  piperoll verify-bundle evidence.tar --trust trust.toml")]
    VerifyBundle(piperoll_verify::VerifyBundleArgs),
    /// Read every row of every node and check it
    Verify(RemoteVerifyArgs),
    /// Every node: reachable, last seen, head, clock, verdict
    Nodes(RemoteNodesArgs),
    /// Look at everything on this machine that a node or an aggregator needs, and say what to do
    #[command(
        after_help = "Exit code 1 when something is bad.\n\nExamples:\n  sudo -u piperoll piperoll doctor\n  piperoll doctor --node ./cluster/machines/mx1/node.toml --json | jq 'select(.verdict == \"bad\")'"
    )]
    Doctor(DoctorArgs),
    /// Print the script that completes commands in a shell
    #[command(after_help = "Example:\n  piperoll completions bash > /etc/bash_completion.d/piperoll")]
    Completions { shell: clap_complete::Shell },
    /// Write the manual pages into a folder
    #[command(after_help = "Example:\n  piperoll man /usr/local/share/man/man1")]
    Man { directory: PathBuf },
    /// Print an address that signs a browser in, once, within five minutes
    #[command(after_help = "Example:\n  piperoll browse")]
    Browse(ConnectionArgs),
}

impl Command {
    /// Whether all it does is print, so that it may end when nobody reads on.
    pub(crate) fn only_prints(&self) -> bool {
        match self {
            Self::Query(_) | Self::Show(_) | Self::Export(_) | Self::Verify(_) | Self::Nodes(_) => true,
            Self::Stats(_) | Self::Tail(_) | Self::Report(_) | Self::VerifyBundle(_) | Self::Browse(_) => true,
            Self::Node(command) => !command.changes_something(),
            Self::Doctor(_) | Self::Completions { .. } => true,
            Self::Demo(_)
            | Self::Cluster(_)
            | Self::Map(_)
            | Self::Aggregator(_)
            | Self::Man { .. }
            | Self::Judge(_) => false,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum MapCommand {
    /// List the built-in mappings
    List,
    /// Show the entries that a mapping makes of a file, without recording them
    #[command(
        after_help = "Examples:\n  piperoll map test cloudtrail trail.json.gz\n  piperoll map test my.toml audit.log --json | jq .outcome"
    )]
    Test {
        /// A TOML file, or the name of a built-in mapping
        map: String,
        /// A file of records, or - for standard input
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
        #[arg(long, env = "PIPEROLL_AGGREGATOR_CONFIG", default_value = "/etc/piperoll/aggregator.toml")]
        config: PathBuf,
    },
    /// Exit 0 only while the aggregator answers; for health checks
    Health {
        #[arg(long, env = "PIPEROLL_AGGREGATOR_CONFIG", default_value = "/etc/piperoll/aggregator.toml")]
        config: PathBuf,
    },
    /// Create, list and revoke access tokens
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it is shown once
    Create {
        #[command(flatten)]
        config: AggregatorConfigArg,
        #[arg(long)]
        name: String,
        #[arg(long, value_enum)]
        role: RoleArg,
        /// RFC 3339, a date, or a time from now such as 90d
        #[arg(long)]
        expires: Option<String>,
        /// A filter: what the holder may see at all, such as 'domain:example.org user:kim,lee'
        #[arg(long)]
        scope: Option<String>,
    },
    /// Names, roles, expiry and scopes; never the tokens
    List {
        #[command(flatten)]
        config: AggregatorConfigArg,
    },
    /// Make a token useless at once
    Revoke {
        #[command(flatten)]
        config: AggregatorConfigArg,
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct AggregatorConfigArg {
    #[arg(long, env = "PIPEROLL_AGGREGATOR_CONFIG", default_value = "/etc/piperoll/aggregator.toml")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    /// A node's configuration; /etc/piperoll/node.toml if it is there
    #[arg(long, env = "PIPEROLL_NODE_CONFIG")]
    pub(crate) node: Option<PathBuf>,
    /// An aggregator's configuration; /etc/piperoll/aggregator.toml if it is there
    #[arg(long, env = "PIPEROLL_AGGREGATOR_CONFIG")]
    pub(crate) aggregator: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}
