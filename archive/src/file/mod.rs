//! Files of rows: Parquet, sorted by node, generation and seq, in row groups of 65,536 rows and pages of 256.

mod batch;
pub mod decode;
mod encode;
mod schema;
mod traits;

pub use decode::{DecodeError, DecodedRow, OpenFile};
pub(crate) use decode::{chunks_of, traits_of};
pub(crate) use encode::{Chunk, Sum};
pub use encode::{EncodeError, EncodedFile, FILE_BYTES_MAX, FileEncoder};
pub use schema::{COLUMNS, schema};
pub(crate) use traits::{AFFECTED, Traits};
