//! What can be typed to commands that read through the aggregator.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use piperoll_shared::log::stats::TOP_DEFAULT;

use crate::address::RowAddress;

use super::shared::{ExportFormat, FILTER_HELP, OrderArg, OutputArgs, QueryArgs, ZoneArgs};

/// How to reach the aggregator: flags, then environment, then ~/.config/piperoll/config.toml.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ConnectionArgs {
    /// The aggregator, such as https://audit.example.org:7400
    #[arg(long, env = "PIPEROLL_URL")]
    pub(crate) url: Option<String>,
    /// Access token (better in the environment or a file than on a command line that others can see)
    #[arg(long, env = "PIPEROLL_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// The cluster's ca.crt
    #[arg(long, env = "PIPEROLL_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Your client certificate, instead of a token
    #[arg(long, env = "PIPEROLL_CERT", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of the client certificate
    #[arg(long, env = "PIPEROLL_KEY", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Show every node's part of the answer, also when all is well
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RemoteQueryArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) query: QueryArgs,
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: usize,
    #[arg(long, value_enum, default_value_t = OrderArg::Desc)]
    pub(crate) order: OrderArg,
    /// Without a filter, show entries of category audit too, such as your own reads
    #[arg(long)]
    pub(crate) all: bool,
    /// The time that a table shows and sorts its page by; the range and what is complete go by when entries were recorded
    #[arg(long, value_enum, default_value_t = AxisArg::Recorded)]
    pub(crate) axis: AxisArg,
    /// Continue behind an earlier page
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    /// Print no rows unless every expected node answered
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
    /// Fields to count the values of, such as ip_address or user,action
    #[arg(long, value_delimiter = ',')]
    pub(crate) by: Vec<String>,
    /// Values listed per field, at most 1000
    #[arg(long, default_value_t = TOP_DEFAULT)]
    pub(crate) top: usize,
    /// Counts over time in buckets of this width, such as 15m, 1h or 1d
    #[arg(long)]
    pub(crate) bucket: Option<String>,
    /// The time that decides the bucket; the range goes by when entries were recorded
    #[arg(long, value_enum, default_value_t = AxisArg::Recorded)]
    pub(crate) axis: AxisArg,
    /// Read and verify every row instead of believing what the nodes count from their indexes
    #[arg(long)]
    pub(crate) verify: bool,
    /// Print no number unless every expected node answered
    #[arg(long)]
    pub(crate) require_complete: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// A time of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AxisArg {
    Recorded,
    /// When it happened by the caller's word
    Occurred,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    Table,
    Json,
    /// One page without scripts, for printing
    Html,
}

/// What every report has.
#[derive(Debug, ClapArgs)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// Only entries that fit this filter too
    #[arg(long)]
    pub(crate) filter: Vec<String>,
    /// From this time on: RFC 3339, a date, or an age such as 24h
    #[arg(long, alias = "since", default_value = "7d")]
    pub(crate) from: String,
    /// Up to but not including this time
    #[arg(long, alias = "until", default_value = "now")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) zone: ZoneArgs,
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    pub(crate) format: ReportFormat,
    /// A new file instead of standard output, for JSON and HTML
    #[arg(long)]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// Addresses that guess passwords over all nodes, and whether one got in
    #[command(after_help = "Example:\n  piperoll report brute-force --failures 10 --window 10m --from 24h")]
    BruteForce {
        #[command(flatten)]
        common: ReportArgs,
        /// The action of a sign-in; `*` at the end is a prefix
        #[arg(long, default_value = "auth.login*")]
        action: String,
        /// An address counts that fails this often ...
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        failures: u32,
        /// ... within this time
        #[arg(long, default_value = "10m")]
        window: String,
    },
    /// Actions that need a second person, and whether one confirmed them in time
    #[command(
        after_help = "Examples:\n  piperoll report four-eyes\n  piperoll report four-eyes --rules rules.toml --from 30d --format html --output four-eyes.html\n\nA rule: [[rule]] name, action, confirm, window, order (confirmed_after or confirmed_before); see docs/reports.md."
    )]
    FourEyes {
        #[command(flatten)]
        common: ReportArgs,
        /// TOML file of rules; built-in ones about mail forwarding and policies by default
        #[arg(long)]
        rules: Option<PathBuf>,
    },
    /// Everything one person did, from which addresses, and under which names
    #[command(after_help = "Example:\n  piperoll report access m.keller --from 30d")]
    Access {
        #[command(flatten)]
        common: ReportArgs,
        user: String,
    },
    /// Everything that touches a person or thing, for a request under the GDPR
    #[command(
        after_help = "Example:\n  piperoll report subject office@example.org --from 365d --format html --output subject.html"
    )]
    Subject {
        #[command(flatten)]
        common: ReportArgs,
        subject: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RemoteTailArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[arg(help = FILTER_HELP)]
    pub(crate) filter: Vec<String>,
    /// How many entries to begin with
    #[arg(short = 'n', long, default_value_t = 10)]
    pub(crate) lines: usize,
    /// How far back to look for them: RFC 3339, a date, or an age such as 24h
    #[arg(long, alias = "since", default_value = "7d")]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) zone: ZoneArgs,
    /// Without a filter, show entries of category audit too, such as your own reads
    #[arg(long)]
    pub(crate) all: bool,
    /// Keep printing what all nodes record, and say when one does not answer
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RemoteShowArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// NODE/SEQ or NODE:SEQ, such as mx1/42; mx1/42@GENERATION for a row of an earlier log, as the row says
    pub(crate) entry: RowAddress,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JudgeArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// NODE/SEQ of the flagged entry, such as mx1/42, or NODE/SEQ@GENERATION
    pub(crate) entry: RowAddress,
    #[arg(value_enum)]
    pub(crate) judgement: JudgementArg,
    /// What was found out; it becomes part of the entry that records the judgement
    #[arg(long)]
    pub(crate) reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum JudgementArg {
    /// It was looked into, and what it shows did happen
    Reviewed,
    /// The rule was right to notice, and nothing is wrong
    FalseAlarm,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RemoteExportArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) query: QueryArgs,
    #[arg(long, value_enum, default_value_t = OrderArg::Asc)]
    pub(crate) order: OrderArg,
    #[arg(long, value_enum, default_value_t = ExportFormat::Ndjson)]
    pub(crate) format: ExportFormat,
    /// File to write, - for standard output; by default a name made of range and filter
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// Refuse instead of exporting a part
    #[arg(long)]
    pub(crate) require_complete: bool,
    /// Write an evidence bundle that others can check offline with `verify-bundle`
    #[arg(long, value_name = "FILE", requires = "reason", conflicts_with_all = ["format", "output", "order", "require_complete"])]
    pub(crate) bundle: Option<PathBuf>,
    /// Why the bundle is made; it is recorded, and stands in the bundle
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// What to do when an expected node is missing
    #[arg(long, value_enum, default_value_t = IncompleteChoice::Refuse, requires = "bundle")]
    pub(crate) incomplete: IncompleteChoice,
    /// With --incomplete wait: seconds, at most 600; 60 by default
    #[arg(long, value_name = "SECONDS", requires = "bundle")]
    pub(crate) wait: Option<u64>,
    /// Write one entry's bytes and its C2SP tlog-proof here, as NODE-SEQ.entry and NODE-SEQ.tlog-proof
    #[arg(long, value_name = "NODE:SEQ[@GENERATION]")]
    pub(crate) row: Vec<RowAddress>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IncompleteChoice {
    /// No bundle; exit code 3
    Refuse,
    /// Try again for a while
    Wait,
    /// A bundle of what there is, marked PARTIAL
    Partial,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RemoteVerifyArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// From this time on; everything by default
    #[arg(long, alias = "since")]
    pub(crate) from: Option<String>,
    /// Up to but not including this time
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
    /// Say that a fork or a rollback was looked into, and that the log the node presents now is meant; it is recorded
    #[command(
        after_help = "Example:\n  piperoll nodes accept mx1 --new-generation 3f1c… --reason 'disk died, restored from the backup of 12 May'"
    )]
    Accept {
        #[command(flatten)]
        connection: ConnectionArgs,
        node: String,
        /// The generation that the node presents, as `piperoll nodes --json` shows it
        #[arg(long)]
        new_generation: String,
        /// What happened
        #[arg(long)]
        reason: String,
    },
}
