//! As much of an HTTP/1.1 server (RFC 9112) as a client that sends whole bodies needs.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

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
}

/// What goes wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    #[default]
    None,
    /// This code instead of doing anything, and so many seconds in Retry-After.
    Status(u16, Option<u64>),
    /// No answer at all.
    Silence,
    /// The request is served, and the answer breaks off in the middle.
    HalfAnswer,
    /// The connection is closed as soon as it is there.
    Close,
}

struct Shared<R> {
    rules: Mutex<R>,
    trouble: Mutex<Trouble>,
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
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            rules: Mutex::new(rules),
            trouble: Mutex::default(),
            stopped: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let thread = serve(listener, &shared);
        Self { address, shared, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set_trouble(&self, trouble: Trouble) {
        *self.shared.trouble.lock().unwrap() = trouble;
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
            std::thread::spawn(move || converse(&connection, &shared));
        }
    })
}

/// Until either side closes.
fn converse<R: Rules>(connection: &TcpStream, shared: &Shared<R>) {
    let mut input = BufReader::new(connection);
    loop {
        if *shared.trouble.lock().unwrap() == Trouble::Close {
            return;
        }
        let Some(request) = read(&mut input) else { return };
        let trouble = shared.trouble.lock().unwrap().clone();
        let response = match trouble {
            Trouble::None => shared.rules.lock().unwrap().answer(&request),
            Trouble::Status(status, after) => {
                let mut response = Response::new(status, "as commanded");
                response.headers.extend(after.map(|seconds| ("Retry-After".to_owned(), seconds.to_string())));
                response
            }
            Trouble::Silence => {
                // Until the client has had enough.
                let _gave_up = input.read(&mut [0]);
                return;
            }
            Trouble::HalfAnswer => {
                shared.rules.lock().unwrap().answer(&request);
                let _sent = (&mut &*connection).write_all(b"HTTP/1.1 20");
                let _half = connection.shutdown(Shutdown::Write);
                return;
            }
            Trouble::Close => return,
        };
        if write(connection, &response).is_err() {
            return;
        }
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

fn write(mut connection: &TcpStream, response: &Response) -> std::io::Result<()> {
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
