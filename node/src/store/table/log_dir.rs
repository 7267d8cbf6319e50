//! Opens a log directory: permissions, required files, and creation of a new log.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use piperoll_format::ids::{ClusterName, Generation, NodeId};
use piperoll_format::note::NOTE_BYTES_MAX;
use piperoll_net::atomic_file::replace;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use super::error::OpenError;
use super::schema;

/// Time limit for waiting while another process has locked the database.
pub(in crate::store) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for waiting while another process holds the log's lock: commands that append without a daemon hold it for a moment,
/// and a stopping daemon for a few seconds.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Number of prepared statements that a connection caches: enough for all statements of a search.
const STATEMENTS_KEPT: usize = 64;
const DATABASE: &str = "log.db";
/// File whose existence means that the directory contains a log, so that a missing or emptied database is an error and not the
/// start of a new log.
const MARKER: &str = "log.json";
const LOCK: &str = "log.lock";
/// File with the newest signed checkpoint. It reveals a database that was restored from an older copy, which has fewer rows than
/// the checkpoint covers.
const CHECKPOINT: &str = "log.checkpoint";

/// Directory with the files of one log.
#[derive(Debug, Clone)]
pub struct LogDir {
    dir: PathBuf,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    cluster: ClusterName,
    node_id: NodeId,
    generation: Generation,
}

/// Identity of the file at a path: the same path with another inode is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct FileIdentity {
    device: u64,
    inode: u64,
}

/// An open database and its identity.
pub(in crate::store) struct Opened {
    pub(in crate::store) conn: Connection,
    pub(in crate::store) generation: Generation,
    pub(in crate::store) identity: FileIdentity,
    /// The writer's lock, held as long as the writer lives; the kernel releases it when the process ends.
    pub(in crate::store) lock: Option<File>,
    /// A private copy, which is used if the directory is not writable, and which is removed when this value is dropped.
    pub(in crate::store) copy: Option<SnapshotCopy>,
}

impl LogDir {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    pub fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    fn marker(&self) -> PathBuf {
        self.dir.join(MARKER)
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Opens for writing: takes the lock, checks the owner, and creates a new log if the directory does not contain one.
    pub(in crate::store) fn open_writer(
        &self,
        cluster: &ClusterName,
        node_id: &NodeId,
        new_generation: Generation,
    ) -> Result<Opened, OpenError> {
        self.make_dir()?;
        self.check_owner()?;
        let lock = self.take_lock()?;
        let database = self.database();
        let marker = self.read_marker()?;
        match (&marker, database.exists()) {
            (Some(_), false) => return Err(OpenError::Missing { path: database, marker: self.marker() }),
            (None, true) if self.is_leftover()? => {
                // A crash between the creation of this file and its first entry left the file behind; nothing in it was
                // acknowledged.
                for suffix in ["", "-wal", "-shm"] {
                    let _ = fs::remove_file(self.dir.join(format!("{DATABASE}{suffix}")));
                }
                self.create(cluster, node_id, new_generation)?;
            }
            (None, false) => self.create(cluster, node_id, new_generation)?,
            _ => {}
        }
        Ok(Opened { lock: Some(lock), ..self.connect_writer(cluster, node_id, marker.as_ref())? })
    }

    /// Opens a new connection for a writer that already has the lock.
    pub(in crate::store) fn reopen_writer(&self, cluster: &ClusterName, node_id: &NodeId) -> Result<Opened, OpenError> {
        let marker = self.read_marker()?;
        self.connect_writer(cluster, node_id, marker.as_ref())
    }

    fn connect_writer(
        &self,
        cluster: &ClusterName,
        node_id: &NodeId,
        marker: Option<&Marker>,
    ) -> Result<Opened, OpenError> {
        let database = self.database();
        let conn = self.connect(&database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let sql = |source| OpenError::Sqlite { path: database.clone(), source };
        conn.pragma_update(None, "journal_mode", "WAL").map_err(sql)?;
        conn.pragma_update(None, "synchronous", "FULL").map_err(sql)?;
        // Without this setting, INSERT OR REPLACE would delete a row without firing the delete trigger.
        conn.pragma_update(None, "recursive_triggers", true).map_err(sql)?;
        conn.pragma_update(None, "wal_autocheckpoint", 4_000).map_err(sql)?;
        let generation = self.check_identity(&conn, &database, cluster, node_id, marker)?;
        let identity = file_identity(&database).map_err(|source| OpenError::Io { path: database.clone(), source })?;
        Ok(Opened { conn, generation, identity, lock: None, copy: None })
    }

    /// Takes the writer's lock on an existing log.
    pub(in crate::store) fn lock_existing(&self) -> Result<File, OpenError> {
        if !self.database().exists() && !self.marker().exists() {
            return Err(OpenError::NoLog { path: self.dir.clone() });
        }
        self.check_owner()?;
        self.take_lock()
    }

    /// Returns the generation of the log that the directory should contain.
    pub(in crate::store) fn marked_generation(&self) -> Result<Option<Generation>, OpenError> {
        Ok(self.read_marker()?.map(|marker| marker.generation))
    }

    /// Returns whether this is the folder of an archived log: its name ends with the log's own generation.
    pub(in crate::store) fn is_aside(&self) -> bool {
        let suffix = self.dir.extension().and_then(|suffix| suffix.to_str()?.parse::<Generation>().ok());
        suffix.is_some() && self.marked_generation().is_ok_and(|marked| marked == suffix)
    }

    /// Opens read-only, with or without a running writer. If this process cannot write to the directory, SQLite could only open
    /// the file by ignoring its WAL, so the database and its WAL are copied to a private directory.
    pub(in crate::store) fn open_reader(&self, cluster: &ClusterName, node_id: &NodeId) -> Result<Opened, OpenError> {
        let database = self.database();
        let marker = self.read_marker()?;
        if !database.exists() {
            return Err(match marker {
                Some(_) => OpenError::Missing { path: database, marker: self.marker() },
                None => OpenError::NoLog { path: self.dir.clone() },
            });
        }
        let copy = if self.may_write() { None } else { Some(SnapshotCopy::of(&self.dir)?) };
        let path = copy.as_ref().map_or_else(|| database.clone(), |copy| copy.dir.join(DATABASE));
        let conn = self.connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        conn.pragma_update(None, "query_only", true)
            .map_err(|source| OpenError::Sqlite { path: database.clone(), source })?;
        let generation = self.check_identity(&conn, &database, cluster, node_id, marker.as_ref())?;
        let identity = file_identity(&database).map_err(|source| OpenError::Io { path: database.clone(), source })?;
        Ok(Opened { conn, generation, identity, lock: None, copy })
    }

    fn connect(&self, path: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
        let sql = |source| OpenError::Sqlite { path: path.to_owned(), source };
        let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(sql)?;
        // A schema planted in the file must not call functions with side effects.
        conn.pragma_update(None, "trusted_schema", false).map_err(sql)?;
        conn.pragma_update(None, "temp_store", "MEMORY").map_err(sql)?;
        conn.busy_timeout(BUSY_TIMEOUT).map_err(sql)?;
        // Keep query plans independent of bound values: otherwise a statement would be parsed again for every new range.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(sql)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        let version = schema::user_version(&conn).map_err(sql)?;
        if version > schema::SCHEMA_VERSION {
            return Err(OpenError::Version { path: path.to_owned(), found: version, known: schema::SCHEMA_VERSION });
        }
        Ok(conn)
    }

    fn check_identity(
        &self,
        conn: &Connection,
        path: &Path,
        cluster: &ClusterName,
        node_id: &NodeId,
        marker: Option<&Marker>,
    ) -> Result<Generation, OpenError> {
        let sql = |source| OpenError::Sqlite { path: path.to_owned(), source };
        let read = |key| schema::meta(conn, key).map(Option::unwrap_or_default).map_err(sql);
        let (found_cluster, found_node, found_generation) = (read("cluster")?, read("node_id")?, read("generation")?);
        let foreign = |expected: String| OpenError::Foreign {
            path: path.to_owned(),
            found: format!("{found_cluster}/{found_node}/{found_generation}"),
            expected,
        };
        if found_cluster != cluster.as_str() || found_node != node_id.as_str() {
            return Err(foreign(format!("{cluster}/{node_id}")));
        }
        let generation: Generation = found_generation.parse().map_err(|_| foreign(format!("{cluster}/{node_id}")))?;
        if let Some(marker) = marker {
            if marker.generation != generation || marker.cluster != *cluster || marker.node_id != *node_id {
                return Err(OpenError::OtherGeneration {
                    path: path.to_owned(),
                    found: format!("{found_cluster}/{found_node}/{found_generation}"),
                    marker: self.marker(),
                    expected: format!("{}/{}/{}", marker.cluster, marker.node_id, marker.generation),
                });
            }
            let rows: i64 = conn
                .query_row("SELECT count(*) FROM (SELECT 1 FROM entries LIMIT 1)", [], |r| r.get(0))
                .map_err(sql)?;
            if rows == 0 {
                return Err(OpenError::Emptied { path: path.to_owned(), marker: self.marker() });
            }
        }
        Ok(generation)
    }

    fn make_dir(&self) -> Result<(), OpenError> {
        let io = |source| OpenError::Io { path: self.dir.clone(), source };
        if !self.dir.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(io)?;
        }
        Ok(())
    }

    pub(in crate::store) fn check_owner(&self) -> Result<(), OpenError> {
        let me = nix::unistd::geteuid().as_raw();
        for path in [self.dir.clone(), self.database()] {
            match fs::metadata(&path) {
                Ok(meta) if meta.uid() != me => {
                    return Err(OpenError::WrongOwner { path, owner: meta.uid(), me });
                }
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(OpenError::Io { path, source }),
            }
        }
        Ok(())
    }

    fn take_lock(&self) -> Result<File, OpenError> {
        let path = self.dir.join(LOCK);
        let io = |source| OpenError::Io { path: path.clone(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(io)?;
        let until = Instant::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
                Err(fs::TryLockError::WouldBlock) => return Err(OpenError::InUse { path: self.dir.clone() }),
                Err(fs::TryLockError::Error(source)) => return Err(io(source)),
            }
        }
    }

    pub(in crate::store) fn may_write(&self) -> bool {
        nix::unistd::access(&self.dir, nix::unistd::AccessFlags::W_OK).is_ok()
    }

    fn read_marker(&self) -> Result<Option<Marker>, OpenError> {
        let path = self.marker();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| OpenError::Io { path, source: std::io::Error::other(format!("not a marker: {e}")) }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(OpenError::Io { path, source }),
        }
    }

    /// Returns whether the database was left by a crash between creating the file and its first entry. Any other file of this
    /// name may contain data, and is kept.
    fn is_leftover(&self) -> Result<bool, OpenError> {
        let path = self.database();
        let io = |source| OpenError::Io { path: path.clone(), source };
        if fs::metadata(&path).map_err(io)?.len() == 0 {
            return Ok(true);
        }
        let sql = |source| OpenError::Sqlite { path: path.clone(), source };
        let conn = self.connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let count = |sql_text: &str| conn.query_row(sql_text, [], |row| row.get::<_, i64>(0)).map_err(sql);
        if count("SELECT count(*) FROM sqlite_schema")? == 0 {
            return Ok(true);
        }
        if schema::application_id(&conn).map_err(sql)? != schema::APPLICATION_ID {
            return Err(OpenError::NotOurs { path });
        }
        let tables = count("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'entries'")?;
        Ok(tables == 0 || count("SELECT count(*) FROM (SELECT 1 FROM entries LIMIT 1)")? == 0)
    }

    fn create(&self, cluster: &ClusterName, node_id: &NodeId, generation: Generation) -> Result<(), OpenError> {
        let path = self.database();
        let io = |source| OpenError::Io { path: path.clone(), source };
        // Create the file before SQLite does, so that others can never read it.
        OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).map_err(io)?;
        let sql = |source| OpenError::Sqlite { path: path.clone(), source };
        let conn = self.connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        schema::create(
            &conn,
            &[("cluster", cluster.as_str()), ("node_id", node_id.as_str()), ("generation", &generation.to_string())],
        )
        .map_err(sql)
    }

    /// Writes the marker, after the first entry is committed: from then on, an empty or missing database is an error. If a crash
    /// prevents this, the next start adds the marker.
    pub(in crate::store) fn write_marker(
        &self,
        cluster: &ClusterName,
        node_id: &NodeId,
        generation: Generation,
    ) -> std::io::Result<()> {
        if self.marker().exists() {
            return Ok(());
        }
        let marker = Marker { cluster: cluster.clone(), node_id: node_id.clone(), generation };
        let mut bytes = serde_json::to_vec(&marker).unwrap_or_default();
        bytes.push(b'\n');
        replace(&self.dir.join(MARKER), &bytes)
    }

    /// Returns the content of the checkpoint file next to the database, if it exists. Reads at most one byte more than the
    /// maximum size of a note.
    pub(in crate::store) fn read_checkpoint(&self) -> std::io::Result<Option<Vec<u8>>> {
        let read = File::open(self.dir.join(CHECKPOINT)).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(NOTE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map(|_| bytes)
        });
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Renames a damaged checkpoint file to keep it as evidence, so that the next checkpoint does not overwrite it.
    pub(in crate::store) fn set_checkpoint_aside(&self) -> std::io::Result<PathBuf> {
        let aside = self.dir.join(format!("{CHECKPOINT}.damaged"));
        fs::rename(self.dir.join(CHECKPOINT), &aside)?;
        Ok(aside)
    }

    pub(in crate::store) fn write_checkpoint(&self, note: &str) -> std::io::Result<()> {
        replace(&self.dir.join(CHECKPOINT), note.as_bytes())
    }
}

pub(in crate::store) fn file_identity(path: &Path) -> std::io::Result<FileIdentity> {
    let meta = fs::metadata(path)?;
    Ok(FileIdentity { device: meta.dev(), inode: meta.ino() })
}

/// A private copy of a database and its WAL; SQLite recovers the WAL when it opens the copy.
pub(in crate::store) struct SnapshotCopy {
    dir: PathBuf,
}

impl SnapshotCopy {
    fn of(source: &Path) -> Result<Self, OpenError> {
        let dir = std::env::temp_dir().join(format!(
            "piperoll-read-{}-{}",
            std::process::id(),
            uuid::Uuid::now_v7().simple()
        ));
        let io = |source| OpenError::Io { path: dir.clone(), source };
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(io)?;
        let copy = Self { dir: dir.clone() };
        // Copy the checkpoint first, so that the database, which is copied after it, contains at least the rows that the
        // checkpoint covers.
        for name in [CHECKPOINT.to_owned(), DATABASE.to_owned(), format!("{DATABASE}-wal")] {
            let from = source.join(&name);
            if from.exists() {
                fs::copy(&from, copy.dir.join(&name)).map_err(|source| OpenError::Io { path: from, source })?;
            }
        }
        Ok(copy)
    }
}

impl SnapshotCopy {
    pub(in crate::store) fn log_dir(&self) -> LogDir {
        LogDir::new(&self.dir)
    }
}

impl Drop for SnapshotCopy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
