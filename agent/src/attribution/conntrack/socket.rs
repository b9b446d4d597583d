//! A netlink socket to the connection tracking of one network namespace.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect,
        netlink::{self, SocketAddrNetlink},
        recv, send, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::message::{Answer, Connection, Wrong, read, request};

/// How long an answer may take. The kernel gives it before the request's system call returns.
pub const PATIENCE: Duration = Duration::from_millis(50);
/// An answer has some 200 bytes; with every extension of conntrack it stays below this.
const LONGEST_ANSWER: usize = 4096;

/// This thread's network namespace. The kernel shows only the directory of a namespace in which tracking is there.
const TRACKING: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
/// This thread's own namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why the connection tracking cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unable {
    /// It is not in the kernel, or no module of it is loaded: nothing is translated by it.
    NoTracking,
    /// It is there, but not its netlink interface.
    NoInterface,
    /// CAP_NET_ADMIN is missing in the user namespace that owns the network namespace.
    NoRight,
    /// Something else.
    Other(String),
}

/// Whose connection tracking is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// That of the namespace asked for.
    Wanted(PathBuf),
    /// That of our own, because none of those asked for can be entered: why not the first.
    Own(String),
}

/// See the module.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

/// Moves this thread into the first of the network namespaces that can be entered, unless it is there already.
pub fn enter(namespaces: &[PathBuf]) -> Place {
    let mut refused = None;
    for namespace in namespaces {
        match try_enter(namespace) {
            Ok(()) => return Place::Wanted(namespace.clone()),
            Err(error) => {
                refused.get_or_insert_with(|| format!("{} cannot be entered: {error}", namespace.display()));
            }
        }
    }
    Place::Own(refused.unwrap_or_default())
}

fn try_enter(namespace: &Path) -> io::Result<()> {
    let (own, wanted) = (fs::metadata(OWN)?, fs::metadata(namespace)?);
    if (own.dev(), own.ino()) == (wanted.dev(), wanted.ino()) {
        return Ok(());
    }
    let namespace = File::open(namespace)?;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

impl Socket {
    /// Opens one in this thread's network namespace and asks for a connection that cannot be, to see what the kernel
    /// allows.
    ///
    /// # Errors
    ///
    /// If there is nothing to ask, or it may not be asked.
    pub fn open() -> Result<Self, Unable> {
        // Asking would load the module: a node without translation is better left without.
        if !Path::new(TRACKING).exists() {
            return Err(Unable::NoTracking);
        }
        let fd = open().map_err(|error| match error {
            Errno::PROTONOSUPPORT => Unable::NoInterface,
            error => Unable::Other(io::Error::from(error).to_string()),
        })?;
        let mut socket = Self { fd, sequence: 0 };
        match socket.ask(nobody()) {
            Ok(_) => Ok(socket),
            Err(Wrong::Refused(libc::EPERM)) => Err(Unable::NoRight),
            // No subsystem of this number (`nfnetlink_rcv_msg`).
            Err(Wrong::Refused(libc::EINVAL)) => Err(Unable::NoInterface),
            Err(wrong) => Err(Unable::Other(wrong.to_string())),
        }
    }

    /// Asks for a connection.
    ///
    /// # Errors
    ///
    /// If the kernel gives no answer, or one that makes no sense.
    pub fn ask(&mut self, connection: Connection) -> Result<Answer, Wrong> {
        self.sequence = self.sequence.wrapping_add(1);
        let asked = Instant::now();
        send(&self.fd, &request(connection, self.sequence), SendFlags::empty()).map_err(refused)?;
        let mut buffer = [0; LONGEST_ANSWER];
        while asked.elapsed() < PATIENCE {
            let (_, length) = recv(&self.fd, &mut buffer, RecvFlags::TRUNC).map_err(refused)?;
            let Some(bytes) = buffer.get(..length) else {
                return Err(Wrong::Malformed(format!("{length} bytes")));
            };
            match read(bytes, connection, self.sequence) {
                // Of a request whose answer came too late.
                Err(Wrong::OtherRequest) => {}
                answer => return answer,
            }
        }
        Err(Wrong::Refused(libc::ETIMEDOUT))
    }
}

fn open() -> Result<OwnedFd, Errno> {
    let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    // The kernel chooses our port; connected to its own, nobody else can answer.
    bind(&fd, &SocketAddrNetlink::new(0, 0))?;
    connect(&fd, &SocketAddrNetlink::new(0, 0))?;
    set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
    Ok(fd)
}

fn refused(error: Errno) -> Wrong {
    Wrong::Refused(error.raw_os_error())
}

/// Between two addresses of documentation (RFC 5737).
fn nobody() -> Connection {
    Connection { from: ([192, 0, 2, 1], 1).into(), to: ([192, 0, 2, 2], 1).into() }
}
