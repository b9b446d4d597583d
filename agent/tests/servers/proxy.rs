//! An HTTP proxy: CONNECT (RFC 9110, 9.3.6) for what is encrypted, requests with a whole URL (RFC 9112, 3.2.2) for the rest.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// A proxy on loopback. Its thread ends with the process; a test has few of them.
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || relay(client, &seen));
            }
        });
        Self { address, asked }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Method and target of each request that it was asked for, of plain connections the first one.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn relay(client: TcpStream, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut input = BufReader::new(client.try_clone().ok()?);
    let mut first = String::new();
    input.read_line(&mut first).ok()?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next()?, words.next()?);
    seen.lock().unwrap().push(format!("{method} {target}"));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && head != "\r\n" {
        if input.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let server = if method == "CONNECT" {
        let server = TcpStream::connect(target).ok()?;
        (&client).write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
        server
    } else {
        let (authority, path) = target.strip_prefix("http://")?.split_once('/')?;
        let mut server = TcpStream::connect(authority).ok()?;
        server.write_all(format!("{method} /{path} HTTP/1.1\r\n{head}").as_bytes()).ok()?;
        server
    };
    // Later requests of a plain connection go the same way: the one client that there is talks to one server.
    let (mut upwards, mut from_server) = (server.try_clone().ok()?, server);
    let up = std::thread::spawn(move || {
        let _until_closed = io::copy(&mut input, &mut upwards);
        let _closed = upwards.shutdown(std::net::Shutdown::Write);
    });
    let _until_closed = io::copy(&mut from_server, &mut &client);
    let _closed = client.shutdown(std::net::Shutdown::Both);
    up.join().ok()
}
