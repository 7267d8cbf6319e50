//! The syslog listeners and their queue.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::drops::KernelDrops;
use super::framing::{Message, message};
use super::message::take_apart;
use crate::sources::record::{Cut, MessageSender, Record, Shared, SourceMessage};

/// Largest payload of a datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Requested size of the kernel's buffer for waiting datagrams; the kernel grants as much as `net.core.rmem_max` allows.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;
const CONNECTIONS_MAX: usize = 256;
/// Maximum time for which a connection that is being closed in favor of a new one may still deliver data.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Time without data after which a connection that is being closed counts as having delivered everything.
const QUIET: Duration = Duration::from_millis(20);
/// Interval at which drops are reported.
const DROPS_EVERY: Duration = Duration::from_secs(5);

pub(in crate::sources) struct Listeners {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Listeners {
    pub(in crate::sources) async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let udp = UdpSocket::bind(address).await?;
        // A larger buffer holds longer bursts. Start even if the kernel grants a smaller buffer, because drops are counted.
        let _ = nix::sys::socket::setsockopt(&udp, nix::sys::socket::sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES);
        Ok(Self { tcp: TcpListener::bind(address).await?, udp })
    }

    pub(in crate::sources) async fn run(self, messages: MessageSender, stop: CancellationToken) {
        let Self { udp, tcp } = self;
        let dropped: Shared<u64> = Shared::default();
        let kernel: Shared<KernelDrops> = Arc::new(Mutex::new(KernelDrops::of(&udp)));
        let datagrams = datagrams(udp, messages.clone(), Shared::clone(&dropped));
        let streams = streams(tcp, messages.clone());
        let drops = async {
            loop {
                tokio::time::sleep(DROPS_EVERY).await;
                say_drops(&dropped, &kernel, &messages).await;
            }
        };
        tokio::select! { () = stop.cancelled() => {}, () = datagrams => {}, () = streams => {}, () = drops => {} }
        say_drops(&dropped, &kernel, &messages).await;
    }
}

async fn datagrams(socket: UdpSocket, messages: MessageSender, dropped: Shared<u64>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((0, _)) => {}
            Ok((length, peer)) => {
                if messages.try_send(heard(&buffer[..length], None, peer)).is_err() {
                    *lock(&dropped) += 1;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot receive a datagram");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn say_drops(dropped: &Shared<u64>, kernel: &Shared<KernelDrops>, messages: &MessageSender) {
    let here = std::mem::take(&mut *lock(dropped));
    let before = lock(kernel).since_last();
    let at = [
        (here, "datagrams came in faster than they could be recorded"),
        (before, "the kernel dropped datagrams because its buffer was full"),
    ];
    for (count, cause) in at.into_iter().filter(|(count, _)| *count > 0) {
        lost(messages, Some(count), cause).await;
    }
}

/// An open connection: the time of its last data, and the token that closes it.
struct OpenConnection {
    heard: Arc<Mutex<Instant>>,
    cut: CancellationToken,
}

/// Removes the connection that has been silent the longest, even if it is still in use. Refusing the new connection instead
/// would lose its messages, whereas a sender whose connection is closed between two messages can connect again.
fn most_idle(open: &mut Vec<OpenConnection>) -> Option<OpenConnection> {
    let since = |open: &OpenConnection| *open.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (at, _) = open.iter().enumerate().map(|(at, open)| (at, since(open))).min_by_key(|(_, since)| *since)?;
    Some(open.swap_remove(at))
}

async fn streams(listener: TcpListener, messages: MessageSender) {
    let mut connections = tokio::task::JoinSet::new();
    let mut open: Vec<OpenConnection> = Vec::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    open.retain(|open| !open.cut.is_cancelled());
                    if open.len() >= CONNECTIONS_MAX
                        && let Some(idle) = most_idle(&mut open)
                    {
                        idle.cut.cancel();
                    }
                    let (heard, cut) = (Arc::new(Mutex::new(Instant::now())), CancellationToken::new());
                    open.push(OpenConnection { heard: Arc::clone(&heard), cut: cut.clone() });
                    let messages = messages.clone();
                    connections.spawn(async move {
                        if let Err(error) = read_messages(stream, peer, &messages, &heard, &cut).await {
                            tracing::warn!(%error, %peer, "syslog connection closed");
                        }
                        cut.cancel();
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => open.retain(|open| !open.cut.is_cancelled()),
        }
    }
}

/// Reads the messages of one connection. After `cut` is cancelled, data that was already sent is still read, and a message that
/// remains incomplete is reported as lost.
pub(in crate::sources) async fn read_messages(
    stream: impl AsyncRead + Unpin,
    peer: SocketAddr,
    messages: &MessageSender,
    heard_at: &Mutex<Instant>,
    cut: &CancellationToken,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut until = None;
    loop {
        let first = tokio::select! {
            biased;
            first = reader.fill_buf() => first?.first().copied(),
            () = quiet(cut) => return Err(std::io::Error::other("closed to make room for another connection")),
        };
        if first.is_none() {
            return Ok(());
        }
        *heard_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
        if cut.is_cancelled() && *until.get_or_insert_with(|| Instant::now() + LAST_WORDS) <= Instant::now() {
            lost(
                messages,
                None,
                "a sender was cut off mid-stream because its connection was closed to make room for another one",
            )
            .await;
            return Err(std::io::Error::other("closed to make room for another connection"));
        }
        let message = tokio::select! {
            biased;
            message = message(&mut reader) => message,
            () = async { cut.cancelled().await; tokio::time::sleep(LAST_WORDS).await; } =>
                Err(std::io::Error::other("closed to make room for another connection")),
        };
        let Message { text, cut: too_long, missing } = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(error) => {
                lost(messages, Some(1), "a sender hung up in the middle of a message").await;
                return Err(error);
            }
        };
        if missing.is_some() {
            lost(messages, Some(1), "a sender hung up in the middle of a message; the part that arrived is recorded")
                .await;
        }
        let text = text.trim_ascii_end();
        if !text.trim_ascii().is_empty() && messages.send(heard(text, too_long.as_ref(), peer)).await.is_err() {
            return Ok(());
        }
    }
}

/// Completes after `cut` is cancelled and `QUIET` has passed; the caller drops this future if data arrives first.
async fn quiet(cut: &CancellationToken) {
    cut.cancelled().await;
    tokio::time::sleep(QUIET).await;
}

async fn lost(messages: &MessageSender, count: Option<u64>, cause: &str) {
    let _ = messages.send(SourceMessage::Lost { count, cause: cause.to_owned() }).await;
}

fn heard(message: &[u8], cut: Option<&Cut>, peer: SocketAddr) -> SourceMessage {
    SourceMessage::Record(Record {
        text: take_apart(message, cut, peer.ip()).into_bytes(),
        cut: None,
        place: None,
        earlier_place: None,
        mark: None,
    })
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_away_may_finish_and_nothing_is_lost_in_silence() {
        let (messages, mut heard) = tokio::sync::mpsc::channel(16);
        let (mut sender, receiver) = tokio::io::duplex(64);
        let cut = CancellationToken::new();
        let peer = "127.0.0.1:9".parse().expect("an address");
        let told = cut.clone();
        let reading = tokio::spawn(async move {
            let at = Mutex::new(Instant::now());
            read_messages(receiver, peer, &messages, &at, &told).await
        });
        tokio::io::AsyncWriteExt::write_all(&mut sender, b"<13>first\n<13>sec").await.expect("written");
        cut.cancel();
        tokio::io::AsyncWriteExt::write_all(&mut sender, b"ond\n20 unfinished").await.expect("written");
        assert!(reading.await.expect("no panic").is_err());
        let mut found = Vec::new();
        while let Some(next) = heard.recv().await {
            found.push(match next {
                SourceMessage::Record(record) => String::from_utf8_lossy(&record.text).into_owned(),
                SourceMessage::Lost { cause, .. } => cause,
                SourceMessage::Offset(_) => continue,
            });
        }
        assert!(
            matches!(&found[..], [first, second, lost]
            if first.contains("first") && second.contains("second") && lost.contains("middle")),
            "{found:?}"
        );
    }
}
