//! What can be typed to `piperoll cluster`.

use std::path::PathBuf;

use clap::Subcommand;
use piperoll_shared::log::ids::{ClusterName, NodeId};

use super::shared::RoleArg;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make a new cluster directory; it holds the authority's key, so keep it safe and offline
    Init {
        dir: PathBuf,
        #[arg(long)]
        name: ClusterName,
    },
    /// Make the folder to copy to a node's machine
    AddNode {
        dir: PathBuf,
        id: NodeId,
        /// Where aggregators reach it: HOST:PORT
        #[arg(long)]
        address: String,
        /// Where it listens; every interface at the same port by default
        #[arg(long)]
        listen: Option<String>,
        /// Data in /var/lib/piperoll and the socket in /run/piperoll, as the package's units and containers expect
        #[arg(long)]
        packaged: bool,
    },
    /// Make the folder to copy to an aggregator's machine
    AddAggregator {
        dir: PathBuf,
        id: NodeId,
        /// Where people and programs reach it: HOST:PORT
        #[arg(long)]
        address: String,
        #[arg(long)]
        listen: Option<String>,
        /// Where its embedded node (for its own entries) listens
        #[arg(long, default_value = "127.0.0.1:7444")]
        node_address: String,
        /// Data in /var/lib/piperoll-aggregator, as the package's units and containers expect
        #[arg(long)]
        packaged: bool,
    },
    /// Make a person's certificate
    AddUser {
        dir: PathBuf,
        name: NodeId,
        #[arg(long, value_enum)]
        role: RoleArg,
        /// A filter: what the person may see at all, such as 'domain:example.org'
        #[arg(long)]
        scope: Option<String>,
    },
    /// New keys and certificates for a member, into its folder
    Renew { dir: PathBuf, id: NodeId },
    /// Put a member's certificates on the revocation list
    Revoke { dir: PathBuf, id: NodeId },
    /// Make the sealing secret of a node's next epoch; the node goes over to it at its next start
    #[command(after_help = "Example:\n  piperoll cluster rotate-mac ./cluster mx1")]
    RotateMac { dir: PathBuf, id: NodeId },
    /// Change the key that signs a node's checkpoints: begin, let both sign for a while, then finish
    #[command(
        after_help = "Example:\n  piperoll cluster rotate-key ./cluster mx1                       the node signs with both keys from its next start on\n  piperoll node checkpoint --witnessed > both.note                on the node, once it is witnessed\n  piperoll cluster rotate-key ./cluster mx1 --finish both.note    from that size on, only the new key counts"
    )]
    RotateKey {
        dir: PathBuf,
        id: NodeId,
        /// A checkpoint that both keys signed and a witness cosigned
        #[arg(long)]
        finish: Option<PathBuf>,
    },
    /// After a break-in or a restore: new keys for a new log of a node, the old one frozen at what was witnessed of it
    #[command(
        after_help = "Then, on the node: piperoll node new-generation. The last witnessed checkpoint stands in the aggregator's\nstate/witness/NODE.json, and on the node (piperoll node checkpoint --witnessed), if that can be believed."
    )]
    NewGeneration {
        dir: PathBuf,
        id: NodeId,
        /// The last checkpoint of the old log that a witness cosigned
        #[arg(long)]
        frozen: PathBuf,
    },
    /// Print the trust file for auditors: the cluster's nodes and public keys, nothing secret
    #[command(after_help = "Example:\n  piperoll cluster trust ./cluster > trust.toml")]
    Trust { dir: PathBuf },
    /// Mark a node as gone for good: it is not asked any more, and missing only for ranges of its life
    #[command(
        after_help = "Example:\n  piperoll cluster retire ./cluster mx5 --last-seq 120344\nStop the node before, once its last row is witnessed (piperoll nodes)."
    )]
    Retire {
        dir: PathBuf,
        id: NodeId,
        /// When it left; now by default, and it may be still to come
        #[arg(long)]
        at: Option<String>,
        /// The last row it wrote
        #[arg(long)]
        last_seq: Option<u64>,
        /// Why, when it was retired at another time before
        #[arg(long)]
        reason: Option<String>,
        /// The beginning of its life as a day (as before; see `membership`)
        #[arg(long, hide = true)]
        first_day: Option<String>,
        /// The end of its life as a day (as before; see --at)
        #[arg(long, hide = true, conflicts_with = "at")]
        last_day: Option<String>,
    },
    /// Correct since when or until when a node is a member; what it was before stays on record
    #[command(
        after_help = "Example:\n  piperoll cluster membership ./cluster mx4 --from 2026-11-01T00:00:00Z --reason 'the clock of this machine was wrong'"
    )]
    Membership {
        dir: PathBuf,
        id: NodeId,
        #[arg(long, required_unless_present = "until")]
        from: Option<String>,
        /// A time, or `never` for a node that is a member again
        #[arg(long)]
        until: Option<String>,
        #[arg(long)]
        reason: String,
    },
    /// Show how long rows have to stay on every node, or set it: what is pruned earlier is a violation
    #[command(
        after_help = "Example:\n  piperoll cluster retention ./cluster --keep-days 730\nEach node prunes by its own `retention.keep`, which must not be shorter."
    )]
    Retention {
        dir: PathBuf,
        #[arg(long)]
        keep_days: Option<u32>,
        /// From when on it holds; now by default
        #[arg(long, requires = "keep_days")]
        from: Option<String>,
    },
    /// List the members
    List { dir: PathBuf },
}
