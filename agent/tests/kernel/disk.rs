//! A disk of its own for a test, in memory, that can be filled.

use std::{
    ffi::CString,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Mounted for as long as this lives.
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one of so many kibibytes.
    pub fn mount(path: &Path, kibibytes: usize) -> Self {
        fs::create_dir_all(path).unwrap();
        let target = c_string(path);
        let size = CString::new(format!("size={kibibytes}k")).unwrap();
        // SAFETY: all are strings that end with a zero and outlive the call.
        let result =
            unsafe { libc::mount(c"tmpfs".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, size.as_ptr().cast()) };
        assert_eq!(result, 0, "a disk in memory: {}", std::io::Error::last_os_error());
        Self { path: path.to_owned() }
    }

    /// Fills it until nothing fits.
    pub fn fill(&self) {
        let mut ballast = fs::File::options().create(true).append(true).open(self.ballast()).unwrap();
        while std::io::Write::write_all(&mut ballast, &[1; 4096]).is_ok() {}
    }

    /// Makes room again.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let target = c_string(&self.path);
        // Lazily: an agent of a test that failed may still use it.
        // SAFETY: a string that ends with a zero and outlives the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path has no zero in it")
}
