//! Limits the memory that requests in progress may use, in total and per caller.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use piperoll_format::limits::BATCH_BYTES_MAX;
use piperoll_net::fair_share::{Full, Share, Shares};

use super::error::ApiError;
use super::sender::Sender;

const SMALL_ROOM_BYTES: usize = 24 * 1024 * 1024;
const SMALL_ROOM_BYTES_PER_CALLER: usize = 6 * 1024 * 1024;
/// Maximum bytes of requests larger than `SMALL_BYTES_MAX` that are being received or recorded at one time, in total and per
/// caller. Keeps the whole node within its memory limit regardless of what clients send.
const BATCHES_BYTES_MAX: usize = 96 * 1024 * 1024;
const BATCHES_BYTES_PER_CALLER_MAX: usize = BATCH_BYTES_MAX;
/// Unit in which the memory for requests is counted.
const ROOM_UNIT_BYTES: usize = 1024;
/// Maximum announced size of a small request. Small requests share memory of their own, so that large requests do not block them.
const SMALL_BYTES_MAX: usize = 1024 * 1024;
/// Maximum time that a request waits for memory.
const ROOM_WAIT: Duration = Duration::from_secs(10);

/// Memory that all requests together may use.
pub(super) struct Room {
    small: Shares,
    large: Shares,
}

impl Room {
    pub(super) fn new() -> Self {
        let shares = |all: usize, each: usize| Shares::new(all / ROOM_UNIT_BYTES, each / ROOM_UNIT_BYTES);
        Self {
            small: shares(SMALL_ROOM_BYTES, SMALL_ROOM_BYTES_PER_CALLER),
            large: shares(BATCHES_BYTES_MAX, BATCHES_BYTES_PER_CALLER_MAX),
        }
    }

    /// Reserves memory for the size that a request announces, or for `most` bytes if it announces none. Waits for up to
    /// `ROOM_WAIT`, and then fails.
    pub(super) async fn take(&self, sender: &Sender, headers: &HeaderMap, most: usize) -> Result<Share, ApiError> {
        let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
        let bytes = announced.unwrap_or(most).min(most);
        let shares = if bytes <= SMALL_BYTES_MAX { &self.small } else { &self.large };
        let units = u32::try_from(bytes.div_ceil(ROOM_UNIT_BYTES)).unwrap_or(u32::MAX);
        shares.wait_many(&sender.0, units, ROOM_WAIT).await.map_err(|full| {
            let whose = match full {
                Full::Yours(_) => "your requests in progress use all the memory allowed per caller",
                Full::All => "requests in progress use all the available memory",
            };
            let detail = format!("{whose}; retry in a moment, or send smaller requests. Nothing was recorded");
            ApiError::new(503, "busy", detail)
        })
    }
}
