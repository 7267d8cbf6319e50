//! Objects of an archive: a directory or a bucket in which every object is created once and never overwritten.

mod address;
mod backend;
mod credentials;
mod error;
mod objects;
mod probe;
mod versions;

pub use address::{Address, AddressError};
pub use credentials::{Credentials, CredentialsError};
pub use error::StoreError;
pub use objects::{Created, Listed, Store};
pub use probe::{ProbeError, probe};
pub use versions::{Deleted, Lock, LockMode};
