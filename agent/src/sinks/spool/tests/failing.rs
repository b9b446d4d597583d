//! A disk that is full, that can only be read, or that comes back.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use super::*;

/// A disk with room for so many bytes; with less than none it can only be read. Injected, because a real full disk takes a
/// mount, and so root.
#[derive(Clone)]
struct Small(Arc<AtomicI64>);

const READ_ONLY: i64 = -1;

impl Small {
    fn new(room: i64) -> Self {
        Self(Arc::new(AtomicI64::new(room)))
    }

    fn set(&self, room: i64) {
        self.0.store(room, Ordering::Relaxed);
    }

    fn change(&self) -> io::Result<i64> {
        match self.0.load(Ordering::Relaxed) {
            room if room < 0 => Err(io::Error::from_raw_os_error(libc::EROFS)),
            room => Ok(room),
        }
    }
}

impl Disk for Small {
    fn create_folder(&mut self, folder: &Path) -> io::Result<()> {
        self.change()?;
        FileSystem.create_folder(folder)
    }

    fn open(&mut self, path: &Path) -> io::Result<File> {
        self.change()?;
        FileSystem.open(path)
    }

    fn write_at(&mut self, path: &Path, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let room = self.change()?;
        // Blocks that a file has already cost nothing.
        let grows = (offset + bytes.len() as u64).saturating_sub(file.metadata()?.len()) as i64;
        if grows > room {
            FileSystem.write_at(path, file, offset, &bytes[..bytes.len() - (grows - room) as usize])?;
            self.set(0);
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.set(room - grows);
        FileSystem.write_at(path, file, offset, bytes)
    }

    fn truncate(&mut self, path: &Path, file: &File, length: u64) -> io::Result<()> {
        self.change()?;
        FileSystem.truncate(path, file, length)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let room = self.change()?;
        self.set(room + path.metadata()?.len() as i64);
        FileSystem.remove(path)
    }

    fn sync(&mut self, _file: &File) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_keeps_lines_in_memory_and_writes_them_when_it_has_room() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Small::new(2000);
    let (mut spool, _) = open_with(folder.path(), LIMITS, disk.clone());
    append(&mut spool, 100);
    let error = spool.commit(Instant::now()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    let all: Vec<u64> = (0..100).collect();
    assert_eq!(read(&mut spool, 0), all, "part from the disk, part from memory");
    append(&mut spool, 5);
    assert!(spool.commit(Instant::now()).is_err());
    // What is delivered makes room.
    spool.acknowledge(15).unwrap();
    disk.set(1 << 20);
    spool.commit(Instant::now()).unwrap();
    drop(spool);
    let (mut spool, recovery) = open(folder.path());
    assert!(recovery.is_clean(), "{recovery}");
    assert_eq!(read(&mut spool, 15), (15..105).collect::<Vec<_>>());
}

#[test]
fn memory_is_bounded_too_and_what_it_drops_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { memory_bytes: 1000, ..LIMITS };
    let disk = Small::new(600);
    let (mut spool, _) = open_with(folder.path(), limits, disk.clone());
    append(&mut spool, 10);
    let _full = spool.commit(Instant::now());
    let on_disk = read(&mut spool, 0).len();
    assert_eq!(on_disk, 10);
    for _ in 0..90 {
        append(&mut spool, 1);
        let _full = spool.commit(Instant::now());
    }
    let kept = read(&mut spool, 0);
    let dropped = lost(&spool, Loss::Unwritable);
    assert!(dropped > 50, "{dropped}");
    assert_eq!(kept.len() as u64 + dropped, 100);
    assert_eq!(kept.last(), Some(&99), "the oldest go, not the newest");
    disk.set(1 << 20);
    spool.commit(Instant::now()).unwrap();
    drop(spool);
    let (mut spool, recovery) = open_with(folder.path(), limits, FileSystem);
    assert!(recovery.is_clean(), "a number that was given up is no damage: {recovery}");
    assert_eq!(read(&mut spool, 0), kept);
    assert_eq!(lost(&spool, Loss::Full) + lost(&spool, Loss::Damaged), 0);
}

#[test]
fn a_disk_that_turns_read_only_still_delivers() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Small::new(1 << 20);
    let (mut spool, _) = open_with(folder.path(), LIMITS, disk.clone());
    append(&mut spool, 20);
    spool.commit(Instant::now()).unwrap();
    disk.set(READ_ONLY);
    append(&mut spool, 3);
    assert_eq!(spool.commit(Instant::now()).unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(read(&mut spool, 0), (0..23).collect::<Vec<_>>());
    assert!(spool.acknowledge(21).is_err());
    let acknowledged = spool.acknowledged();
    assert_eq!(read(&mut spool, acknowledged), [21, 22], "this agent knows what it delivered");
    drop(spool);
    let (mut spool, recovery) = open(folder.path());
    assert!(recovery.is_clean(), "{recovery}");
    assert_eq!(read(&mut spool, 0), (0..20).collect::<Vec<_>>(), "the next one delivers it again");
}

#[test]
fn a_disk_that_can_only_be_read_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let refused = Spool::open(folder.path(), LIMITS, Box::new(Small::new(READ_ONLY))).err().unwrap().to_string();
    assert!(refused.contains("cannot use the spool") && refused.contains("Read-only"), "{refused}");
}

#[test]
fn without_a_disk_memory_is_the_spool() {
    let mut spool = Spool::in_memory(Limits { memory_bytes: 1000, ..LIMITS });
    append(&mut spool, 10);
    spool.commit(Instant::now()).unwrap();
    assert_eq!(read(&mut spool, 0).len(), 10);
    spool.acknowledge(4).unwrap();
    assert_eq!(read(&mut spool, 0), (4..10).collect::<Vec<_>>());
    append(&mut spool, 100);
    assert_eq!(lost(&spool, Loss::Unwritable) + 4 + read(&mut spool, 0).len() as u64, 110);
}

/// Fills a spool, lets the first ten records be on their way, and goes on until these are given up: how many are.
fn given_up_in_flight(spool: &mut Spool, loss: Loss) -> u64 {
    append(spool, 20);
    spool.commit(Instant::now()).unwrap();
    spool.in_flight(10);
    while spool.read(0, EVERYTHING).unwrap()[0].number < 12 {
        append(spool, 1);
        spool.commit(Instant::now()).unwrap();
    }
    let first = read(spool, 0)[0];
    assert_eq!(lost(spool, loss), first - 10, "what is on its way is not told");
    first
}

#[test]
fn what_is_given_up_on_its_way_is_lost_only_if_it_does_not_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let memory = || Spool::in_memory(Limits { memory_bytes: 1000, ..LIMITS });
    let disk = |name| open_with(&folder.path().join(name), Limits { disk_bytes: 8 * 4096, ..LIMITS }, FileSystem).0;
    for (mut spool, loss) in [(memory(), Loss::Unwritable), (disk("arrived"), Loss::Full)] {
        let first = given_up_in_flight(&mut spool, loss);
        spool.acknowledge(10).unwrap();
        assert_eq!(lost(&spool, loss), first - 10, "{loss:?}");
        assert_eq!(spool.waiting() + first, spool.end(), "{loss:?}");
    }
    for (mut spool, loss) in [(memory(), Loss::Unwritable), (disk("came back"), Loss::Full)] {
        let first = given_up_in_flight(&mut spool, loss);
        spool.came_back();
        assert_eq!(lost(&spool, loss), first, "{loss:?}");
        spool.acknowledge(first).unwrap();
        assert_eq!(lost(&spool, loss), first, "{loss:?}: they are gone");
    }
    let mut spool = disk("killed");
    let first = given_up_in_flight(&mut spool, Loss::Full);
    drop(spool);
    assert_eq!(lost(&disk("killed"), Loss::Full), first, "the answer died with the agent");
    assert_eq!(lost(&disk("arrived"), Loss::Full), lost(&disk("came back"), Loss::Full) - 10, "over a restart as well");
}
