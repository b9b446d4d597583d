//! Sockets as the tests need them, and the small programs ("actors") that a test runs as processes of their own.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

/// First argument of the test binary when it plays an actor.
pub const ACTOR: &str = "--actor";

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

/// A process of the test's: does what it is told on standard input and answers each command with a line.
pub struct Actor {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Actor {
    /// Starts `role` in the calling thread's namespace, as an executable called `name`.
    pub fn start(name: impl AsRef<Path>, role: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory").keep();
        let program: PathBuf = directory.join(name);
        // The kernel names a process after the file it executed.
        std::fs::copy(std::env::current_exe().expect("this test's path"), &program).expect("a copy of this test");
        let mut child = Command::new(&program)
            // The file's name may be no UTF-8, and it is among the arguments unless something else is said.
            .arg0("actor")
            .args([ACTOR, role])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("an actor");
        let input = child.stdin.take().expect("piped");
        let output = child.stdout.take().expect("piped");
        // It runs from the inode; the name is no longer needed once it has said something.
        let mut actor = Self { child, input, output };
        assert_eq!(actor.answer(), "ready");
        std::fs::remove_dir_all(directory).expect("the copy removed");
        actor
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives a command and waits for the answer.
    pub fn tell(&mut self, command: &str) -> String {
        self.say(command);
        self.answer()
    }

    /// Gives a command.
    pub fn say(&mut self, command: &str) {
        self.input.write_all(format!("{command}\n").as_bytes()).expect("the actor listens");
    }

    /// Waits for the answer to a command.
    pub fn answer(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.output.read(&mut byte).expect("the actor answers") == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).expect("UTF-8")
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.child.kill().expect("the actor can be killed");
        self.child.wait().expect("the actor has ended");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// Plays an actor: `server` listens, accepts one connection and obeys; `relay` has several.
pub fn act(arguments: &[String]) {
    match arguments.first().map_or("", String::as_str) {
        "server" => serve(arguments),
        "relay" => crate::relay::act(),
        role => panic!("unknown actor {role}"),
    }
}

fn serve(arguments: &[String]) {
    if let Some(cgroup) = arguments.get(1) {
        crate::cgroups::enter(cgroup);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    println!("ready");
    let mut connection: Option<TcpStream> = None;
    for command in std::io::stdin().lines() {
        let command = command.expect("commands are UTF-8");
        let (word, argument) = command.split_once(' ').unwrap_or((command.as_str(), ""));
        let stream = || connection.as_ref().expect("a connection");
        match word {
            "port" => println!("{}", listener.local_addr().expect("bound").port()),
            "accept" => {
                connection = Some(listener.accept().expect("a connection").0);
                println!("accepted");
            }
            "read" => {
                let mut buffer = vec![0; argument.parse().expect("a number")];
                stream().read_exact(&mut buffer).expect("data");
                println!("read");
            }
            // In a thread with a name of its own, as proxies and runtimes do it.
            "read-in-thread" => {
                let mut stream = stream().try_clone().expect("a second descriptor");
                let length: usize = argument.parse().expect("a number");
                std::thread::Builder::new()
                    .name("wrk:worker_0".to_owned())
                    .spawn(move || stream.read_exact(&mut vec![0; length]).expect("data"))
                    .expect("a thread")
                    .join()
                    .expect("the thread ended");
                println!("read");
            }
            "linger0" => {
                linger_zero(stream());
                println!("set");
            }
            "shutdown" => {
                stream().shutdown(Shutdown::Both).expect("a shutdown");
                println!("shut");
            }
            "close" => {
                connection = None;
                println!("closed");
            }
            // Connects to an address, waits so many milliseconds in vain and gives up.
            "give-up" => {
                let (address, wait) = argument.split_once(' ').expect("an address and a time");
                let socket = connect_nonblocking(address.parse().expect("an address"));
                std::thread::sleep(Duration::from_millis(wait.parse().expect("a number")));
                drop(socket);
                println!("gave up");
            }
            "enter" => {
                crate::cgroups::enter(argument);
                println!("entered");
            }
            "sleep" => std::thread::sleep(Duration::from_millis(argument.parse().expect("a number"))),
            "exit" => std::process::exit(argument.parse().expect("a status")),
            _ => panic!("unknown command {command}"),
        }
    }
}
