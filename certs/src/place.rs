//! Addresses and paths of a new member.

/// How a new node is reached and where it listens.
#[derive(Debug, Clone)]
pub struct NodePlace {
    /// `HOST:PORT` as aggregators dial it.
    pub address: String,
    /// Where the node listens; by default every interface at the address's port.
    pub listen: Option<String>,
    pub layout: Layout,
}

/// Where a machine keeps what its daemons write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Beside the configuration, so that the folder can stand anywhere.
    #[default]
    Folder,
    /// In `/var/lib` and `/run`, as the units of the package and containers expect it.
    Packaged,
}

/// How a new aggregator is reached.
#[derive(Debug, Clone)]
pub struct AggregatorPlace {
    /// `HOST:PORT` as people and programs reach it.
    pub address: String,
    pub listen: Option<String>,
    /// Where the embedded node's peer interface is; the aggregator reads it like any other.
    pub node_address: String,
    pub layout: Layout,
}
