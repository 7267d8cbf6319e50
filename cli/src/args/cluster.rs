//! Arguments of `piperoll cluster`.

use std::path::PathBuf;

use clap::Subcommand;
use piperoll_format::ids::{ClusterName, NodeId};

use super::shared::RoleArg;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Create a cluster directory; it holds the CA's private key, so keep it safe and offline
    Init {
        /// Directory to create
        dir: PathBuf,
        /// Name of the cluster
        #[arg(long)]
        name: ClusterName,
    },
    /// Create the folder to copy to a node's machine
    AddNode {
        dir: PathBuf,
        id: NodeId,
        /// Address where aggregators reach it: HOST:PORT
        #[arg(long)]
        address: String,
        /// Address to listen on (default: all interfaces, on the port of --address)
        #[arg(long)]
        listen: Option<String>,
        /// Use /var/lib/piperoll and /run/piperoll, as the package's units and containers expect
        #[arg(long)]
        packaged: bool,
    },
    /// Create the folder to copy to an aggregator's machine
    AddAggregator {
        dir: PathBuf,
        id: NodeId,
        /// Address where people and programs reach it: HOST:PORT
        #[arg(long)]
        address: String,
        /// Address to listen on (default: all interfaces, on the port of --address)
        #[arg(long)]
        listen: Option<String>,
        /// Address for its embedded node to listen on; this node records the aggregator's own entries
        #[arg(long, default_value = "127.0.0.1:7444")]
        node_address: String,
        /// Use /var/lib/piperoll-aggregator, as the package's units and containers expect
        #[arg(long)]
        packaged: bool,
    },
    /// Create the keys of an archive, and configure the aggregator that writes it
    #[command(
        after_help = "Example:\n  piperoll cluster add-archive ./cluster main --aggregator agg --url s3://audit-archive/prod\nThen, on the aggregator's machine: piperoll archive init"
    )]
    AddArchive {
        dir: PathBuf,
        /// Name of the archive
        id: NodeId,
        /// Aggregator that writes the archive
        #[arg(long)]
        aggregator: NodeId,
        /// Location: file:///DIRECTORY or s3://BUCKET/PREFIX
        #[arg(long)]
        url: String,
    },
    /// Create a certificate for a person
    AddUser {
        dir: PathBuf,
        /// Name of the person
        name: NodeId,
        /// Role of the person
        #[arg(long, value_enum)]
        role: RoleArg,
        /// Filter that limits which entries the person can see, such as 'domain:example.org'
        #[arg(long)]
        scope: Option<String>,
    },
    /// Issue new keys and certificates for a member into its folder
    Renew { dir: PathBuf, id: NodeId },
    /// Revoke the certificates of a member
    Revoke { dir: PathBuf, id: NodeId },
    /// Create the MAC key of a node's next epoch; the node switches to it at its next start
    #[command(after_help = "Example:\n  piperoll cluster rotate-mac ./cluster mx1")]
    RotateMac { dir: PathBuf, id: NodeId },
    /// Change the key that signs a node's checkpoints: start, let both keys sign for a while, then finish
    #[command(
        after_help = "Example:\n  piperoll cluster rotate-key ./cluster mx1                       the node signs with both keys after its next start\n  piperoll node checkpoint --witnessed > both.note                on the node, once it is witnessed\n  piperoll cluster rotate-key ./cluster mx1 --finish both.note    from that size on, only the new key is valid"
    )]
    RotateKey {
        dir: PathBuf,
        id: NodeId,
        /// Checkpoint that both keys signed and a witness cosigned
        #[arg(long)]
        finish: Option<PathBuf>,
    },
    /// Create keys for a new log of a node after a break-in or a restore; the old log is frozen at its last witnessed checkpoint
    #[command(
        after_help = "Then, on the node: piperoll node new-generation. The last witnessed checkpoint is in the aggregator's\nstate/witness/NODE.json, and on the node (piperoll node checkpoint --witnessed) if the node can be trusted."
    )]
    NewGeneration {
        dir: PathBuf,
        id: NodeId,
        /// Last checkpoint of the old log that a witness cosigned
        #[arg(long)]
        frozen: PathBuf,
    },
    /// Print the trust file for auditors: the nodes and public keys of the cluster, no secrets
    #[command(after_help = "Example:\n  piperoll cluster trust ./cluster > trust.toml")]
    Trust { dir: PathBuf },
    /// Retire a node permanently: it is no longer queried, and counts as missing only for ranges when it was a member
    #[command(
        after_help = "Example:\n  piperoll cluster retire ./cluster mx5 --last-seq 120344\nStop the node first, once its last row is witnessed (piperoll nodes)."
    )]
    Retire {
        dir: PathBuf,
        id: NodeId,
        /// Time at which the node leaves; now by default, and it may be in the future
        #[arg(long)]
        at: Option<String>,
        /// Sequence number of its last row
        #[arg(long)]
        last_seq: Option<u64>,
        /// Reason for changing the time of an earlier retirement; it is recorded
        #[arg(long)]
        reason: Option<String>,
        /// First day of membership (deprecated; see `membership`)
        #[arg(long, hide = true)]
        first_day: Option<String>,
        /// Last day of membership (deprecated; see --at)
        #[arg(long, hide = true, conflicts_with = "at")]
        last_day: Option<String>,
    },
    /// Correct when a node's membership starts or ends; earlier values stay on record
    #[command(
        after_help = "Example:\n  piperoll cluster membership ./cluster mx4 --from 2026-11-01T00:00:00Z --reason 'the clock of this machine was wrong'"
    )]
    Membership {
        dir: PathBuf,
        id: NodeId,
        /// Start of the membership
        #[arg(long, required_unless_present = "until")]
        from: Option<String>,
        /// End of the membership, or `never` for a node that is a member again
        #[arg(long)]
        until: Option<String>,
        /// Reason, which is recorded
        #[arg(long)]
        reason: String,
    },
    /// Show or set how long nodes must keep rows; rows deleted earlier count as a violation
    #[command(
        after_help = "Example:\n  piperoll cluster retention ./cluster --keep-days 730\nEach node prunes by its own `retention.keep`, which must not be shorter."
    )]
    Retention {
        dir: PathBuf,
        /// Minimum number of days
        #[arg(long)]
        keep_days: Option<u32>,
        /// Start of the policy; now by default
        #[arg(long, requires = "keep_days")]
        from: Option<String>,
    },
    /// List the members
    List { dir: PathBuf },
}
