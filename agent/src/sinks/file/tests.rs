use super::*;

fn settings(path: PathBuf) -> FileSettings {
    FileSettings {
        path,
        rotate_bytes: Size(40),
        rotate_after: None,
        keep: 2,
        fsync: Fsync::Always,
        filter: Filter::default(),
    }
}

fn write(file: &mut RotatingFile, line: &str) {
    let line = format!("{line}\n");
    file.between_lines(line.len()).unwrap();
    assert_eq!(file.write(line.as_bytes()).unwrap(), line.len());
    file.between_lines(0).unwrap();
}

fn read(path: &Path, suffix: &str) -> String {
    fs::read_to_string(format!("{}{suffix}", path.display())).unwrap_or_default()
}

#[test]
fn a_file_rotates_between_lines_before_it_is_too_large_and_keeps_so_many() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/resets.jsonl");
    let mut file = RotatingFile::open(settings(path.clone())).unwrap();
    for number in 0..10 {
        write(&mut file, &format!("line {number} of fifteen"));
    }
    assert_eq!(read(&path, ""), "line 8 of fifteen\nline 9 of fifteen\n");
    assert_eq!(read(&path, ".1"), "line 6 of fifteen\nline 7 of fifteen\n");
    assert_eq!(read(&path, ".2"), "line 4 of fifteen\nline 5 of fifteen\n");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 3);
}

#[test]
fn a_line_longer_than_the_bound_has_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resets.jsonl");
    let mut file = RotatingFile::open(settings(path.clone())).unwrap();
    write(&mut file, "short");
    write(&mut file, &"x".repeat(100));
    assert_eq!(read(&path, "").len(), 101);
    assert_eq!(read(&path, ".1"), "short\n");
}

#[test]
fn a_file_rotates_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resets.jsonl");
    let rotate_after = Some(Time(Duration::from_secs(3600)));
    let mut file = RotatingFile::open(FileSettings { rotate_after, ..settings(path.clone()) }).unwrap();
    write(&mut file, "old");
    file.since = SystemTime::now() - Duration::from_secs(3601);
    file.between_lines(0).unwrap();
    write(&mut file, "new");
    assert_eq!((read(&path, "").as_str(), read(&path, ".1").as_str()), ("new\n", "old\n"));
}

#[test]
fn after_logrotate_moved_it_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resets.jsonl");
    let mut file = RotatingFile::open(FileSettings { keep: 0, ..settings(path.clone()) }).unwrap();
    write(&mut file, &"x".repeat(100));
    write(&mut file, "before");
    fs::rename(&path, folder.path().join("moved")).unwrap();
    write(&mut file, "still the moved one");
    file.reopen().unwrap();
    write(&mut file, "after");
    assert_eq!(read(&path, ""), "after\n");
    assert!(fs::read_to_string(folder.path().join("moved")).unwrap().ends_with("before\nstill the moved one\n"));
}

#[test]
fn a_line_cut_off_by_a_kill_does_not_swallow_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resets.jsonl");
    fs::write(&path, "{\"half\":").unwrap();
    let mut file = RotatingFile::open(settings(path.clone())).unwrap();
    write(&mut file, "whole");
    assert_eq!(read(&path, ""), "{\"half\":\nwhole\n");
}

#[test]
fn a_rotation_that_fails_loses_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resets.jsonl");
    let mut file = RotatingFile::open(settings(path.clone())).unwrap();
    write(&mut file, "line 0 of fifteen");
    // A folder with something in it cannot be renamed over.
    fs::create_dir_all(folder.path().join("resets.jsonl.1/x")).unwrap();
    fs::create_dir_all(folder.path().join("resets.jsonl.2/x")).unwrap();
    write(&mut file, "line 1 of fifteen");
    let line = "line 2 of fifteen\n";
    assert!(file.between_lines(line.len()).is_err());
    file.write(line.as_bytes()).unwrap();
    assert!(file.between_lines(line.len()).is_ok(), "not tried again at once");
    assert_eq!(read(&path, "").lines().count(), 3);
}
