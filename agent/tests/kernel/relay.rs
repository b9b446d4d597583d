//! An actor that has several connections, as a proxy has: it does what a line of `;`-separated commands says, all in one
//! thread and without a pause, and then answers.
//!
//! `accept NAME`, `connect NAME ADDRESS`, `begin NAME ADDRESS` (and does not wait), `read NAME BYTES`, `write NAME BYTES`,
//! `wait NAME` (until it ends, one way or the other), `linger0 NAME`, `close NAME`, `sleep MILLISECONDS`. A line that begins
//! with `thread` is done by a thread of its own.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::Duration,
};

use crate::sockets::{connect_nonblocking, linger_zero};

/// Plays it.
pub fn act() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let mut relay = Relay { listener, connections: HashMap::new() };
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line.expect("commands are UTF-8");
        if line == "port" {
            println!("{}", relay.listener.local_addr().expect("bound").port());
            continue;
        }
        relay = match line.strip_prefix("thread ") {
            Some(line) => {
                let line = line.to_owned();
                std::thread::spawn(move || relay.obey(&line)).join().expect("the thread ended")
            }
            None => relay.obey(&line),
        };
        println!("done");
    }
}

struct Relay {
    listener: TcpListener,
    connections: HashMap<String, TcpStream>,
}

impl Relay {
    fn obey(mut self, line: &str) -> Self {
        for command in line.split(';') {
            let words: Vec<&str> = command.split_whitespace().collect();
            self.obey_one(&words);
        }
        self
    }

    fn obey_one(&mut self, words: &[&str]) {
        let number = |text: &str| text.parse::<usize>().expect("a number");
        match words {
            ["accept", name] => self.keep(name, self.listener.accept().expect("a connection").0),
            ["connect", name, address] => match TcpStream::connect(address) {
                Ok(stream) => self.keep(name, stream),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused),
            },
            ["begin", name, address] => self.keep(name, connect_nonblocking(address.parse().expect("an address"))),
            ["read", name, bytes] => self.stream(name).read_exact(&mut vec![0; number(bytes)]).expect("data"),
            ["write", name, bytes] => self.stream(name).write_all(&vec![b'r'; number(bytes)]).expect("room"),
            ["wait", name] => {
                let ended = self.stream(name).read(&mut [0; 64]);
                assert!(matches!(ended, Ok(0) | Err(_)), "data instead of an end");
            }
            ["linger0", name] => linger_zero(self.stream(name)),
            ["close", name] => drop(self.connections.remove(*name).expect("a connection")),
            ["sleep", time] => std::thread::sleep(Duration::from_millis(number(time) as u64)),
            _ => panic!("unknown command {words:?}"),
        }
    }

    fn keep(&mut self, name: &str, stream: TcpStream) {
        stream.set_nodelay(true).expect("no delay");
        self.connections.insert(name.to_owned(), stream);
    }

    fn stream(&mut self, name: &str) -> &mut TcpStream {
        self.connections.get_mut(name).expect("a connection")
    }
}
