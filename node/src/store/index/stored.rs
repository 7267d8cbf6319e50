//! Reads a finished block of the index: one file that never changes.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use ipnet::IpNet;
use piperoll_format::ids::Generation;
use piperoll_format::merkle::Hash;
use piperoll_query::column::Column;
use piperoll_query::filter::net_contains;

use super::block::{Block, Codes, Text, Values};
use super::dictionary::{Dictionary, damaged};
use super::layout::{
    CHUNK_BYTES, DESCRIPTION, DETAILS, EARLIER, HEAD_BYTES, Head, MAGIC, ODD, PARTS, SUM_BYTES, Section, TIMES,
    number_of, place_of, short_hash, sum,
};
use super::set::Set;
use super::text::{BUCKETS, GROUP_ROWS, Groups, read_varint};

/// Maximum size of a dictionary that is read into memory; a larger dictionary is searched in the file.
const DICTIONARY_WHOLE_BYTES: u64 = 64 * 1024;
/// Number of hashes that are read around the position at which the wanted hash is expected.
const HASHES_READ: u64 = 1_024;
fn read_numbers(bytes: &[u8], rows: usize) -> io::Result<Vec<i64>> {
    let mut rest = bytes;
    let numbers: Option<Vec<i64>> =
        (0..rows).map(|_| read_varint(&mut rest).map(|number| (number >> 1) as i64 ^ -((number & 1) as i64))).collect();
    numbers.filter(|_| rest.is_empty()).ok_or_else(damaged)
}

/// Size, times and link count of a file. Every change of the file changes at least one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Changed {
    bytes: u64,
    modified: (i64, i64),
    inode_changed: (i64, i64),
    names: u64,
}

impl Changed {
    fn of(meta: &Metadata) -> Self {
        let (modified, inode_changed) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
        Self { bytes: meta.len(), modified, inode_changed, names: meta.nlink() }
    }
}

/// An open block.
pub(super) struct Stored {
    file: File,
    /// Number of bytes of the head and the parts together; the checksums of their chunks follow.
    bytes: u64,
    sums: Vec<[u8; SUM_BYTES as usize]>,
    /// Size, times and link count of the file when it was opened.
    changed: Changed,
    rows: usize,
    pub(super) head: Head,
    span: (i64, i64),
    parts: [Section; PARTS],
}

impl Stored {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        let changed = Changed::of(&meta);
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
        let span = (long(take(8)).cast_signed(), long(take(8)).cast_signed());
        let bytes = long(take(8));
        let sums = Self::sums(&file, bytes, meta.len())?;
        if parts_there != PARTS {
            return Err(damaged());
        }
        let mut parts = [Section::default(); PARTS];
        for part in &mut parts {
            let kind = take(4);
            let (hashed, width) = (kind[0] == 1, kind[1]);
            *part = Section { hashed, width, count: short(take(4)), at: long(take(8)), middle: long(take(8)) };
            if part.at > part.middle || part.middle > bytes {
                return Err(damaged());
            }
        }
        let head = Head { generation, first, root };
        let stored = Self { file, bytes, sums, changed, rows, head, span, parts };
        // Verify the head now. It was first read without its checksum, because the position of the checksum is known only from
        // the head.
        if stored.read(0, HEAD_BYTES as u64)? != start {
            return Err(damaged());
        }
        Ok(stored)
    }

    /// Reads the checksums, which are at the end of a file of `length` bytes.
    fn sums(file: &File, bytes: u64, length: u64) -> io::Result<Vec<[u8; SUM_BYTES as usize]>> {
        let expected = bytes.div_ceil(CHUNK_BYTES).checked_mul(SUM_BYTES).ok_or_else(damaged)?;
        if bytes.checked_add(expected).and_then(|end| end.checked_add(SUM_BYTES)) != Some(length) {
            return Err(damaged());
        }
        let mut sums = vec![0; usize::try_from(expected + SUM_BYTES).map_err(|_| damaged())?];
        file.read_exact_at(&mut sums, bytes)?;
        let (sums, own) = sums.split_last_chunk().ok_or_else(damaged)?;
        if sum(sums) != *own {
            return Err(damaged());
        }
        Ok(sums.as_chunks().0.to_vec())
    }

    /// Whether the file has not changed since it was opened and still has its name.
    pub(super) fn is_unchanged(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| Changed::of(&meta) == self.changed)
    }

    /// Reads a range of bytes, and verifies the checksums of all chunks that contain any of them.
    fn read(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        if from > to || to > self.bytes {
            return Err(damaged());
        }
        let first = from / CHUNK_BYTES;
        let (begin, end) = (first * CHUNK_BYTES, to.div_ceil(CHUNK_BYTES).saturating_mul(CHUNK_BYTES).min(self.bytes));
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(begin)).map_err(|_| damaged())?];
        self.file.read_exact_at(&mut bytes, begin)?;
        let sums = self.sums.iter().skip(usize::try_from(first).map_err(|_| damaged())?);
        if !bytes
            .chunks(CHUNK_BYTES as usize)
            .map(sum)
            .eq(sums.take(bytes.len().div_ceil(CHUNK_BYTES as usize)).copied())
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "checksum mismatch"));
        }
        bytes.truncate(usize::try_from(to - begin).map_err(|_| damaged())?);
        bytes.drain(..usize::try_from(from - begin).map_err(|_| damaged())?);
        Ok(bytes)
    }

    fn whole(&self, part: usize) -> io::Result<Vec<u8>> {
        self.read(self.parts[part].at, self.parts[part].middle)
    }

    /// Reads the 32-bit number with index `index` from the array that begins at `at`.
    fn number(&self, at: u64, index: u64) -> io::Result<u32> {
        let from = at + index * 4;
        Ok(short(&self.read(from, from + 4)?))
    }

    /// Reads the value with index `place` from a dictionary of texts.
    fn value(&self, part: &Section, place: u64) -> io::Result<String> {
        let texts = part.at + u64::from(part.count) * 4;
        let line = part.at + place * 4;
        let ends = self.read(if place == 0 { line } else { line - 4 }, line + 4)?;
        let (from, to) = if place == 0 { (0, short(&ends)) } else { (short(&ends[..4]), short(&ends[4..])) };
        String::from_utf8(self.read(texts + u64::from(from), texts + u64::from(to))?).map_err(|_| damaged())
    }

    /// Returns the range of the file that contains the groups of a bucket.
    fn groups_place(&self, text: Text, bucket: u16) -> io::Result<Range<u64>> {
        let part = &self.parts[if text == Text::Description { DESCRIPTION } else { DETAILS }];
        let line = part.at + u64::from(bucket) * 4;
        let ends = self.read(line, line + 8)?;
        let postings = part.at + (BUCKETS as u64 + 1) * 4;
        Ok(postings + u64::from(short(&ends[..4]))..postings + u64::from(short(&ends[4..])))
    }

    /// Finds the code of a hash. Hashes are evenly distributed, so the wanted hash is close to the position that its value
    /// suggests, and nearly every hash is found with one read.
    fn hash_code(&self, part: &Section, wanted: u32) -> io::Result<Option<u32>> {
        let guess = (u64::from(wanted) * u64::from(part.count)) >> 32;
        let from = guess.saturating_sub(HASHES_READ / 2);
        let to = (from + HASHES_READ).min(u64::from(part.count));
        let bytes = self.read(part.at + from * 4, part.at + to * 4)?;
        let hashes: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|hash| u32::from_le_bytes(*hash)).collect();
        let inside = hashes.first().is_some_and(|first| *first <= wanted || from == 0)
            && hashes.last().is_some_and(|last| *last >= wanted || to == u64::from(part.count));
        if !inside {
            return Self::search(part, &wanted, |place| self.number(part.at, place));
        }
        let place = hashes.binary_search(&wanted).ok();
        Ok(place.and_then(|place| u32::try_from(from + place as u64 + 1).ok()))
    }

    /// Returns the first position in a sorted dictionary whose value is at least the wanted value.
    fn first_not_below<T: Ord>(part: &Section, wanted: &T, at: impl Fn(u64) -> io::Result<T>) -> io::Result<u32> {
        Self::first_not_below_within(0..part.count, wanted, at)
    }

    fn first_not_below_within<T: Ord>(
        places: Range<u32>,
        wanted: &T,
        at: impl Fn(u64) -> io::Result<T>,
    ) -> io::Result<u32> {
        let (mut low, mut high) = (places.start, places.end);
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

    /// Finds the code of a value in a sorted dictionary.
    fn search<T: Ord>(part: &Section, wanted: &T, at: impl Fn(u64) -> io::Result<T>) -> io::Result<Option<u32>> {
        let place = Self::first_not_below(part, wanted, &at)?;
        Ok(if place < part.count && at(u64::from(place))? == *wanted { Some(place + 1) } else { None })
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
        if self.parts[ODD].count == 0 {
            return Ok(Set::none(self.rows));
        }
        Ok(Set::from_bytes(self.rows, &self.whole(ODD)?))
    }

    fn is_hashed(&self, column: Column) -> bool {
        self.parts[column as usize].hashed
    }

    fn code_of(&self, column: Column, value: &str) -> io::Result<Option<u32>> {
        let part = &self.parts[column as usize];
        if part.hashed {
            return self.hash_code(part, short_hash(value));
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
            let have = dictionary.value(u32::try_from(place).unwrap_or(u32::MAX))?.to_owned();
            Ok((place_of(column, &have), have))
        })
    }

    fn codes_in(&self, net: &IpNet) -> io::Result<Vec<u32>> {
        let part = &self.parts[Column::Ip as usize];
        let number = |place| Ok(place_of(Column::Ip, &self.value(part, place)?));
        let range = |first: IpAddr, last: IpAddr| -> io::Result<Range<u32>> {
            let begin = Self::first_not_below(part, &number_of(first), number)?;
            let end = match number_of(last).checked_add(1) {
                Some(behind) => {
                    // A network usually contains few of a block's addresses, so search for its end from its beginning, in
                    // growing steps.
                    let (mut low, mut step) = (begin, 1);
                    while low < part.count && number(u64::from(low))? < behind {
                        (low, step) = (low.saturating_add(step), step * 2);
                    }
                    Self::first_not_below_within(begin..low.min(part.count), &behind, number)?
                }
                None => part.count,
            };
            Ok(begin + 1..end + 1)
        };
        let found = range(net.network(), net.broadcast())?;
        // An IPv6 network does not match IPv4 addresses, which are stored as IPv4-mapped IPv6 addresses.
        let mapped = match net {
            IpNet::V4(_) => 0..0,
            IpNet::V6(_) => range(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::BROADCAST))?,
        };
        // The all-ones address has the same sort key as text that is not an address, so compare the text as well.
        let values: Vec<u32> = found.filter(|code| !mapped.contains(code)).collect();
        let mut sure = Vec::with_capacity(values.len());
        for code in values {
            if number_of(net.broadcast()) != u128::MAX || net_contains(net, &self.value(part, u64::from(code) - 1)?) {
                sure.push(code);
            }
        }
        Ok(sure)
    }

    fn values(&self, column: Column) -> io::Result<Values<'_>> {
        let part = &self.parts[column as usize];
        if part.hashed {
            return Ok(Values::Borrowed(&[]));
        }
        Ok(Values::Read(Dictionary::read(&self.whole(column as usize)?, part)?))
    }

    fn span(&self) -> (i64, i64) {
        self.span
    }

    fn codes(&self, column: Column) -> io::Result<Codes<'_>> {
        let part = &self.parts[column as usize];
        let bytes = self.read(part.middle, part.middle + u64::from(part.width) * self.rows as u64)?;
        Ok(match part.width {
            0 => Codes::Same(part.count.min(1)),
            1 => Codes::One(Cow::Owned(bytes)),
            2 => Codes::Two(bytes),
            4 => {
                Codes::Four(Cow::Owned(bytes.as_chunks::<4>().0.iter().map(|code| u32::from_le_bytes(*code)).collect()))
            }
            _ => return Err(damaged()),
        })
    }

    fn groups_bytes(&self, text: Text, bucket: u16) -> io::Result<usize> {
        let place = self.groups_place(text, bucket)?;
        usize::try_from(place.end.saturating_sub(place.start)).map_err(|_| damaged())
    }

    fn groups(&self, text: Text, bucket: u16) -> io::Result<Cow<'_, Groups>> {
        let place = self.groups_place(text, bucket)?;
        let bytes = self.read(place.start, place.end)?;
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
