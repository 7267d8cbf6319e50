//! Assembles a bundle from the nodes' rows: readable copies, manifest, archive.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::Path;

use piperoll_evidence::bundle::{
    self, BundleRequest, EarlierPart, Manifest, MemberDigest, NodePart, REPORT_ROWS_MAX, Rows, StoredEntry, csv_line,
    manifest_note, member_header, member_padding, timeline_line,
};
use piperoll_evidence::csv;
use piperoll_format::merkle::encode_hash;
use piperoll_format::order::Order;
use piperoll_format::time::Timestamp;
use piperoll_protocol::aggregator::NodeReport;

use super::collect::Collected;
use super::gathered::Proven;
use super::signer::Exporter;
use super::spool::{Piece, SpoolRows};
use crate::answer::merge::Merge;
use crate::scan::verified_row::BorderRow;

/// Manifest fields that are not computed in this module.
pub(super) struct Heading {
    pub(super) asked: BundleRequest,
    pub(super) created: Timestamp,
    pub(super) complete: bool,
}

/// Assembles the archive in an unnamed file. In `nodes`, the current log of a node comes before its archived logs;
/// `reports` contains the report of every node.
pub(super) fn assemble(
    exporter: &Exporter,
    mut nodes: Vec<Vec<Collected>>,
    reports: Vec<NodeReport>,
    heading: Heading,
) -> io::Result<(File, Manifest)> {
    let dir = exporter.dir.as_path();
    let mut pieces = Vec::new();
    let mut parts = Vec::new();
    for (logs, report) in nodes.iter_mut().zip(reports) {
        let id = report.node_id.clone();
        let mut earlier = Vec::new();
        for (at, log) in logs.iter_mut().enumerate() {
            let rows = log.rows();
            let Some(proven) = &mut log.proven else { continue };
            let names = match at {
                0 => [bundle::checkpoint_name(&id), bundle::entries_name(&id), bundle::proof_name(&id)],
                _ => {
                    earlier.push(EarlierPart {
                        generation: proven.pinned.generation.to_string(),
                        size: proven.pinned.size,
                        rows,
                        borders: proven.rows.borders.len() as u64,
                    });
                    bundle::earlier_names(&id, earlier.len())
                }
            };
            pieces.extend(pieces_of(dir, names, proven)?);
        }
        let mut rejected = 0;
        let mut piece = Piece::new(dir, bundle::rejected_name(&id))?;
        for spool in logs.iter_mut().filter_map(|log| log.rejected.as_mut()) {
            spool.copy_to(&mut piece)?;
            rejected += spool.rows;
        }
        if rejected > 0 {
            pieces.push(piece);
        }
        if let Some(present) = logs.first() {
            parts.push(part(present, report, earlier, rejected));
        }
    }
    let mut nodes: Vec<Collected> = nodes.into_iter().flatten().collect();
    let mut first = Vec::new();
    let (timeline, csv_copy) = readable(dir, &mut nodes, &mut first)?;
    pieces.extend([timeline, csv_copy]);
    let mut manifest = Manifest {
        cluster: exporter.cluster.clone(),
        exporter: exporter.key.public().name().to_owned(),
        tool: format!("piperoll {}", env!("CARGO_PKG_VERSION")),
        created: heading.created,
        asked: heading.asked,
        complete: heading.complete,
        rows: nodes.iter().map(Collected::rows).sum(),
        nodes: parts,
        members: Vec::new(),
    };
    let shown: Vec<StoredEntry<'_>> = first.iter().filter_map(|row| Rows::new(row).next()?.ok()).collect();
    pieces.push(text_piece(dir, bundle::REPORT.to_owned(), &bundle::report(&manifest, &shown))?);
    pieces.push(text_piece(dir, bundle::TRUST.to_owned(), &exporter.trust)?);
    pieces.push(text_piece(dir, bundle::README.to_owned(), bundle::README_TEXT)?);
    manifest.members = pieces.iter().map(Piece::digest).collect();
    let note = manifest_note(&manifest, &exporter.key).map_err(|error| io::Error::other(error.to_string()))?;
    Ok((archive(dir, &note, pieces)?, manifest))
}

fn part(present: &Collected, report: NodeReport, earlier: Vec<EarlierPart>, rejected: u64) -> NodePart {
    let proven = present.proven.as_ref();
    NodePart {
        node_id: report.node_id,
        status: report.status.as_str().to_owned(),
        reason: report.reason,
        verdict: report.verdict.to_string(),
        generation: proven.map(|proven| proven.pinned.generation.to_string()),
        size: proven.map(|proven| proven.pinned.size),
        rows: present.rows(),
        borders: proven.map_or(0, |proven| proven.rows.borders.len() as u64),
        earlier,
        rejected,
        erased: report.erased.filter(|erased| *erased > 0),
    }
}

fn text_piece(dir: &Path, name: String, text: &str) -> io::Result<Piece> {
    let mut piece = Piece::new(dir, name)?;
    piece.write_all(text.as_bytes())?;
    Ok(piece)
}

/// Creates the archive members of one log: checkpoint, entries and proof.
fn pieces_of(dir: &Path, [checkpoint, rows, proof]: [String; 3], proven: &mut Proven) -> io::Result<[Piece; 3]> {
    let hashes: String = proven.proof.iter().map(|hash| encode_hash(hash) + "\n").collect();
    Ok([
        text_piece(dir, checkpoint, &proven.pinned.note)?,
        entries(dir, rows, proven)?,
        text_piece(dir, proof, &hashes)?,
    ])
}

/// Writes all rows of a log in ascending `seq`, with the border rows in their positions.
fn entries(dir: &Path, name: String, proven: &mut Proven) -> io::Result<Piece> {
    let mut piece = Piece::new(dir, name)?;
    let mut borders = proven.rows.borders.iter().peekable();
    for spool in proven.rows.eras.values_mut() {
        let mut rows = SpoolRows::new(spool)?;
        while rows.advance()? {
            let seq = rows.current().map_or(0, |row| row.seq());
            while let Some(border) = borders.next_if(|border| border.seq < seq) {
                write_border(&mut piece, border)?;
            }
            piece.write_all(rows.current_bytes())?;
        }
    }
    for border in borders {
        write_border(&mut piece, border)?;
    }
    Ok(piece)
}

fn write_border(piece: &mut Piece, border: &BorderRow) -> io::Result<()> {
    let mut row = Vec::new();
    match border.erased_under {
        None => bundle::write_entry(&mut row, &border.body, &border.mac),
        Some(_) => bundle::write_erased(&mut row, border.seq, &border.body, &border.mac),
    }
    piece.write_all(&row)
}

/// Writes the timeline and its copy for spreadsheets. Sources are ordered by node, log and era, because that is the order of rows
/// with the same timestamp.
fn readable(dir: &Path, nodes: &mut [Collected], first: &mut Vec<Vec<u8>>) -> io::Result<(Piece, Piece)> {
    let mut timeline = Piece::new(dir, bundle::TIMELINE)?;
    let mut copy = Piece::new(dir, bundle::CSV)?;
    copy.write_all(&csv::header())?;
    let spools =
        nodes.iter_mut().filter_map(|node| node.proven.as_mut()).flat_map(|proven| proven.rows.eras.values_mut());
    let mut sources = spools.map(SpoolRows::new).collect::<io::Result<Vec<_>>>()?;
    let mut merge = Merge::new(Order::Asc);
    for (index, source) in sources.iter_mut().enumerate() {
        offer(&mut merge, index, source)?;
    }
    let mut line = Vec::new();
    while let Some(index) = merge.take() {
        if let Some(row) = sources[index].current() {
            line.clear();
            timeline_line(&row, &mut line);
            timeline.write_all(&line)?;
            line.clear();
            csv_line(&row, &mut line);
            copy.write_all(&line)?;
        }
        if first.len() < REPORT_ROWS_MAX {
            first.push(sources[index].current_bytes().to_vec());
        }
        offer(&mut merge, index, &mut sources[index])?;
    }
    Ok((timeline, copy))
}

fn offer(merge: &mut Merge, index: usize, source: &mut SpoolRows) -> io::Result<()> {
    if source.advance()?
        && let Some(row) = source.current()
    {
        merge.offer(index, row.timestamp(), row.seq());
    }
    Ok(())
}

fn archive(dir: &Path, note: &str, pieces: Vec<Piece>) -> io::Result<File> {
    let mut out = io::BufWriter::new(tempfile::tempfile_in(dir)?);
    begin(&mut out, &MemberDigest::of(bundle::MANIFEST, note.as_bytes()))?;
    out.write_all(note.as_bytes())?;
    out.write_all(member_padding(note.len() as u64))?;
    for piece in pieces {
        let digest = piece.digest();
        begin(&mut out, &digest)?;
        io::copy(&mut piece.into_reader()?, &mut out)?;
        out.write_all(member_padding(digest.bytes))?;
    }
    if out.stream_position()? > bundle::BUNDLE_BYTES_MAX as u64 {
        let message = format!("the bundle is larger than {} bytes; request a shorter range", bundle::BUNDLE_BYTES_MAX);
        return Err(io::Error::other(message));
    }
    let mut end = Vec::new();
    bundle::write_end(&mut end);
    out.write_all(&end)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

fn begin(out: &mut impl io::Write, member: &MemberDigest) -> io::Result<()> {
    let header = member_header(&member.name, member.bytes);
    out.write_all(&header.ok_or_else(|| io::Error::other(format!("the member name {:?} is too long", member.name)))?)
}
