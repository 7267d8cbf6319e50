//! Arguments that several commands share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args as ClapArgs, ValueEnum};
use piperoll_format::ids::{EntryId, Generation};
use piperoll_format::time::parse_duration;

pub(super) const FILTER_HELP: &str =
    "Filter, for example: user:alice (action:quarantine.* OR verb:delete) -outcome:success ip:10.0.0.0/8 \"free text\"";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// May read
    Viewer,
    /// May read, export and verify
    Auditor,
    /// May read, export, verify and manage tokens
    Admin,
}

/// Default retry time; longer than a node takes to restart.
const RETRY_FOR_DEFAULT: &str = "60s";

fn retry_time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a duration such as 10s or 5m".to_owned())
}

/// Selects a node on this machine.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct PlaceArgs {
    /// Configuration file of the node; commands use its socket, or its directory when the daemon is down
    #[arg(long, env = "PIPEROLL_NODE_CONFIG", default_value = "/etc/piperoll/node.toml")]
    pub(crate) config: PathBuf,
    /// Socket of the node, for users who cannot read the configuration
    #[arg(long, env = "PIPEROLL_NODE_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Read the directory even while the daemon runs
    #[arg(long)]
    pub(crate) direct: bool,
}

/// Selects the current log of a node, or an archived one.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct LogArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Generation of an archived log, as `piperoll node verify` names it; its archived directory is read
    #[arg(long, value_name = "GENERATION", conflicts_with_all = ["socket", "direct"])]
    pub(crate) generation: Option<Generation>,
}

#[derive(Debug, Clone, Copy, ClapArgs)]
pub(crate) struct OutputArgs {
    /// Print NDJSON (the default if standard output is not a terminal)
    #[arg(long, conflicts_with = "table")]
    pub(crate) json: bool,
    /// Print a table (the default in a terminal)
    #[arg(long)]
    pub(crate) table: bool,
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct QueryArgs {
    #[arg(help = FILTER_HELP)]
    pub(crate) filter: Vec<String>,
    /// Start of the range: RFC 3339, a date, or an age such as 24h
    #[arg(long, alias = "since", default_value = "7d")]
    pub(crate) from: String,
    /// End of the range, exclusive
    #[arg(long, alias = "until", default_value = "now")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) zone: ZoneArgs,
}

#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct ZoneArgs {
    /// Time zone of dates without one and of times in tables: Europe/Berlin, +02:00, local, or UTC (the default)
    #[arg(long, value_name = "ZONE", env = "PIPEROLL_TZ")]
    pub(crate) tz: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OrderArg {
    /// Oldest first
    Asc,
    /// Newest first
    Desc,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LocalQueryArgs {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) query: QueryArgs,
    /// Maximum number of entries
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u64,
    /// Order by time of recording
    #[arg(long, value_enum, default_value_t = OrderArg::Desc)]
    pub(crate) order: OrderArg,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Rows as stored, with a final record
    Ndjson,
    /// A table for spreadsheets
    Csv,
}

#[derive(Debug, ClapArgs)]
#[command(group(ArgGroup::new("one").args(["action"]).conflicts_with_all(["map", "input"])))]
pub(crate) struct AppendArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// NDJSON file, or - for standard input
    pub(crate) input: Option<PathBuf>,
    /// Mapping for other systems' records: a TOML file, or the name of a built-in mapping such as cloudtrail
    #[arg(long)]
    pub(crate) map: Option<String>,
    /// Also print the receipts of batches, as NDJSON
    #[arg(long)]
    pub(crate) receipts: bool,
    /// How long to retry while the node cannot accept entries, such as 10s or 5m; 0s fails at once
    #[arg(long, value_parser = retry_time, default_value = RETRY_FOR_DEFAULT, value_name = "DURATION")]
    pub(crate) retry_for: Duration,
    /// Action: dotted, verb last, such as quarantine.release
    #[arg(long, requires = "category")]
    pub(crate) action: Option<String>,
    /// Category: auth, user, config, data, cluster, security, integration, audit, or any other lower-case word
    #[arg(long, requires = "action")]
    pub(crate) category: Option<String>,
    /// ID of the entry, a UUID; retries with the same ID record it once. A new one by default
    #[arg(long, requires = "action")]
    pub(crate) id: Option<EntryId>,
    /// User who acted
    #[arg(long, requires = "action")]
    pub(crate) user: Option<String>,
    /// User who acted as --user
    #[arg(long, requires = "action")]
    pub(crate) impersonator: Option<String>,
    /// Outcome: success, failure, denied or unknown
    #[arg(long, requires = "action")]
    pub(crate) outcome: Option<String>,
    /// Why it was done, or why it failed
    #[arg(long, requires = "action")]
    pub(crate) reason: Option<String>,
    /// Object that it was applied to: type or type/id
    #[arg(long, requires = "action")]
    pub(crate) entity: Option<String>,
    /// Object of the action, such as another user's name
    #[arg(long, requires = "action")]
    pub(crate) target: Option<String>,
    /// Domain or tenant
    #[arg(long, requires = "action")]
    pub(crate) domain: Option<String>,
    /// IP address of the client
    #[arg(long, requires = "action")]
    pub(crate) ip: Option<String>,
    /// One sentence for people
    #[arg(long, requires = "action")]
    pub(crate) description: Option<String>,
    /// When the event happened, RFC 3339, if not just now
    #[arg(long, requires = "action")]
    pub(crate) occurred_at: Option<String>,
    /// Further details, a JSON object
    #[arg(long, requires = "action")]
    pub(crate) details: Option<String>,
}

/// Configuration of the aggregator on this machine.
#[derive(Debug, ClapArgs)]
pub(crate) struct AggregatorConfigArg {
    /// Configuration file of the aggregator
    #[arg(long, env = "PIPEROLL_AGGREGATOR_CONFIG", default_value = "/etc/piperoll/aggregator.toml")]
    pub(crate) config: PathBuf,
}
