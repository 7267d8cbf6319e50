//! Builds bundles from logs with fixed keys, so that tests control every byte and can build every forgery.

use std::collections::BTreeMap;

use piperoll_evidence::bundle::{
    BundleRequest, CSV, EarlierPart, KeySpan, MANIFEST, Manifest, MemberDigest, Membership, NodePart, NodeTrust,
    README, README_TEXT, REPORT, REPORT_ROWS_MAX, Rows, StoredEntry, TIMELINE, TRUST, Trust, checkpoint_name, csv_line,
    earlier_names, entries_name, manifest_note, member_header, member_padding, merged, proof_name, rejected_name,
    report, timeline_line, write_end, write_entry, write_erased,
};
use piperoll_evidence::csv;
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::entry::{NodeFields, Prefix, lifecycle, write_body};
use piperoll_format::merkle::{Hash, TreeBuilder, TreeReader, encode_hash, leaf_hash, range_proof, runs_of};
use piperoll_format::note::{KeyKind, SigningKey, SigningSeed};
use piperoll_format::statement::{Erased, GENERATION_BEGUN, Pruned, Statement};
use piperoll_format::time::Timestamp;

use piperoll_tests::Leaves;
use serde_json::json;

pub(crate) const NODES: [&str; 2] = ["mx1", "mx2"];
pub(crate) const START: i64 = 1_776_240_000_000_000;

pub(crate) fn seed(number: u8) -> SigningSeed {
    SigningSeed::from_bytes([number; 32])
}

pub(crate) fn exporter() -> SigningKey {
    seed(101).named("golden/aggregator/agg", KeyKind::Log).unwrap()
}

pub(crate) fn witness() -> SigningKey {
    seed(102).named("golden/aggregator/agg", KeyKind::Witness).unwrap()
}

pub(crate) fn trust() -> Trust {
    let nodes = NODES.iter().zip(1..).map(|(id, number)| NodeTrust {
        id: id.parse().unwrap(),
        life: Membership::ALWAYS,
        moved: Vec::new(),
        keys: vec![KeySpan {
            public: seed(number).public_bytes(),
            generation: None,
            from_size: 0,
            to_size: None,
            until: None,
        }],
    });
    Trust {
        cluster: "golden".parse().unwrap(),
        nodes: nodes.collect(),
        witnesses: vec![witness().public().clone()],
        exporters: vec![exporter().public().clone()],
        retention: Vec::new(),
        archives: Vec::new(),
    }
}

/// One stored row.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) body: Vec<u8>,
    pub(crate) mac: Vec<u8>,
}

/// One node's log, and the parts of it that go into the bundle.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) id: String,
    pub(crate) generation: String,
    pub(crate) rows: Vec<Stored>,
    /// Number of rows covered by the checkpoint.
    pub(crate) size: u64,
    /// Rows in the member `entries`.
    pub(crate) shown: Vec<u64>,
    pub(crate) signer: SigningSeed,
    pub(crate) cosigned_at: Option<i64>,
    pub(crate) rejected: Vec<u8>,
    /// Checkpoint to use instead of one that is computed from the rows.
    pub(crate) checkpoint: Option<String>,
    /// Erased rows, each with the entry that is stored in its place.
    pub(crate) erased: BTreeMap<u64, Stored>,
    /// Number of erased rows that are not among the rows shown, as stated in the manifest.
    pub(crate) erased_apart: Option<u64>,
    /// Archived logs of the same node, which this log replaced.
    pub(crate) earlier: Vec<Log>,
}

pub(crate) fn body(node: &str, generation: &str, seq: u64, era: u32, micros: i64, user: &str) -> Vec<u8> {
    let time = Timestamp::from_micros(micros).to_text();
    format!(
        "{{\"v\":1,\"node_id\":\"{node}\",\"generation\":\"{generation}\",\"seq\":{seq},\"era\":{era},\
         \"salt\":\"{seq:032x}\",\"timestamp\":\"{time}\",\"id\":\"01960000-0000-7000-8000-{seq:012x}\",\
         \"user\":\"{user}\",\"category\":\"auth\",\"action\":\"auth.login\",\"outcome\":\"success\",\"via\":\"cli\"}}"
    )
    .into_bytes()
}

impl Log {
    pub(crate) fn new(node: usize, rows: u64) -> Self {
        let id = NODES[node].to_owned();
        let generation = format!("{:032x}", 7 + node);
        let rows = (0..rows).map(|seq| {
            let micros = START + i64::try_from(seq).unwrap() * 1_000_000 + i64::try_from(node).unwrap();
            let user = ["alice", "bob", "carol"][usize::try_from(seq % 3).unwrap()];
            let mac = [[u8::try_from(node).unwrap(); 24].as_slice(), &seq.to_be_bytes()].concat();
            Stored { body: body(&id, &generation, seq, 0, micros, user), mac }
        });
        let rows: Vec<Stored> = rows.collect();
        let size = rows.len() as u64;
        let shown = (0..size).collect();
        let signer = seed(u8::try_from(node).unwrap() + 1);
        let cosigned_at = Some(START / 1_000_000 + 3_600);
        Self {
            id,
            generation,
            rows,
            size,
            shown,
            signer,
            cosigned_at,
            rejected: Vec::new(),
            checkpoint: None,
            erased: BTreeMap::new(),
            erased_apart: None,
            earlier: Vec::new(),
        }
    }

    /// Returns an archived log of the same node; `number` determines its generation.
    pub(crate) fn before(&self, number: u8, rows: u64) -> Self {
        let node = NODES.iter().position(|id| *id == self.id).unwrap();
        let mut log = Self::new(node, rows);
        log.generation = format!("{:032x}", 100 + u32::from(number));
        for (seq, row) in (0u64..).zip(&mut log.rows) {
            let micros = START - 3_600_000_000 * i64::from(number) + i64::try_from(seq).unwrap() * 1_000_000;
            row.body = body(
                &log.id,
                &log.generation,
                seq,
                0,
                micros,
                ["alice", "bob", "carol"][usize::try_from(seq % 3).unwrap()],
            );
            row.mac[0] = 100 + number;
        }
        log
    }

    /// Replaces the row `at` with a statement.
    pub(crate) fn state(&mut self, at: u64, statement: &Statement) {
        self.rows[usize::try_from(at).unwrap()].body = self.statement(at, statement);
    }

    pub(crate) fn statement(&self, at: u64, statement: &Statement) -> Vec<u8> {
        let stamp = NodeFields {
            node_id: &self.id.parse().unwrap(),
            generation: &self.generation.parse().unwrap(),
            seq: at,
            era: 0,
            salt: [5; 16],
            timestamp: Timestamp::from_micros(START + i64::try_from(at).unwrap() * 1_000_000),
            id: format!("01960000-0000-7000-8000-{at:012x}").parse().unwrap(),
            via: "node",
        };
        write_body(&stamp, &statement.to_entry(), "").unwrap().into_bytes()
    }

    /// Makes the first row state that this log replaced another one.
    pub(crate) fn take_the_place(&mut self, previous: &serde_json::Value) {
        let entry =
            lifecycle(GENERATION_BEGUN, "a new log takes the place of another one", &json!({ "previous": previous }));
        let stamp = NodeFields {
            node_id: &self.id.parse().unwrap(),
            generation: &self.generation.parse().unwrap(),
            seq: 0,
            era: 0,
            salt: [5; 16],
            timestamp: Prefix::parse(&self.rows[0].body).unwrap().timestamp,
            id: "01960000-0000-7000-8000-000000000000".parse().unwrap(),
            via: "node",
        };
        self.rows[0].body = write_body(&stamp, &entry, "").unwrap().into_bytes();
    }

    /// Returns the statement of an entry that erases the row `seq`.
    pub(crate) fn erasure(&self, seq: u64) -> Statement {
        let row = &self.rows[usize::try_from(seq).unwrap()];
        let timestamp = Timestamp::from_micros(START + i64::try_from(seq).unwrap() * 1_000_000);
        let (reason, by) = ("art. 17".to_owned(), "uid=0".to_owned());
        Statement::Erased(Erased { seq, leaf: leaf_hash(&row.body, &row.mac), era: 0, timestamp, reason, by })
    }

    /// Erases a row; the entry `at` records the erasure.
    pub(crate) fn erase(&mut self, seq: u64, at: u64) {
        self.state(at, &self.erasure(seq));
        self.erased.insert(seq, self.rows[usize::try_from(at).unwrap()].clone());
    }

    /// Prunes the rows below `to`; the entry `at` records the prune.
    pub(crate) fn prune(&mut self, to: u64, at: u64, witnessed: Option<String>) {
        let last = Timestamp::from_micros(START + i64::try_from(to - 1).unwrap() * 1_000_000);
        let root = TreeReader::new(Leaves(self.leaves()), self.size).root(to).unwrap();
        let policy = "365 days".to_owned();
        let pruned = Pruned {
            from_seq: 0,
            to_seq: to,
            epoch: 0,
            era: 0,
            last_timestamp: last,
            newest: last,
            root,
            policy,
            archive: None,
            witnessed,
            earlier: Vec::new(),
        };
        self.state(at, &Statement::Pruned(pruned));
    }

    fn leaves(&self) -> Vec<Hash> {
        self.rows.iter().take(usize::try_from(self.size).unwrap()).map(|row| leaf_hash(&row.body, &row.mac)).collect()
    }

    pub(crate) fn note(&self) -> String {
        let mut tree = TreeBuilder::default();
        self.leaves().into_iter().for_each(|leaf| tree.push(leaf, |_| {}));
        let origin = format!("golden/{}/{}", self.id, self.generation);
        let key = self.signer.named(&origin, KeyKind::Log).unwrap();
        let mut note = Checkpoint { origin, size: self.size, root: tree.root() }.sign(&key).unwrap();
        if let Some(seconds) = self.cosigned_at {
            let cosignature = witness().cosign(note.text(), u64::try_from(seconds).unwrap());
            note = note.with(cosignature);
        }
        note.to_string()
    }

    pub(crate) fn proof(&self) -> Vec<Hash> {
        let mut tree = TreeReader::new(Leaves(self.leaves()), self.size);
        range_proof(&mut tree, &runs_of(self.shown.iter().copied()).unwrap(), self.size).unwrap()
    }

    pub(crate) fn shown_rows(&self) -> impl Iterator<Item = &Stored> {
        self.shown.iter().map(|seq| &self.rows[usize::try_from(*seq).unwrap()])
    }
}

type WriteLine = fn(&StoredEntry<'_>, &mut Vec<u8>);

/// An export request, and the logs from which it is answered.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) logs: Vec<Log>,
    pub(crate) asked: BundleRequest,
    pub(crate) created: Timestamp,
}

impl Case {
    pub(crate) fn new() -> Self {
        let asked = BundleRequest {
            by: "auditor".to_owned(),
            reason: "the yearly audit".to_owned(),
            filter: String::new(),
            from: Timestamp::from_micros(START - 1),
            to: Timestamp::from_micros(START + 3_600_000_000),
            incomplete: "refuse".to_owned(),
        };
        let created = Timestamp::from_micros(START + 3_600_000_000);
        Self { logs: vec![Log::new(0, 300), Log::new(1, 5)], asked, created }
    }

    /// Returns the manifest, and the members that follow it.
    pub(crate) fn parts(&self) -> Parts {
        let wanted = |row: &StoredEntry<'_>| {
            let inside = (self.asked.from..self.asked.to).contains(&row.timestamp());
            let shown = match (&row.erased, self.logs.iter().any(|log| log.erased_apart.is_some())) {
                (Some(_), apart) => !apart,
                (None, _) => self.asked.filter.is_empty() || self.matches(row),
            };
            inside && shown
        };
        let written: Vec<(Vec<u8>, Vec<Vec<u8>>)> =
            self.logs.iter().map(|log| (entries(log), log.earlier.iter().map(entries).collect())).collect();
        let (mut members, mut nodes, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (log, (entries, earlier_entries)) in self.logs.iter().zip(&written) {
            let mut pack = |log: &Log, entries: &[u8], [checkpoint, rows, proof]: [String; 3]| {
                let note = log.checkpoint.clone().unwrap_or_else(|| log.note());
                let hashes: String = log.proof().iter().map(|hash| encode_hash(hash) + "\n").collect();
                let content = [note.into_bytes(), entries.to_vec(), hashes.into_bytes()];
                members.extend([checkpoint, rows, proof].into_iter().zip(content));
            };
            let all: Vec<StoredEntry<'_>> = Rows::new(entries).map(Result::unwrap).collect();
            let count = all.len() as u64;
            let mine: Vec<StoredEntry<'_>> = all.into_iter().filter(|row| wanted(row)).collect();
            pack(log, entries, [checkpoint_name(&log.id), entries_name(&log.id), proof_name(&log.id)]);
            let (mut earlier, mut older) = (Vec::new(), Vec::new());
            for ((log, entries), number) in log.earlier.iter().zip(earlier_entries).zip(1..) {
                pack(log, entries, earlier_names(&log.id, number));
                let all: Vec<StoredEntry<'_>> = Rows::new(entries).map(Result::unwrap).collect();
                let count = all.len() as u64;
                let mine: Vec<StoredEntry<'_>> = all.into_iter().filter(|row| wanted(row)).collect();
                let (rows, generation) = (mine.len() as u64, log.generation.clone());
                let borders = if self.asked.filter.is_empty() { count - rows } else { 0 };
                earlier.push(EarlierPart { generation, size: log.size, rows, borders });
                older.push(mine);
            }
            let rejected = log.rejected.iter().filter(|byte| **byte == b'\n').count() as u64;
            if rejected > 0 {
                members.push((rejected_name(&log.id), log.rejected.clone()));
            }
            let checkpoint = log.checkpoint.as_ref().map(|note| Checkpoint::parse(note.split("\n\n").next().unwrap()));
            nodes.push(NodePart {
                erased: log.erased_apart,
                node_id: log.id.clone(),
                status: "ok".to_owned(),
                reason: None,
                verdict: "ok".to_owned(),
                generation: Some(log.generation.clone()),
                size: Some(checkpoint.and_then(Result::ok).map_or(log.size, |checkpoint| checkpoint.size)),
                rows: mine.len() as u64,
                borders: if self.asked.filter.is_empty() || !log.erased.is_empty() {
                    count - mine.len() as u64
                } else {
                    0
                },
                rejected,
                earlier,
            });
            rows.push(mine);
            rows.extend(older);
        }
        let rows = merged(rows);
        let manifest = Manifest {
            cluster: "golden".parse().unwrap(),
            exporter: "golden/aggregator/agg".to_owned(),
            tool: "piperoll 0.1.0".to_owned(),
            created: self.created,
            asked: self.asked.clone(),
            complete: true,
            rows: rows.len() as u64,
            nodes,
            members: Vec::new(),
        };
        let copy = |head: Vec<u8>, write: WriteLine| {
            rows.iter().fold(head, |mut out, row| {
                write(row, &mut out);
                out
            })
        };
        members.push((TIMELINE.to_owned(), copy(Vec::new(), timeline_line)));
        members.push((CSV.to_owned(), copy(csv::header(), csv_line)));
        let page = report(&manifest, &rows[..rows.len().min(REPORT_ROWS_MAX)]);
        members.push((REPORT.to_owned(), page.into_bytes()));
        members.push((TRUST.to_owned(), trust().to_text().into_bytes()));
        members.push((README.to_owned(), README_TEXT.as_bytes().to_vec()));
        Parts { manifest, members, key: exporter() }
    }

    fn matches(&self, row: &StoredEntry<'_>) -> bool {
        let filter = piperoll_query::filter::Filter::parse(&self.asked.filter, self.created).unwrap();
        piperoll_format::view::EntryView::parse(row.body).is_some_and(|view| filter.matches(&view))
    }
}

fn entries(log: &Log) -> Vec<u8> {
    let mut out = Vec::new();
    for (seq, row) in log.shown.iter().zip(log.shown_rows()) {
        match log.erased.get(seq) {
            None => write_entry(&mut out, &row.body, &row.mac),
            Some(entry) => write_erased(&mut out, *seq, &entry.body, &entry.mac),
        }
    }
    out
}

/// A bundle before it is signed and packed.
pub(crate) struct Parts {
    pub(crate) manifest: Manifest,
    pub(crate) members: Vec<(String, Vec<u8>)>,
    pub(crate) key: SigningKey,
}

impl Parts {
    pub(crate) fn member(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.members.iter_mut().find(|(known, _)| known == name).unwrap().1
    }

    /// Recreates the report for the current manifest; the report's rows are those of the timeline.
    pub(crate) fn renew_report(&mut self, case: &Case) {
        let logs = case.logs.iter().flat_map(|log| std::iter::once(log).chain(&log.earlier));
        let lines: Vec<Vec<u8>> = logs.map(entries).collect();
        let rows = merged(lines.iter().map(|lines| Rows::new(lines).map(Result::unwrap).collect()).collect());
        let page = report(&self.manifest, &rows);
        *self.member(REPORT) = page.into_bytes();
    }

    /// Lists the current members in the manifest, then signs and packs the bundle.
    pub(crate) fn seal(mut self) -> Vec<u8> {
        self.manifest.members = self.members.iter().map(|(name, bytes)| MemberDigest::of(name, bytes)).collect();
        self.pack()
    }

    /// Signs and packs the bundle without updating the list of members in the manifest.
    pub(crate) fn pack(self) -> Vec<u8> {
        let note = manifest_note(&self.manifest, &self.key).unwrap().into_bytes();
        let mut out = Vec::new();
        for (name, bytes) in std::iter::once((MANIFEST.to_owned(), note)).chain(self.members) {
            out.extend_from_slice(&member_header(&name, bytes.len() as u64).unwrap());
            out.extend_from_slice(&bytes);
            out.extend_from_slice(member_padding(bytes.len() as u64));
        }
        write_end(&mut out);
        out
    }
}
