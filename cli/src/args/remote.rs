//! Arguments of the commands that query the aggregator.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use piperoll_query::stats::TOP_DEFAULT;

use crate::address::RowAddress;

use super::shared::{ExportFormat, FILTER_HELP, OrderArg, OutputArgs, QueryArgs, ZoneArgs};

/// Parses a path, which may be empty: an empty environment variable counts as not set.
fn path_or_empty() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Connection to the aggregator, from flags, else from the environment, else from ~/.config/piperoll/config.toml.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ConnectionArgs {
    /// URL of the aggregator, such as `https://audit.example.org:7400`
    #[arg(long, env = "PIPEROLL_URL")]
    pub(crate) url: Option<String>,
    /// Access token; prefer the environment or a file, because other users can see command lines
    #[arg(long, env = "PIPEROLL_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// CA certificate of the cluster (ca.crt)
    #[arg(long, env = "PIPEROLL_CA", value_parser = path_or_empty())]
    pub(crate) ca: Option<PathBuf>,
    /// Client certificate, instead of a token
    #[arg(long, env = "PIPEROLL_CERT", value_parser = path_or_empty())]
    pub(crate) cert: Option<PathBuf>,
    /// Private key of the client certificate
    #[arg(long, env = "PIPEROLL_KEY", value_parser = path_or_empty())]
    pub(crate) key: Option<PathBuf>,
    /// Show the report of every node, even if all nodes answered
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RemoteQueryArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) query: QueryArgs,
    /// Maximum number of entries
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: usize,
    /// Order by time of recording
    #[arg(long, value_enum, default_value_t = OrderArg::Desc)]
    pub(crate) order: OrderArg,
    /// Without a filter, include entries of category audit, such as your own queries
    #[arg(long)]
    pub(crate) all: bool,
    /// Time that a table shows and sorts its page by; range and completeness always refer to the time of recording
    #[arg(long, value_enum, default_value_t = AxisArg::Recorded)]
    pub(crate) axis: AxisArg,
    /// Resume after this cursor
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    /// Print no entries unless every expected node answered
    #[arg(long)]
    pub(crate) require_complete: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RemoteStatsArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) query: QueryArgs,
    /// Fields whose values are counted, such as ip_address or user,action
    #[arg(long, value_delimiter = ',')]
    pub(crate) by: Vec<String>,
    /// Number of values per field, at most 1000
    #[arg(long, default_value_t = TOP_DEFAULT)]
    pub(crate) top: usize,
    /// Width of a bucket of the histogram, such as 15m, 1h or 1d
    #[arg(long)]
    pub(crate) bucket: Option<String>,
    /// Time that assigns an entry to a bucket; the range always refers to the time of recording
    #[arg(long, value_enum, default_value_t = AxisArg::Recorded)]
    pub(crate) axis: AxisArg,
    /// Read and verify every row instead of trusting the counts from the nodes' indexes
    #[arg(long)]
    pub(crate) verify: bool,
    /// Print no counts unless every expected node answered
    #[arg(long)]
    pub(crate) require_complete: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Selects which time of an entry a command uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AxisArg {
    /// When the node recorded it
    Recorded,
    /// When it happened, according to the caller
    Occurred,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// Table for a terminal
    Table,
    /// One JSON document
    Json,
    /// One printable page without scripts
    Html,
}

/// Arguments that all reports share.
#[derive(Debug, ClapArgs)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// Only entries that match this filter
    #[arg(long)]
    pub(crate) filter: Vec<String>,
    /// Start of the range: RFC 3339, a date, or an age such as 24h
    #[arg(long, alias = "since", default_value = "7d")]
    pub(crate) from: String,
    /// End of the range, exclusive
    #[arg(long, alias = "until", default_value = "now")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) zone: ZoneArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    pub(crate) format: ReportFormat,
    /// New file to write to instead of standard output, for JSON and HTML
    #[arg(long)]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// Find addresses with many failed logins over all nodes, and whether one succeeded
    #[command(after_help = "Example:\n  piperoll report brute-force --failures 10 --window 10m --from 24h")]
    BruteForce {
        #[command(flatten)]
        common: ReportArgs,
        /// Action of a login; a trailing `*` matches any suffix
        #[arg(long, default_value = "auth.login*")]
        action: String,
        /// Minimum number of failures per address
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        failures: u32,
        /// Time window of the failures
        #[arg(long, default_value = "10m")]
        window: String,
    },
    /// List actions that need a second person, and whether one confirmed them in time
    #[command(
        after_help = "Examples:\n  piperoll report four-eyes\n  piperoll report four-eyes --rules rules.toml --from 30d --format html --output four-eyes.html\n\nA rule: [[rule]] name, action, confirm, window, order (confirmed_after or confirmed_before); see docs/reports.md."
    )]
    FourEyes {
        #[command(flatten)]
        common: ReportArgs,
        /// TOML file of rules; built-in rules about mail forwarding and policies by default
        #[arg(long)]
        rules: Option<PathBuf>,
    },
    /// List everything that one user did, from which addresses and under which names
    #[command(after_help = "Example:\n  piperoll report access m.keller --from 30d")]
    Access {
        #[command(flatten)]
        common: ReportArgs,
        /// User, as entries name it
        user: String,
    },
    /// List everything about a person or thing, for a data subject access request (GDPR)
    #[command(
        after_help = "Example:\n  piperoll report subject office@example.org --from 365d --format html --output subject.html"
    )]
    Subject {
        #[command(flatten)]
        common: ReportArgs,
        /// Name, address or identifier to look for
        subject: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RemoteTailArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[arg(help = FILTER_HELP)]
    pub(crate) filter: Vec<String>,
    /// Number of entries to start with
    #[arg(short = 'n', long, default_value_t = 10)]
    pub(crate) lines: usize,
    /// How far back to look for these entries: RFC 3339, a date, or an age such as 24h
    #[arg(long, alias = "since", default_value = "7d")]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) zone: ZoneArgs,
    /// Without a filter, include entries of category audit, such as your own queries
    #[arg(long)]
    pub(crate) all: bool,
    /// Keep printing new entries of all nodes, and report when a node does not answer
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RemoteShowArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// NODE/SEQ, such as mx1/42, or NODE/SEQ@GENERATION for an archived log of the node
    pub(crate) entry: RowAddress,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct VerdictArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// NODE/SEQ of the flagged entry, such as mx1/42, or NODE/SEQ@GENERATION
    pub(crate) entry: RowAddress,
    /// Verdict
    #[arg(value_enum)]
    pub(crate) verdict: VerdictArg,
    /// Reason, which is recorded with the verdict
    #[arg(long)]
    pub(crate) reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum VerdictArg {
    /// Investigated: the activity that the entry shows did happen
    #[value(alias = "reviewed")]
    TruePositive,
    /// The rule matched, but nothing is wrong
    #[value(alias = "false-alarm")]
    FalsePositive,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RemoteExportArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) query: QueryArgs,
    /// Order by time of recording
    #[arg(long, value_enum, default_value_t = OrderArg::Asc)]
    pub(crate) order: OrderArg,
    /// Output format
    #[arg(long, value_enum, default_value_t = ExportFormat::Ndjson)]
    pub(crate) format: ExportFormat,
    /// File to write, or - for standard output; by default named after range and filter
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// Refuse to export unless every expected node answered
    #[arg(long)]
    pub(crate) require_complete: bool,
    /// Write an evidence bundle that others can verify offline with `verify-bundle`
    #[arg(long, value_name = "FILE", requires = "reason", conflicts_with_all = ["format", "output", "order", "require_complete"])]
    pub(crate) bundle: Option<PathBuf>,
    /// Reason for the export; it is recorded and included in the bundle
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Action if an expected node is missing
    #[arg(long, value_enum, default_value_t = IncompleteChoice::Refuse, requires = "bundle")]
    pub(crate) incomplete: IncompleteChoice,
    /// Seconds to wait with --incomplete wait, at most 600; 60 by default
    #[arg(long, value_name = "SECONDS", requires = "bundle")]
    pub(crate) wait: Option<u64>,
    /// Write the bytes of one entry and its C2SP tlog-proof to the current directory, as NODE-SEQ.entry and NODE-SEQ.tlog-proof
    #[arg(long, value_name = "NODE:SEQ[@GENERATION]")]
    pub(crate) row: Vec<RowAddress>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IncompleteChoice {
    /// Write no bundle and exit with 3
    Refuse,
    /// Retry for a while (see --wait)
    Wait,
    /// Write a bundle with the available entries, marked PARTIAL
    Partial,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RemoteVerifyArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// Start of the range; the beginning of the log by default
    #[arg(long, alias = "since")]
    pub(crate) from: Option<String>,
    /// End of the range, exclusive
    #[arg(long, alias = "until")]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) zone: ZoneArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RemoteNodesArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: Option<NodesCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodesCommand {
    /// Accept a node's current log after investigating a fork or a rollback; the decision is recorded
    #[command(
        after_help = "Example:\n  piperoll nodes accept mx1 --new-generation 3f1c… --reason 'disk died, restored from the backup of 12 May'"
    )]
    Accept {
        #[command(flatten)]
        connection: ConnectionArgs,
        /// Node ID
        node: String,
        /// Generation that the node presents, as `piperoll nodes --json` shows it
        #[arg(long)]
        new_generation: String,
        /// Reason, which is recorded
        #[arg(long)]
        reason: String,
    },
}
