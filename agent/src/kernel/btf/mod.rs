//! The running kernel describes its own structs; this reads that description (BTF).
//!
//! Member offsets differ between kernel builds, even within one release, so none is written down
//! in this agent: they are looked up here at start and handed to the eBPF programs. `parse` checks
//! the bytes once, `lookup` answers questions about them.

mod lookup;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// The types of one kernel, decoded and indexed by name.
///
/// Every BTF type record is a run of 32-bit words, so the whole type section is kept as words in
/// the machine's own byte order and read in place; names stay in the string section. For a
/// distribution kernel that is a few megabytes: drop the value once the offsets are known.
#[derive(Debug)]
pub struct Btf {
    words: Vec<u32>,
    /// `starts[id]..starts[id + 1]` are the words of type `id`. Type 0 is void and has none.
    starts: Vec<u32>,
    /// NUL-terminated names, found by byte offset.
    strings: Vec<u8>,
    /// First definition of each name, by hash; see `Btf::probe`.
    by_name: HashMap<u32, u32>,
}

/// Where a struct member lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberLocation {
    /// Bits from the start of the outermost struct. Within a byte, bit 0 is the lowest one on a
    /// little-endian machine.
    pub bit_offset: u32,
    /// Width of a bitfield, else the size of the member's type. A flexible array has 0.
    pub bit_size: u32,
}

/// Why the kernel's type information could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file could not be read: no such file on a kernel built without BTF, or no permission.
    #[error("cannot read the kernel's type information at {}", path.display())]
    Unreadable {
        /// The file asked for.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The bytes are something else altogether.
    #[error("this is not BTF: the magic number is missing")]
    NotBtf,
    /// A format newer than the one described by the kernels this agent knows.
    #[error("BTF format version {0} is not supported, only version 1 is")]
    UnsupportedVersion(u8),
    /// The bytes contradict themselves or end too early.
    #[error("malformed BTF: {0}")]
    Malformed(&'static str),
    /// A type of a kind unknown here, in BTF that does not say how long such a type is; whatever
    /// follows it cannot be found.
    #[error("BTF type {id} is of the unknown kind {kind}, and nothing says how long that is")]
    UnknownKind {
        /// Number of the type.
        id: u32,
        /// Number of its kind.
        kind: u32,
    },
}

impl Btf {
    /// Reads the type information of a kernel, as a rule `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    ///
    /// [`BtfError::Unreadable`] if the file cannot be read, otherwise those of [`Btf::parse`].
    pub fn from_kernel(path: &Path) -> Result<Btf, BtfError> {
        let data = std::fs::read(path).map_err(|source| BtfError::Unreadable { path: path.to_owned(), source })?;
        Btf::parse(&data)
    }
}
