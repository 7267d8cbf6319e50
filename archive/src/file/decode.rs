//! Reads a file of rows and checks it: the digests of its parts, and that every column says what the bodies say.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array as _, RecordBatch};
use arrow_schema::{Field, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaData;
use piperoll_format::entry::Prefix;
use piperoll_format::limits::BODY_AND_MAC_BYTES_MAX;
use piperoll_format::time::Timestamp;

use super::batch::BatchBuilder;
use super::encode::{CHUNKS_KEY, Chunk, FORMAT, FORMAT_KEY, chunk_ranges};
use super::schema::{COLUMNS, schema};
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

/// A row and its log.
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
    #[error("the column {column} of rows {from}..{to} of the file does not say what their bodies say")]
    Column { column: &'static str, from: u64, to: u64 },
}

/// Decodes a complete file and passes its rows to `each` in their order. Checks the digests in the footer, and derives the columns
/// again from the bodies.
///
/// # Errors
/// Fails if the bytes are not a valid file, or if `each` does.
pub fn decode<E: From<DecodeError>>(bytes: &Bytes, mut each: impl FnMut(DecodedRow) -> Result<(), E>) -> Result<(), E> {
    let form = |error: &dyn std::fmt::Display| E::from(DecodeError::Form(error.to_string().replace('\n', " ")));
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|error| form(&error))?;
    check_form(&builder, bytes)?;
    let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|error| form(&error))?;
    let mut at = 0;
    for batch in reader {
        let batch = batch.map_err(|error| form(&error))?;
        let rows = rows_of(&batch, at)?;
        at += batch.num_rows() as u64;
        rows.into_iter().try_for_each(&mut each)?;
    }
    Ok(())
}

fn check_form(builder: &ParquetRecordBatchReaderBuilder<Bytes>, bytes: &Bytes) -> Result<(), DecodeError> {
    for chunk in chunks_of(builder.schema(), builder.metadata())? {
        let end = chunk.offset.saturating_add(chunk.bytes);
        let range = usize::try_from(chunk.offset).ok().zip(usize::try_from(end).ok());
        let part = range.and_then(|(from, to)| bytes.get(from..to));
        if part.map(digest_of) != Some(chunk.sha256) {
            return Err(DecodeError::Chunk { offset: chunk.offset, end });
        }
    }
    Ok(())
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
    let entries = metadata.file_metadata().key_value_metadata();
    let value = |key: &str| entries?.iter().find(|entry| entry.key == key)?.value.as_deref();
    if value(FORMAT_KEY) != Some(FORMAT) {
        return form("its footer does not name the format");
    }
    let groups = metadata.row_groups();
    if metadata.file_metadata().num_rows() > ROWS_MAX || groups.len() > ROW_GROUPS_MAX {
        return form("it has too many rows");
    }
    if groups.iter().any(|group| group.total_byte_size() > ROW_GROUP_BYTES_MAX) {
        return form("a row group is too large");
    }
    let chunks: Option<Vec<Chunk>> = value(CHUNKS_KEY).and_then(|text| serde_json::from_str(text).ok());
    let Some(chunks) = chunks else { return form("its footer has no digests") };
    let mut ranges: Vec<(u64, u64)> = groups.iter().flat_map(chunk_ranges).collect();
    ranges.sort_unstable();
    if !ranges.iter().eq(chunks.iter().map(|chunk| (chunk.offset, chunk.bytes)).collect::<Vec<_>>().iter()) {
        return form("the digests in its footer are not those of its chunks");
    }
    Ok(chunks)
}

fn rows_of(batch: &RecordBatch, at: u64) -> Result<Vec<DecodedRow>, DecodeError> {
    let column = |name: &str| COLUMNS.iter().position(|column| column.name == name).map(|index| batch.column(index));
    let missing = || DecodeError::Form("a column is missing".to_owned());
    let text = |name: &str| column(name).and_then(|array| array.as_string_opt::<i32>()).ok_or_else(missing);
    let number = |name: &str| column(name).and_then(|array| array.as_primitive_opt::<Int64Type>()).ok_or_else(missing);
    let hash = |name: &str| column(name).and_then(|array| array.as_fixed_size_binary_opt()).ok_or_else(missing);
    let (node_ids, generations) = (text("node_id")?, text("generation")?);
    let (seqs, eras, epochs) = (number("seq")?, number("era")?, number("epoch")?);
    let times = column("timestamp").and_then(|array| array.as_primitive_opt::<TimestampMicrosecondType>());
    let times = times.ok_or_else(missing)?;
    let (macs, leaves) = (hash("mac")?, hash("leaf")?);
    let bodies = column("body").and_then(|array| array.as_binary_opt::<i32>()).ok_or_else(missing)?;
    let mut rows: Vec<DecodedRow> = Vec::with_capacity(batch.num_rows());
    let mut again = BatchBuilder::new();
    for index in 0..batch.num_rows() {
        let bad = |reason| DecodeError::Row(at + index as u64, reason);
        let log = match rows.last() {
            Some(last)
                if last.log.node_id.as_str() == node_ids.value(index)
                    && last.log.generation.to_string() == generations.value(index) =>
            {
                last.log.clone()
            }
            _ => LogId {
                node_id: node_ids.value(index).parse().map_err(|_| bad("node_id is not the id of a node"))?,
                generation: generations.value(index).parse().map_err(|_| bad("generation is not a generation"))?,
            },
        };
        let hash_at = |array: &arrow_array::FixedSizeBinaryArray| {
            array.is_valid(index).then(|| array.value(index).try_into().ok()).flatten()
        };
        let content = match (bodies.is_valid(index), hash_at(macs), hash_at(leaves)) {
            (true, Some(mac), None) => {
                let body = bodies.value(index);
                if body.len() > BODY_AND_MAC_BYTES_MAX {
                    return Err(bad("the body is too long"));
                }
                let prefix = Prefix::parse(body).ok_or_else(|| bad("the body is not an entry"))?;
                let same = prefix.node_id == log.node_id.as_str()
                    && prefix.generation == generations.value(index)
                    && i64::try_from(prefix.seq) == Ok(seqs.value(index))
                    && i64::from(prefix.era) == eras.value(index)
                    && prefix.timestamp.micros() == times.value(index);
                if !same {
                    return Err(bad("its columns do not say what its body says"));
                }
                let epoch = epochs.is_valid(index).then(|| u32::try_from(epochs.value(index)).ok()).flatten();
                Content::Entry {
                    epoch: epoch.ok_or_else(|| bad("the epoch is missing"))?,
                    body: Bytes::copy_from_slice(body),
                    mac,
                }
            }
            (false, None, Some(leaf)) => Content::Erased { leaf },
            _ => return Err(bad("a row has either body and mac, or only a leaf")),
        };
        let row = ArchivedRow {
            seq: u64::try_from(seqs.value(index)).map_err(|_| bad("seq is negative"))?,
            era: u32::try_from(eras.value(index)).map_err(|_| bad("era is not a number of an era"))?,
            timestamp: Timestamp::from_micros(times.value(index)),
            content,
        };
        again.push(&log, &row).map_err(|error| DecodeError::Form(error.to_string()))?;
        rows.push(DecodedRow { log, row });
    }
    let again = again.finish().map_err(|error| DecodeError::Form(error.to_string()))?;
    let differing = (0..COLUMNS.len()).find(|index| again.column(*index) != batch.column(*index));
    match differing {
        Some(index) => {
            Err(DecodeError::Column { column: COLUMNS[index].name, from: at, to: at + batch.num_rows() as u64 })
        }
        None => Ok(rows),
    }
}
