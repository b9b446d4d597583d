//! What can go wrong with a runtime's socket, each as one sentence with its remedy.

use std::{path::PathBuf, time::Duration};

/// Why a runtime's socket told nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CriError {
    /// There is no such file.
    #[error("there is no {}: give the path of the container runtime's socket, in a container with its folder mounted", .0.display())]
    NotThere(PathBuf),
    /// There is a file, and nobody listens.
    #[error(
        "nobody listens at {}: start the container runtime, and in a container mount the socket's folder, because a \
         socket mounted by itself is left behind when the runtime starts again", .0.display()
    )]
    NobodyListens(PathBuf),
    /// We may not connect.
    #[error(
        "no permission to connect to {}: run as root, or as a member of the socket's group", .0.display()
    )]
    Denied(PathBuf),
    /// Connecting failed in another way.
    #[error("cannot connect to {}: {said}", socket.display())]
    Unreachable {
        /// Where.
        socket: PathBuf,
        /// In the system's words.
        said: String,
    },
    /// It does not know the request.
    #[error(
        "{} is no container runtime interface of version 1: enable the CRI plugin of this containerd \
         (disabled_plugins in config.toml; docker's own containerd has it disabled), update a runtime older than \
         containerd 1.6, or give the path of another socket", .0.display()
    )]
    NoCri(PathBuf),
    /// It took too long.
    #[error(
        "{} did not answer {request} within {} s: the container runtime is overloaded or hangs; restart it if this \
         lasts", socket.display(), limit.as_secs()
    )]
    TimedOut {
        /// Where.
        socket: PathBuf,
        /// What was asked.
        request: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// There is more than anyone reads.
    #[error(
        "the answer of {} to {request} is too large, as it is for the kubelet: remove dead containers and pods ({said})",
        socket.display()
    )]
    TooLarge {
        /// Where.
        socket: PathBuf,
        /// What was asked.
        request: &'static str,
        /// How large.
        said: String,
    },
    /// What came is not the answer, or not all of it.
    #[error(
        "the answer of {} to {request} cannot be read: check that this is the container runtime's socket and that \
         the runtime runs ({said})", socket.display()
    )]
    Malformed {
        /// Where.
        socket: PathBuf,
        /// What was asked.
        request: &'static str,
        /// What is wrong with it.
        said: String,
    },
    /// The runtime itself failed.
    #[error("the container runtime at {} failed at {request}: its own log says why ({said})", socket.display())]
    Failed {
        /// Where.
        socket: PathBuf,
        /// What was asked.
        request: &'static str,
        /// In the runtime's words.
        said: String,
    },
}
