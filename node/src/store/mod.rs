//! The log on disk. This is the only module that uses SQLite.

mod admin;
mod engine;
mod fsck;
mod index;
mod lifecycle;
mod log;
mod offline;
mod read;
mod table;

pub use admin::OfflineAdmin;
pub use engine::signer::{CheckpointFault, SignedCheckpoint, StoredNote};
pub use fsck::check::Check;
pub use index::{Made, make_index};
pub use lifecycle::past_logs::generations_aside;
pub use lifecycle::prune_request::PruneTarget;
pub use lifecycle::rollover::{NewGeneration, begin_generation};
pub use log::Store;
pub use offline::log::{ArchiveError, OfflineLog, append_offline};
pub use read::range::RowRange;
pub use read::scan::{Batch, Scan};
pub use table::error::{AdminError, AppendError, OpenError, REASON_BYTES_MAX, ReadError};
pub use table::health::Health;
pub use table::holds::HeldBy;
pub use table::keys::LogKeys;
pub use table::log_dir::LogDir;
pub use table::log_start::LogStart;
pub use table::new_entry::{Appended, NewEntry, parse_new_entry};
pub use table::rows::{ErasedBy, Extent, StoredRow};
pub use table::tiles::TreeError;
