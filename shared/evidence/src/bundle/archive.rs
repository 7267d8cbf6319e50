//! The container of a bundle: a POSIX ustar archive in exactly one form. Times, owners and modes are fixed, no bytes are allowed
//! between the members or after the end, and the reader accepts only headers that the writer would have written.

use tar::{EntryType, Header};

const BLOCK_BYTES: usize = 512;
/// Two zero-filled blocks, which end an archive (POSIX.1-2017, pax, "ustar Interchange Format").
const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// Reason why a file is not a bundle's archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    #[error("the file is not an archive written by Piperoll (byte {0})")]
    Header(usize),
    #[error("the archive ends inside a member (byte {0})")]
    Short(usize),
    #[error("the archive has extra bytes after its end (byte {0})")]
    Trailing(usize),
}

/// One file of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    pub name: &'a str,
    pub bytes: &'a [u8],
}

/// Returns the header block of a member, or `None` if the name is too long for it (100 bytes).
pub fn member_header(name: &str, bytes: u64) -> Option<[u8; BLOCK_BYTES]> {
    let mut header = Header::new_ustar();
    header.set_path(name).ok()?;
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    Some(*header.as_bytes())
}

/// Returns the zero bytes that pad a member to a whole number of blocks.
pub fn member_padding(bytes: u64) -> &'static [u8] {
    let over = usize::try_from(bytes % BLOCK_BYTES as u64).unwrap_or_default();
    &END[..(BLOCK_BYTES - over) % BLOCK_BYTES]
}

pub fn write_end(out: &mut Vec<u8>) {
    out.extend_from_slice(&END);
}

/// Reads the members one by one. If the iteration ends without an error, the archive is valid to its last byte.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    archive: &'a [u8],
    at: usize,
    ended: bool,
}

impl<'a> Members<'a> {
    pub fn new(archive: &'a [u8]) -> Self {
        Self { archive, at: 0, ended: false }
    }

    fn read(&mut self) -> Result<Option<Member<'a>>, ArchiveError> {
        let at = self.at;
        let rest = &self.archive[at..];
        if rest == END {
            return Ok(None);
        }
        if rest.starts_with(&END) {
            return Err(ArchiveError::Trailing(at + END.len()));
        }
        let block = rest.first_chunk::<BLOCK_BYTES>().ok_or(ArchiveError::Short(at))?;
        let header = Header::from_byte_slice(block);
        let bytes = header.entry_size().map_err(|_| ArchiveError::Header(at))?;
        let name_end = block[..100].iter().position(|byte| *byte == 0).unwrap_or(100);
        let name = std::str::from_utf8(&block[..name_end]).map_err(|_| ArchiveError::Header(at))?;
        if member_header(name, bytes).as_ref() != Some(block) {
            return Err(ArchiveError::Header(at));
        }
        let name = std::str::from_utf8(&rest[..name_end]).unwrap_or_default();
        let bytes = usize::try_from(bytes).map_err(|_| ArchiveError::Short(at))?;
        let content = rest[BLOCK_BYTES..].get(..bytes).ok_or(ArchiveError::Short(at))?;
        let padding = member_padding(bytes as u64);
        if !rest[BLOCK_BYTES + bytes..].starts_with(padding) {
            return Err(ArchiveError::Short(at + BLOCK_BYTES + bytes));
        }
        self.at += BLOCK_BYTES + bytes + padding.len();
        Ok(Some(Member { name, bytes: content }))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<Member<'a>, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let member = self.read().transpose();
        self.ended = !matches!(member, Some(Ok(_)));
        member
    }
}
