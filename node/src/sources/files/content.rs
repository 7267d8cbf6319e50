//! Reads the lines of a plain or compressed file, and compares its current content with the data read earlier.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest as _, Sha256};

use super::family::Packing;
use crate::sources::record::RECORD_BYTES_MAX;

/// Number of bytes at the beginning of a file that are compared whenever the file has changed; [`TAIL_BYTES`] is the number of
/// bytes before the current offset that are compared as well.
const HEAD_BYTES: usize = 4 * 1024;
const TAIL_BYTES: usize = 64 * 1024;
/// Maximum bytes of a line. A longer line is split at this length, so that the same bytes are not read over and over while the
/// end of the line is missing.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;

/// State of reading a file, with enough of its content to recognize the file later.
#[derive(Clone)]
pub(super) struct Progress {
    pub(super) offset: u64,
    hash: Sha256,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Progress {
    pub(super) fn nothing() -> Self {
        Self { offset: 0, hash: Sha256::new(), head: Vec::new(), tail: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        self.hash.update(bytes);
        let room = HEAD_BYTES.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        if self.tail.len() > 2 * TAIL_BYTES {
            self.tail.drain(..self.tail.len() - TAIL_BYTES);
        }
    }

    /// SHA-256 of everything up to `offset`.
    pub(super) fn digest(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }

    /// Whether the file still begins with the content that was read from it. Compares the length, the first bytes and the last
    /// bytes that were read.
    pub(super) fn is_still_in(&self, file: &File) -> io::Result<bool> {
        use std::os::unix::fs::FileExt as _;
        if file.metadata()?.len() < self.offset {
            return Ok(false);
        }
        let tail = &self.tail[self.tail.len().saturating_sub(TAIL_BYTES)..];
        for (at, wanted) in [(0, self.head.as_slice()), (self.offset - tail.len() as u64, tail)] {
            let mut found = vec![0; wanted.len()];
            match file.read_exact_at(&mut found, at) {
                Ok(()) if found == wanted => {}
                Ok(()) => return Ok(false),
                // The file is being truncated at this moment.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// One line.
pub(super) enum Line {
    Whole(Vec<u8>),
    /// The beginning of a line that is longer than a record may be, and the length and SHA-256 of the whole line.
    Long {
        begin: Vec<u8>,
        bytes: u64,
        sha256: String,
    },
    /// The file ends here, and no line is unfinished.
    End,
    /// The file ends in the middle of a line.
    Unfinished,
}

/// A file that is open for reading at some offset.
pub(super) struct Content {
    input: Input,
    pub(super) read: Progress,
}

enum Input {
    Plain(BufReader<File>),
    Packed(Box<dyn BufRead + Send>),
}

impl Input {
    fn as_dyn(&mut self) -> &mut dyn BufRead {
        match self {
            Self::Plain(input) => input,
            Self::Packed(input) => input,
        }
    }
}

impl Content {
    /// Opens a file at its beginning.
    pub(super) fn open(file: File, packing: Packing) -> io::Result<Self> {
        let input = match packing {
            Packing::Plain => Input::Plain(BufReader::with_capacity(BUFFER_BYTES, file)),
            Packing::Gzip => Input::Packed(Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file))))),
            Packing::Zstd => Input::Packed(Box::new(BufReader::new(ZstdFrames::new(BufReader::new(file))))),
        };
        Ok(Self { input, read: Progress::nothing() })
    }

    /// Returns the file itself if it is not compressed.
    pub(super) fn plain(&self) -> Option<&File> {
        match &self.input {
            Input::Plain(input) => Some(input.get_ref()),
            Input::Packed(_) => None,
        }
    }

    fn input(&mut self) -> &mut dyn BufRead {
        self.input.as_dyn()
    }

    /// Advances to an offset; returns false if the file ends before the offset, or if `may_go_on` returns false.
    pub(super) fn advance(&mut self, offset: u64, may_go_on: &dyn Fn() -> bool) -> io::Result<bool> {
        while self.read.offset < offset {
            let left = usize::try_from(offset - self.read.offset).unwrap_or(usize::MAX);
            let Self { input, read } = self;
            let input = input.as_dyn();
            let buffer = input.fill_buf()?;
            if buffer.is_empty() || !may_go_on() {
                return Ok(false);
            }
            let taken = buffer.len().min(left);
            read.take(&buffer[..taken]);
            input.consume(taken);
        }
        Ok(true)
    }

    /// Reads the next line, including its line end. With `to_end`, trailing bytes without a line end count as a line.
    pub(super) fn next_line(&mut self, to_end: bool) -> io::Result<Line> {
        let begun = self.read.offset;
        let mut begin = Vec::new();
        // Set only for a line that is longer than a record may be: the state after the line, and the line's hash.
        let mut long: Option<(Progress, Sha256)> = None;
        let mut bytes: u64 = 0;
        let is_finished = loop {
            let most = usize::try_from(LINE_BYTES_MAX - bytes).unwrap_or(usize::MAX);
            let Self { input, read } = self;
            let input = input.as_dyn();
            let buffer = input.fill_buf()?;
            if buffer.is_empty() {
                break false;
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.map_or(buffer.len(), |end| end + 1).min(most)];
            if long.is_none() && begin.len() + part.len() > RECORD_BYTES_MAX {
                let mut after = read.clone();
                after.take(&begin);
                long = Some((after, Sha256::new_with_prefix(&begin)));
            }
            let room = RECORD_BYTES_MAX.saturating_sub(begin.len());
            begin.extend_from_slice(&part[..part.len().min(room)]);
            if let Some((after, hash)) = &mut long {
                after.take(part);
                // Hash the line without its line end, as people see it.
                hash.update(part.strip_suffix(b"\n").unwrap_or(part));
            }
            let (taken, is_end) = (part.len(), part.ends_with(b"\n"));
            bytes += taken as u64;
            input.consume(taken);
            if is_end || bytes >= LINE_BYTES_MAX {
                break is_end;
            }
        };
        if bytes == 0 {
            return Ok(Line::End);
        }
        if !is_finished && !to_end && bytes < LINE_BYTES_MAX {
            // Go back, so that the line is read again once more has been appended. Compressed files do not grow.
            if let Input::Plain(input) = &mut self.input {
                input.seek(SeekFrom::Start(begun))?;
            }
            return Ok(Line::Unfinished);
        }
        Ok(match long {
            None => {
                self.read.take(&begin);
                Line::Whole(begin)
            }
            Some((after, hash)) => {
                self.read = after;
                Line::Long { begin, bytes: bytes - u64::from(is_finished), sha256: hex::encode(hash.finalize()) }
            }
        })
    }
}

/// First bytes of files in the compressed formats that are supported (RFC 1952 section 2.3.1; RFC 8878 section 3.1.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Decompresses input that begins like gzip or Zstandard; other input is returned unchanged.
pub fn unpacked(mut input: Box<dyn BufRead + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let begin = input.fill_buf()?;
    if begin.starts_with(&GZIP_MAGIC) {
        Ok(Box::new(BufReader::new(MultiGzDecoder::new(input))))
    } else if begin.starts_with(&ZSTD_MAGIC) {
        Ok(Box::new(BufReader::new(ZstdFrames::new(input))))
    } else {
        Ok(input)
    }
}

/// Returns the number of lines in `part` if `whole` begins with the complete content of `part`, and `None` otherwise.
pub(super) fn is_beginning_of(
    part: &mut Content,
    whole: &mut Content,
    may_go_on: &dyn Fn() -> bool,
) -> io::Result<Option<u64>> {
    let mut lines = 0;
    loop {
        let left = part.input().fill_buf()?.to_vec();
        if left.is_empty() {
            return Ok(Some(lines));
        }
        let mut same = vec![0; left.len()];
        match whole.input().read_exact(&mut same) {
            Ok(()) if same == left && may_go_on() => {}
            Ok(()) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        lines += left.iter().filter(|byte| **byte == b'\n').count() as u64;
        part.input().consume(left.len());
    }
}

/// Returns the digest of the first line including its line end; `None` while there is no complete line. With `to_end`, a line
/// without a line end counts as complete.
pub(super) fn first_line(content: &mut Content, to_end: bool) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = content.input().take(RECORD_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    let is_whole = line.last() == Some(&b'\n') || read == RECORD_BYTES_MAX || to_end && read > 0;
    Ok(is_whole.then(|| digest(&line)))
}

pub(super) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Returns the offset of the end of the last complete line.
pub(super) fn end_of_lines(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::FileExt as _;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(RECORD_BYTES_MAX as u64);
    let mut tail = vec![0; usize::try_from(length - from).unwrap_or(0)];
    file.read_exact_at(&mut tail, from)?;
    Ok(tail.iter().rposition(|byte| *byte == b'\n').map_or(from, |at| from + at as u64 + 1))
}

/// Decodes consecutive Zstandard frames, as RFC 8878 section 3 allows; the library's own decoder reads only one frame.
struct ZstdFrames<R: BufRead> {
    source: R,
    frame: FrameDecoder,
    is_in_frame: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    fn new(source: R) -> Self {
        Self { source, frame: FrameDecoder::new(), is_in_frame: false }
    }

    /// Begins the next frame; returns false at the end of the input.
    fn begin_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.frame.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.source.by_ref().take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(invalid(&error)),
            }
        }
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_in_frame {
                if !self.begin_frame()? {
                    return Ok(0);
                }
                self.is_in_frame = true;
            }
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                self.frame
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| invalid(&error))?;
            }
            let read = self.frame.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.is_in_frame = false;
        }
    }
}

fn invalid(error: &FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("Zstandard: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(bytes: &[u8]) -> io::Result<Content> {
        let mut file = tempfile::tempfile()?;
        io::Write::write_all(&mut file, bytes)?;
        file.rewind()?;
        Content::open(file, Packing::Plain)
    }

    fn lines(content: &mut Content, to_end: bool) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        loop {
            match content.next_line(to_end)? {
                Line::Whole(line) => found.push(String::from_utf8_lossy(&line).into_owned()),
                Line::Long { begin, bytes, sha256 } => found.push(format!("{} {bytes} {sha256}", begin.len())),
                Line::End | Line::Unfinished => return Ok(found),
            }
        }
    }

    #[test]
    fn a_line_is_taken_when_it_is_whole() -> io::Result<()> {
        let mut content = content(b"one\ntwo\nthr")?;
        assert_eq!(lines(&mut content, false)?, ["one\n", "two\n"]);
        assert_eq!((content.read.offset, content.read.digest()), (8, digest(b"one\ntwo\n")));
        assert_eq!(lines(&mut content, true)?, ["thr"]);
        assert_eq!(content.read.digest(), digest(b"one\ntwo\nthr"));
        Ok(())
    }

    #[test]
    fn a_line_that_is_too_long_keeps_its_length_and_hash_and_costs_no_other() -> io::Result<()> {
        let long = "x".repeat(RECORD_BYTES_MAX + 70_000);
        let mut content = content(format!("one\n{long}\ntwo\n").as_bytes())?;
        let wanted = format!("{RECORD_BYTES_MAX} {} {}", long.len(), digest(long.as_bytes()));
        assert_eq!(lines(&mut content, false)?, ["one\n", &wanted, "two\n"]);
        assert_eq!(content.read.digest(), digest(format!("one\n{long}\ntwo\n").as_bytes()));
        Ok(())
    }

    #[test]
    fn packed_files_are_read_with_all_their_parts() -> io::Result<()> {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        let mut gzip = Vec::new();
        for part in ["one\n", "two\n"] {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            io::Write::write_all(&mut encoder, part.as_bytes())?;
            gzip.extend(encoder.finish()?);
        }
        let frame = |part: &str| compress_to_vec(part.as_bytes(), CompressionLevel::Fastest);
        // A skippable frame (RFC 8878 section 3.1.2) between two others.
        let skipped = [&0x184d_2a50_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc"].concat();
        let zstd = [frame("one\n"), skipped, frame("two\n")].concat();
        for (packed, packing) in [(gzip, Packing::Gzip), (zstd, Packing::Zstd)] {
            let open = |bytes: &[u8]| {
                let mut file = tempfile::tempfile()?;
                io::Write::write_all(&mut file, bytes)?;
                file.rewind()?;
                Content::open(file, packing)
            };
            assert_eq!(lines(&mut open(&packed)?, true)?, ["one\n", "two\n"]);
            assert!(lines(&mut open(&packed[..packed.len() - 2])?, true).is_err(), "cut off");
            assert!(lines(&mut open(b"no such format")?, true).is_err());
            let mut content = open(&packed)?;
            assert!(content.advance(4, &|| true)?);
            assert_eq!(lines(&mut content, true)?, ["two\n"]);
        }
        Ok(())
    }

    #[test]
    fn a_file_is_known_by_what_was_read_of_it() -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        let text: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
        let mut read = content(text.as_bytes())?;
        lines(&mut read, false)?;
        let still_in = |content: &Content| content.read.is_still_in(content.plain().expect("a plain file"));
        assert!(still_in(&read)?);
        let file = read.plain().expect("a plain file").try_clone()?;
        let end = file.metadata()?.len();
        file.write_all_at(b"more\n", end)?;
        assert!(still_in(&read)?);
        file.write_all_at(b"L", end - 10)?;
        assert!(!still_in(&read)?, "another end");
        file.write_all_at(&text.as_bytes()[text.len() - 10..], end - 10)?;
        assert!(still_in(&read)?);
        file.write_all_at(b"L", 0)?;
        assert!(!still_in(&read)?, "another beginning");
        file.set_len(10)?;
        assert!(!still_in(&read)?, "shorter");
        Ok(())
    }
}
