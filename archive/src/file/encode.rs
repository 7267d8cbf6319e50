//! Writes a file of rows to a local file, from where it is uploaded.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use arrow_schema::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, RowGroupMetaData};
use parquet::file::properties::{BloomFilterPosition, EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use piperoll_format::digest::sha256;
use piperoll_format::merkle::{Hash, TILE_WIDTH};
use serde::{Deserialize, Serialize};

use super::batch::BatchBuilder;
use super::schema::{COLUMNS, Form, schema};
use super::traits::Traits;
use crate::record::{Digest, PlannedFile, digest_of};
use crate::row::{ArchivedRow, Day, LogId};

/// Maximum size of a file.
pub const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Size at which a file is ended. The last batch and the tail fit into the difference.
const FILE_BYTES_TARGET: usize = 80 * 1024 * 1024;
/// Rows of a row group, and bytes of rows after which a row group ends earlier. The second limit bounds the writer's memory.
const ROW_GROUP_ROWS: usize = 65_536;
const ROW_GROUP_BYTES: usize = 64 * 1024 * 1024;
/// Rows of a page: one level-0 tile of a log's tree, so that a row is verified with one or two ranged reads.
const PAGE_ROWS: usize = TILE_WIDTH as usize;
/// Rows that are turned into columns at once, and bytes of rows after which fewer are. A multiple of a page's rows.
const BATCH_ROWS: usize = 16 * PAGE_ROWS;
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Values of a row group for which a Bloom filter is dimensioned, and its rate of false positives.
const BLOOM_VALUES_MAX: u64 = ROW_GROUP_ROWS as u64;
const BLOOM_FALSE_POSITIVES: f64 = 0.01;
const ZSTD_LEVEL: i32 = 3;

/// Key of the footer entry with the digests of the column chunks and Bloom filters.
pub(super) const CHUNKS_KEY: &str = "piperoll.chunks";
/// Key of the footer entry with the traits of the row groups: a JSON list with one object for each row group.
pub(super) const TRAITS_KEY: &str = "piperoll.groups";
/// Key and value of the footer entry that names the format.
pub(super) const FORMAT_KEY: &str = "piperoll.format";
pub(super) const FORMAT: &str = "piperoll archive file v1";

/// A column chunk or Bloom filter: its bytes in the file, and their digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: Digest,
}

/// Reasons why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("cannot write a file of rows: {0}")]
    Parquet(#[from] ParquetError),
    #[error("cannot write a file of rows: {0}")]
    Arrow(#[from] ArrowError),
    #[error("cannot write a file of rows to the local disk: {0}")]
    Io(#[from] io::Error),
    #[error("a file of rows has {0} bytes; at most {FILE_BYTES_MAX} are allowed")]
    TooLarge(u64),
}

/// Writer of one file. All rows must have the same day.
pub struct FileEncoder {
    day: Day,
    path: PathBuf,
    file: File,
    writer: ArrowWriter<File>,
    batch: BatchBuilder,
    group_rows: usize,
    group_bytes: usize,
    chunks: Vec<Chunk>,
    /// Traits of the current row group, and of those before it.
    traits: Traits,
    of_groups: Vec<Traits>,
    rows: u64,
    first: Option<(LogId, u64)>,
    sum: Sum,
}

/// A file that is ready to be uploaded.
#[derive(Debug)]
pub struct EncodedFile {
    /// Name, size and digests, as plans have them.
    pub planned: PlannedFile,
    pub rows: u64,
    path: PathBuf,
}

/// Removes the local file.
impl Drop for EncodedFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Digest of the rows of a file: over the leaf and the erased flag of each of them.
#[derive(Debug, Default)]
pub(crate) struct Sum(Vec<u8>);

impl Sum {
    pub(crate) fn add(&mut self, leaf: &Hash, is_erased: bool) {
        self.0.extend_from_slice(leaf);
        self.0.push(u8::from(is_erased));
    }

    /// Adds the rows of another sum after those of this one.
    pub(crate) fn append(&mut self, next: &Self) {
        self.0.extend_from_slice(&next.0);
    }

    pub(crate) fn finish(&self) -> Digest {
        digest_of(&self.0)
    }
}

fn properties() -> Result<WriterProperties, ParquetError> {
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_bloom_filter_position(BloomFilterPosition::AfterRowGroup);
    for column in &COLUMNS {
        let path = ColumnPath::from(column.name);
        if column.bloom {
            builder = builder
                .set_column_bloom_filter_enabled(path.clone(), true)
                .set_column_bloom_filter_fpp(path.clone(), BLOOM_FALSE_POSITIVES)
                .set_column_bloom_filter_max_ndv(path.clone(), BLOOM_VALUES_MAX);
        }
        let is_unique =
            matches!(column.form, Form::Hash | Form::Bytes) || matches!(column.name, "id" | "details" | "changes");
        if is_unique {
            // Statistics of long binary values make files that some readers refuse, and a dictionary of unique values is useless.
            builder = builder.set_column_dictionary_enabled(path.clone(), false);
            builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
        }
        match column.form {
            Form::Hash => builder = builder.set_column_compression(path, Compression::UNCOMPRESSED),
            Form::Number | Form::Time => {
                builder = builder
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
            Form::Text | Form::Bytes => {}
        }
    }
    Ok(builder.build())
}

impl FileEncoder {
    /// Begins a file in the local file `path`, which must not exist.
    ///
    /// # Errors
    /// Fails if the local file cannot be created.
    pub fn new(day: Day, path: &Path) -> Result<Self, EncodeError> {
        let file = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(path)?;
        let mut writer = ArrowWriter::try_new(file.try_clone()?, schema(), Some(properties()?))?;
        writer.append_key_value_metadata(KeyValue::new(FORMAT_KEY.to_owned(), FORMAT.to_owned()));
        Ok(Self {
            day,
            path: path.to_owned(),
            file,
            writer,
            batch: BatchBuilder::new(),
            group_rows: 0,
            group_bytes: 0,
            chunks: Vec::new(),
            traits: Traits::default(),
            of_groups: Vec::new(),
            rows: 0,
            first: None,
            sum: Sum::default(),
        })
    }

    /// Whether the file has reached its size, so that the next row begins another one.
    pub fn is_full(&self) -> bool {
        self.batch.rows() == 0 && self.writer.bytes_written() + self.writer.in_progress_size() >= FILE_BYTES_TARGET
    }

    /// Adds the next row.
    ///
    /// # Errors
    /// Fails if the local disk is full.
    pub fn push(&mut self, log: &LogId, row: &ArchivedRow) -> Result<(), EncodeError> {
        self.first.get_or_insert_with(|| (log.clone(), row.seq));
        self.sum.add(&row.leaf(), row.is_erased());
        self.rows += 1;
        self.traits.join(self.batch.push(log, row)?);
        let is_whole = self.batch.rows().is_multiple_of(PAGE_ROWS);
        if is_whole && (self.batch.rows() >= BATCH_ROWS || self.batch.bytes() >= BATCH_BYTES) {
            self.write_batch()?;
        }
        Ok(())
    }

    fn write_batch(&mut self) -> Result<(), EncodeError> {
        if self.batch.rows() == 0 {
            return Ok(());
        }
        self.group_rows += self.batch.rows();
        self.group_bytes += self.batch.bytes();
        let batch = self.batch.finish()?;
        self.writer.write(&batch)?;
        if self.group_rows >= ROW_GROUP_ROWS || self.group_bytes >= ROW_GROUP_BYTES {
            self.end_row_group()?;
        }
        Ok(())
    }

    /// Ends the row group, and computes the digests of its chunks.
    fn end_row_group(&mut self) -> Result<(), EncodeError> {
        self.writer.flush()?;
        self.writer.sync()?;
        (self.group_rows, self.group_bytes) = (0, 0);
        // The writer may have divided the rows into more than one row group.
        self.of_groups.resize(self.writer.flushed_row_groups().len(), std::mem::take(&mut self.traits));
        let known = self.chunks.last().map_or(0, |chunk| chunk.offset + chunk.bytes);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for group in self.writer.flushed_row_groups() {
            ranges.extend(chunk_ranges(group).into_iter().filter(|(offset, _)| *offset >= known));
        }
        ranges.sort_unstable();
        for (offset, bytes) in ranges {
            let sha256 = digest_of(&read_at(&self.file, offset, bytes)?);
            self.chunks.push(Chunk { offset, bytes, sha256 });
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Fails if the local disk is full, or if the file is larger than an object may be.
    pub fn finish(mut self) -> Result<EncodedFile, EncodeError> {
        self.write_batch()?;
        if self.group_rows > 0 {
            self.end_row_group()?;
        }
        let chunks = serde_json::to_string(&self.chunks).unwrap_or_default();
        self.writer.append_key_value_metadata(KeyValue::new(CHUNKS_KEY.to_owned(), chunks));
        let traits = serde_json::to_string(&self.of_groups).unwrap_or_default();
        self.writer.append_key_value_metadata(KeyValue::new(TRAITS_KEY.to_owned(), traits));
        self.writer.close()?;
        let bytes = self.file.metadata()?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(EncodeError::TooLarge(bytes));
        }
        let tail_offset = self.chunks.iter().map(|chunk| chunk.offset + chunk.bytes).max().unwrap_or_default();
        let whole = read_at(&self.file, 0, bytes)?;
        let tail = &whole[usize::try_from(tail_offset).unwrap_or(whole.len()).min(whole.len())..];
        let (sha256, tail_sha256) = (digest_of(&whole), Digest(sha256([tail])));
        let (log, seq) = self.first.ok_or_else(|| io::Error::other("it has no rows"))?;
        let name = crate::record::names::data(self.day, &log, seq, self.rows, &self.sum.finish());
        let planned = PlannedFile { name, bytes, sha256, tail_offset, tail_sha256 };
        Ok(EncodedFile { planned, rows: self.rows, path: self.path })
    }
}

impl EncodedFile {
    /// Reads the file's bytes.
    ///
    /// # Errors
    /// Fails if the local disk does.
    pub fn read(&self) -> io::Result<Bytes> {
        // Opened only now: a step may have more files than a process may have open.
        read_at(&File::open(&self.path)?, 0, self.planned.bytes).map(Bytes::from)
    }
}

/// Bytes of the column chunks and Bloom filters of a row group.
pub(super) fn chunk_ranges(group: &RowGroupMetaData) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    for column in group.columns() {
        ranges.push(column.byte_range());
        if let (Some(offset), Some(bytes)) = (column.bloom_filter_offset(), column.bloom_filter_length()) {
            ranges.push((u64::try_from(offset).unwrap_or_default(), u64::try_from(bytes).unwrap_or_default()));
        }
    }
    ranges
}

fn read_at(file: &File, offset: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut buffer, offset)?;
    Ok(buffer)
}
