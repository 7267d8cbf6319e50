//! Exposes the parsers of the sources on their own, for fuzzing.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::journal::next_entry;
use super::record::{Record, SourceMessage};
use super::syslog::{read_messages, take_apart};

/// Maximum messages of one input; a fuzzer's inputs are shorter.
const MESSAGES_MAX: usize = 4_096;

/// Parses one syslog message; returns it as the JSON that mappings read.
pub fn syslog(text: &str) -> String {
    take_apart(text.as_bytes(), None, Ipv4Addr::LOCALHOST.into())
}

/// Parses the messages of one connection, which may use both framings; returns each as the JSON that mappings read.
pub fn syslog_stream(bytes: &[u8]) -> Vec<String> {
    let (messages, mut heard) = mpsc::channel(MESSAGES_MAX);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 514));
    let heard_at = Mutex::new(Instant::now());
    let _ = at_once(read_messages(bytes, peer, &messages, &heard_at, &CancellationToken::new()));
    drop(messages);
    let mut records = Vec::new();
    while let Ok(heard) = heard.try_recv() {
        if let SourceMessage::Record(Record { text, .. }) = heard {
            records.push(String::from_utf8_lossy(&text).into_owned());
        }
    }
    records
}

/// Parses the output of `journalctl --output=export`; returns each record as the JSON that mappings read.
pub fn journal(bytes: &[u8]) -> Vec<String> {
    let mut input = bytes;
    let mut records = Vec::new();
    while let Some(Ok(Some(entry))) = at_once(next_entry(&mut input)) {
        records.push(String::from_utf8_lossy(&entry.record).into_owned());
    }
    records
}

/// Polls a future whose input is complete. Returns `None` if the future would have to wait for space in a channel.
fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}
