//! What a process does to one of its connections because of another, and what only looks like it.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    thread::sleep,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Case,
    actor::Actor,
    agent::Agent,
    expect::{absent, apart_ms, cause, is, until_hit},
    netns::Netns,
    sockets::{Family, Pair, connect_nonblocking, linger_zero},
};

pub const CASES: &[Case] = &[
    ("cause_proxy_connect_timeout_and_a_close_of_its_own", proxy_connect_timeout),
    ("cause_proxy_connect_timeout_says_when_the_upstream_refused", refused_upstream),
    ("cause_proxy_gives_up_for_a_client_that_left", client_left_first),
    ("cause_proxied_reset", proxied_reset),
    ("cause_connect_timeout_names_the_program_whose_it_is", product_of_a_connect_timeout),
];

const MS: fn(u64) -> Duration = Duration::from_millis;

const fn nobody(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 9)), port)
}

/// One thread is the proxy: its upstream connect dies, then it closes the client that it had not read.
fn proxy_connect_timeout() {
    let (netns, _far) = Netns::with_black_hole();
    let mut agent = Agent::shared();
    let mut port = 4100;
    until_hit(|| {
        port += 1;
        let mut pair = netns.run(|| Pair::connect(Family::V4));
        let (app, proxy) = (pair.client_port(), pair.server_port());
        pair.client.write_all(&[b'h'; 517]).unwrap();
        let upstream = netns.run(move || connect_nonblocking(nobody(port)));
        sleep(MS(300));
        drop(upstream);
        let _open = pair.close_server();
        let failed = agent.connect_failure(&netns, port);
        cause(&failed, "connect_timeout_application", "certain");
        let (sent, received) = (agent.reset(&netns, "sent", proxy), agent.reset(&netns, "received", app));
        // The same thread has 50 ms to close the one for the other; later it is a close of its own.
        if apart_ms(&failed, &sent) > 50.0 {
            cause(&sent, "closed_with_unread_data", "certain");
            return false;
        }
        cause(&sent, "proxy_connect_timeout", "likely");
        is(&sent, "/cause/evidence/upstream", format!("10.77.0.9:{port}"));
        is(&sent, "/cause/evidence/connect_failure", "abandoned");
        is(&received, "/cause/code", "proxy_connect_timeout");
        true
    });

    // The same close a moment later has nothing to do with it.
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let proxy = pair.server_port();
    pair.client.write_all(&[b'h'; 517]).unwrap();
    drop(netns.run(|| connect_nonblocking(nobody(4100))));
    sleep(MS(200));
    let _open = pair.close_server();
    cause(&agent.reset(&netns, "sent", proxy), "closed_with_unread_data", "certain");
}

fn proxied_reset() {
    let mut proxy = Proxy::start();
    let mut agent = Agent::shared();
    until_hit(|| {
        let app = proxy.application();
        let listener = proxy.netns.run(|| Family::V4.listen());
        proxy.actor.tell(&format!("connect up {}", listener.local_addr().unwrap()));
        let (upstream, from) = listener.accept().unwrap();
        proxy.actor.say("wait up; linger0 down; close down; close up");
        sleep(MS(50));
        linger_zero(&upstream);
        drop(upstream);
        assert_eq!(proxy.actor.answer(), "done");
        let first = agent.reset(&proxy.netns, "received", from.port());
        let (sent, received) = proxy.lines(&mut agent, &app);
        // The thread that opened the one connection has 50 ms to close the other.
        if apart_ms(&first, &sent) > 50.0 {
            cause(&sent, "linger_zero_close", "certain");
            return false;
        }
        cause(&sent, "proxied_reset", "likely");
        is(&sent, "/cause/evidence/other_side", listener.local_addr().unwrap().to_string());
        is(&received, "/cause/code", "proxied_reset");
        true
    });
}

/// A process of one thread with an accepted connection, and one that it opens.
struct Proxy {
    netns: Netns,
    actor: Actor,
    port: u16,
}

impl Proxy {
    fn start() -> Self {
        let netns = Netns::new();
        let mut actor = netns.run(|| Actor::start("proxy", "relay", &[]));
        let port = actor.tell("port").parse().unwrap();
        Self { netns, actor, port }
    }

    fn application(&mut self) -> TcpStream {
        let port = self.port;
        let app = self.netns.run(move || TcpStream::connect(("127.0.0.1", port)).unwrap());
        self.actor.tell("accept down");
        app
    }

    /// The reset at the proxy's end and at the application's.
    fn lines(&self, agent: &mut Agent, app: &TcpStream) -> (Value, Value) {
        let received = app.local_addr().unwrap().port();
        (agent.reset(&self.netns, "sent", self.port), agent.reset(&self.netns, "received", received))
    }
}

/// The same reset of the application, without any timeout.
fn refused_upstream() {
    let mut proxy = Proxy::start();
    let mut agent = Agent::shared();
    until_hit(|| {
        let mut app = proxy.application();
        app.write_all(&[b'h'; 517]).unwrap();
        let port = proxy.netns.run(|| Family::V4.listen().local_addr().unwrap().port());
        proxy.actor.tell(&format!("connect up 127.0.0.1:{port}; close down"));
        let failed = agent.connect_failure(&proxy.netns, port);
        cause(&failed, "connect_refused", "certain");
        let (sent, received) = proxy.lines(&mut agent, &app);
        if apart_ms(&failed, &sent) > 50.0 {
            cause(&sent, "closed_with_unread_data", "certain");
            return false;
        }
        cause(&sent, "proxy_connect_timeout", "likely");
        is(&sent, "/cause/evidence/connect_failure", "refused");
        assert!(sent["cause"]["summary"].as_str().unwrap().contains("was refused by"), "{sent:#}");
        absent(&sent, "/cause/products");
        is(&received, "/cause/code", "proxy_connect_timeout");
        true
    });
}

/// The proxy stops connecting because its client has left: then the client is why, and no timeout.
fn client_left_first() {
    let (netns, _far) = Netns::with_black_hole();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let proxy = pair.server_port();
    pair.client.write_all(&[b'h'; 517]).unwrap();
    let upstream = netns.run(|| connect_nonblocking(nobody(4150)));
    sleep(MS(200));
    let (server, _listener) = pair.close_client();
    // Until its FIN is acknowledged, and it is nothing but TIME_WAIT.
    sleep(MS(100));
    drop(upstream);
    drop(server);
    cause(&agent.connect_failure(&netns, 4150), "connect_timeout_application", "certain");
    let sent = agent.reset(&netns, "sent", proxy);
    cause(&sent, "client_gone", "likely");
    is(&sent, "/tcp/state", "CLOSE_WAIT");
    is(&sent, "/cause/evidence/unread_bytes", 517);
    // The client's end is in TIME_WAIT, which takes a RST without a word.
    agent.nothing_more(&netns);
}

/// The process's name narrows it down to its own product; another program with the same patience is not named after it.
fn product_of_a_connect_timeout() {
    let (netns, _far) = Netns::with_black_hole();
    let mut agent = Agent::shared();
    let mut port = 4200;
    until_hit(|| {
        let mut failures = ["linkerd2-proxy", "node"].map(|name| {
            port += 1;
            let address = nobody(port);
            netns.run(move || {
                let mut actor = Actor::start(name, "server", &[]);
                assert_eq!(actor.tell(&format!("give-up {address} 1000")), "gave up");
            });
            agent.connect_failure(&netns, port)
        });
        let [proxy, node] = &mut failures;
        for failure in [&*proxy, &*node] {
            cause(failure, "connect_timeout_application", "certain");
        }
        is(node, "/local/process/comm", "node");
        absent(node, "/cause/products");
        is(proxy, "/local/process/comm", "linkerd2-proxy");
        // A timer that fires later than timers do is somebody else's.
        if crate::expect::number(proxy, "/age_ms") > 1060.0 {
            absent(proxy, "/cause/products");
            return false;
        }
        is(proxy, "/cause/products/0/product", "Linkerd proxy");
        is(proxy, "/cause/products/0/setting", "proxy.outboundConnectTimeout");
        absent(proxy, "/cause/products/1");
        true
    });
}
