//! Sockets as the tests need them.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::agent::patience;

/// Which addresses a connection uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
    /// AF_INET6 sockets with IPv4-mapped addresses.
    Mapped,
}

impl Family {
    /// Loopback as this family spells it.
    pub fn loopback(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::LOCALHOST, port).into(),
            Self::V6 => (Ipv6Addr::LOCALHOST, port).into(),
            Self::Mapped => (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into(),
        }
    }

    /// Loopback as a line spells it.
    pub const fn address(self) -> &'static str {
        match self {
            Self::V4 | Self::Mapped => "127.0.0.1",
            Self::V6 => "::1",
        }
    }

    /// A listener; for mapped addresses on the wildcard, as dual-stack servers have it.
    pub fn listen(self) -> TcpListener {
        let address: SocketAddr = match self {
            Self::Mapped => (Ipv6Addr::UNSPECIFIED, 0).into(),
            _ => self.loopback(0),
        };
        TcpListener::bind(address).expect("a listener")
    }
}

/// An established connection and its two ends.
pub struct Pair {
    pub client: TcpStream,
    pub server: TcpStream,
    /// Kept so that the port stays served.
    pub listener: TcpListener,
}

impl Pair {
    /// Connects over loopback; call it inside a namespace.
    pub fn connect(family: Family) -> Self {
        let listener = family.listen();
        let port = listener.local_addr().expect("bound").port();
        let client = TcpStream::connect(family.loopback(port)).expect("a connection");
        let (server, _) = listener.accept().expect("accepted");
        client.set_nodelay(true).expect("no delay");
        server.set_nodelay(true).expect("no delay");
        Self { client, server, listener }
    }

    pub fn client_port(&self) -> u16 {
        self.client.local_addr().expect("bound").port()
    }

    pub fn server_port(&self) -> u16 {
        self.server.local_addr().expect("bound").port()
    }

    /// Closes the server's end, keeping the client's and the port served.
    pub fn close_server(self) -> (TcpStream, TcpListener) {
        let Self { client, server, listener } = self;
        drop(server);
        (client, listener)
    }

    /// Closes the client's end, keeping the server's and the port served.
    pub fn close_client(self) -> (TcpStream, TcpListener) {
        let Self { client, server, listener } = self;
        drop(client);
        (server, listener)
    }

    /// Client asks with `ask` bytes, server reads them and answers with `answer` bytes, client reads those.
    pub fn exchange(&mut self, ask: usize, answer: usize) {
        self.client.write_all(&vec![b'q'; ask]).expect("a request");
        self.server.read_exact(&mut vec![0; ask]).expect("the request");
        self.server.write_all(&vec![b'a'; answer]).expect("an answer");
        self.client.read_exact(&mut vec![0; answer]).expect("the answer");
    }
}

/// Makes close() send a RST.
pub fn linger_zero(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option is a `struct linger` of this size.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "SO_LINGER: {}", std::io::Error::last_os_error());
}

/// Sets a TCP option that is an int.
pub fn tcp_option(stream: &TcpStream, option: libc::c_int, value: libc::c_int) {
    // SAFETY: the option is an int.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "a TCP option: {}", std::io::Error::last_os_error());
}

/// A listener, and a connection that waits for it to be accepted: the client is through with the handshake before the
/// server is, whose ACK may still be on its way when connect() returns.
pub fn waiting_to_be_accepted(family: Family) -> (TcpListener, TcpStream) {
    let listener = family.listen();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut ready = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let patience_ms = i32::try_from(patience().as_millis()).unwrap();
    // SAFETY: there is one pollfd, and it outlives the call.
    let count = unsafe { libc::poll(&raw mut ready, 1, patience_ms) };
    assert_eq!(count, 1, "nothing waits to be accepted");
    (listener, client)
}

/// A socket that has begun to connect and does not wait.
pub fn connect_nonblocking(address: SocketAddr) -> TcpStream {
    let (socket, error) = connect_raw(address, libc::SOCK_NONBLOCK, 0);
    assert_eq!(error.and_then(|error| error.raw_os_error()), Some(libc::EINPROGRESS));
    socket
}

/// A connection by MPTCP, which falls back to TCP if the other end does not speak it.
pub fn connect_mptcp(address: SocketAddr) -> TcpStream {
    let (socket, error) = connect_raw(address, 0, libc::IPPROTO_MPTCP);
    assert!(error.is_none(), "MPTCP: {error:?}");
    socket
}

fn connect_raw(address: SocketAddr, flags: i32, protocol: i32) -> (TcpStream, Option<std::io::Error>) {
    let SocketAddr::V4(address) = address else { panic!("only IPv4 here") };
    // SAFETY: socket has no memory arguments; the descriptor is owned from here on.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags, protocol);
        assert!(fd >= 0, "a socket: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    let raw = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: the address is a `sockaddr_in` of this size.
    let result = unsafe {
        libc::connect(socket.as_raw_fd(), (&raw const raw).cast(), size_of::<libc::sockaddr_in>() as libc::socklen_t)
    };
    let error = (result != 0).then(std::io::Error::last_os_error);
    (TcpStream::from(socket), error)
}
