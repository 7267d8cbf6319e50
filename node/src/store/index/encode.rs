//! Writes the file of a block. The same rows produce the same bytes.

use std::io;

use piperoll_query::column::{COLUMNS, Column};

use super::block::{Block as _, Text};
use super::builder::{Builder, Values};
use super::layout::{HEAD_BYTES, Head, MAGIC, PARTS, Section, add_sums, place_of, short_hash};
use super::text::write_varint;

/// If a column has fewer rows per distinct value than this, only hashes of its values are stored: counts of the values would
/// not be useful, and the text of the values would take as much space as in the rows.
const ROWS_PER_VALUE_MIN: usize = 4;

/// Whether a column is queried only for whole values, so that hashes of its values are sufficient.
fn may_be_hashed(column: Column) -> bool {
    matches!(column, Column::Session | Column::Credential | Column::EntityId | Column::Target | Column::Request)
}

/// Encodes a full builder as a file. The same rows produce the same bytes.
pub(super) fn encode(builder: &Builder, head: &Head) -> io::Result<Vec<u8>> {
    let mut parts = Vec::with_capacity(PARTS);
    let mut data = Vec::new();
    let at = |data: &Vec<u8>| (HEAD_BYTES + data.len()) as u64;
    for (column, values) in COLUMNS.iter().zip(&builder.columns) {
        let start = at(&data);
        let part = write_column(*column, values, &mut data);
        parts.push(Section { at: start, middle: start + part.middle, ..part });
    }
    let mut whole = |bytes: Vec<u8>, count: u32| {
        let start = at(&data);
        data.extend_from_slice(&bytes);
        parts.push(Section { at: start, middle: at(&data), count, ..Section::default() });
    };
    let odd = builder.odd()?;
    whole(odd.to_bytes(), odd.len() as u32);
    whole(write_times(&builder.times()?), 0);
    let earlier = builder.earlier()?;
    whole(
        if earlier.iter().all(|micros| *micros == 0) { Vec::new() } else { write_numbers(earlier.iter().copied()) },
        0,
    );
    whole(builder.text(Text::Description).encode(), 0);
    whole(builder.text(Text::Details).encode(), 0);
    let mut out = Vec::with_capacity(HEAD_BYTES + data.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(head.generation.as_bytes());
    out.extend_from_slice(&head.first.to_le_bytes());
    out.extend_from_slice(&(builder.rows() as u32).to_le_bytes());
    out.extend_from_slice(&(PARTS as u32).to_le_bytes());
    out.extend_from_slice(&head.root);
    let (first, last) = builder.span();
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&last.to_le_bytes());
    out.extend_from_slice(&at(&data).to_le_bytes());
    for part in &parts {
        out.extend_from_slice(&[u8::from(part.hashed), part.width, 0, 0]);
        out.extend_from_slice(&part.count.to_le_bytes());
        out.extend_from_slice(&part.at.to_le_bytes());
        out.extend_from_slice(&part.middle.to_le_bytes());
    }
    out.extend_from_slice(&data);
    add_sums(&mut out);
    Ok(out)
}

/// Writes the dictionary and the codes of a column; `middle` of the returned section is relative to the section's start.
fn write_column(column: Column, values: &Values, data: &mut Vec<u8>) -> Section {
    let start = data.len();
    let hashed = may_be_hashed(column) && values.values.len() * ROWS_PER_VALUE_MIN > values.codes.len();
    // Maps each code, which was assigned in order of appearance, to the value's code in the sorted dictionary.
    let mut sorted = vec![0u32; values.values.len() + 1];
    let count;
    if hashed {
        let mut hashes: Vec<u32> = values.values.iter().map(|value| short_hash(value)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        for (code, value) in (1..).zip(&values.values) {
            sorted[code] = hashes.partition_point(|hash| *hash < short_hash(value)) as u32 + 1;
        }
        hashes.iter().for_each(|hash| data.extend_from_slice(&hash.to_le_bytes()));
        count = hashes.len();
    } else {
        let mut order: Vec<(&str, usize)> = values.values.iter().map(|value| &**value).zip(1..).collect();
        order.sort_by_cached_key(|(value, _)| (place_of(column, value), *value));
        let mut end = 0u32;
        for (place, (value, code)) in (1..).zip(&order) {
            sorted[*code] = place;
            end += value.len() as u32;
            data.extend_from_slice(&end.to_le_bytes());
        }
        order.iter().for_each(|(value, _)| data.extend_from_slice(value.as_bytes()));
        count = order.len();
    }
    let middle = (data.len() - start) as u64;
    let codes = values.codes.iter().map(|code| sorted[*code as usize]);
    let width = match count {
        0 => 0,
        1 if values.codes.iter().all(|code| *code == 1) => 0,
        1..=0xff => 1,
        0x100..=0xffff => 2,
        _ => 4,
    };
    codes.for_each(|code| data.extend_from_slice(&code.to_le_bytes()[..width]));
    Section { hashed, width: width as u8, count: count as u32, at: 0, middle }
}

fn write_numbers(numbers: impl Iterator<Item = i64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    numbers.for_each(|number| write_varint((number << 1 ^ number >> 63) as u64, &mut bytes));
    bytes
}

/// Writes the first time, followed by the difference between each time and the previous one.
fn write_times(times: &[i64]) -> Vec<u8> {
    let mut before = 0;
    write_numbers(times.iter().map(|time| time.wrapping_sub(std::mem::replace(&mut before, *time))))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use piperoll_format::ids::Generation;
    use piperoll_format::merkle::leaf_hash;
    use piperoll_format::time::Timestamp;
    use piperoll_format::verify::{Checked, Integrity};
    use piperoll_query::column::Column;
    use piperoll_query::filter::Filter;
    use piperoll_query::stats::{Axis, Counter, Facet, Plan};

    use super::super::block::{Block, IndexQuery, candidates};
    use super::super::count;
    use super::super::stored::Stored;
    use super::*;
    use crate::store::table::rows::StoredRow;

    /// A block of eight positions, with two users, three notations of two addresses, and texts. One row describes an event that
    /// occurred earlier than it was recorded, and one row is missing.
    fn block() -> Builder {
        let mut builder = Builder::new(8, 8, 0);
        let rows = [
            r#""user":"alice","ip_address":"10.1.0.3","description":"Straße gesperrt""#,
            r#""user":"bob","ip_address":"::ffff:10.1.0.3","outcome":"failure","details":{"who":"M\u00fcller"}"#,
            r#""user":"alice","ip_address":"2001:db8::7","details":{"queue":"q-7"}"#,
            r#""ip_address":"lambda.example.org","request_id":"r-1""#,
            r#""user":"alice","occurred_at":"1970-01-01T00:00:01.000000Z""#,
            r#""user":"alice","flags":[{"rule":"b"},{"rule":"a"}],"redacted":["x"]"#,
            r#""user":"bob","entity_type":"mail","entity_id":"7""#,
        ];
        for (number, fields) in (0u64..).zip(rows) {
            // The third position stays empty.
            let seq = 8 + number + u64::from(number >= 2);
            let body = format!(r#"{{"node_id":"mx1","via":"cli",{fields}}}"#).into_bytes();
            let timestamp = Timestamp::from_micros(1_776_240_000_000_000 + seq.cast_signed() * 1_000);
            let checked = Checked { integrity: Integrity::Ok, reason: None, era: Some(0) };
            let (mac, erased, indexed) = (Vec::new(), None, false);
            builder.push(&StoredRow {
                seq,
                timestamp,
                place: timestamp,
                era: 0,
                epoch: 0,
                mac,
                body,
                checked,
                indexed,
                erased,
            });
        }
        builder
    }

    fn head() -> Head {
        Head { generation: Generation::from_bytes([7; 16]), first: 8, root: [9; 32] }
    }

    /// The golden vector of docs/index.md: the length of the block's file, its hash as an RFC 6962 leaf, and its first bytes.
    #[test]
    fn the_bytes_of_a_block_are_fixed() -> io::Result<()> {
        let bytes = encode(&block(), &head())?;
        let start = "5052696e64657833070707070707070707070707070707070800000000000000080000001a000000";
        assert_eq!(hex::encode(&bytes[..40]), start);
        let golden = "01d13d0fc91734e4a827c9ce491d367283b411812b825547d8cd75c711cc4950";
        assert_eq!((bytes.len(), hex::encode(leaf_hash(&bytes, b"")).as_str()), (525_859, golden));
        Ok(())
    }

    /// A bit flipped anywhere in the file either causes an error or changes no answer. If it causes an error, nothing has been
    /// counted.
    #[test]
    fn a_flipped_bit_is_an_error() -> io::Result<()> {
        let bytes = encode(&block(), &head())?;
        let built = block();
        let filters = ["user:alice", "-ip:10.0.0.0/8", "STRASSE", "flag:\"a\"", "entity:mail/7", "occurred:1970-01-01"];
        let filters = filters.map(|text| Filter::parse(text, Timestamp::from_micros(0)).map_err(io::Error::other));
        let facets = vec![Facet::Of(Column::Ip), Facet::Flag, Facet::Entity];
        let plan = Plan { facets, top: 10, bucket_micros: Some(2_000), axis: Axis::Occurred };
        let part = count::BlockPart { rows: 0..8, times: Timestamp::MIN..Timestamp::MAX };
        let counted = |known: &dyn Block, filter: &Filter| -> (io::Result<Counter>, Counter) {
            let ids = std::collections::HashMap::new();
            let mut counter = Counter::new(plan.clone());
            let found = candidates(known, 8, &IndexQuery { condition: filter.condition(), ids: &ids })
                .and_then(|candidates| count::count(known, &candidates, &part, &mut counter));
            (found.map(|_| counter.clone()), counter)
        };
        let mut errors = 0;
        let last = bytes.len() - 1;
        for at in (0..bytes.len()).step_by(1_531).chain([0, 8, 40, 90, last - 600, last]) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let mut file = tempfile::NamedTempFile::new()?;
            file.write_all(&flipped)?;
            let Ok(stored) = Stored::open(file.path()) else {
                errors += 1;
                continue;
            };
            for filter in &filters {
                let filter = filter.as_ref().map_err(|error| io::Error::other(error.to_string()))?;
                let (right, _) = counted(&built, filter);
                match counted(&stored, filter) {
                    (Ok(found), _) => assert_eq!(found.finish(), right?.finish(), "byte {at}, {filter}"),
                    (Err(_), left) => {
                        assert_eq!(left.finish(), Counter::new(plan.clone()).finish(), "byte {at}, {filter}");
                        errors += 1;
                    }
                }
            }
        }
        assert!(errors > 10, "only {errors} flips were noticed");
        Ok(())
    }

    /// A block read from its file gives the same answers as the block in memory from which the file was written.
    #[test]
    fn a_stored_block_answers_like_a_built_one() -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&encode(&block(), &head())?)?;
        let stored = Stored::open(file.path())?;
        assert_eq!(stored.head, head());
        for text in [
            "user:alice",
            "user:bob,alice ip:10.0.0.0/8",
            "-ip:10.0.0.0/8",
            "ip:::/0",
            "ip:\"lambda.example.org\"",
            "STRASSE",
            "straße",
            "details:Q-7",
            "details:müller OR user:alice",
            "NOT (details.who:Müller OR action:*.x)",
            "verb:* OR ip:10.1.*",
            "is:flagged",
            "flag:\"a\"",
            "is:redacted",
            "request:r-1",
            "entity:mail/7",
            "outcome:failure,unknown",
            "occurred:1970-01-01",
            "user:nobody",
        ] {
            let filter = Filter::parse(text, Timestamp::from_micros(0)).map_err(io::Error::other)?;
            let ids = std::collections::HashMap::new();
            let ask = IndexQuery { condition: filter.condition(), ids: &ids };
            let (built, read) = (candidates(&block(), 8, &ask)?, candidates(&stored, 8, &ask)?);
            assert_eq!((&built.rows, &built.odd), (&read.rows, &read.odd), "{text}");
        }
        assert_eq!(stored.values(Column::User)?.of(1), Some("alice"));
        assert_eq!(stored.times()?, block().times()?);
        Ok(())
    }
}
