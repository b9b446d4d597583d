//! One agent per node: a lock file that dies with its process.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::fd::AsRawFd,
    path::PathBuf,
};

/// The lock, held while it lives.
#[derive(Debug)]
pub struct Instance {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another agent has it.
    #[error(
        "another rstscope ({holder}) already traces this node; stop it, or run this one beside it with --instance NAME"
    )]
    Taken {
        /// What the file says about the holder.
        holder: String,
    },
    /// The file could not be made.
    #[error("rstscope needs a writable /run (run it as root): cannot lock {}", path.display())]
    Unwritable {
        /// The lock file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

impl Instance {
    /// Takes the lock of instance `name`.
    ///
    /// # Errors
    ///
    /// If another process holds it, or the file cannot be made.
    pub fn lock(name: &str) -> Result<Self, InstanceError> {
        let path = PathBuf::from(format!("/run/rstscope-{name}.lock"));
        let unwritable = |source| InstanceError::Unwritable { path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(unwritable)?;
        // SAFETY: the descriptor is open; flock has no memory arguments. The lock goes with the descriptor, so an agent
        // that was killed leaves none behind.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let source = io::Error::last_os_error();
            if source.kind() != io::ErrorKind::WouldBlock {
                return Err(unwritable(source));
            }
            let mut holder = String::new();
            // Only for the message.
            if file.read_to_string(&mut holder).is_err() || holder.trim().is_empty() {
                "pid unknown".clone_into(&mut holder);
            }
            return Err(InstanceError::Taken { holder: holder.trim().to_owned() });
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "pid {}", std::process::id())
        };
        write(&mut file).map_err(unwritable)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_is_told_who_is_first() {
        let name = format!("unit-test-{}", std::process::id());
        let path = format!("/run/rstscope-{name}.lock");
        if let Ok(first) = Instance::lock(&name) {
            let second = Instance::lock(&name).unwrap_err().to_string();
            assert!(second.contains(&format!("pid {}", std::process::id())), "{second}");
            assert!(second.contains("--instance"), "{second}");
            drop(first);
            Instance::lock(&name).unwrap();
            std::fs::remove_file(path).unwrap();
        } else {
            // Not root: /run is not ours, and the message says so.
            assert!(Instance::lock(&name).unwrap_err().to_string().contains("/run"));
        }
    }
}
