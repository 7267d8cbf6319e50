//! A finished block of the index: one file that never changes (docs/index.md, "The file").

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ipnet::IpNet;
use piperoll_shared::log::column::{COLUMNS, Column};
use piperoll_shared::log::filter::net_contains;
use piperoll_shared::log::ids::Generation;
use piperoll_shared::log::tree::Hash;

use super::block::{Block, Codes, Text};
use super::builder::{Builder, Values};
use super::set::Set;
use super::text::{BUCKETS, GROUP_ROWS, Groups, read_varint, write_varint};

const MAGIC: &[u8; 8] = b"PRindex1";
const ODD: usize = COLUMNS.len();
const TIMES: usize = ODD + 1;
const EARLIER: usize = ODD + 2;
const DESCRIPTION: usize = ODD + 3;
const DETAILS: usize = ODD + 4;
const PARTS: usize = ODD + 5;
/// Bytes in front of the list of parts, of one of its lines, and of both.
const FIXED_BYTES: usize = 72;
const PART_BYTES: usize = 24;
const HEAD_BYTES: usize = FIXED_BYTES + PARTS * PART_BYTES;
/// A dictionary up to this size is read whole; a larger one is searched where it lies.
const DICTIONARY_WHOLE_BYTES: u64 = 64 * 1024;
/// A column of this few rows per value is known by hashes of its values: nobody counts by it, and its text would be as
/// long as in the rows.
const ROWS_PER_VALUE_MIN: usize = 4;

/// Columns that are asked for whole values only.
fn may_be_hashed(column: Column) -> bool {
    matches!(column, Column::Session | Column::Credential | Column::EntityId | Column::Target | Column::Request)
}

/// Which rows a block is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) generation: Generation,
    pub(super) first: u64,
    /// Of the tree over its rows.
    pub(super) root: Hash,
}

/// A line of the list of parts.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    /// 1 when a dictionary holds hashes.
    hashed: bool,
    /// Bytes per code; 0 when all rows have the same one.
    width: u8,
    /// Values in the dictionary.
    count: u32,
    at: u64,
    /// Where the dictionary ends and the codes begin; for other parts, where they end.
    middle: u64,
}

/// The file of a full builder. The same rows give the same bytes.
pub(super) fn encode(builder: &Builder, head: &Head) -> io::Result<Vec<u8>> {
    let mut parts = Vec::with_capacity(PARTS);
    let mut data = Vec::new();
    let at = |data: &Vec<u8>| (HEAD_BYTES + data.len()) as u64;
    for (column, values) in COLUMNS.iter().zip(&builder.columns) {
        let start = at(&data);
        let part = write_column(*column, values, &mut data);
        parts.push(Part { at: start, middle: start + part.middle, ..part });
    }
    let mut whole = |bytes: Vec<u8>| {
        let start = at(&data);
        data.extend_from_slice(&bytes);
        parts.push(Part { at: start, middle: at(&data), ..Part::default() });
    };
    whole(builder.odd()?.to_bytes());
    whole(write_times(&builder.times()?));
    let earlier = builder.earlier()?;
    whole(if earlier.iter().all(|micros| *micros == 0) { Vec::new() } else { write_numbers(earlier.iter().copied()) });
    whole(builder.text(Text::Description).encode());
    whole(builder.text(Text::Details).encode());
    let mut out = Vec::with_capacity(HEAD_BYTES + data.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(head.generation.as_bytes());
    out.extend_from_slice(&head.first.to_le_bytes());
    out.extend_from_slice(&(builder.rows() as u32).to_le_bytes());
    out.extend_from_slice(&(PARTS as u32).to_le_bytes());
    out.extend_from_slice(&head.root);
    for part in &parts {
        out.extend_from_slice(&[u8::from(part.hashed), part.width, 0, 0]);
        out.extend_from_slice(&part.count.to_le_bytes());
        out.extend_from_slice(&part.at.to_le_bytes());
        out.extend_from_slice(&part.middle.to_le_bytes());
    }
    out.extend_from_slice(&data);
    Ok(out)
}

/// Writes dictionary and codes; the part's `middle` is relative to its start.
fn write_column(column: Column, values: &Values, data: &mut Vec<u8>) -> Part {
    let start = data.len();
    let hashed = may_be_hashed(column) && values.values.len() * ROWS_PER_VALUE_MIN > values.codes.len();
    // From the code in the order of appearance to the code in the sorted dictionary.
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
    Part { hashed, width: width as u8, count: count as u32, at: 0, middle }
}

/// What a dictionary is sorted by before the text: addresses stand by their number, whatever their notation, so that a
/// network is a range of them; other text stands behind.
fn place_of(column: Column, value: &str) -> u128 {
    if column != Column::Ip {
        return 0;
    }
    value.parse::<IpAddr>().map_or(u128::MAX, number_of)
}

fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// FNV-1a of 64 bits, its halves folded together.
fn short_hash(value: &str) -> u32 {
    let hash = value.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 32) as u32 ^ hash as u32
}

fn write_numbers(numbers: impl Iterator<Item = i64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    numbers.for_each(|number| write_varint((number << 1 ^ number >> 63) as u64, &mut bytes));
    bytes
}

/// The first time, and from each to the next.
fn write_times(times: &[i64]) -> Vec<u8> {
    let mut before = 0;
    write_numbers(times.iter().map(|time| time.wrapping_sub(std::mem::replace(&mut before, *time))))
}

fn read_numbers(bytes: &[u8], rows: usize) -> io::Result<Vec<i64>> {
    let mut rest = bytes;
    let numbers: Option<Vec<i64>> = (0..rows)
        .map(|_| read_varint(&mut rest).map(|number| (number >> 1) as i64 ^ -((number & 1) as i64)))
        .collect();
    numbers.filter(|_| rest.is_empty()).ok_or_else(damaged)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the file is not a block of this index")
}

/// An open block.
pub(super) struct Stored {
    file: File,
    bytes: u64,
    rows: usize,
    pub(super) head: Head,
    parts: [Part; PARTS],
}

impl Stored {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut start = [0; HEAD_BYTES];
        file.read_exact_at(&mut start, 0).map_err(|_| damaged())?;
        let mut rest = &start[..];
        let mut take = |count: usize| rest.split_off(..count).unwrap_or_default();
        if take(8) != MAGIC {
            return Err(damaged());
        }
        let generation = Generation::from_bytes(take(16).try_into().map_err(|_| damaged())?);
        let first = long(take(8));
        let (rows, parts_there) = (short(take(4)) as usize, short(take(4)) as usize);
        let root: Hash = take(32).try_into().map_err(|_| damaged())?;
        if parts_there != PARTS {
            return Err(damaged());
        }
        let mut parts = [Part::default(); PARTS];
        for part in &mut parts {
            let kind = take(4);
            let (hashed, width) = (kind[0] == 1, kind[1]);
            *part = Part { hashed, width, count: short(take(4)), at: long(take(8)), middle: long(take(8)) };
            if part.at > part.middle || part.middle > bytes {
                return Err(damaged());
            }
        }
        Ok(Self { file, bytes, rows, head: Head { generation, first, root }, parts })
    }

    fn read(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        if from > to || to > self.bytes {
            return Err(damaged());
        }
        let mut bytes = vec![0; usize::try_from(to - from).map_err(|_| damaged())?];
        self.file.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    }

    fn whole(&self, part: usize) -> io::Result<Vec<u8>> {
        self.read(self.parts[part].at, self.parts[part].middle)
    }

    /// The 32-bit number at place `index` from `at` on.
    fn number(&self, at: u64, index: u64) -> io::Result<u32> {
        let from = at + index * 4;
        Ok(short(&self.read(from, from + 4)?))
    }

    /// The value with this place in a dictionary of texts.
    fn value(&self, part: &Part, place: u64) -> io::Result<String> {
        let texts = part.at + u64::from(part.count) * 4;
        let from = if place == 0 { 0 } else { self.number(part.at, place - 1)? };
        let to = self.number(part.at, place)?;
        String::from_utf8(self.read(texts + u64::from(from), texts + u64::from(to))?).map_err(|_| damaged())
    }

    /// The first place in a sorted dictionary whose value is not below the wanted one.
    fn first_not_below<T: Ord>(part: &Part, wanted: &T, at: impl Fn(u64) -> io::Result<T>) -> io::Result<u32> {
        let (mut low, mut high) = (0, part.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if at(u64::from(middle))? < *wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The code of a value in a sorted dictionary.
    fn search<T: Ord>(part: &Part, wanted: &T, at: impl Fn(u64) -> io::Result<T>) -> io::Result<Option<u32>> {
        let place = Self::first_not_below(part, wanted, &at)?;
        Ok(if place < part.count && at(u64::from(place))? == *wanted { Some(place + 1) } else { None })
    }
}

/// A dictionary of texts, read whole.
struct Dictionary {
    ends: Vec<u32>,
    texts: String,
}

impl Dictionary {
    fn read(bytes: &[u8], part: &Part) -> io::Result<Self> {
        let (ends, texts) = bytes.split_at_checked(part.count as usize * 4).ok_or_else(damaged)?;
        let ends = ends.as_chunks::<4>().0.iter().map(|end| u32::from_le_bytes(*end)).collect();
        Ok(Self { ends, texts: String::from_utf8(texts.to_vec()).map_err(|_| damaged())? })
    }

    fn value(&self, place: u64) -> io::Result<&str> {
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        let from = place.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let to = self.ends.get(place).copied().unwrap_or(0);
        self.texts.get(from as usize..to as usize).ok_or_else(damaged)
    }
}

fn short(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

fn long(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

impl Block for Stored {
    fn rows(&self) -> usize {
        self.rows
    }

    fn pruned(&self) -> usize {
        0
    }

    fn odd(&self) -> io::Result<Set> {
        Ok(Set::from_bytes(self.rows, &self.whole(ODD)?))
    }

    fn is_hashed(&self, column: Column) -> bool {
        self.parts[column as usize].hashed
    }

    fn code_of(&self, column: Column, value: &str) -> io::Result<Option<u32>> {
        let part = &self.parts[column as usize];
        if part.hashed {
            return Self::search(part, &short_hash(value), |place| self.number(part.at, place));
        }
        let wanted = (place_of(column, value), value.to_owned());
        if part.middle - part.at > DICTIONARY_WHOLE_BYTES {
            return Self::search(part, &wanted, |place| {
                let have = self.value(part, place)?;
                Ok((place_of(column, &have), have))
            });
        }
        let dictionary = Dictionary::read(&self.whole(column as usize)?, part)?;
        Self::search(part, &wanted, |place| {
            let have = dictionary.value(place)?.to_owned();
            Ok((place_of(column, &have), have))
        })
    }

    fn codes_in(&self, net: &IpNet) -> io::Result<Vec<u32>> {
        let part = &self.parts[Column::Ip as usize];
        let number = |place| Ok(place_of(Column::Ip, &self.value(part, place)?));
        let range = |first: IpAddr, last: IpAddr| -> io::Result<Range<u32>> {
            let begin = Self::first_not_below(part, &number_of(first), number)?;
            let end = match number_of(last).checked_add(1) {
                Some(behind) => Self::first_not_below(part, &behind, number)?,
                None => part.count,
            };
            Ok(begin + 1..end + 1)
        };
        let found = range(net.network(), net.broadcast())?;
        // Below an IPv6 network, what was meant as IPv4 does not count.
        let mapped = match net {
            IpNet::V4(_) => 0..0,
            IpNet::V6(_) => range(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::BROADCAST))?,
        };
        // The address of all ones shares its place with other text.
        let values: Vec<u32> = found.filter(|code| !mapped.contains(code)).collect();
        let mut sure = Vec::with_capacity(values.len());
        for code in values {
            if number_of(net.broadcast()) != u128::MAX || net_contains(net, &self.value(part, u64::from(code) - 1)?) {
                sure.push(code);
            }
        }
        Ok(sure)
    }

    fn values(&self, column: Column) -> io::Result<Vec<Cow<'_, str>>> {
        let part = &self.parts[column as usize];
        if part.hashed {
            return Ok(Vec::new());
        }
        let dictionary = Dictionary::read(&self.whole(column as usize)?, part)?;
        (0..u64::from(part.count)).map(|place| Ok(Cow::Owned(dictionary.value(place)?.to_owned()))).collect()
    }

    fn codes(&self, column: Column) -> io::Result<Codes<'_>> {
        let part = &self.parts[column as usize];
        let bytes = self.read(part.middle, part.middle + u64::from(part.width) * self.rows as u64)?;
        Ok(match part.width {
            0 => Codes::Same(part.count.min(1)),
            1 => Codes::One(Cow::Owned(bytes)),
            2 => Codes::Two(bytes),
            4 => Codes::Four(Cow::Owned(bytes.as_chunks::<4>().0.iter().map(|code| u32::from_le_bytes(*code)).collect())),
            _ => return Err(damaged()),
        })
    }

    fn groups(&self, text: Text, bucket: u16) -> io::Result<Cow<'_, Groups>> {
        let part = &self.parts[if text == Text::Description { DESCRIPTION } else { DETAILS }];
        let line = part.at + u64::from(bucket) * 4;
        let ends = self.read(line, line + 8)?;
        let (from, to) = (short(&ends[..4]), short(&ends[4..]));
        let postings = part.at + (BUCKETS as u64 + 1) * 4;
        let bytes = self.read(postings + u64::from(from), postings + u64::from(to))?;
        Ok(Cow::Owned(Groups::read(self.rows.div_ceil(GROUP_ROWS), &bytes).ok_or_else(damaged)?))
    }

    fn times(&self) -> io::Result<Cow<'_, [i64]>> {
        let mut times = read_numbers(&self.whole(TIMES)?, self.rows)?;
        let mut before = 0i64;
        for time in &mut times {
            *time = time.wrapping_add(before);
            before = *time;
        }
        Ok(Cow::Owned(times))
    }

    fn earlier(&self) -> io::Result<Cow<'_, [i64]>> {
        let bytes = self.whole(EARLIER)?;
        Ok(Cow::Owned(if bytes.is_empty() { Vec::new() } else { read_numbers(&bytes, self.rows)? }))
    }
}
