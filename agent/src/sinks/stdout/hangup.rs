//! Has the reader of standard output gone?

use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether the other end of `output` is closed, so that `rstscope trace | head -1` ends at once and not at the next
/// reset, which may be hours away. Always false for files and terminals.
#[must_use]
pub fn reader_is_gone(output: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: output.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one valid pollfd, and a timeout of 0 does not block.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready > 0 && poll.revents & libc::POLLERR != 0
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_pipe_without_reader_is_noticed_without_writing() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(!reader_is_gone(writer.as_fd()));
        drop(reader);
        assert!(reader_is_gone(writer.as_fd()));
    }

    #[test]
    fn a_file_has_no_reader_to_lose() {
        assert!(!reader_is_gone(tempfile::tempfile().unwrap().as_fd()));
    }
}
