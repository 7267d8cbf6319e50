//! Addresses and paths of a new member.

/// Address at which a new node is reached, and where it listens.
#[derive(Debug, Clone)]
pub struct NodePlace {
    /// `HOST:PORT` as aggregators dial it.
    pub address: String,
    /// Address on which the node listens; by default all interfaces, with the port of `address`.
    pub listen: Option<String>,
    pub layout: Layout,
}

/// Location of the daemons' data on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// In the folder of the configuration, so that this folder can be placed anywhere.
    #[default]
    Folder,
    /// In `/var/lib` and `/run`, as the package's units and containers expect.
    Packaged,
}

/// Address at which a new aggregator is reached.
#[derive(Debug, Clone)]
pub struct AggregatorPlace {
    /// `HOST:PORT` as people and programs reach it.
    pub address: String,
    pub listen: Option<String>,
    /// Address of the embedded node's peer interface; the aggregator reads that node like any other.
    pub node_address: String,
    pub layout: Layout,
}
