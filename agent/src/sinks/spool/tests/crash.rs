//! The agent is killed between any two writes and within each of them; a bit flips anywhere.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Instant,
};

use super::*;
use crate::sinks::spool::state;

/// What was done to the disk, and what the spool had promised at that time.
#[derive(Clone, Debug)]
enum Step {
    Open(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    Truncate(PathBuf, u64),
    Remove(PathBuf),
    /// `commit` returned: all records below are taken.
    Taken(u64),
    /// `acknowledge` was called: those below may be gone.
    Acknowledging(u64),
}

/// The file system, and a record of every change.
#[derive(Clone, Default)]
struct Recording(Arc<Mutex<Vec<Step>>>);

impl Recording {
    fn steps(&self) -> Vec<Step> {
        self.0.lock().unwrap().clone()
    }

    fn note(&self, step: Step) {
        self.0.lock().unwrap().push(step);
    }
}

fn name(path: &Path) -> PathBuf {
    path.file_name().unwrap().into()
}

impl Disk for Recording {
    fn create_folder(&mut self, folder: &Path) -> io::Result<()> {
        FileSystem.create_folder(folder)
    }

    fn open(&mut self, path: &Path) -> io::Result<File> {
        self.note(Step::Open(name(path)));
        FileSystem.open(path)
    }

    fn write_at(&mut self, path: &Path, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.note(Step::Write(name(path), offset, bytes.to_vec()));
        FileSystem.write_at(path, file, offset, bytes)
    }

    fn truncate(&mut self, path: &Path, file: &File, length: u64) -> io::Result<()> {
        self.note(Step::Truncate(name(path), length));
        FileSystem.truncate(path, file, length)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.note(Step::Remove(name(path)));
        FileSystem.remove(path)
    }

    fn sync(&mut self, _file: &File) -> io::Result<()> {
        Ok(())
    }
}

fn play(folder: &Path, step: &Step) {
    match step {
        Step::Open(name) => drop(FileSystem.open(&folder.join(name)).unwrap()),
        Step::Write(name, offset, bytes) => {
            let path = folder.join(name);
            let file = FileSystem.open(&path).unwrap();
            FileSystem.write_at(&path, &file, *offset, bytes).unwrap();
        }
        Step::Truncate(name, length) => FileSystem.open(&folder.join(name)).unwrap().set_len(*length).unwrap(),
        Step::Remove(name) => fs::remove_file(folder.join(name)).unwrap(),
        Step::Taken(_) | Step::Acknowledging(_) => {}
    }
}

/// Appends, commits, acknowledges, runs into the bound and is restarted.
fn history() -> Vec<Step> {
    let folder = tempfile::tempdir().unwrap();
    let recording = Recording::default();
    let limits = Limits { disk_bytes: 4 * 4096, segment_bytes: 100, fsync: Fsync::Always, ..LIMITS };
    for run in 0..2 {
        let (mut spool, _) = open_with(folder.path(), limits, recording.clone());
        for round in 0..5 {
            append(&mut spool, 1 + round % 4);
            spool.commit(Instant::now()).unwrap();
            recording.note(Step::Taken(spool.end()));
            if run < 1 && round % 2 == 1 {
                let upto = spool.end() - 2;
                recording.note(Step::Acknowledging(upto));
                spool.acknowledge(upto).unwrap();
            }
        }
    }
    recording.steps()
}

/// Opens what is there after `steps`, as the next agent does.
fn check(steps: &[Step], last: Option<&Step>) {
    let folder = tempfile::tempdir().unwrap();
    steps.iter().chain(last).for_each(|step| play(folder.path(), step));
    let (mut taken, mut acknowledging) = (0, 0);
    for step in steps {
        match step {
            Step::Taken(end) => taken = *end,
            Step::Acknowledging(end) => acknowledging = *end,
            _ => {}
        }
    }
    let context = || format!("killed at step {} in {last:?}", steps.len());
    let (mut spool, recovery) = open_with(folder.path(), LIMITS, FileSystem);
    assert_eq!(recovery.damaged, 0, "{}: {recovery}", context());
    let from = spool.acknowledged();
    let kept = read(&mut spool, from);
    let lost = lost(&spool, Loss::Full);
    // Nothing vanishes: what was taken and not delivered is still there, or counted.
    let missing = (acknowledging..taken).filter(|number| !kept.contains(number)).count() as u64;
    assert!(missing <= lost, "{}: {missing} missing, {lost} counted, kept {kept:?}", context());
    // And nothing is counted that was delivered or is there.
    let gone = (0..taken).filter(|number| !kept.contains(number)).count() as u64;
    assert!(lost <= gone, "{}: {lost} counted, {gone} gone", context());
    assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{}: {kept:?}", context());

    assert!(spool.end() >= taken, "{}: a number is given twice", context());
    append(&mut spool, 1);
    spool.commit(Instant::now()).unwrap();
    let end = spool.end();
    drop(spool);
    let (mut spool, _) = open(folder.path());
    assert_eq!(read(&mut spool, from).last(), Some(&(end - 1)), "{}", context());
}

#[test]
fn an_agent_killed_at_any_byte_of_any_write_loses_nothing_it_had_taken() {
    let steps = history();
    let dropped = steps.iter().filter(|step| matches!(step, Step::Remove(_))).count();
    assert!(steps.len() > 40 && dropped > 5, "{} steps, {dropped} segments dropped", steps.len());
    for (index, step) in steps.iter().enumerate() {
        check(&steps[..index], None);
        if let Step::Write(name, offset, bytes) = step {
            for length in 1..bytes.len() {
                check(&steps[..index], Some(&Step::Write(name.clone(), *offset, bytes[..length].to_vec())));
            }
        }
    }
    check(&steps, None);
}

/// A spool of several segments, half acknowledged, as the files it consists of.
fn files() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    for _ in 0..4 {
        append(&mut spool, 6);
        spool.commit(Instant::now()).unwrap();
    }
    spool.acknowledge(5).unwrap();
    spool.acknowledge(8).unwrap();
    drop(spool);
    assert!(segments(folder.path()).len() >= 3);
    let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

/// A low and a high bit of each byte: lengths and numbers become a little or absurdly larger or smaller.
fn bits(bytes: usize) -> impl Iterator<Item = usize> {
    (0..bytes).flat_map(|byte| [byte * 8 + byte % 3, byte * 8 + 7])
}

#[test]
fn a_flipped_bit_costs_at_most_one_record_and_is_counted() {
    let files = files();
    let last = files.iter().map(|(name, _)| name).filter(|name| name.to_str().unwrap().ends_with("segment")).max();
    for (damaged, bytes) in files.iter().filter(|(name, _)| name.to_str().unwrap().ends_with("segment")) {
        for bit in bits(bytes.len()) {
            let folder = tempfile::tempdir().unwrap();
            for (name, bytes) in &files {
                let mut bytes = bytes.clone();
                if name == damaged {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
                fs::write(folder.path().join(name), bytes).unwrap();
            }
            let (mut spool, recovery) = open(folder.path());
            let kept = read(&mut spool, 8).len() as u64;
            let context = format!("bit {bit} of {}: {recovery}", damaged.display());
            assert!(kept >= 15, "{context}");
            assert_eq!(recovery.waiting, kept, "{context}");
            // The end of the last record may look like the end of a write that was cut off.
            let looks_torn = Some(damaged) == last && recovery.torn_bytes > 0;
            let damaged_delivered = kept == 16;
            assert!(recovery.damaged == 16 - kept || looks_torn || damaged_delivered, "{context}");
            assert_eq!(lost(&spool, Loss::Damaged), recovery.damaged, "{context}");
            drop(spool);
            let (mut spool, again) = open(folder.path());
            assert_eq!(again.torn_bytes, 0, "{context}");
            assert_eq!(read(&mut spool, 8).len() as u64, kept, "{context}");
        }
    }
}

#[test]
fn a_flipped_bit_while_the_agent_runs_is_counted_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    append(&mut spool, 20);
    spool.commit(Instant::now()).unwrap();
    let path = &segments(folder.path())[1];
    let mut bytes = fs::read(path).unwrap();
    bytes[60] ^= 4;
    fs::write(path, bytes).unwrap();
    for _ in 0..2 {
        assert_eq!(read(&mut spool, 0).len(), 19);
        assert_eq!(lost(&spool, Loss::Damaged), 1);
    }
}

#[test]
fn a_damaged_state_delivers_again_and_never_skips() {
    let files = files();
    let (_, bytes) = files.iter().find(|(name, _)| name == Path::new(state::FILE)).unwrap();
    let damages = bits(bytes.len()).map(|bit| {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    for damage in damages.chain((0..bytes.len()).map(|length| bytes[..length].to_vec())) {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in &files {
            let is_state = name == Path::new(state::FILE);
            fs::write(folder.path().join(name), if is_state { &damage } else { bytes }).unwrap();
        }
        let (mut spool, recovery) = open(folder.path());
        let from = spool.acknowledged();
        assert!(from <= 8, "{from}");
        assert!(read(&mut spool, from).ends_with(&(8..24).collect::<Vec<_>>()));
        // The older slot says 5, and the first segment was deleted after that: those look dropped.
        assert!(recovery.missing <= 3, "{recovery}");
    }
}
