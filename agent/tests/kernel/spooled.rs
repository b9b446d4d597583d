//! What the spool of a dead agent holds.

use std::{fs, path::Path};

use rstscope::sinks::spool::{Fsync, Limits, Most, Spool, disk::FileSystem};
use serde_json::Value;

/// Its lines that nobody has acknowledged, read from a copy of the folder.
pub fn spooled(folder: &Path) -> Vec<Value> {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let limits = Limits { disk_bytes: 1 << 30, segment_bytes: 1 << 20, memory_bytes: 1 << 20, fsync: Fsync::Never };
    let (mut spool, recovery) = Spool::open(copy.path(), limits, Box::new(FileSystem)).unwrap();
    assert_eq!((recovery.damaged, recovery.missing), (0, 0), "{recovery}");
    let from = spool.acknowledged();
    let records = spool.read(from, Most { records: usize::MAX, bytes: usize::MAX }).unwrap();
    records.iter().map(|record| serde_json::from_slice(&record.bytes).unwrap()).collect()
}
