//! Objects of an archive: a directory or a bucket in which every object is created once and never overwritten.

mod backend;
mod credentials;
mod error;
mod objects;
mod probe;

pub use backend::{Address, AddressError};
pub use credentials::{Credentials, CredentialsError};
pub use error::StoreError;
pub use objects::{Created, Deleted, Listed, Store};
pub use probe::{ProbeError, probe};
