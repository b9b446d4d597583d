//! A proxy's two sides are linked in both lines, and what only looks like one is not.
//!
//! The proxy is a process of its own with one thread; the application and the upstream are this one.

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

pub const CASES: &[Case] = &[
    ("chain_from_the_application_to_the_black_hole", black_hole),
    ("chain_of_a_refused_connect", refused),
    ("chain_of_a_reset_that_is_passed_on", passed_on),
    ("chain_over_two_proxies", two_proxies),
    ("chain_to_a_quiet_close", quiet_close),
    ("chain_from_a_client_that_left", client_left),
    ("chain_of_each_of_several_connections", several),
    ("no_chain_between_two_processes", two_processes),
    ("no_chain_between_two_workers", two_workers),
    ("no_chain_with_an_upstream_that_carried_nothing_of_it", unused_upstream),
];

const MS: fn(u64) -> Duration = Duration::from_millis;
/// One thread has so long to end the one connection for the other.
const ONE_THREAD_MS: f64 = 50.0;
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

/// Application ← proxy → black hole, told from every one of the three lines.
fn black_hole() {
    let (netns, _far) = Netns::with_black_hole();
    let mut stage = Stage::new(netns);
    let mut agent = Agent::shared();
    let mut port = 5100;
    until_hit(|| {
        port += 1;
        let mut application = stage.application("down");
        application.write_all(&[b'h'; HELLO]).expect("sent");
        stage.proxy.tell(&format!("begin up {}; sleep 300; close up; close down", hole(port)));
        let failed = agent.connect_failure(&stage.netns, port);
        let received = agent.reset(&stage.netns, "received", port_of(&application));
        let sent = agent.reset(&stage.netns, "sent", stage.port);
        if apart_ms(&failed, &sent) > ONE_THREAD_MS {
            unchained(&[&failed, &received, &sent]);
            return false;
        }
        cause(&failed, "connect_timeout_application", "certain");
        chain(&failed, &[("leads_to", "reset", port_of(&application))], "likely");
        names(&failed, 0, &sent);
        for line in [&received, &sent] {
            cause(line, "proxy_connect_timeout", "likely");
            chain(line, &[("follows_from", "connect_failure", port)], "likely");
            names(line, 0, &failed);
            assert!((number(line, "/connection/chain/0/after_ms") - apart_ms(&failed, &sent)).abs() < 0.01, "{line:#}");
        }
        is(&received, "/connection/chain/0/local/process/comm", "envoy");
        is(&received, "/connection/chain/0/peer/ip", "10.77.0.9");
        is(&received, "/connection/chain/0/peer/scope", "private");
        true
    });

    // A moment later it is closed for something else.
    let mut application = stage.application("down");
    application.write_all(&[b'h'; HELLO]).expect("sent");
    stage.proxy.tell(&format!("begin up {}; close up; sleep 100; close down", hole(5099)));
    let failed = agent.connect_failure(&stage.netns, 5099);
    let received = agent.reset(&stage.netns, "received", port_of(&application));
    let sent = agent.reset(&stage.netns, "sent", stage.port);
    cause(&sent, "closed_with_unread_data", "certain");
    unchained(&[&failed, &received, &sent]);
}

/// The same without any timeout. Both ends of the refused connect are this node's, and have it.
fn refused() {
    let mut stage = Stage::new(Netns::new());
    let mut agent = Agent::shared();
    until_hit(|| {
        let mut application = stage.application("down");
        application.write_all(&[b'h'; HELLO]).expect("sent");
        let nobody = stage.netns.run(|| Family::V4.listen().local_addr().expect("bound").port());
        stage.proxy.tell(&format!("connect up 127.0.0.1:{nobody}; close down"));
        let failed = agent.connect_failure(&stage.netns, nobody);
        let received = agent.reset(&stage.netns, "received", port_of(&application));
        let sent = agent.reset(&stage.netns, "sent", stage.port);
        if apart_ms(&failed, &sent) > ONE_THREAD_MS {
            return false;
        }
        chain(&failed, &[("leads_to", "reset", port_of(&application))], "likely");
        for line in [&received, &sent] {
            cause(line, "proxy_connect_timeout", "likely");
            chain(line, &[("follows_from", "connect_failure", nobody)], "likely");
            names(line, 0, &failed);
        }
        true
    });
}

/// Upstream → proxy → application: four lines, and each names what is on the other side of the proxy.
fn passed_on() {
    let mut stage = Stage::new(Netns::new());
    let mut agent = Agent::shared();
    until_hit(|| {
        let mut application = stage.application("down");
        let (listener, mut upstream) = stage.upstream("up");
        exchange(&mut stage.proxy, &mut application, &mut upstream, 10, 20);
        let (app_port, up_port) = (port_of(&application), listener.local_addr().expect("bound").port());
        let [sent, received, copy, seen] = pass_on(&mut stage, &mut agent, upstream, application);
        if apart_ms(&received, &copy) > ONE_THREAD_MS {
            return false;
        }
        for line in [&sent, &received] {
            cause(line, "linger_zero_close", "certain");
            chain(line, &[("leads_to", "reset", app_port)], "likely");
            names(line, 0, &copy);
        }
        for line in [&copy, &seen] {
            cause(line, "proxied_reset", "likely");
            chain(line, &[("follows_from", "reset", up_port)], "likely");
            names(line, 0, &received);
        }
        true
    });

    // Later than any proxy.
    let (mut application, (_listener, mut upstream)) = (stage.application("down"), stage.upstream("up"));
    exchange(&mut stage.proxy, &mut application, &mut upstream, 10, 20);
    stage.proxy.say("wait up; sleep 100; linger0 down; close down; close up");
    let lines = ends(&mut stage, &mut agent, upstream, application);
    cause(&lines[2], "linger_zero_close", "certain");
    unchained(&lines.each_ref());
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

/// A sidecar and a gateway: the application's line names both, down to the black hole.
fn two_proxies() {
    let (netns, _far) = Netns::with_black_hole();
    let (mut gateway, gateway_port) = relay(&netns, "gateway");
    let mut stage = Stage::new(netns);
    let mut agent = Agent::shared();
    let mut port = 5200;
    until_hit(|| {
        port += 1;
        let mut application = stage.application("down");
        stage.proxy.tell(&format!("connect up 127.0.0.1:{gateway_port}"));
        gateway.tell("accept down");
        application.write_all(&[b'h'; HELLO]).expect("sent");
        stage.proxy.tell(&format!("read down {HELLO}; write up {HELLO}"));
        stage.proxy.say("wait up; linger0 down; close down; close up");
        gateway.tell(&format!("begin up {}; sleep 300; close up; close down", hole(port)));
        assert_eq!(stage.proxy.answer(), "done");
        let netns = &stage.netns;
        let failed = agent.connect_failure(netns, port);
        let gateways = agent.reset(netns, "sent", gateway_port);
        let between = gateways["peer"]["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
        let sidecars = agent.reset(netns, "received", between);
        let sent = agent.reset(netns, "sent", stage.port);
        let received = agent.reset(netns, "received", port_of(&application));
        if apart_ms(&failed, &gateways) > ONE_THREAD_MS || apart_ms(&sidecars, &sent) > ONE_THREAD_MS {
            return false;
        }
        let app_port = port_of(&application);
        chain(&failed, &[("leads_to", "reset", between), ("leads_to", "reset", app_port)], "likely");
        for line in [&gateways, &sidecars] {
            cause(line, "proxy_connect_timeout", "likely");
            chain(line, &[("follows_from", "connect_failure", port), ("leads_to", "reset", app_port)], "likely");
        }
        for line in [&sent, &received] {
            cause(line, "proxied_reset", "likely");
            let links = [("follows_from", "reset", gateway_port), ("follows_from", "connect_failure", port)];
            chain(line, &links, "likely");
            names(line, 0, &sidecars);
            names(line, 1, &failed);
        }
        is(&received, "/connection/chain/0/local/process/comm", "envoy");
        is(&received, "/connection/chain/0/peer/process/comm", "gateway");
        true
    });
}

/// The application waits for the other side to speak first, and sees a clean end: its connection is named all the same.
fn quiet_close() {
    let (netns, _far) = Netns::with_black_hole();
    let mut stage = Stage::new(netns);
    let mut agent = Agent::shared();
    let mut port = 5300;
    until_hit(|| {
        port += 1;
        let application = stage.application("down");
        stage.proxy.tell(&format!("begin up {}; sleep 300; close up; close down", hole(port)));
        assert_eq!((&application).read(&mut [0; 8]).expect("an end"), 0);
        let failed = agent.connect_failure(&stage.netns, port);
        if failed["connection"].get("chain").is_none() {
            return false;
        }
        chain(&failed, &[("leads_to", "close", port_of(&application))], "likely");
        is(&failed, "/connection/chain/0/local/port", stage.port);
        is(&failed, "/connection/chain/0/local/process/comm", "envoy");
        absent(&failed, "/connection/chain/0/connection");
        absent(&failed, "/connection/chain/0/cause");
        true
    });
    agent.nothing_more(&stage.netns);

    let _application = stage.application("down");
    stage.proxy.tell(&format!("begin up {}; close up; sleep 100; close down", hole(5299)));
    unchained(&[&agent.connect_failure(&stage.netns, 5299)]);
    agent.nothing_more(&stage.netns);
}

/// The application resets while the proxy still connects, which then gives up: no timeout.
fn client_left() {
    let (netns, _far) = Netns::with_black_hole();
    let mut stage = Stage::new(netns);
    let mut agent = Agent::shared();
    let mut port = 5400;
    until_hit(|| {
        port += 1;
        let mut application = stage.application("down");
        linger_zero(&application);
        // Until a process has read from what it accepted, not every kernel shows whose it is.
        application.write_all(b"hello").expect("sent");
        stage.proxy.tell("read down 5");
        let app_port = port_of(&application);
        stage.proxy.say(&format!("begin up {}; wait down; close up; close down", hole(port)));
        sleep(MS(300));
        drop(application);
        assert_eq!(stage.proxy.answer(), "done");
        let received = agent.reset(&stage.netns, "received", stage.port);
        let _sent = agent.reset(&stage.netns, "sent", app_port);
        let failed = agent.connect_failure(&stage.netns, port);
        if apart_ms(&received, &failed) > ONE_THREAD_MS {
            return false;
        }
        cause(&failed, "client_gone", "likely");
        is(&failed, "/cause/evidence/other_side", format!("127.0.0.1:{app_port}"));
        chain(&failed, &[("follows_from", "reset", app_port)], "likely");
        names(&failed, 0, &received);
        chain(&received, &[("leads_to", "connect_failure", port)], "likely");
        true
    });

    // A client that leaves with a FIN has no event.
    let application = stage.application("down");
    stage.proxy.say(&format!("begin up {}; wait down; close up; close down", hole(5399)));
    sleep(MS(300));
    drop(application);
    assert_eq!(stage.proxy.answer(), "done");
    let failed = agent.connect_failure(&stage.netns, 5399);
    cause(&failed, "connect_timeout_application", "certain");
    unchained(&[&failed]);
}

/// An upstream dies with three connections of the proxy at once. As many bytes went over each as over its client's.
fn several() {
    let mut stage = Stage::new(Netns::new());
    let mut agent = Agent::shared();
    until_hit(|| {
        let (mut upstream, up_port) = relay(&stage.netns, "upstream");
        let mut clients = Vec::new();
        for (number, bytes) in [30, 20, 10].into_iter().enumerate() {
            let mut application = stage.application(&format!("d{number}"));
            stage.proxy.tell(&format!("connect u{number} 127.0.0.1:{up_port}"));
            upstream.tell(&format!("accept u{number}; linger0 u{number}"));
            application.write_all(&vec![b'q'; bytes]).expect("asked");
            stage.proxy.tell(&format!("read d{number} {bytes}; write u{number} {bytes}"));
            upstream.tell(&format!("read u{number} {bytes}; write u{number} 1"));
            stage.proxy.tell(&format!("read u{number} 1; write d{number} 1"));
            application.read_exact(&mut [0]).expect("answered");
            clients.push(application);
        }
        stage.proxy.say(
            "wait u0; wait u1; wait u2; linger0 d2; close d2; linger0 d0; close d0; linger0 d1; close d1; close u0; \
             close u1; close u2",
        );
        sleep(MS(50));
        upstream.tell("close u2; close u0; close u1");
        assert_eq!(stage.proxy.answer(), "done");
        let mut hit = true;
        for application in &clients {
            let seen = agent.reset(&stage.netns, "received", port_of(application));
            let Some(link) = seen.pointer("/connection/chain/0") else {
                hit = false;
                continue;
            };
            let origin = link["local"]["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
            let origin = agent.reset(&stage.netns, "received", origin);
            chain(&seen, &[("follows_from", "reset", up_port)], "likely");
            assert_eq!(origin["tcp"]["bytes_sent"], seen["tcp"]["bytes_sent"], "another's\nline: {seen:#}\n{origin:#}");
        }
        hit
    });
}

fn two_processes() {
    let (netns, _far) = Netns::with_black_hole();
    let (mut other, _) = relay(&netns, "other");
    let mut stage = Stage::new(netns);
    let mut agent = Agent::shared();
    let mut application = stage.application("down");
    application.write_all(&[b'h'; HELLO]).expect("sent");
    other.tell(&format!("begin up {}; sleep 100; close up", hole(5500)));
    stage.proxy.tell("close down");
    let failed = agent.connect_failure(&stage.netns, 5500);
    let sent = agent.reset(&stage.netns, "sent", stage.port);
    cause(&sent, "closed_with_unread_data", "certain");
    unchained(&[&failed, &sent]);
}

/// Each thread of a proxy has its own connections, and one closes one just as another one's is reset.
fn two_workers() {
    let mut stage = Stage::new(Netns::new());
    let mut agent = Agent::shared();
    let mut application = stage.application("down");
    application.write_all(b"hello").expect("sent");
    stage.proxy.tell("read down 5");
    let listener = stage.netns.run(|| Family::V4.listen());
    let address = listener.local_addr().expect("bound");
    stage.proxy.tell(&format!("thread connect up {address}"));
    let (upstream, _) = listener.accept().expect("the proxy's connection");
    let lines = pass_on(&mut stage, &mut agent, upstream, application);
    cause(&lines[2], "linger_zero_close", "certain");
    unchained(&lines.each_ref());
}

/// The client was answered long before, by the proxy itself; over the connection that is reset nothing ever went.
fn unused_upstream() {
    let mut stage = Stage::new(Netns::new());
    let mut agent = Agent::shared();
    let (mut application, (_listener, upstream)) = (stage.application("down"), stage.upstream("up"));
    application.write_all(b"hello").expect("asked");
    stage.proxy.tell("read down 5; write down 5; sleep 300");
    application.read_exact(&mut [0; 5]).expect("answered");
    let lines = pass_on(&mut stage, &mut agent, upstream, application);
    cause(&lines[2], "linger_zero_close", "certain");
    unchained(&lines.each_ref());
}
