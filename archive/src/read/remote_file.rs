//! Parts of a file of rows, read and verified without reading the whole file.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use bytes::{Buf as _, Bytes};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMask, PageIndexPolicy, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};

use super::catalog::CatalogFile;
use super::error::ReadError;
use crate::file::{COLUMNS, Chunk, Traits, chunks_of, traits_of};
use crate::record::digest_of;
use crate::store::Store;

/// Maximum size of a file's tail. That of the largest file has about 4 MiB.
const TAIL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Columns of which single pages are read: those that make up a row. Their values are compared with the log's tree.
pub(super) const ROW_COLUMNS: [&str; 6] = ["era", "epoch", "timestamp", "mac", "leaf", "body"];

/// Maximum size of a Bloom filter that is read, as a multiple of its column's size. A filter is kept, and costs less than decoding the values.
const BLOOM_RATIO_MAX: u64 = 8;

/// Position of a column in the schema.
pub(super) fn column_index(name: &str) -> usize {
    COLUMNS.iter().position(|column| column.name == name).unwrap_or(COLUMNS.len())
}

/// Footer of a file, compared with the digest in its step.
pub(super) struct FileMeta {
    pub(super) file: Arc<CatalogFile>,
    meta: ArrowReaderMetadata,
    chunks: Vec<Chunk>,
    /// Number of the first row of each row group.
    firsts: Vec<u64>,
    /// Traits of each row group.
    traits: Vec<Traits>,
}

impl FileMeta {
    /// Reads the footer of a file.
    pub(super) async fn read(store: &Store, file: &Arc<CatalogFile>) -> Result<Self, ReadError> {
        let bytes_max = (file.bytes.saturating_sub(file.tail_offset)).min(TAIL_BYTES_MAX);
        let tail = store.read_tail(&file.name, file.tail_offset, bytes_max).await?;
        if tail.len() as u64 != file.bytes - file.tail_offset || digest_of(&tail) != file.tail_sha256 {
            return Err(ReadError::changed(&file.name, "its tail does not match the digest in its step"));
        }
        Self::parse(file, &tail)
    }

    fn parse(file: &Arc<CatalogFile>, tail: &Bytes) -> Result<Self, ReadError> {
        let form = |error: &dyn std::fmt::Display| ReadError::changed(&file.name, error);
        let mut reader = ParquetMetaDataReader::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Required)
            .with_offset_index_mask(ColumnChunkMask::columns(ROW_COLUMNS.map(column_index)));
        reader.try_parse_sized(tail, file.bytes).map_err(|error| form(&error))?;
        let metadata = reader.finish().map_err(|error| form(&error))?;
        let meta = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new());
        let meta = meta.map_err(|error| form(&error))?;
        let chunks = chunks_of(meta.schema(), meta.metadata()).map_err(|error| form(&error))?;
        let traits = traits_of(meta.metadata()).map_err(|error| form(&error))?;
        let mut firsts = Vec::new();
        let mut next = 0;
        for group in meta.metadata().row_groups() {
            firsts.push(next);
            next += u64::try_from(group.num_rows()).unwrap_or_default();
        }
        Ok(Self { file: Arc::clone(file), meta, chunks, firsts, traits })
    }

    fn changed(&self, reason: &dyn std::fmt::Display) -> ReadError {
        ReadError::changed(&self.file.name, reason)
    }

    /// Row groups with some of the rows, each with its rows, counted from the beginning of the group.
    pub(super) fn groups(&self, rows: Range<u64>) -> Vec<(usize, Range<u64>)> {
        let groups = self.meta.metadata().row_groups().iter().zip(&self.firsts).enumerate();
        let parts = groups.filter_map(|(index, (group, first))| {
            let end = first + u64::try_from(group.num_rows()).ok()?;
            let part = rows.start.max(*first)..rows.end.min(end);
            (part.start < part.end).then(|| (index, part.start - first..part.end - first))
        });
        parts.collect()
    }

    /// Number of the first row of a row group.
    pub(super) fn first_of(&self, group: usize) -> u64 {
        self.firsts.get(group).copied().unwrap_or_default()
    }

    pub(super) fn group(&self, group: usize) -> &RowGroupMetaData {
        self.meta.metadata().row_group(group)
    }

    /// Properties that entries of a row group may have.
    pub(super) fn traits(&self, group: usize) -> Traits {
        self.traits.get(group).copied().unwrap_or(Traits::UNKNOWN)
    }

    /// Whether a row group may have rows without columns, which are erased or have a body that cannot be parsed: those have no `via`.
    pub(super) fn has_odd_rows(&self, group: usize) -> bool {
        let statistics = self.group(group).column(column_index("via")).statistics();
        statistics.and_then(|statistics| statistics.null_count_opt()) != Some(0)
    }

    /// Average size of a body in a row group, in bytes.
    pub(super) fn body_bytes(&self, group: usize) -> u64 {
        let group = self.group(group);
        let bytes = u64::try_from(group.column(column_index("body")).uncompressed_size()).unwrap_or_default();
        bytes / u64::try_from(group.num_rows()).unwrap_or(1).max(1)
    }

    /// Reads whole columns of a row group. Each of them is compared with its digest.
    pub(super) async fn columns(
        &self,
        store: &Store,
        group: usize,
        names: &[&'static str],
    ) -> Result<GroupColumns, ReadError> {
        let of_group = self.group(group);
        let chunks: Vec<(u64, u64)> =
            names.iter().map(|name| of_group.column(column_index(name)).byte_range()).collect();
        let parts = self.verified_chunks(store, &chunks).await?;
        Ok(GroupColumns { parts, names: names.to_vec() })
    }

    /// Offset and size of the Bloom filter of a column, if the row group has one that is not much larger than the column.
    pub(super) fn bloom_range(&self, group: usize, name: &str) -> Option<(u64, u64)> {
        let column = self.group(group).column(column_index(name));
        let range = column.bloom_filter_offset().zip(column.bloom_filter_length());
        let range = range.and_then(|(offset, bytes)| Some((u64::try_from(offset).ok()?, u64::try_from(bytes).ok()?)));
        range.filter(|(_, bytes)| *bytes <= column.byte_range().1.saturating_mul(BLOOM_RATIO_MAX))
    }

    /// Reads the Bloom filter of a column, which is at `range`.
    pub(super) async fn bloom(
        &self,
        store: &Store,
        group: usize,
        name: &str,
        range: (u64, u64),
    ) -> Result<Option<Sbbf>, ReadError> {
        let column = self.group(group).column(column_index(name));
        let parts = self.verified_chunks(store, &[range]).await?;
        let reader = SparseFile::new(self.file.bytes, parts);
        Sbbf::read_from_column_chunk(column, &reader).map_err(|error| self.changed(&error))
    }

    async fn verified_chunks(&self, store: &Store, chunks: &[(u64, u64)]) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let ranges: Vec<Range<u64>> = chunks.iter().map(|(offset, bytes)| *offset..offset + bytes).collect();
        let parts = store.read_ranges(&self.file.name, &ranges).await?;
        for ((offset, bytes), part) in chunks.iter().zip(&parts) {
            let known = self.chunks.binary_search_by_key(offset, |chunk| chunk.offset).map(|at| &self.chunks[at]);
            if known.is_ok_and(|known| known.bytes == *bytes && known.sha256 == digest_of(part)) {
                continue;
            }
            let end = offset + bytes;
            return Err(self.changed(&format!("its bytes {offset}..{end} do not match the digest in its footer")));
        }
        Ok(chunks.iter().map(|(offset, _)| *offset).zip(parts).collect())
    }

    /// Decodes columns that [`Self::columns`] read, for some rows of the row group.
    pub(super) fn decode(
        &self,
        group: usize,
        columns: GroupColumns,
        rows: Range<u64>,
    ) -> Result<Vec<RecordBatch>, ReadError> {
        let GroupColumns { parts, names } = columns;
        let selection = self.selection(group, &[rows]);
        self.batches(group, parts, &names, selection)
    }

    /// Reads the columns of [`ROW_COLUMNS`] for some rows of a row group. Their pages are not compared with a digest: the caller
    /// compares the rows with the tree of their log.
    pub(super) async fn pages(
        &self,
        store: &Store,
        group: usize,
        rows: &[Range<u64>],
    ) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let index = self.meta.metadata().page_index_for_row_group(group);
        let mut ranges = Vec::new();
        for name in ROW_COLUMNS {
            let at = column_index(name);
            let locations = index.page_locations(at).ok_or_else(|| self.changed(&"its page index is missing"))?;
            let (begin, _) = self.group(group).column(at).byte_range();
            let first = locations.first().and_then(|page| u64::try_from(page.offset).ok());
            if let Some(first) = first.filter(|first| *first > begin) {
                // A dictionary comes before the pages.
                ranges.push(begin..first);
            }
            for (place, page) in locations.iter().enumerate() {
                let next =
                    locations.get(place + 1).map_or(u64::MAX, |next| u64::try_from(next.first_row_index).unwrap_or(0));
                let from = u64::try_from(page.first_row_index).unwrap_or_default();
                if rows.iter().any(|rows| rows.start < next && from < rows.end) {
                    let offset = u64::try_from(page.offset).unwrap_or_default();
                    let bytes = u64::try_from(page.compressed_page_size).unwrap_or_default();
                    ranges.push(offset..offset.saturating_add(bytes));
                }
            }
        }
        if ranges.iter().any(|range| range.end > self.file.tail_offset) {
            return Err(self.changed(&"its page index names bytes outside of its columns"));
        }
        let parts = store.read_ranges(&self.file.name, &ranges).await?;
        // The pages are not compared with a digest, so nothing in them may decide how much memory is used.
        let columns = ROW_COLUMNS.map(|name| self.group(group).column(column_index(name)));
        let bytes_max = columns.iter().map(|column| column.uncompressed_size()).max().unwrap_or(0);
        let bytes_max = u64::try_from(bytes_max).unwrap_or(0);
        if parts.iter().any(|page| page_bytes(page).is_none_or(|bytes| bytes > bytes_max)) {
            return Err(self.changed(&"a page is larger than its column"));
        }
        Ok(ranges.into_iter().map(|range| range.start).zip(parts).collect())
    }

    /// Decodes rows whose pages [`Self::pages`] read.
    pub(super) fn decode_rows(
        &self,
        group: usize,
        parts: Vec<(u64, Bytes)>,
        rows: &[Range<u64>],
    ) -> Result<Vec<RecordBatch>, ReadError> {
        self.batches(group, parts, &ROW_COLUMNS, self.selection(group, rows))
    }

    fn selection(&self, group: usize, rows: &[Range<u64>]) -> RowSelection {
        let total = usize::try_from(self.group(group).num_rows()).unwrap_or_default();
        let place = |at: u64| usize::try_from(at).unwrap_or(total).min(total);
        let ranges = rows.iter().map(|rows| place(rows.start)..place(rows.end));
        RowSelection::from_consecutive_ranges(ranges, total)
    }

    fn batches(
        &self,
        group: usize,
        parts: Vec<(u64, Bytes)>,
        names: &[&'static str],
        selection: RowSelection,
    ) -> Result<Vec<RecordBatch>, ReadError> {
        let rows = usize::try_from(self.group(group).num_rows()).unwrap_or_default();
        let reader = SparseFile::new(self.file.bytes, parts);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(reader, self.meta.clone());
        let mask = ProjectionMask::leaves(builder.parquet_schema(), names.iter().map(|name| column_index(name)));
        let builder = builder.with_row_groups(vec![group]).with_projection(mask).with_batch_size(rows.max(1));
        let reader = builder.with_row_selection(selection).build().map_err(|error| self.changed(&error))?;
        reader.map(|batch| batch.map_err(|error| self.changed(&error))).collect()
    }
}

/// Size of a page after decompression, according to its header; `None` if the header has another form. The header is a Thrift structure in
/// compact protocol (Parquet format, `PageHeader`): field 1, the type, and field 2, the size, are the first two fields.
fn page_bytes(page: &[u8]) -> Option<u64> {
    /// A field whose number is one more than that of the field before it, with a value of 32 bits.
    const NEXT_I32: u8 = 0x15;
    let mut rest = page.iter();
    let mut field = || {
        if rest.next() != Some(&NEXT_I32) {
            return None;
        }
        let mut value: u64 = 0;
        for shift in (0..35).step_by(7) {
            let byte = rest.next()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    };
    field()?;
    let zigzag = field()?;
    // A negative size is refused.
    (zigzag % 2 == 0).then_some(zigzag / 2)
}

/// Whole columns of a row group, not yet decoded.
pub(super) struct GroupColumns {
    parts: Vec<(u64, Bytes)>,
    names: Vec<&'static str>,
}

/// Parts of a file, sorted by offset.
struct SparseFile {
    bytes: u64,
    parts: Vec<(u64, Bytes)>,
}

impl SparseFile {
    fn new(bytes: u64, mut parts: Vec<(u64, Bytes)>) -> Self {
        parts.sort_by_key(|(offset, _)| *offset);
        Self { bytes, parts }
    }

    /// The bytes from `start` to the end of the part that contains it.
    fn part(&self, start: u64) -> Result<Bytes, ParquetError> {
        let before = self.parts.partition_point(|(offset, _)| *offset <= start);
        let part = before.checked_sub(1).and_then(|index| {
            let (offset, bytes) = &self.parts[index];
            let at = usize::try_from(start - offset).ok()?;
            (at < bytes.len()).then(|| bytes.slice(at..))
        });
        part.ok_or_else(|| ParquetError::General(format!("offset {start} was not read")))
    }
}

impl Length for SparseFile {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for SparseFile {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.part(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let part = self.part(start)?;
        if part.len() < length {
            return Err(ParquetError::EOF(format!("offset {start} has only {} of {length} bytes", part.len())));
        }
        Ok(part.slice(..length))
    }
}
