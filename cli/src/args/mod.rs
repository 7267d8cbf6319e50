//! Command-line arguments.

mod admin;
mod archive;
mod cluster;
mod command;
mod demo;
mod negation;
mod node;
mod remote;
mod shared;

pub(crate) use admin::{ForwardCommand, HoldCommand, PruneArgs, RecordingTokenCommand};
pub(crate) use archive::{ArchiveCommand, ArchivePlaceArgs, DayArgs};
pub(crate) use cluster::ClusterCommand;
pub(crate) use command::{AggregatorCommand, Args, Command, DoctorArgs, MapCommand, TokenCommand};
pub(crate) use demo::DemoArgs;
pub(crate) use negation::protect_negation;
pub(crate) use node::NodeCommand;
pub(crate) use remote::{
    AxisArg, ConnectionArgs, IncompleteChoice, NodesCommand, RemoteExportArgs, RemoteNodesArgs, RemoteQueryArgs,
    RemoteShowArgs, RemoteStatsArgs, RemoteTailArgs, RemoteVerifyArgs, ReportArgs, ReportCommand, ReportFormat,
    VerdictArg, VerdictArgs,
};
pub(crate) use shared::{
    AppendArgs, ExportFormat, LocalQueryArgs, LogArgs, OrderArg, OutputArgs, PlaceArgs, QueryArgs, RoleArg, ZoneArgs,
};
