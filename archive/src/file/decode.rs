//! Reads a file of rows and checks it: the digests of its parts, and that every column says what the bodies say.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array as _, BinaryArray, FixedSizeBinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::{Field, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use piperoll_format::entry::Prefix;
use piperoll_format::limits::BODY_AND_MAC_BYTES_MAX;
use piperoll_format::time::Timestamp;
use piperoll_format::view::EntryView;

use super::batch::{DERIVED, FIRST_DERIVED, derived_values};
use super::encode::{CHUNKS_KEY, Chunk, FORMAT, FORMAT_KEY, TRAITS_KEY, chunk_ranges};
use super::schema::{COLUMNS, schema};
use super::traits::Traits;
use crate::record::digest_of;
use crate::row::{ArchivedRow, Content, LogId};

/// Rows that are decoded at once.
const BATCH_ROWS: usize = 1_024;
/// Maximum number of rows in a file, and of row groups. A row has at least a mac or a leaf of 32 bytes.
const ROWS_MAX: i64 = 4 * 1024 * 1024;
const ROW_GROUPS_MAX: usize = 4_096;
/// Maximum size that the values of one row group may have when they are decompressed: a file from a stranger must not fill the
/// memory.
const ROW_GROUP_BYTES_MAX: i64 = 1024 * 1024 * 1024;

/// A row and its log. Rows that were decoded together share the memory of their bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedRow {
    pub log: LogId,
    pub row: ArchivedRow,
}

/// Reasons why a file is not valid.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("it is not a Parquet file of an archive: {0}")]
    Form(String),
    #[error("its bytes {offset}..{end} do not match the digest in its footer")]
    Chunk { offset: u64, end: u64 },
    #[error("row {0} of the file is not valid: {1}")]
    Row(u64, &'static str),
    #[error("row {row} of the file has the trait {name}, but the footer says that no row of its row group has it")]
    Trait { row: u64, name: &'static str },
    #[error("the column {column} of row {row} of the file does not say what its body says")]
    Column { column: &'static str, row: u64 },
}

/// A complete file whose parts match the digests in its footer.
#[derive(Debug)]
pub struct OpenFile {
    bytes: Bytes,
    meta: ArrowReaderMetadata,
    traits: Vec<Traits>,
}

impl OpenFile {
    /// Parses the footer, and compares all parts with their digests.
    ///
    /// # Errors
    /// Fails if the bytes are not a valid file.
    pub fn open(bytes: &Bytes) -> Result<Self, DecodeError> {
        let meta = ArrowReaderMetadata::load(bytes, ArrowReaderOptions::new()).map_err(|error| not_a_file(&error))?;
        for chunk in chunks_of(meta.schema(), meta.metadata())? {
            let end = chunk.offset.saturating_add(chunk.bytes);
            let range = usize::try_from(chunk.offset).ok().zip(usize::try_from(end).ok());
            let part = range.and_then(|(from, to)| bytes.get(from..to));
            if part.map(digest_of) != Some(chunk.sha256) {
                return Err(DecodeError::Chunk { offset: chunk.offset, end });
            }
        }
        let traits = traits_of(meta.metadata())?;
        Ok(Self { bytes: bytes.clone(), meta, traits })
    }

    /// Numbers of the rows of each row group, counted from the beginning of the file.
    pub fn groups(&self) -> Vec<Range<u64>> {
        let mut next = 0;
        let of_group = |group: &RowGroupMetaData| {
            let first = next;
            next += u64::try_from(group.num_rows()).unwrap_or_default();
            first..next
        };
        self.meta.metadata().row_groups().iter().map(of_group).collect()
    }

    /// Passes the rows of a row group to `each` in their order. Derives their columns again from the bodies, and compares them with those
    /// of the file.
    ///
    /// # Errors
    /// Fails if the rows are not valid, or if `each` fails.
    pub fn rows<E: From<DecodeError>>(
        &self,
        group: usize,
        mut each: impl FnMut(DecodedRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let form = |error: &dyn std::fmt::Display| E::from(not_a_file(error));
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.meta.clone());
        let reader = builder.with_row_groups(vec![group]).with_batch_size(BATCH_ROWS).build();
        let traits = self.traits.get(group).copied().unwrap_or(Traits::UNKNOWN);
        let mut at = self.groups().get(group).map_or(0, |rows| rows.start);
        for batch in reader.map_err(|error| form(&error))? {
            let batch = batch.map_err(|error| form(&error))?;
            Rows::of(&batch, at, traits)?.each(&mut each)?;
            at += batch.num_rows() as u64;
        }
        Ok(())
    }
}

fn not_a_file(error: &dyn std::fmt::Display) -> DecodeError {
    DecodeError::Form(error.to_string().replace('\n', " "))
}

/// Decodes a complete file and passes its rows to `each` in their order. Checks the digests in the footer, and derives the columns
/// again from the bodies.
///
/// # Errors
/// Fails if the bytes are not a valid file, or if `each` does.
pub fn decode<E: From<DecodeError>>(bytes: &Bytes, mut each: impl FnMut(DecodedRow) -> Result<(), E>) -> Result<(), E> {
    let file = OpenFile::open(bytes)?;
    (0..file.groups().len()).try_for_each(|group| file.rows(group, &mut each))
}

/// Traits of the row groups, according to a footer. Files of earlier development versions do not name them.
pub(crate) fn traits_of(metadata: &ParquetMetaData) -> Result<Vec<Traits>, DecodeError> {
    let groups = metadata.num_row_groups();
    let Some(text) = footer_value(metadata, TRAITS_KEY) else { return Ok(vec![Traits::UNKNOWN; groups]) };
    let traits: Option<Vec<Traits>> = serde_json::from_str(text).ok();
    let traits = traits.filter(|traits| traits.len() == groups);
    traits.ok_or_else(|| DecodeError::Form("its footer has the traits of other row groups".to_owned()))
}

fn footer_value<'a>(metadata: &'a ParquetMetaData, key: &str) -> Option<&'a str> {
    let entries = metadata.file_metadata().key_value_metadata()?;
    entries.iter().find(|entry| entry.key == key)?.value.as_deref()
}

/// Checks the form that a footer describes, and returns the digests of the file's chunks, sorted by offset.
pub(crate) fn chunks_of(found: &SchemaRef, metadata: &ParquetMetaData) -> Result<Vec<Chunk>, DecodeError> {
    let form = |reason: &str| Err(DecodeError::Form(reason.to_owned()));
    let expected = schema();
    let same = |(found, expected): (&Arc<Field>, &Arc<Field>)| {
        found.name() == expected.name()
            && found.data_type() == expected.data_type()
            && found.is_nullable() == expected.is_nullable()
    };
    if found.fields().len() != COLUMNS.len() || !found.fields().iter().zip(expected.fields()).all(same) {
        return form("it has other columns");
    }
    if footer_value(metadata, FORMAT_KEY) != Some(FORMAT) {
        return form("its footer does not name the format");
    }
    let groups = metadata.row_groups();
    if metadata.file_metadata().num_rows() > ROWS_MAX || groups.len() > ROW_GROUPS_MAX {
        return form("it has too many rows");
    }
    if groups.iter().any(|group| group.total_byte_size() > ROW_GROUP_BYTES_MAX) {
        return form("a row group is too large");
    }
    let chunks: Option<Vec<Chunk>> =
        footer_value(metadata, CHUNKS_KEY).and_then(|text| serde_json::from_str(text).ok());
    let Some(chunks) = chunks else { return form("its footer has no digests") };
    let mut ranges: Vec<(u64, u64)> = groups.iter().flat_map(chunk_ranges).collect();
    ranges.sort_unstable();
    if !ranges.iter().eq(chunks.iter().map(|chunk| (chunk.offset, chunk.bytes)).collect::<Vec<_>>().iter()) {
        return form("the digests in its footer are not those of its chunks");
    }
    Ok(chunks)
}

/// Columns of some rows.
struct Rows<'a> {
    /// Number of the first row, counted from the beginning of the file.
    at: u64,
    traits: Traits,
    node_ids: &'a StringArray,
    generations: &'a StringArray,
    seqs: &'a Int64Array,
    eras: &'a Int64Array,
    epochs: &'a Int64Array,
    times: &'a TimestampMicrosecondArray,
    derived: [&'a StringArray; DERIVED],
    macs: &'a FixedSizeBinaryArray,
    leaves: &'a FixedSizeBinaryArray,
    bodies: &'a BinaryArray,
    /// All bodies, one after the other. Rows share these bytes.
    body_bytes: Bytes,
}

impl<'a> Rows<'a> {
    fn of(batch: &'a RecordBatch, at: u64, traits: Traits) -> Result<Self, DecodeError> {
        let column =
            |name: &str| COLUMNS.iter().position(|column| column.name == name).map(|index| batch.column(index));
        let missing = || DecodeError::Form("a column is missing".to_owned());
        let text = |name: &str| column(name).and_then(|array| array.as_string_opt::<i32>()).ok_or_else(missing);
        let number =
            |name: &str| column(name).and_then(|array| array.as_primitive_opt::<Int64Type>()).ok_or_else(missing);
        let hash = |name: &str| column(name).and_then(|array| array.as_fixed_size_binary_opt()).ok_or_else(missing);
        let times = column("timestamp").and_then(|array| array.as_primitive_opt::<TimestampMicrosecondType>());
        let bodies = column("body").and_then(|array| array.as_binary_opt::<i32>()).ok_or_else(missing)?;
        let derived: Vec<&StringArray> = COLUMNS
            .iter()
            .skip(FIRST_DERIVED)
            .take(DERIVED)
            .map(|column| text(column.name))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            at,
            traits,
            node_ids: text("node_id")?,
            generations: text("generation")?,
            seqs: number("seq")?,
            eras: number("era")?,
            epochs: number("epoch")?,
            times: times.ok_or_else(missing)?,
            derived: derived.try_into().map_err(|_| missing())?,
            macs: hash("mac")?,
            leaves: hash("leaf")?,
            bodies,
            body_bytes: Bytes::from_owner(bodies.values().clone()),
        })
    }

    fn each<E: From<DecodeError>>(&self, each: &mut impl FnMut(DecodedRow) -> Result<(), E>) -> Result<(), E> {
        let mut log: Option<LogId> = None;
        (0..self.seqs.len()).try_for_each(|index| {
            let decoded = self.row(index, log.as_ref())?;
            if log.as_ref() != Some(&decoded.log) {
                log = Some(decoded.log.clone());
            }
            each(decoded)
        })
    }

    fn bad(&self, index: usize, reason: &'static str) -> DecodeError {
        DecodeError::Row(self.at + index as u64, reason)
    }

    /// The log of a row; `before` is the log of the row before it.
    fn log(&self, index: usize, before: Option<&LogId>) -> Result<LogId, DecodeError> {
        let texts = |index: usize| (self.node_ids.value(index), self.generations.value(index));
        if let Some(before) = before.filter(|_| index > 0 && texts(index) == texts(index - 1)) {
            return Ok(before.clone());
        }
        let (node_id, generation) = texts(index);
        Ok(LogId {
            node_id: node_id.parse().map_err(|_| self.bad(index, "node_id is not the id of a node"))?,
            generation: generation.parse().map_err(|_| self.bad(index, "generation is not a generation"))?,
        })
    }

    fn row(&self, index: usize, before: Option<&LogId>) -> Result<DecodedRow, DecodeError> {
        let log = self.log(index, before)?;
        let hash_at =
            |array: &FixedSizeBinaryArray| array.is_valid(index).then(|| array.value(index).try_into().ok()).flatten();
        let (seq, era, time) = (self.seqs.value(index), self.eras.value(index), self.times.value(index));
        let content = match (self.bodies.is_valid(index), hash_at(self.macs), hash_at(self.leaves)) {
            (true, Some(mac), None) => {
                let body = self.bodies.value(index);
                if body.len() > BODY_AND_MAC_BYTES_MAX {
                    return Err(self.bad(index, "the body is too long"));
                }
                let prefix = Prefix::parse(body).ok_or_else(|| self.bad(index, "the body is not an entry"))?;
                let is_same = prefix.node_id == log.node_id.as_str()
                    && prefix.generation == self.generations.value(index)
                    && i64::try_from(prefix.seq) == Ok(seq)
                    && i64::from(prefix.era) == era
                    && prefix.timestamp.micros() == time;
                if !is_same {
                    return Err(self.bad(index, "its columns do not say what its body says"));
                }
                let view = EntryView::parse(body).unwrap_or_default();
                self.compare(index, &derived_values(&view))?;
                if let Some(name) = self.traits.lacks(Traits::of(&view)) {
                    return Err(DecodeError::Trait { row: self.at + index as u64, name });
                }
                let epoch = self.epochs.is_valid(index).then(|| u32::try_from(self.epochs.value(index)).ok()).flatten();
                let epoch = epoch.ok_or_else(|| self.bad(index, "the epoch is missing"))?;
                Content::Entry { epoch, body: self.body_bytes.slice_ref(body), mac }
            }
            (false, None, Some(leaf)) => {
                self.compare(index, &[None; DERIVED])?;
                if self.epochs.is_valid(index) {
                    return Err(self.bad(index, "an erased row has an epoch"));
                }
                Content::Erased { leaf }
            }
            _ => return Err(self.bad(index, "a row has either body and mac, or only a leaf")),
        };
        let row = ArchivedRow {
            seq: u64::try_from(seq).map_err(|_| self.bad(index, "seq is negative"))?,
            era: u32::try_from(era).map_err(|_| self.bad(index, "era is not a number of an era"))?,
            timestamp: Timestamp::from_micros(time),
            content,
        };
        if row.timestamp.micros() != time {
            return Err(self.bad(index, "timestamp is not a time"));
        }
        Ok(DecodedRow { log, row })
    }

    /// Compares the columns of a row with the values that its body has.
    fn compare(&self, index: usize, values: &[Option<&str>; DERIVED]) -> Result<(), DecodeError> {
        let found = |array: &'a StringArray| array.is_valid(index).then(|| array.value(index));
        match self.derived.iter().zip(values).position(|(array, value)| found(array) != *value) {
            Some(place) => {
                Err(DecodeError::Column { column: COLUMNS[FIRST_DERIVED + place].name, row: self.at + index as u64 })
            }
            None => Ok(()),
        }
    }
}
