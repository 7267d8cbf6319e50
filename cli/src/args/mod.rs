//! What can be typed.

mod cluster;
mod demo;
mod negation;
mod node;
mod remote;
mod upkeep;

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use piperoll_shared::log::ids::{EntryId, Generation};

pub(crate) use cluster::ClusterCommand;
pub(crate) use demo::DemoArgs;
pub(crate) use negation::protect_negation;
pub(crate) use node::NodeCommand;
pub(crate) use remote::{
    AxisArg, ConnectionArgs, IncompleteChoice, JudgeArgs, JudgementArg, NodesCommand, RemoteExportArgs,
    RemoteNodesArgs, RemoteQueryArgs, RemoteShowArgs, RemoteStatsArgs, RemoteTailArgs, RemoteVerifyArgs, ReportArgs,
    ReportCommand, ReportFormat,
};
pub(crate) use upkeep::{ForwardCommand, HoldCommand, PruneArgs, RecordingTokenCommand};

const FILTER_HELP: &str =
    "Filter, for example: user:alice (action:quarantine.* OR verb:delete) -outcome:success ip:10.0.0.0/8 \"free text\"";

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Reads
    Viewer,
    /// Reads, exports and verifies
    Auditor,
    /// Reads, exports, verifies and manages tokens
    Admin,
}

/// Which log on this machine.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct PlaceArgs {
    /// The node's configuration; its socket is used, or its directory when the daemon is down
    #[arg(long, env = "PIPEROLL_NODE_CONFIG", default_value = "/etc/piperoll/node.toml")]
    pub(crate) config: PathBuf,
    /// The node's socket, when the configuration may not be read
    #[arg(long, env = "PIPEROLL_NODE_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Read the directory even while the daemon runs
    #[arg(long)]
    pub(crate) direct: bool,
}

/// A node's present log, or one that was put aside for it.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct LogArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Of the log that another one took the place of, as `piperoll node verify` names it; it is read where it was put aside
    #[arg(long, value_name = "GENERATION", conflicts_with_all = ["socket", "direct"])]
    pub(crate) generation: Option<Generation>,
}

#[derive(Debug, Clone, Copy, ClapArgs)]
pub(crate) struct OutputArgs {
    /// NDJSON (the default when standard output is not a terminal)
    #[arg(long, conflicts_with = "table")]
    pub(crate) json: bool,
    /// A table (the default in a terminal)
    #[arg(long)]
    pub(crate) table: bool,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct QueryArgs {
    #[arg(help = FILTER_HELP)]
    pub(crate) filter: Vec<String>,
    /// From this time on: RFC 3339, a date, or an age such as 24h
    #[arg(long, alias = "since", default_value = "7d")]
    pub(crate) from: String,
    /// Up to but not including this time
    #[arg(long, alias = "until", default_value = "now")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) zone: ZoneArgs,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct ZoneArgs {
    /// Zone of dates without one, and of the times in a table: Europe/Berlin, +02:00, local, or UTC (the default)
    #[arg(long, value_name = "ZONE", env = "PIPEROLL_TZ")]
    pub(crate) tz: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OrderArg {
    Asc,
    Desc,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LocalQueryArgs {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) query: QueryArgs,
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u64,
    #[arg(long, value_enum, default_value_t = OrderArg::Desc)]
    pub(crate) order: OrderArg,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Rows verbatim, with a final record
    Ndjson,
    /// A view for spreadsheets
    Csv,
}

#[derive(Debug, ClapArgs)]
#[command(group(ArgGroup::new("one").args(["action"]).conflicts_with_all(["map", "input"])))]
pub(crate) struct AppendArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// NDJSON file, or - for standard input
    pub(crate) input: Option<PathBuf>,
    /// Mapping of foreign records: a TOML file, or the name of a built-in one (cloudtrail)
    #[arg(long)]
    pub(crate) map: Option<String>,
    /// Print receipts as NDJSON for batches too
    #[arg(long)]
    pub(crate) receipts: bool,
    /// Dotted, verb last, such as quarantine.release
    #[arg(long, requires = "category")]
    pub(crate) action: Option<String>,
    /// auth, user, config, data, cluster, security, integration or audit
    #[arg(long, requires = "action")]
    pub(crate) category: Option<String>,
    #[arg(long, requires = "action")]
    pub(crate) id: Option<EntryId>,
    #[arg(long, requires = "action")]
    pub(crate) user: Option<String>,
    #[arg(long, requires = "action")]
    pub(crate) impersonator: Option<String>,
    #[arg(long, requires = "action")]
    pub(crate) outcome: Option<String>,
    #[arg(long, requires = "action")]
    pub(crate) reason: Option<String>,
    /// type or type/id
    #[arg(long, requires = "action")]
    pub(crate) entity: Option<String>,
    #[arg(long, requires = "action")]
    pub(crate) target: Option<String>,
    #[arg(long, requires = "action")]
    pub(crate) domain: Option<String>,
    #[arg(long, requires = "action")]
    pub(crate) ip: Option<String>,
    #[arg(long, requires = "action")]
    pub(crate) description: Option<String>,
    /// RFC 3339, when it did not happen just now
    #[arg(long, requires = "action")]
    pub(crate) occurred_at: Option<String>,
    /// A JSON object
    #[arg(long, requires = "action")]
    pub(crate) details: Option<String>,
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
