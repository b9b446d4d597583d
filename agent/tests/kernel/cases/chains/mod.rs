//! A proxy's two sides are linked in both lines ([`stories`]), and what only looks like it is not ([`near_misses`]).
//!
//! The proxy is a process of its own with one thread; the application and the upstream are this one.

mod near_misses;
mod stories;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread::sleep,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Case,
    actor::Actor,
    agent::Agent,
    expect::{absent, apart_ms, cause, is, number, until_hit},
    netns::Netns,
    sockets::{Family, linger_zero},
};

pub use stories::CASES_OF_MANY;

pub fn cases() -> Vec<Case> {
    [stories::CASES, near_misses::CASES].concat()
}

const MS: fn(u64) -> Duration = Duration::from_millis;
/// One thread has so long to end the one connection for the other.
const ONE_THREAD_MS: f64 = 50.0;
/// And so long to end it just before.
const BEFOREHAND_MS: f64 = 5.0;
const HELLO: usize = 517;

/// A proxy and what is around it.
struct Stage {
    netns: Netns,
    proxy: Actor,
    port: u16,
}

impl Stage {
    fn new(netns: Netns) -> Self {
        let (proxy, port) = relay(&netns, "envoy");
        Self { netns, proxy, port }
    }

    /// An application that has connected to the proxy.
    fn application(&mut self, name: &str) -> TcpStream {
        let application = connect(&self.netns, self.port);
        assert_eq!(self.proxy.tell(&format!("accept {name}")), "done");
        application
    }

    /// An upstream that the proxy has connected to: its listener and its end.
    fn upstream(&mut self, name: &str) -> (TcpListener, TcpStream) {
        let listener = self.netns.run(|| Family::V4.listen());
        let address = listener.local_addr().expect("bound");
        assert_eq!(self.proxy.tell(&format!("connect {name} {address}")), "done");
        let (upstream, _) = listener.accept().expect("the proxy's connection");
        (listener, upstream)
    }
}

fn relay(netns: &Netns, name: &'static str) -> (Actor, u16) {
    let mut relay = netns.run(move || Actor::start(name, "relay", &[]));
    let port = relay.tell("port").parse().expect("a port");
    (relay, port)
}

fn connect(netns: &Netns, port: u16) -> TcpStream {
    let stream = netns.run(move || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection"));
    stream.set_nodelay(true).expect("no delay");
    stream
}

fn port_of(stream: &TcpStream) -> u16 {
    stream.local_addr().expect("bound").port()
}

fn hole(port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 77, 0, 9), port).into()
}

/// Asserts that a line has just these links: relation, type, port of the far end.
#[track_caller]
fn chain(line: &Value, links: &[(&str, &str, u16)], confidence: &str) {
    let found = line.pointer("/connection/chain").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    assert_eq!(found.len(), links.len(), "links\nline: {line:#}");
    for (link, (relation, kind, port)) in found.iter().zip(links) {
        let text = |key: &str| link[key].as_str().unwrap_or_default().to_owned();
        assert_eq!((text("relation"), text("type")), ((*relation).to_owned(), (*kind).to_owned()), "{line:#}");
        assert_eq!(
            (&link["peer"]["port"], text("confidence")),
            (&Value::from(*port), confidence.to_owned()),
            "{line:#}"
        );
    }
}

/// Asserts that a link of one line is the other line.
#[track_caller]
fn names(line: &Value, link: usize, other: &Value) {
    let link = &line["connection"]["chain"][link];
    for key in ["type", "age_ms"] {
        assert_eq!(link.get(key), other.get(key), "{key}\nline: {line:#}");
    }
    assert_eq!(link["connection"], other["connection"]["id"], "line: {line:#}");
    assert_eq!(link["cause"], other["cause"]["code"], "line: {line:#}");
    assert_eq!(link["direction"], other["reset"]["direction"], "line: {line:#}");
    for end in ["local", "peer"] {
        assert_eq!(link[end], other[end], "{end}\nline: {line:#}");
    }
}

#[track_caller]
fn unchained(lines: &[&Value]) {
    for line in lines {
        absent(line, "/connection/chain");
    }
}

/// The application asks through the proxy, and the upstream answers.
fn exchange(proxy: &mut Actor, application: &mut TcpStream, upstream: &mut TcpStream, ask: usize, answer: usize) {
    application.write_all(&vec![b'q'; ask]).expect("asked");
    proxy.tell(&format!("read down {ask}; write up {ask}"));
    upstream.read_exact(&mut vec![0; ask]).expect("asked");
    upstream.write_all(&vec![b'a'; answer]).expect("answered");
    proxy.tell(&format!("read up {answer}; write down {answer}"));
    application.read_exact(&mut vec![0; answer]).expect("answered");
}

/// The upstream resets, and the proxy passes it on: the upstream's line, the proxy's two and the application's.
fn pass_on(stage: &mut Stage, agent: &mut Agent, upstream: TcpStream, application: TcpStream) -> [Value; 4] {
    stage.proxy.say("wait up; linger0 down; close down; close up");
    ends(stage, agent, upstream, application)
}

fn ends(stage: &mut Stage, agent: &mut Agent, upstream: TcpStream, application: TcpStream) -> [Value; 4] {
    // Until the proxy waits.
    sleep(MS(50));
    let proxys = upstream.peer_addr().expect("connected").port();
    let upstreams = port_of(&upstream);
    linger_zero(&upstream);
    drop(upstream);
    assert_eq!(stage.proxy.answer(), "done");
    let netns = &stage.netns;
    [("sent", upstreams), ("received", proxys), ("sent", stage.port), ("received", port_of(&application))]
        .map(|(direction, port)| agent.reset(netns, direction, port))
}
