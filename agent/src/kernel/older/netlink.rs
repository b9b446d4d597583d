//! The sockets of a network namespace, from sock_diag: which inode is which connection.
//!
//! The connection is named by its cookie, which no other socket ever gets. The kernel hands one out to every socket that it
//! lists (`sock_diag_save_cookie`), keeps it in the socket where the hooks can read it, and lets TIME_WAIT inherit it
//! (`inet_twsk_alloc`). So a late or a recycled address cannot be mistaken for the connection that was found here.

use std::{fs::File, io, os::fd::AsFd, thread};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{NOBODY, Open};

/// More than the kernel puts into one answer (`netlink_recvmsg` asks for 32 KiB at most).
const ANSWER_BYTES: usize = 64 * 1024;

/// Connections of TCP that a file may refer to.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Nobody's yet.
    pub found: Vec<Open>,
    /// Sockets beyond the most that were asked for.
    pub left_out: u64,
    /// Network namespaces that could not be entered.
    pub closed_namespaces: u64,
    /// The first thing that went wrong.
    pub error: Option<String>,
}

/// Lists the sockets of all of these network namespaces, `most` at most, in a thread of its own: a thread can go from
/// namespace to namespace, and this one goes nowhere afterwards.
pub fn list(namespaces: Vec<File>, most: usize) -> Sockets {
    let work = move || {
        let mut sockets = Sockets::default();
        for namespace in namespaces {
            sockets.add(&namespace, most);
        }
        sockets
    };
    let thread = thread::Builder::new().name("sock_diag".to_owned()).spawn(work);
    match thread.map(thread::JoinHandle::join) {
        Ok(Ok(sockets)) => sockets,
        Ok(Err(_panic)) => Sockets { error: Some("the sock_diag thread panicked".to_owned()), ..Sockets::default() },
        Err(error) => Sockets { error: Some(format!("starting the sock_diag thread: {error}")), ..Sockets::default() },
    }
}

impl Sockets {
    fn add(&mut self, namespace: &File, most: usize) {
        // Entering the own one takes the same right, and is needed only after another one was entered.
        let entered =
            is_own(namespace) || move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).is_ok();
        if !entered {
            self.closed_namespaces += 1;
            return;
        }
        for family in [AF_INET, AF_INET6] {
            if let Err(error) = self.dump(family, most) {
                self.error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    fn dump(&mut self, family: u8, most: usize) -> Result<()> {
        let socket = Socket::new(NETLINK_SOCK_DIAG).context("opening a sock_diag socket")?;
        // The next part of an answer is there before the last one is handed out (`netlink_recvmsg`).
        socket.set_non_blocking(true).context("setting up the sock_diag socket")?;
        socket.connect(&SocketAddr::new(0, 0)).context("connecting the sock_diag socket")?;
        socket.send(&request(family), 0).context("asking sock_diag")?;
        let mut answer = vec![0; ANSWER_BYTES];
        loop {
            let length = match socket.recv(&mut &mut answer[..], libc::MSG_TRUNC) {
                Ok(length) if length <= answer.len() => length,
                Ok(length) => bail!("sock_diag answered with {length} bytes at once"),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("reading from sock_diag"),
            };
            if self.take(&answer[..length], most)? == Answer::Complete {
                return Ok(());
            }
        }
    }

    /// Takes one part of an answer, which is several messages.
    fn take(&mut self, mut part: &[u8], most: usize) -> Result<Answer> {
        while !part.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(part).context("an answer of sock_diag")?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => self.keep(&response, most),
                NetlinkPayload::Done(_) => return Ok(Answer::Complete),
                NetlinkPayload::Error(error) => return Err(error.to_io()).context("sock_diag refuses"),
                _ => {}
            }
            // Messages begin at multiples of four (NLMSG_ALIGN).
            let length = (message.header.length as usize).next_multiple_of(4);
            part = part.get(length..).unwrap_or_default();
        }
        Ok(Answer::GoesOn)
    }

    fn keep(&mut self, response: &InetResponse, most: usize) {
        let header = &response.header;
        // No file: not accepted yet, or closed.
        if header.inode == 0 {
            return;
        }
        if self.found.len() >= most {
            self.left_out += 1;
            return;
        }
        self.found.push(Open { cookie: cookie(header.socket_id.cookie), inode: header.inode, holder: NOBODY });
    }
}

/// Whether more follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    GoesOn,
    Complete,
}

fn is_own(namespace: &File) -> bool {
    use std::os::unix::fs::MetadataExt;

    let own = std::fs::metadata("/proc/thread-self/ns/net").map(|own| own.ino());
    matches!((own, namespace.metadata()), (Ok(own), Ok(other)) if own == other.ino())
}

/// Every connection that a file may refer to; neither listeners nor mini-sockets.
fn request(family: u8) -> Vec<u8> {
    let states = StateFlags::ESTABLISHED
        | StateFlags::SYN_SENT
        | StateFlags::SYN_RECV
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING;
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Two words, the low one first, whatever the machine's byte order (`sock_diag_save_cookie`).
fn cookie(bytes: [u8; 8]) -> u64 {
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    u64::from(word(0)) | u64::from(word(4)) << 32
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn inode_of(socket: &impl AsFd) -> u32 {
        rustix::fs::fstat(socket).unwrap().st_ino as u32
    }

    fn own_namespace() -> Vec<File> {
        vec![File::open("/proc/thread-self/ns/net").unwrap()]
    }

    /// Asks the running kernel; that takes no rights.
    #[test]
    fn both_ends_of_a_connection_are_listed_and_no_listener() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let waiting = list(own_namespace(), usize::MAX);
            assert_eq!(waiting.error, None);
            let (server, _) = listener.accept().unwrap();
            let sockets = list(own_namespace(), usize::MAX);
            let cookie_of = |inode: u32| sockets.found.iter().find(|open| open.inode == inode).map(|open| open.cookie);
            let (near, far) = (cookie_of(inode_of(&client)).unwrap(), cookie_of(inode_of(&server)).unwrap());
            assert!(near != far && near != 0 && far != 0, "{near:#x} {far:#x}");
            assert_eq!(cookie_of(inode_of(&listener)), None);
            assert_eq!(cookie_of(0), None, "not accepted yet");
            assert_eq!((sockets.closed_namespaces, sockets.left_out), (0, 0));
            let again = list(own_namespace(), usize::MAX);
            let client = Open { cookie: near, inode: inode_of(&client), holder: NOBODY };
            assert!(again.found.contains(&client), "a cookie stays");
        }
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_server, _) = listener.accept().unwrap();
        let sockets = list(own_namespace(), 1);
        assert!(sockets.found.len() == 1 && sockets.left_out >= 1, "{sockets:?}");
    }

    #[test]
    fn a_cookies_low_word_comes_first() {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[4..].copy_from_slice(&1_u32.to_ne_bytes());
        assert_eq!(cookie(bytes), 0x1_0000_0007);
    }
}
