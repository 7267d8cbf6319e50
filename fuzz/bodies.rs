//! Bodies of the fuzz targets. No input may cause a panic, and values must survive writing and reading.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};
use piperoll_client::{ProxyHeader, TrustedProxies};
use piperoll_evidence::bundle::{Rows, Trust, verify_bundle};
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::cursor::{Cursor, CursorKey, QueryHash};
use piperoll_format::entry::{CallerEntry, Prefix, is_one_object};
use piperoll_format::merkle::{Hash, RangeProof, leaf_hash, verify_consistency, verify_inclusion};
use piperoll_format::note::{KeyKind, Note, SigningSeed, VerifyingKey};
use piperoll_format::row::{Row, RowLine};
use piperoll_format::statement::Statement;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_node::sources::{Mapped, Mapping, parsers};
use piperoll_protocol::frame;
use piperoll_query::filter::Filter;
use piperoll_redact::Redactor;

/// A trust file without any key, so that no bundle is sound under it.
const TRUST: &str = "format = \"piperoll trust v1\"\ncluster = \"golden\"\n";

pub(crate) fn bundle(bytes: &[u8]) {
    let trust = Trust::parse(TRUST).ok();
    assert!(trust.is_some() && !verify_bundle(bytes, trust.as_ref()).is_sound(), "nobody signed this");
    let _ = verify_bundle(bytes, None);
    for row in Rows::new(bytes).flatten() {
        let _ = (row.leaf(), row.to_row());
    }
}

pub(crate) fn note(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = VerifyingKey::parse(text.trim_end());
    let _ = Trust::parse(text);
    let Ok(note) = Note::parse(text) else { return };
    assert_eq!(note.to_string(), text, "a note has one spelling");
    let _ = note.cosigned_at();
    if let Ok(checkpoint) = Checkpoint::parse(note.text())
        && let Some(key) = SigningSeed::from_bytes([7; 32]).named(&checkpoint.origin, KeyKind::Log)
    {
        assert!(Checkpoint::open(&note, key.public()).is_err(), "a signature of a key that signed nothing");
    }
}

/// Verifies proofs; the first 24 bytes are numbers, the rest are hashes.
pub(crate) fn proof(bytes: &[u8]) {
    let Some((numbers, rest)) = bytes.split_first_chunk::<24>() else { return };
    let number = |at: usize| numbers[at..at + 8].try_into().map_or(0, u64::from_be_bytes);
    let (one, two, size) = (number(0), number(8), number(16));
    let (hashes, _) = rest.as_chunks::<32>();
    let hashes: Vec<Hash> = hashes.to_vec();
    let root = leaf_hash(b"no tree has this root", b"");
    assert!(verify_inclusion(&[0; 32], one, size, &hashes, &root).is_err());
    assert!(verify_consistency(one, &[0; 32], size, &root, &hashes).is_err() || one == 0);
    let runs = std::iter::once(one..two).collect();
    let rows = (one..two).take(1_000).map(|seq| (seq, leaf_hash(&seq.to_be_bytes(), b"")));
    assert!(RangeProof { runs, hashes }.verify(rows, size, &root).is_err());
}

pub(crate) fn frame(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(frame)) = frame::decode(&mut buffer) {
        match frame {
            frame::Frame::Entry(entry)
            | frame::Frame::Border(entry)
            | frame::Frame::Erased(_, entry)
            | frame::Frame::ErasedBorder(_, entry) => {
                let _ = (Prefix::parse(&entry.body), Statement::read(&entry.body));
            }
            _ => {}
        }
    }
}

/// Masks the input as a text and as a detail of an entry. The output is JSON, and lists masked fields if and only if something
/// was masked.
pub(crate) fn redact(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let redactor = Redactor::shared();
    let _ = redactor.text(&text);
    let entry = serde_json::json!({ "category": "data", "action": "a", "description": text, "details": { "v": text } });
    let entry = entry.to_string();
    let masked = redactor.entry(&entry);
    let value: serde_json::Value = serde_json::from_str(&masked).expect("masking gives JSON");
    assert_eq!(value.get("redacted").is_some(), masked != entry, "masked is said, and said only then");
    if let Ok(json) = serde_json::from_str::<&serde_json::value::RawValue>(&text) {
        let details = format!(r#"{{"category":"data","action":"a","details":{{"v":{}}}}}"#, json.get());
        if let Ok(compact) = piperoll_format::json::compact(&details) {
            let masked = redactor.entry(&compact);
            assert!(piperoll_format::json::compact(&masked).is_ok(), "what was strict stays strict");
        }
    }
}

/// Writes a row with the input as its body: the result is one line with one object, regardless of the bytes.
pub(crate) fn row(bytes: &[u8]) {
    for integrity in [Integrity::Ok, Integrity::Violation] {
        let row = Row {
            body: bytes.into(),
            mac: [7; 32][..].into(),
            integrity,
            witnessed: false,
            reason: None,
            found_at: None,
            erased: None,
            withheld: false,
        };
        let mut line = Vec::new();
        row.write_json(&mut line);
        assert!(!line.contains(&b'\n'), "a row is one line");
        let read: RowLine<'_> = serde_json::from_slice(&line).expect("a row's line is JSON");
        assert_eq!(read.integrity, integrity, "and says what was concluded");
        if is_one_object(bytes) {
            assert_eq!(read.entry.get().as_bytes(), bytes, "an entry stays as it is");
        }
        let mut cells = Vec::new();
        piperoll_evidence::csv::write_row(&row, &mut cells);
    }
}

/// Applies every built-in mapping to the input.
pub(crate) fn mapping(bytes: &[u8]) {
    static MAPPINGS: LazyLock<Vec<Mapping>> = LazyLock::new(|| {
        Mapping::built_in().iter().map(|built_in| Mapping::load(built_in.name).expect("built in")).collect()
    });
    let text = String::from_utf8_lossy(bytes);
    for mapping in MAPPINGS.iter() {
        for outcome in mapping.read(&text, Redactor::shared()).unwrap_or_default() {
            if let Ok(Mapped::Entry { text, .. }) = outcome.result {
                let _ = Redactor::shared().parse_entry(text.as_bytes());
            }
        }
    }
}

/// Parses a syslog message into a JSON record.
pub(crate) fn syslog(bytes: &[u8]) {
    let record = parsers::syslog(&String::from_utf8_lossy(bytes));
    assert!(piperoll_format::json::compact(&record).is_ok(), "a record is JSON");
}

/// Splits the bytes of a syslog connection into messages of one or more lines; the framing is detected from the bytes.
pub(crate) fn framing(bytes: &[u8]) {
    for record in parsers::syslog_stream(bytes) {
        assert!(piperoll_format::json::compact(&record).is_ok(), "a record is JSON");
    }
}

pub(crate) fn journal(bytes: &[u8]) {
    let _ = parsers::journal(bytes);
}

/// Parses lines that callers send. A line that is accepted with masking must also be accepted without it.
pub(crate) fn ndjson(bytes: &[u8]) {
    for line in bytes.split(|b| *b == b'\n') {
        let Ok(entry) = Redactor::shared().parse_entry(line) else { continue };
        let _ = (entry.check_size(), entry.rule_input());
        let plain = CallerEntry::parse(line).is_ok();
        assert!(plain, "masking makes nothing acceptable that was not");
    }
}

pub(crate) fn filter(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let now = Timestamp::from_micros(1_776_240_000_000_000);
    for filter in [Filter::parse(text, now), Filter::parse_stored(text, now), Filter::parse_config(text, now)]
        .into_iter()
        .flatten()
    {
        assert_eq!(Filter::parse_stored(&filter.to_string(), now).ok(), Some(filter.clone()), "one canonical form");
        assert!(Filter::parse(&filter.typed(), now).is_ok(), "what is shown can be typed");
        assert!(filter.widened_to_version_1().in_version_1().is_some());
    }
}

pub(crate) fn cursor(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (key, query) = (CursorKey::new(&[7; 32]), QueryHash::of(&["q"]));
    assert!(Cursor::decode(&text, &key, &query).is_err(), "nobody signed this");
}

/// Determines the client from proxy headers. Each input line is one value of the header; every kind of header is tried.
pub(crate) fn forwarded(bytes: &[u8]) {
    let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network"));
    for (header, name) in [
        (ProxyHeader::XForwardedFor, "x-forwarded-for"),
        (ProxyHeader::Forwarded, "forwarded"),
        (ProxyHeader::XRealIp, "x-real-ip"),
    ] {
        let proxies = TrustedProxies::new(networks, header);
        let mut headers = HeaderMap::new();
        for line in bytes.split(|b| *b == b'\n') {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let _ = proxies.client(peer, &headers);
        let stranger = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(proxies.client(stranger, &headers), stranger, "nobody's proxy is believed nothing");
    }
}
