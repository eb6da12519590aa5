//! The cluster's names on disk, so that they are answered from the start while no API server can be reached.
//! What the file holds is in [`crate::daemon::snapshot_file::text`].

pub mod text;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use weft_cluster::{WatchFilter, manifest};
use weft_types::Snapshot;

use text::text;

/// The pause between two writes: in a busy cluster the disk is left in peace.
const PAUSE: Duration = Duration::from_secs(10);

/// A file that is kept up to date.
#[derive(Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    /// Whether the file is behind.
    behind: bool,
    next: Instant,
    writing: Option<JoinHandle<()>>,
}

impl SnapshotFile {
    /// The snapshot file at `path`.
    pub fn new(path: PathBuf) -> SnapshotFile {
        SnapshotFile { path, behind: false, next: Instant::now(), writing: None }
    }

    /// The cluster as it was known when the file was written, and when that was. None where there is no file,
    /// or none that can be read: the log says why.
    pub fn load(&self) -> Option<(Snapshot, SystemTime)> {
        if !self.path.exists() {
            return None;
        }
        let written = fs::metadata(&self.path).and_then(|metadata| metadata.modified());
        match manifest::load(&WatchFilter::default(), std::slice::from_ref(&self.path)) {
            Ok(snapshot) => Some((snapshot, written.unwrap_or(SystemTime::UNIX_EPOCH))),
            Err(error) => {
                tracing::warn!(%error, "cannot read the snapshot file: starting without it");
                None
            }
        }
    }

    /// Notes that the cluster changed.
    pub fn note_change(&mut self) {
        self.behind = true;
    }

    /// Waits until the file is behind and may be written.
    pub async fn due(&self) {
        match self.behind {
            true => sleep_until(self.next).await,
            false => std::future::pending().await,
        }
    }

    /// Begins to write. Nobody waits for the disk.
    pub fn keep(&mut self, snapshot: &Snapshot) {
        self.next = Instant::now() + PAUSE;
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        self.behind = false;
        let (path, text) = (self.path.clone(), text(snapshot));
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = replace(&path, &text) {
                tracing::warn!(%error, path = %path.display(), "cannot write the snapshot file; see --snapshot");
            }
        }));
    }
}

/// Writes so that whoever reads finds the old text or the new one, whole.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}
