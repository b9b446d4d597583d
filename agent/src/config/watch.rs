//! Has the configuration changed?
//!
//! The content is compared, not its time stamp or its inode: Kubernetes swaps a ConfigMap by turning a symbolic link two folders
//! up, editors write a new file in place of the old one, and others write into the old one.

use std::{fs, path::PathBuf};

/// Looks at a file from time to time.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    last: Option<Vec<u8>>,
}

impl Watch {
    /// From what the file is now on.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let last = fs::read(&path).ok();
        Self { path, last }
    }

    /// Whether it is another than at the last look. One that cannot be read, as in the middle of a swap, is not another.
    pub fn has_changed(&mut self) -> bool {
        let Ok(now) = fs::read(&self.path) else { return false };
        if self.last.as_ref() == Some(&now) {
            return false;
        }
        self.last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_config_map_that_is_swapped_is_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        for (version, text) in [("..1", "a"), ("..2", "b")] {
            fs::create_dir(folder.path().join(version)).unwrap();
            fs::write(folder.path().join(version).join("rstscope.toml"), text).unwrap();
        }
        symlink("..1", folder.path().join("..data")).unwrap();
        symlink("..data/rstscope.toml", folder.path().join("rstscope.toml")).unwrap();
        let mut watch = Watch::new(folder.path().join("rstscope.toml"));
        assert!(!watch.has_changed());
        symlink("..2", folder.path().join("..data_tmp")).unwrap();
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
        assert!(watch.has_changed());
        assert!(!watch.has_changed());
        fs::remove_file(folder.path().join("..data")).unwrap();
        assert!(!watch.has_changed(), "gone is not another");
    }
}
