//! As much of an HTTP/1.1 server (RFC 9112) as a client that sends whole bodies needs, with TLS or without.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request, its body unpacked.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }
}

/// What a product does with a request.
pub trait Rules: Send + 'static {
    fn answer(&mut self, request: &Request) -> Response;

    /// The ids of all lines that it has, as often as they came.
    fn ids(&self) -> Vec<String>;

    /// The rules that were broken, a sentence each.
    fn broken(&self) -> &[String];
}

/// What goes wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    #[default]
    None,
    /// This code instead of doing anything, and this in Retry-After.
    Status(u16, Option<String>),
    /// 413 for bodies of more bytes than this.
    TooLarge(usize),
    /// The request is served, and answered after this time.
    Late(Duration),
    /// No answer at all.
    Silence,
    /// The request is served, and the answer breaks off in the middle of its first line.
    HalfAnswer,
    /// The request is served, and the answer breaks off in the middle of its body, by a FIN.
    HalfBody,
    /// The same by a RST.
    Reset,
    /// The request is not served, and the answer is no HTTP.
    Garbage,
    /// The request is not served, and the answer is a success of something else: a page.
    Page,
    /// The connection is closed as soon as it is there.
    Close,
}

impl Trouble {
    /// This code, and nothing in Retry-After.
    pub fn status(status: u16) -> Self {
        Self::Status(status, None)
    }
}

struct Shared<R> {
    rules: Mutex<R>,
    trouble: Mutex<Trouble>,
    tls: Option<Arc<ServerConfig>>,
    requests: AtomicUsize,
    stopped: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

/// A server on loopback, until it is dropped.
pub struct Server<R: Rules> {
    pub address: SocketAddr,
    shared: Arc<Shared<R>>,
    thread: Option<JoinHandle<()>>,
}

impl<R: Rules> Server<R> {
    pub fn start(rules: R) -> Self {
        Self::start_with(rules, None)
    }

    pub fn start_with(rules: R, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            rules: Mutex::new(rules),
            trouble: Mutex::default(),
            tls,
            requests: AtomicUsize::default(),
            stopped: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let thread = serve(listener, &shared);
        Self { address, shared, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub fn set_trouble(&self, trouble: Trouble) {
        *self.shared.trouble.lock().unwrap() = trouble;
    }

    /// How many requests came, served or not.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The ids of all lines that arrived, each once.
    pub fn ids(&self) -> BTreeSet<String> {
        self.with(|rules| rules.ids().into_iter().collect())
    }

    /// Looks at what the product has, or changes it.
    pub fn with<T>(&self, look: impl FnOnce(&mut R) -> T) -> T {
        look(&mut self.shared.rules.lock().unwrap())
    }

    /// Stops as a product that is restarted does: connections break, the port is closed for a while, data is kept.
    pub fn restart(&mut self, pause: Duration) {
        self.stop();
        std::thread::sleep(pause);
        self.shared.stopped.store(false, Ordering::SeqCst);
        let listener = TcpListener::bind(self.address).expect("its own port again");
        self.thread = Some(serve(listener, &self.shared));
    }

    fn stop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server's thread does not panic");
        }
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _gone = connection.shutdown(Shutdown::Both);
        }
    }
}

impl<R: Rules> Drop for Server<R> {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve<R: Rules>(listener: TcpListener, shared: &Arc<Shared<R>>) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    // Polled, because whoever stops it may be in another network namespace and could not wake it by a connection.
    listener.set_nonblocking(true).expect("a listener can be polled");
    std::thread::spawn(move || {
        while !shared.stopped.load(Ordering::SeqCst) {
            let Ok((connection, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            connection.set_nonblocking(false).expect("a connection can wait");
            shared.connections.lock().unwrap().extend(connection.try_clone());
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                let peer = connection.peer_addr();
                converse(connection, &shared);
                // The last handle: only now it is closed.
                shared
                    .connections
                    .lock()
                    .unwrap()
                    .retain(|other| other.peer_addr().ok() != peer.as_ref().ok().copied());
            });
        }
    })
}

/// A connection, in the clear or not.
enum Connection {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Connection {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Until either side closes.
fn converse<R: Rules>(socket: TcpStream, shared: &Shared<R>) {
    let connection = match &shared.tls {
        None => Connection::Plain(socket),
        Some(configuration) => {
            let Ok(server) = ServerConnection::new(Arc::clone(configuration)) else { return };
            Connection::Tls(Box::new(StreamOwned::new(server, socket)))
        }
    };
    let mut input = BufReader::new(connection);
    loop {
        if *shared.trouble.lock().unwrap() == Trouble::Close {
            return;
        }
        let Some(request) = read(&mut input) else { return refuse_kindly(input.get_ref()) };
        shared.requests.fetch_add(1, Ordering::SeqCst);
        let trouble = shared.trouble.lock().unwrap().clone();
        let serve = || shared.rules.lock().unwrap().answer(&request);
        let response = match trouble {
            Trouble::TooLarge(most) if request.body.len() > most => Response::new(413, "too large"),
            Trouble::None | Trouble::TooLarge(_) => serve(),
            Trouble::Late(by) => {
                let response = serve();
                std::thread::sleep(by);
                response
            }
            Trouble::Status(status, after) => {
                let mut response = Response::new(status, "as commanded");
                response.headers.extend(after.map(|after| ("Retry-After".to_owned(), after)));
                response
            }
            Trouble::Page => {
                let mut response = Response::new(200, "<html><body>Please log in</body></html>");
                response.headers.push(("Content-Type".to_owned(), "text/html; charset=utf-8".to_owned()));
                response
            }
            Trouble::Silence => {
                // Until the client has had enough.
                let _gave_up = input.read(&mut [0]);
                return;
            }
            Trouble::Garbage => {
                let _sent = input.get_mut().write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n");
                return;
            }
            Trouble::HalfAnswer => {
                serve();
                let _sent = input.get_mut().write_all(b"HTTP/1.1 20");
                return;
            }
            Trouble::HalfBody | Trouble::Reset => {
                let answer = serve();
                let status = if answer.status == 204 { 200 } else { answer.status };
                let half = answer.body.get(..answer.body.len() / 2).unwrap_or_default();
                let length = answer.body.len() + 10;
                let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{half}");
                let _sent = input.get_mut().write_all(text.as_bytes());
                if trouble == Trouble::Reset {
                    let _reset = set_socket_linger(input.get_ref().socket(), Some(Duration::ZERO));
                }
                return;
            }
            Trouble::Close => return,
        };
        if write(input.get_mut(), &response).is_err() {
            return;
        }
    }
}

/// Lets the client read the alert that says why its certificate was not taken: to close with its bytes unread would be a RST,
/// which overtakes it.
fn refuse_kindly(connection: &Connection) {
    if let Connection::Tls(stream) = connection {
        let _closed = stream.sock.shutdown(Shutdown::Write);
        let _bounded = stream.sock.set_read_timeout(Some(Duration::from_millis(500)));
        let _drained = io::copy(&mut &stream.sock, &mut io::sink());
    }
}

fn read(input: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length").map_or(Ok(0), |length| length.parse()).ok()?;
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut unpacked).ok()?;
        body = unpacked;
    }
    Some(Request { method, path, headers, body })
}

fn write(connection: &mut Connection, response: &Response) -> io::Result<()> {
    let Response { status, headers, body } = response;
    let mut text = format!("HTTP/1.1 {status} X\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    // RFC 9110, 8.6: no length with 204.
    if *status != 204 {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    text += "\r\n";
    if *status != 204 {
        text += body;
    }
    connection.write_all(text.as_bytes())
}
