//! The guest's file system: a cpio archive in the format "newc", as the kernel unpacks it into its first file system.

use std::{collections::BTreeSet, path::Path};

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const DEVICE: u32 = 0o020_000;

/// An archive in the making.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a folder and the folders above it.
    pub fn folder(&mut self, path: &str, permissions: u32) {
        self.parents(path);
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER | permissions, (0, 0), &[]);
        }
    }

    /// Adds a file and the folders it is in.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.parents(path);
        self.entry(path, FILE | permissions, (0, 0), content);
    }

    /// Adds a character device, which takes no privilege in an archive.
    pub fn device(&mut self, path: &str, number: (u32, u32)) {
        self.parents(path);
        self.entry(path, DEVICE | 0o600, number, &[]);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        let mut above: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
        above.reverse();
        for folder in above.into_iter().filter_map(Path::to_str).filter(|folder| !folder.trim_matches('/').is_empty()) {
            if self.folders.insert(folder.to_owned()) {
                self.entry(folder, FOLDER | 0o755, (0, 0), &[]);
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let name = path.trim_start_matches('/');
        self.entries += 1;
        let links = if mode & FOLDER == FOLDER { 2 } else { 1 };
        let length = u32::try_from(content.len()).expect("no file of the guest's is as large as 4 GiB");
        // inode, mode, user, group, links, time, length, device, device of the node itself, length of the name, checksum
        let name_length = u32::try_from(name.len() + 1).expect("paths are short");
        let fields = [self.entries, mode, 0, 0, links, 0, length, 0, 0, device.0, device.1, name_length, 0];
        self.bytes.extend_from_slice(b"070701");
        self.bytes.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, mode and content of every entry.
    fn entries(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let (mut place, mut found) = (0, Vec::new());
        loop {
            let header = std::str::from_utf8(&bytes[place..place + 110]).unwrap();
            assert!(header.starts_with("070701"), "{header}");
            let field = |index: usize| u32::from_str_radix(&header[6 + 8 * index..14 + 8 * index], 16).unwrap();
            let name_end = place + 110 + field(11) as usize - 1;
            let name = std::str::from_utf8(&bytes[place + 110..name_end]).unwrap().to_owned();
            let data = (name_end + 1).next_multiple_of(4);
            let data_end = data + field(6) as usize;
            if name == "TRAILER!!!" {
                return found;
            }
            found.push((name, field(1), bytes[data..data_end].to_vec()));
            place = data_end.next_multiple_of(4);
        }
    }

    #[test]
    fn folders_come_once_and_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.file("/lib/x/a.so", 0o755, b"12345");
        archive.file("/lib/x/b.so", 0o644, b"");
        archive.folder("/tmp", 0o1777);
        let found = entries(&archive.finish());
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["lib", "lib/x", "lib/x/a.so", "lib/x/b.so", "tmp"]);
        assert_eq!(found[2].1, 0o100_755);
        assert_eq!(found[2].2, b"12345");
        assert_eq!(found[4].1, 0o041_777);
    }
}
