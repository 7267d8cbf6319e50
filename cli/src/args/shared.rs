//! Arguments that several commands take.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, ValueEnum};
use piperoll_shared::log::ids::{EntryId, Generation};

pub(super) const FILTER_HELP: &str =
    "Filter, for example: user:alice (action:quarantine.* OR verb:delete) -outcome:success ip:10.0.0.0/8 \"free text\"";

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
