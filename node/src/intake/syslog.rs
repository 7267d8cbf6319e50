//! A syslog listener on loopback: UDP, and TCP with both framings (RFC 6587 section 3.4), messages of RFC 5424 and RFC 3164.
//!
//! Over TCP a sender waits while the log cannot be written. Over UDP nobody can be made to wait: what comes in while the queue is full is
//! counted, and the log says so.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use syslog_loose::{ProcId, Protocol, Variant, parse_message};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::{Heard, Heards, Record, Shared};

/// Largest payload of a datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Of one message on a stream.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const CONNECTIONS_MAX: usize = 256;
/// A connection that gives its place away may still hand over what it holds already, for so long.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long it has to be quiet to count as having handed over everything.
const QUIET: Duration = Duration::from_millis(20);
/// How often drops are said.
const DROPS_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Listeners {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Listeners {
    pub(super) async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { tcp: TcpListener::bind(address).await?, udp: UdpSocket::bind(address).await? })
    }

    pub(super) async fn run(self, heards: Heards, stop: CancellationToken) {
        let Self { udp, tcp } = self;
        let dropped: Shared<u64> = Shared::default();
        let datagrams = datagrams(udp, heards.clone(), Shared::clone(&dropped));
        let streams = streams(tcp, heards.clone());
        let drops = async {
            loop {
                tokio::time::sleep(DROPS_EVERY).await;
                say_drops(&dropped, &heards).await;
            }
        };
        tokio::select! { () = stop.cancelled() => {}, () = datagrams => {}, () = streams => {}, () = drops => {} }
        say_drops(&dropped, &heards).await;
    }
}

async fn datagrams(socket: UdpSocket, heards: Heards, dropped: Shared<u64>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((0, _)) => {}
            Ok((length, peer)) => {
                if heards.try_send(heard(&buffer[..length], peer)).is_err() {
                    *lock(&dropped) += 1;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a datagram could not be received");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn say_drops(dropped: &Shared<u64>, heards: &Heards) {
    let count = std::mem::take(&mut *lock(dropped));
    if count > 0 {
        let cause = "datagrams came in faster than they could be recorded".to_owned();
        let _ = heards.send(Heard::Lost { count: Some(count), cause }).await;
    }
}

/// A connection that is open: when it last sent something, and how it is told to go.
struct Open {
    heard: Arc<Mutex<Instant>>,
    cut: CancellationToken,
}

/// The connection that has been silent the longest. Also one that sends a little now and then gives way: a newcomer that is refused
/// loses what it has to say, and one that is sent away between two messages can connect again.
fn most_idle(open: &mut Vec<Open>) -> Option<Open> {
    let since = |open: &Open| *open.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (at, _) = open.iter().enumerate().map(|(at, open)| (at, since(open))).min_by_key(|(_, since)| *since)?;
    Some(open.swap_remove(at))
}

async fn streams(listener: TcpListener, heards: Heards) {
    let mut connections = tokio::task::JoinSet::new();
    let mut open: Vec<Open> = Vec::new();
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
                    open.push(Open { heard: Arc::clone(&heard), cut: cut.clone() });
                    let heards = heards.clone();
                    connections.spawn(async move {
                        if let Err(error) = messages(stream, peer, &heards, &heard, &cut).await {
                            tracing::warn!(%error, %peer, "a syslog connection was closed");
                        }
                        cut.cancel();
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => open.retain(|open| !open.cut.is_cancelled()),
        }
    }
}

/// Every message says by its first byte how it is framed: a digit counts octets, anything else ends with a line. After `cut`, what
/// was sent already is still taken; what is then left of a message is said to be lost.
pub(super) async fn messages(
    stream: impl AsyncRead + Unpin,
    peer: SocketAddr,
    heards: &Heards,
    heard_at: &Mutex<Instant>,
    cut: &CancellationToken,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut until = None;
    loop {
        let first = tokio::select! {
            biased;
            first = reader.fill_buf() => first?.first().copied(),
            () = quiet(cut) => return Err(std::io::Error::other("it gave its place to another one")),
        };
        let Some(first) = first else { return Ok(()) };
        *heard_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
        if cut.is_cancelled() && *until.get_or_insert_with(|| Instant::now() + LAST_WORDS) <= Instant::now() {
            lost(heards, None, "a sender went on while its connection had to give its place to another one").await;
            return Err(std::io::Error::other("it gave its place to another one"));
        }
        let message = tokio::select! {
            biased;
            message = message(&mut reader, first) => message,
            () = async { cut.cancelled().await; tokio::time::sleep(LAST_WORDS).await; } =>
                Err(std::io::Error::other("it gave its place to another one")),
        };
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                lost(heards, Some(1), "a sender hung up in the middle of a message").await;
                return Err(error);
            }
        };
        if message.cut_bytes > 0 {
            lost(heards, Some(1), "a syslog message was longer than 64 KiB, and what came after them was left out")
                .await;
        }
        let text = message.text.trim_ascii_end();
        if !text.trim_ascii().is_empty() && heards.send(heard(text, peer)).await.is_err() {
            return Ok(());
        }
    }
}

/// Told to go, and silent since.
async fn quiet(cut: &CancellationToken) {
    cut.cancelled().await;
    tokio::time::sleep(QUIET).await;
}

async fn lost(heards: &Heards, count: Option<u64>, cause: &str) {
    let _ = heards.send(Heard::Lost { count, cause: cause.to_owned() }).await;
}

struct Message {
    text: Vec<u8>,
    /// Bytes of it that were too many.
    cut_bytes: u64,
}

/// The next message. An error when the stream ends in it.
async fn message(reader: &mut (impl tokio::io::AsyncBufRead + Unpin), first: u8) -> std::io::Result<Message> {
    /// Digits of a length, and the blank behind it.
    const LENGTH_BYTES_MAX: usize = 9;
    let mut text = Vec::new();
    if first.is_ascii_digit() {
        while text.len() < LENGTH_BYTES_MAX {
            let Some(byte) = reader.fill_buf().await?.first().copied() else { break };
            reader.consume(1);
            text.push(byte);
            if !byte.is_ascii_digit() {
                break;
            }
        }
        let length = std::str::from_utf8(&text).ok().and_then(|text| text.strip_suffix(' ')?.parse::<usize>().ok());
        if let Some(length) = length {
            text.clear();
            text.resize(length.min(MESSAGE_BYTES_MAX), 0);
            reader.read_exact(&mut text).await?;
            let rest = (length - text.len()) as u64;
            let skipped = tokio::io::copy(&mut (&mut *reader).take(rest), &mut tokio::io::sink()).await?;
            return if skipped == rest {
                Ok(Message { text, cut_bytes: rest })
            } else {
                Err(std::io::ErrorKind::UnexpectedEof.into())
            };
        }
        // No length: a line that begins with a digit.
        if text.ends_with(b"\n") {
            return Ok(Message { text, cut_bytes: 0 });
        }
    }
    let room = MESSAGE_BYTES_MAX - text.len();
    (&mut *reader).take(room as u64).read_until(b'\n', &mut text).await?;
    Ok(Message { text, cut_bytes: 0 })
}

fn heard(message: &[u8], peer: SocketAddr) -> Heard {
    Heard::Record(Record {
        text: take_apart(&String::from_utf8_lossy(message), peer).into_bytes(),
        place: None,
        mark: None,
    })
}

/// A message as JSON, for a mapping. What does not look like syslog is all `message`.
pub(super) fn take_apart(text: &str, peer: SocketAddr) -> String {
    let parsed = parse_message(text, Variant::Either);
    let is_modern = matches!(parsed.protocol, Protocol::RFC5424(_));
    let structured = structured_data(text);
    // What was taken apart and did not come out whole is kept as it came: an element that is not in the form of RFC 5424, a name
    // that comes twice, or data in a message of the older kind, where the parser takes what looks like it out of the text.
    let is_whole = if is_modern { structured.is_some() } else { parsed.structured_data.is_empty() };
    let structured = structured.filter(|_| is_modern).unwrap_or_else(|| loose_data(&parsed));
    // A time without its zone and year is no time, only somebody's idea of one.
    let is_exact = is_modern;
    let timestamp = parsed.timestamp.filter(|_| is_exact).map(|time| time.to_rfc3339());
    let mut record = json!({
        "protocol": if is_exact { "RFC 5424" } else { "RFC 3164" },
        "facility": parsed.facility.map(|facility| facility.as_str()),
        "severity": parsed.severity.map(|severity| severity.as_str()),
        "timestamp": timestamp,
        "local_time": parsed.timestamp.filter(|_| !is_exact).map(|time| time.naive_local().to_string()),
        "hostname": parsed.hostname,
        "app_name": parsed.appname,
        "process_id": parsed.procid.map(|id| match id { ProcId::PID(pid) => json!(pid), ProcId::Name(name) => json!(name) }),
        "message_id": parsed.msgid,
        "structured_data": (!structured.is_empty()).then_some(structured),
        "message": parsed.msg.trim_start_matches('\u{feff}'),
        "raw": (!is_whole).then_some(text),
        "peer": peer.ip(),
    });
    if let Some(fields) = record.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    record.to_string()
}

/// What can be made out of data that is not in the form; the message as it came is kept beside it.
fn loose_data(parsed: &syslog_loose::Message<&str>) -> Map<String, Value> {
    let mut elements = Map::new();
    for element in &parsed.structured_data {
        let parameters = element.params().map(|(name, value)| ((*name).to_owned(), json!(value)));
        elements.insert(element.id.to_owned(), Value::Object(parameters.collect()));
    }
    elements
}

/// The structured data of a message of RFC 5424 (section 6.3), by element and name. None when it is not in that form, or when a name
/// comes twice: then nothing may be left out without the whole being kept.
fn structured_data(text: &str) -> Option<Map<String, Value>> {
    // <PRI>VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID
    const FIELDS: usize = 6;
    let mut rest = text;
    for _ in 0..FIELDS {
        rest = rest.split_once(' ')?.1;
    }
    if rest == "-" || rest.starts_with("- ") {
        return Some(Map::new());
    }
    let mut elements = Map::new();
    while let Some(inner) = rest.strip_prefix('[') {
        let id_length = inner.find([' ', ']'])?;
        let (id, mut inner) = inner.split_at(id_length);
        let mut parameters = Map::new();
        while let Some(parameter) = inner.strip_prefix(' ') {
            let (name, value) = parameter.split_once("=\"")?;
            let mut text = String::new();
            let mut chars = value.char_indices();
            let end = loop {
                match chars.next()? {
                    (_, '\\') => match chars.next()?.1 {
                        escaped @ ('"' | '\\' | ']') => text.push(escaped),
                        other => text.extend(['\\', other]),
                    },
                    (at, '"') => break at,
                    (_, ']') => return None,
                    (_, other) => text.push(other),
                }
            };
            let is_name =
                (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && !b"=]\" ".contains(&b));
            if !is_name || parameters.insert(name.to_owned(), json!(text)).is_some() {
                return None;
            }
            inner = &value[end + 1..];
        }
        rest = inner.strip_prefix(']')?;
        if id.is_empty() || elements.insert(id.to_owned(), Value::Object(parameters)).is_some() {
            return None;
        }
    }
    (!elements.is_empty() && (rest.is_empty() || rest.starts_with(' '))).then_some(elements)
}

fn lock(count: &Mutex<u64>) -> std::sync::MutexGuard<'_, u64> {
    count.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apart(text: &str) -> Value {
        serde_json::from_str(&take_apart(text, "127.0.0.1:9".parse().expect("an address"))).expect("JSON")
    }

    #[test]
    fn both_kinds_of_messages_are_taken_apart() {
        let modern = apart(
            "<165>1 2026-10-11T22:14:15.003+02:00 host app 812 ID47 [x@32473 a=\"1\" b=\"q\\\"]\"] \u{feff}it happened",
        );
        for (name, value) in [
            ("facility", json!("local4")),
            ("severity", json!("notice")),
            ("hostname", json!("host")),
            ("app_name", json!("app")),
            ("timestamp", json!("2026-10-11T22:14:15.003+02:00")),
            ("message", json!("it happened")),
            ("message_id", json!("ID47")),
            ("process_id", json!(812)),
        ] {
            assert_eq!(modern[name], value, "{name}");
        }
        assert_eq!(modern["structured_data"]["x@32473"]["a"], "1");
        let old = apart("<34>Oct 11 22:14:15 host su[7]: 'su root' failed");
        assert_eq!(
            (&old["app_name"], &old["message"], old.get("timestamp")),
            (&json!("su"), &json!("'su root' failed"), None)
        );
        for (data, lost) in [
            (r#"[evil@1 user=root cmd="cat /etc/shadow"]"#, "cat /etc/shadow"),
            (r#"[x@1 ip="203.0.113.77" ip="127.0.0.1"]"#, "203.0.113.77"),
            (r#"[x@1 a="1"][x@1 b="2"]"#, "a=\"1\""),
            (r#"[x@1 a="unclosed] the rest"#, "unclosed"),
            (r#"[x@1 a="1" b]"#, " b]"),
        ] {
            let text = format!("<165>1 2026-10-11T22:14:15.003Z host app 812 ID47 {data} message");
            let record = apart(&text);
            assert_eq!(record["raw"], text, "{data}");
            assert!(record.to_string().contains(&lost.replace('"', "\\\"")), "{data}: {record}");
        }
        let nested = apart("<34>Oct 11 22:14:15 host su[7]: [x@1 a=\"1\"] 'su root' failed");
        assert!(nested.to_string().contains("x@1"), "{nested}");
        for odd in ["", "no syslog at all", "<999>1 x", "<13>", "{\"json\":true}", "<34>Oct 11", "\u{0}\u{1b}[31m"] {
            assert!(apart(odd).get("message").is_some(), "{odd:?}");
        }
    }

    #[tokio::test]
    async fn what_is_sent_away_may_finish_and_nothing_is_lost_in_silence() {
        let (heards, mut heard) = tokio::sync::mpsc::channel(16);
        let (mut sender, receiver) = tokio::io::duplex(64);
        let cut = CancellationToken::new();
        let peer = "127.0.0.1:9".parse().expect("an address");
        let told = cut.clone();
        let reading = tokio::spawn(async move {
            let at = Mutex::new(Instant::now());
            messages(receiver, peer, &heards, &at, &told).await
        });
        tokio::io::AsyncWriteExt::write_all(&mut sender, b"<13>first\n<13>sec").await.expect("written");
        cut.cancel();
        tokio::io::AsyncWriteExt::write_all(&mut sender, b"ond\n20 unfinished").await.expect("written");
        assert!(reading.await.expect("no panic").is_err());
        let mut found = Vec::new();
        while let Some(next) = heard.recv().await {
            found.push(match next {
                Heard::Record(record) => String::from_utf8_lossy(&record.text).into_owned(),
                Heard::Lost { cause, .. } => cause,
                Heard::Place(_) => continue,
            });
        }
        assert!(
            matches!(&found[..], [first, second, lost]
            if first.contains("first") && second.contains("second") && lost.contains("middle")),
            "{found:?}"
        );
    }
}
