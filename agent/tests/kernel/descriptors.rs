//! Descriptors on their way from one process to another.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Lets `command` find `given` as this number, which nothing else may have. It has to stay open until then.
pub fn hand_down(command: &mut Command, given: BorrowedFd<'_>, number: i32) {
    let given = given.as_raw_fd();
    let duplicate = move || {
        // A descriptor that is duplicated onto itself would still be closed by exec.
        // SAFETY: both calls take numbers only, and are async-signal-safe.
        let result =
            unsafe { if given == number { libc::fcntl(given, libc::F_SETFD, 0) } else { libc::dup2(given, number) } };
        if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: what runs between fork and exec allocates nothing and takes no lock.
    unsafe { command.pre_exec(duplicate) };
}

/// Gives a descriptor to whoever [takes](take) it at `path` (SCM_RIGHTS), now or in a moment.
pub fn give(path: &Path, given: BorrowedFd<'_>) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let socket = loop {
        match UnixStream::connect(path) {
            Ok(socket) => break socket,
            Err(error) => assert!(Instant::now() < deadline, "nobody takes it: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let given = [given];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&given)), "there is room for it");
    sendmsg(&socket, &[IoSlice::new(b"!")], &mut control, SendFlags::empty()).expect("sent");
}

/// Waits at `path` for a descriptor.
pub fn take(path: &Path) -> OwnedFd {
    let listener = UnixListener::bind(path).expect("a place to take it");
    let (socket, _) = listener.accept().expect("somebody gives it");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(&socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).expect("received");
    let mut descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    descriptors.next().expect("a descriptor")
}
