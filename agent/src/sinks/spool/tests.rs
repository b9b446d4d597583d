//! What the spool promises, held against kills, bit flips and disks that refuse.

mod crash;
mod failing;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    Fsync, Limits, Loss, Most, OpenError, Spool,
    disk::{Disk, FileSystem},
    recover::Recovery,
};

const LIMITS: Limits = Limits { disk_bytes: 1 << 20, segment_bytes: 300, memory_bytes: 1 << 16, fsync: Fsync::Never };
const EVERYTHING: Most = Most { records: usize::MAX, bytes: usize::MAX };

/// The record that has this number in these tests.
fn record(number: u64) -> Vec<u8> {
    format!("record {number} {}", "x".repeat(number as usize % 50)).into_bytes()
}

fn open_with(folder: &Path, limits: Limits, disk: impl Disk + 'static) -> (Spool, Recovery) {
    Spool::open(folder, limits, Box::new(disk)).unwrap()
}

fn open(folder: &Path) -> (Spool, Recovery) {
    open_with(folder, LIMITS, FileSystem)
}

fn append(spool: &mut Spool, count: u64) {
    for _ in 0..count {
        let number = spool.end();
        assert_eq!(spool.append(&record(number)), Ok(number));
    }
}

/// The numbers of everything from `from` on; each record has to be what was appended under its number.
fn read(spool: &mut Spool, from: u64) -> Vec<u64> {
    let records = spool.read(from, EVERYTHING).unwrap();
    records.iter().for_each(|read| assert_eq!(read.bytes, record(read.number)));
    let numbers: Vec<u64> = records.iter().map(|record| record.number).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    numbers
}

fn lost(spool: &Spool, loss: Loss) -> u64 {
    spool.unreported().into_iter().find(|(other, _)| *other == loss).map_or(0, |(_, count)| count)
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "segment")).collect();
    paths.sort();
    paths
}

#[test]
fn records_are_read_in_order_from_the_disk_and_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    append(&mut spool, 30);
    spool.commit(Instant::now()).unwrap();
    append(&mut spool, 5);
    assert!(segments(folder.path()).len() > 3);
    assert_eq!(read(&mut spool, 0), (0..35).collect::<Vec<_>>());
    assert_eq!(read(&mut spool, 17), (17..35).collect::<Vec<_>>());
    assert_eq!(spool.waiting(), 35);
}

#[test]
fn a_batch_ends_where_the_next_record_has_no_room() {
    let mut spool = Spool::in_memory(LIMITS);
    for length in [10, 90, 10, 200] {
        spool.append(&vec![b'x'; length]).unwrap();
    }
    let numbers = |spool: &mut Spool, from, records, bytes| {
        let records = spool.read(from, Most { records, bytes }).unwrap();
        records.iter().map(|record| record.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&mut spool, 0, 10, 60), [0], "the third would fit, but not before the second");
    assert_eq!(numbers(&mut spool, 1, 2, 1000), [1, 2]);
    assert_eq!(numbers(&mut spool, 3, 10, 50), [3], "a record alone may be longer");
}

#[test]
fn batches_read_one_after_the_other_are_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    append(&mut spool, 40);
    spool.commit(Instant::now()).unwrap();
    let (mut from, mut all) = (0, Vec::new());
    loop {
        let batch = spool.read(from, Most { records: 7, bytes: 200 }).unwrap();
        let Some(last) = batch.last() else { break };
        from = last.number + 1;
        all.extend(batch.iter().map(|record| record.number));
    }
    assert_eq!(all, (0..40).collect::<Vec<_>>());
}

#[test]
fn what_is_acknowledged_is_deleted_and_stays_delivered_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    append(&mut spool, 30);
    spool.commit(Instant::now()).unwrap();
    let before = segments(folder.path()).len();
    spool.acknowledge(20).unwrap();
    assert!(segments(folder.path()).len() < before);
    drop(spool);
    let (mut spool, recovery) = open(folder.path());
    assert_eq!(spool.acknowledged(), 20);
    assert_eq!(recovery, Recovery { waiting: 10, ..Recovery::default() });
    let acknowledged = spool.acknowledged();
    assert_eq!(read(&mut spool, acknowledged), (20..30).collect::<Vec<_>>());
    spool.acknowledge(30).unwrap();
    drop(spool);
    let (mut spool, recovery) = open(folder.path());
    assert_eq!((recovery.waiting, spool.end()), (0, 30), "numbers are not given twice");
    append(&mut spool, 1);
    assert_eq!(read(&mut spool, 30), [30]);
}

#[test]
fn the_bound_drops_the_oldest_and_counts_them_once() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { disk_bytes: 8 * 4096, ..LIMITS };
    let (mut spool, _) = open_with(folder.path(), limits, FileSystem);
    for _ in 0..100 {
        append(&mut spool, 1);
        spool.commit(Instant::now()).unwrap();
        assert!(spool.disk_bytes() <= limits.disk_bytes);
    }
    let kept = read(&mut spool, 0);
    assert_eq!(kept.last(), Some(&99));
    assert_eq!(lost(&spool, Loss::Full) + kept.len() as u64, 100);
    let losses = spool.unreported();
    drop(spool);

    let (mut spool, recovery) = open_with(folder.path(), limits, FileSystem);
    assert!(recovery.is_clean(), "{recovery}");
    assert_eq!(spool.unreported(), losses, "nobody was told yet");
    spool.reported(&losses);
    drop(spool);
    let (mut spool, _) = open_with(folder.path(), limits, FileSystem);
    assert_eq!(spool.unreported(), []);
    assert_eq!(read(&mut spool, 0), kept);
}

#[test]
fn what_was_delivered_is_not_counted_as_lost_when_its_segment_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { disk_bytes: 3 * 4096, ..LIMITS };
    let (mut spool, _) = open_with(folder.path(), limits, FileSystem);
    append(&mut spool, 4);
    spool.commit(Instant::now()).unwrap();
    spool.acknowledge(3).unwrap();
    append(&mut spool, 40);
    spool.commit(Instant::now()).unwrap();
    let kept = read(&mut spool, 0).len() as u64;
    assert_eq!(lost(&spool, Loss::Full) + 3 + kept, 44);
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(folder.path());
    let second = Spool::open(folder.path(), LIMITS, Box::new(FileSystem));
    assert!(matches!(second, Err(OpenError::InUse(_))));
}

#[test]
fn a_segment_of_a_newer_form_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let mut header = super::segment::header(0);
    header[8] = 2;
    let checksum = crc32fast::hash(&header[..20]);
    header[20..].copy_from_slice(&checksum.to_le_bytes());
    fs::write(folder.path().join("00000000000000000000.segment"), header).unwrap();
    let refused = Spool::open(folder.path(), LIMITS, Box::new(FileSystem)).err().unwrap().to_string();
    assert!(refused.contains("form 2") && refused.contains("remove the folder"), "{refused}");
}

#[test]
fn a_record_nobody_takes_is_refused() {
    let mut spool = Spool::in_memory(LIMITS);
    assert!(spool.append(&vec![b'x'; super::segment::LONGEST + 1]).is_err());
    assert!(spool.append(b"").is_err());
    assert_eq!(spool.end(), 0);
}
