//! Checks that a store creates objects atomically: of several creators of one name, exactly one must win.
//!
//! The creators run at the same time. Some services refuse the second of two creators that run one after the other, but let
//! several win that run concurrently, so a probe without a race would accept them.

use bytes::Bytes;
use futures::future::join_all;

use super::error::StoreError;
use super::objects::{Created, Store};

/// Number of rounds, and of creators in each round. A service without atomic creation lets several creators win in about half of
/// the rounds.
const ROUNDS: usize = 6;
const CREATORS: usize = 8;
/// Maximum size of a probe object.
const PROBE_BYTES_MAX: u64 = 64;

/// Reason why a store cannot hold an archive.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "{store} does not create objects atomically: {winners} of {CREATORS} concurrent creators of one object were told that they had \
         created it. Two writers could overwrite each other's rows, so this store cannot hold an archive; use a service that honors \
         If-None-Match, or a directory"
    )]
    NotAtomic { store: String, winners: usize },
    #[error("{store} refused all {CREATORS} creators of a new object, possibly because an answer was lost; try again")]
    NoWinner { store: String },
    #[error("{store} does not return what was written to it: an object has other content than its creator wrote")]
    OtherContent { store: String },
}

/// Runs the race under names of `probe/`, and deletes its objects as far as the store permits.
///
/// # Errors
/// Fails if the store is not suitable, or does not answer.
pub async fn probe(store: &Store, instance: &str) -> Result<(), ProbeError> {
    for round in 0..ROUNDS {
        let name = format!("probe/{instance}-{round}");
        let content = |creator: usize| Bytes::from(format!("{instance} {round} {creator}"));
        let results = join_all((0..CREATORS).map(|creator| store.create(&name, content(creator)))).await;
        let mut winners = Vec::new();
        for (creator, result) in results.into_iter().enumerate() {
            if result? == Created::New {
                winners.push(creator);
            }
        }
        let read = store.read(&name, PROBE_BYTES_MAX).await?;
        // Without the right to delete, the objects stay; they are tiny and have unique names.
        let _ = store.delete(&name).await;
        let store = store.shown().to_owned();
        match winners[..] {
            [] => return Err(ProbeError::NoWinner { store }),
            [winner] if read == content(winner) => {}
            [_] => return Err(ProbeError::OtherContent { store }),
            _ => return Err(ProbeError::NotAtomic { store, winners: winners.len() }),
        }
    }
    Ok(())
}
