//! Causes, each provoked for real, with its near miss beside it. Those of other files are asserted there.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread::sleep,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Case,
    agent::Agent,
    expect::{Step, TWO_TICKS_MS, cause, is, near, number, until_hit},
    netns::Netns,
    raw,
    sockets::{Family, Pair, connect_nonblocking, linger_zero, tcp_option, waiting_to_be_accepted},
};

pub const CASES: &[Case] = &[
    ("cause_keepalive_race_and_its_busy_twin", keepalive_race),
    ("cause_late_reset_after_idle_and_its_busy_twin", late_reset_after_idle),
    ("cause_connect_not_sent", connect_not_sent),
    ("cause_accept_queue_overflow", accept_queue_overflow),
    ("cause_aborted_before_accept", aborted_before_accept),
    ("cause_early_response_close", early_response_close),
    ("cause_disconnect", disconnect),
    ("cause_linger2", linger2),
    ("cause_peer_closed_without_reading", peer_closed_without_reading),
    ("cause_client_gone", client_gone),
    ("cause_transfer_cancelled", transfer_cancelled),
    ("cause_connection_unknown_at_both_ends", connection_unknown),
    ("cause_close_aftermath", close_aftermath),
    ("cause_peer_aborted_with_request_pending", || peer_aborted(true, "peer_aborted_with_request_pending")),
    ("cause_peer_aborted_idle", || peer_aborted(false, "peer_aborted_idle")),
    ("cause_keepalive_timeout", keepalive_timeout),
    ("cause_retransmission_timeout", retransmission_timeout),
    ("cause_zero_window_timeout", zero_window_timeout),
    ("cause_timeout_of_what_never_left_this_host", never_left),
    ("cause_tls_close_notify_is_benign", tls_close_notify),
    ("cause_rejected_by_firewall", rejected_by_firewall),
];

const MS: fn(u64) -> Duration = Duration::from_millis;

/// The reset of the connection whose client has this port, at either end: of several to one server.
fn reset_of(agent: &mut Agent, netns: &Netns, direction: &str, client: u16) -> Value {
    let inode = netns.inode();
    agent.wait(&format!("reset {direction} with the client's port {client}"), |line| {
        line["type"] == "reset"
            && line["reset"]["direction"] == direction
            && (line["local"]["port"] == client || line["peer"]["port"] == client)
            && line["local"]["netns"] == inode
    })
}

fn keepalive_race() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    // A quiet close shows the server's limit.
    let listener = netns.run(|| Family::V4.listen());
    let connect = |netns: &Netns| {
        let address = listener.local_addr().unwrap();
        let client = netns.run(move || TcpStream::connect(address).unwrap());
        let (server, _) = listener.accept().unwrap();
        Pair { client, server, listener: listener.try_clone().unwrap() }
    };
    let mut quiet = connect(&netns);
    let (answered, ()) = Step::of(|| quiet.exchange(10, 10));
    sleep(MS(1200));
    let (closed, _) = Step::of(|| quiet.close_server());

    // The request has to be in the queue for no longer than the kernel's stamps can tell. A slow machine misses that at
    // times; then the line has to leave the idle limit out of it.
    until_hit(|| {
        let mut raced = connect(&netns);
        let (client, server) = (raced.client_port(), raced.server_port());
        raced.exchange(10, 10);
        sleep(MS(1200));
        raced.client.write_all(b"request").unwrap();
        let _open = raced.close_server();
        let (sent, received) = (reset_of(&mut agent, &netns, "sent", client), agent.reset(&netns, "received", client));
        is(&sent, "/local/port", server);
        if sent["cause"]["code"] != "keepalive_race" {
            cause(&sent, "closed_with_unread_data", "certain");
            assert!(number(&sent, "/idle/rx_ms") > TWO_TICKS_MS, "{sent:#}");
            return false;
        }
        if sent["cause"]["evidence"]["learned_idle_limit_ms"].is_null() {
            // Slept too long to be the limit that was learned.
            cause(&sent, "keepalive_race", "possible");
            return false;
        }
        cause(&sent, "keepalive_race", "likely");
        near(&sent, "/cause/evidence/learned_idle_limit_ms", &answered.until(&closed));
        is(&received, "/cause/code", "keepalive_race");
        true
    });

    let mut busy = connect(&netns);
    let client = busy.client_port();
    busy.exchange(10, 10);
    busy.client.write_all(b"request").unwrap();
    sleep(MS(100));
    let _open = busy.close_server();
    let sent = reset_of(&mut agent, &netns, "sent", client);
    assert_ne!(sent["cause"]["code"], "keepalive_race", "{sent:#}");
}

fn late_reset_after_idle() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    for (gap, code) in [(1300, "late_reset_after_idle"), (0, "linger_zero_close")] {
        let mut pair = netns.run(|| Pair::connect(Family::V4));
        let client = pair.client_port();
        pair.exchange(50, 60);
        sleep(MS(gap));
        pair.client.write_all(&[b'q'; 50]).unwrap();
        pair.server.read_exact(&mut [0; 50]).unwrap();
        sleep(MS(300));
        linger_zero(&pair.server);
        let _open = pair.close_server();
        let received = agent.reset(&netns, "received", client);
        is(&received, "/cause/code", code);
    }
}

fn connect_not_sent() {
    let netns = Netns::new();
    netns.sysctl("net.ipv4.ip_local_port_range", "41000 41000");
    let mut agent = Agent::shared();
    let (port, _held) = netns.run(|| {
        let listener = TcpListener::bind(("127.0.0.1", 8091)).unwrap();
        let first = TcpStream::connect(("127.0.0.1", 8091)).unwrap();
        TcpStream::connect(("127.0.0.1", 8091)).unwrap_err();
        (8091, (listener, first))
    });
    let failure = agent.connect_failure(&netns, port);
    cause(&failure, "connect_not_sent", "likely");
}

fn accept_queue_overflow() {
    let netns = Netns::new();
    netns.sysctl("net.ipv4.tcp_abort_on_overflow", "1");
    let mut agent = Agent::shared();
    let (port, _clients) = netns.run(|| {
        let listener = Family::V4.listen();
        // Deferred, several handshakes are half done at once, and the first data completes each. A backlog of 2 lets two
        // be half done and three wait, so of a second two the last finds the queue full.
        let seconds: libc::c_int = 30;
        // SAFETY: the descriptor is a listener and the option an int; listening again changes its backlog.
        unsafe {
            let result = libc::setsockopt(
                listener.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                (&raw const seconds).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            );
            assert_eq!(result, 0);
            assert_eq!(libc::listen(listener.as_raw_fd(), 2), 0);
        }
        let address = listener.local_addr().unwrap();
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut two = [connect_nonblocking(address), connect_nonblocking(address)];
            sleep(MS(50));
            for client in &mut two {
                client.write_all(b"first data").unwrap();
            }
            clients.extend(two);
        }
        (address.port(), (listener, clients))
    });
    let sent = agent.reset(&netns, "sent", port);
    is(&sent, "/reset/socket", "listener");
    if agent.has_reasons() {
        cause(&sent, "accept_queue_overflow", "certain");
    } else {
        // Nothing in the segment tells a full queue from a connection that was forgotten.
        cause(&sent, "connection_unknown", "possible");
    }
}

fn aborted_before_accept() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (listener, client) = netns.run(|| waiting_to_be_accepted(Family::V4));
    linger_zero(&client);
    drop(client);
    let received = agent.reset(&netns, "received", listener.local_addr().unwrap().port());
    cause(&received, "aborted_before_accept", "certain");
}

fn early_response_close() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let server = pair.server_port();
    pair.client.write_all(&[b'u'; 20_000]).unwrap();
    pair.server.read_exact(&mut [0; 100]).unwrap();
    pair.server.write_all(b"413 too large").unwrap();
    let _open = pair.close_server();
    cause(&agent.reset(&netns, "sent", server), "early_response_close", "likely");
}

fn disconnect() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let pair = netns.run(|| Pair::connect(Family::V4));
    let (client, server) = (pair.client_port(), pair.server_port());
    let address = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    // SAFETY: the address is a `sockaddr` of this size.
    let result = unsafe {
        libc::connect(pair.client.as_raw_fd(), &raw const address, size_of::<libc::sockaddr>() as libc::socklen_t)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    cause(&agent.reset(&netns, "sent", client), "disconnect", "certain");
    is(&agent.reset(&netns, "received", server), "/cause/code", "disconnect");
}

fn linger2() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let pair = netns.run(|| Pair::connect(Family::V4));
    let server = pair.server_port();
    pair.server.shutdown(Shutdown::Write).unwrap();
    sleep(MS(100));
    tcp_option(&pair.server, libc::TCP_LINGER2, -1);
    let _open = pair.close_server();
    let sent = agent.reset(&netns, "sent", server);
    is(&sent, "/cause/code", "linger2");
}

fn peer_closed_without_reading() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let (client, server) = (pair.client_port(), pair.server_port());
    pair.server.shutdown(Shutdown::Write).unwrap();
    sleep(MS(50));
    pair.client.write_all(b"late but welcome").unwrap();
    sleep(MS(50));
    let _open = pair.close_server();
    cause(&agent.reset(&netns, "sent", server), "closed_with_unread_data", "certain");
    cause(&agent.reset(&netns, "received", client), "peer_closed_without_reading", "likely");
}

fn client_gone() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let (client_port, server_port) = (pair.client_port(), pair.server_port());
    let (asked, ()) = Step::of(|| {
        pair.client.write_all(b"slow question").unwrap();
        pair.server.read_exact(&mut [0; 13]).unwrap();
    });
    sleep(MS(250));
    let (left, (mut server, _listener)) = Step::of(|| pair.close_client());
    sleep(MS(300));
    server.write_all(b"answer").unwrap();
    // Its patience, as both ends know it.
    let patience = "/cause/evidence/client_waited_ms";
    if let Some(sent) = agent.reset_without_socket(&netns, client_port) {
        cause(&sent, "client_gone", "certain");
        near(&sent, patience, &asked.until(&left));
    }
    let received = agent.reset(&netns, "received", server_port);
    is(&received, "/cause/code", "client_gone");
    near(&received, patience, &asked.until(&left));
}

fn transfer_cancelled() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let (client_port, server_port) = (pair.client_port(), pair.server_port());
    pair.server.set_nonblocking(true).unwrap();
    let block = vec![b'd'; 1 << 20];
    for _ in 0..50 {
        if pair.server.write(&block).is_err() {
            break;
        }
    }
    pair.client.read_exact(&mut [0; 4096]).unwrap();
    let Pair { client, server: _open, listener: _listener } = pair;
    drop(client);
    cause(&agent.reset(&netns, "sent", client_port), "transfer_cancelled", "likely");
    is(&agent.reset(&netns, "received", server_port), "/cause/code", "transfer_cancelled");
}

/// A host that lost its memory before the agent came.
fn connection_unknown() {
    let netns = Netns::new();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    pair.exchange(10, 10);
    let (client_port, server_port) = (pair.client_port(), pair.server_port());
    let Pair { mut client, server, listener } = pair;
    raw::vanish(server);
    drop(listener);
    let mut agent = Agent::start(&[]);
    client.write_all(b"still there?").unwrap();
    if let Some(sent) = agent.reset_without_socket(&netns, server_port) {
        is(&sent, "/reset/socket", "none");
        cause(&sent, "connection_unknown", "likely");
    }
    let received = agent.reset(&netns, "received", client_port);
    // The later the answer, the less sure that it answered this: a moment here, more on an emulated machine.
    let moment = TWO_TICKS_MS + 4.0 * number(&received, "/tcp/srtt_ms");
    let at_once = number(&received, "/idle/tx_ms") <= moment;
    cause(&received, "connection_unknown_at_peer", if at_once { "likely" } else { "possible" });
}

fn close_aftermath() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    pair.exchange(10, 10);
    let server_port = pair.server_port();
    let Pair { client, server, listener: _listener } = pair;
    raw::vanish(server);
    drop(client);
    match agent.reset_without_socket(&netns, server_port) {
        Some(sent) => {
            cause(&sent, "close_aftermath", "certain");
            is(&sent, "/cause/benign", true);
        }
        None => agent.nothing_more(&netns),
    }
}

/// The RST of a host that this agent does not see: the server vanishes without a word, and a RST as its kernel would have
/// made it is sent by hand.
fn peer_aborted(with_request: bool, code: &str) {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    pair.exchange(10, 10);
    if with_request {
        sleep(MS(100));
        pair.client.write_all(b"question").unwrap();
        pair.server.read_exact(&mut [0; 8]).unwrap();
    }
    sleep(MS(200));
    let client_port = pair.client_port();
    let (from, to) = (pair.server.local_addr().unwrap(), pair.client.local_addr().unwrap());
    let Pair { client: _open, server, listener: _listener } = pair;
    let next = raw::vanish(server);
    netns.run(move || raw::send_rst(from, to, next));
    let received = agent.reset(&netns, "received", client_port);
    is(&received, "/facts/rst_had_timestamp", true);
    cause(&received, code, "likely");
}

/// Two namespaces, a connection between them, and the far end gone.
fn connected_then_gone(prepare: impl FnOnce(&TcpStream)) -> (Netns, Netns, TcpStream, TcpStream) {
    let (near, far) = (Netns::new(), Netns::new());
    near.join("near", "10.81.0.1/24", &far, "far", Some("10.81.0.2/24"));
    let listener = far.run(|| TcpListener::bind(("10.81.0.2", 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let client = near.run(move || TcpStream::connect(address).unwrap());
    let (server, _) = listener.accept().unwrap();
    prepare(&client);
    (near, far, client, server)
}

fn timed_out(agent: &mut Agent, netns: &Netns) -> Value {
    let inode = netns.inode();
    agent.wait("a timeout", |line| line["type"] == "timeout" && line["local"]["netns"] == inode)
}

fn keepalive_timeout() {
    let mut agent = Agent::shared();
    let (near, far, client, _server) = connected_then_gone(|client| {
        let on: libc::c_int = 1;
        // SAFETY: the option is an int.
        let result = unsafe {
            libc::setsockopt(
                client.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_KEEPALIVE,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        assert_eq!(result, 0);
        tcp_option(client, libc::TCP_KEEPIDLE, 1);
        tcp_option(client, libc::TCP_KEEPINTVL, 1);
        tcp_option(client, libc::TCP_KEEPCNT, 1);
    });
    far.ip("addr del 10.81.0.2/24 dev far");
    let sent = agent.reset(&near, "sent", client.local_addr().unwrap().port());
    is(&sent, "/cause/code", "keepalive_timeout");
    is(&sent, "/tcp/state", "ESTABLISHED");
    // Its end by ETIMEDOUT is not told a second time.
    agent.nothing_more(&near);
}

fn retransmission_timeout() {
    let mut agent = Agent::shared();
    let (near, far, mut client, _server) = connected_then_gone(|_| {});
    near.sysctl("net.ipv4.tcp_retries2", "2");
    far.ip("addr del 10.81.0.2/24 dev far");
    client.write_all(b"into the void").unwrap();
    cause(&timed_out(&mut agent, &near), "retransmission_timeout", "certain");
}

/// The far application does not read, and then the far host is gone: the probes of its closed window go unanswered.
fn zero_window_timeout() {
    let mut agent = Agent::shared();
    let (near, far, mut client, _server) = connected_then_gone(|_| {});
    client.set_nonblocking(true).unwrap();
    let block = vec![b'z'; 1 << 20];
    let mut quiet = 0;
    while quiet < 20 {
        quiet = if client.write(&block).is_ok() { 0 } else { quiet + 1 };
        sleep(MS(20));
    }
    tcp_option(&client, libc::TCP_USER_TIMEOUT, 500);
    far.ip("addr del 10.81.0.2/24 dev far");
    cause(&timed_out(&mut agent, &near), "zero_window_timeout", "certain");
}

/// The route is gone: the kernel probes as it does for a closed window, but the window is open.
fn never_left() {
    let mut agent = Agent::shared();
    let (near, _far, mut client, _server) = connected_then_gone(|_| {});
    tcp_option(&client, libc::TCP_USER_TIMEOUT, 500);
    near.ip("route del 10.81.0.0/24 dev near");
    client.write_all(b"nowhere").unwrap();
    let line = timed_out(&mut agent, &near);
    is(&line, "/facts/unsent_bytes", 7);
    is(&line, "/facts/in_flight_bytes", 0);
    cause(&line, "retransmission_timeout", "likely");
    assert!(number(&line, "/cause/evidence/send_window_bytes") > 7.0, "{line:#}");
}

fn tls_close_notify() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let (client_port, server_port) = (pair.client_port(), pair.server_port());
    pair.exchange(10, 10);
    let (mut client, _listener) = pair.close_server();
    client.write_all(&[21; 31]).unwrap();
    if let Some(sent) = agent.reset_without_socket(&netns, server_port) {
        cause(&sent, "tls_close_notify", "possible");
    }
    let received = agent.reset(&netns, "received", client_port);
    is(&received, "/cause/code", "tls_close_notify");
    is(&received, "/cause/benign", true);
}

/// A RST to our SYN that no socket of this host sent, although the address is this host's own. (Made by hand, as a reject
/// rule makes it; the listener itself takes nothing.)
fn rejected_by_firewall() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (port, _held) = netns.run(|| {
        let listener = Family::V4.listen();
        raw::take_nothing(&listener);
        let address = listener.local_addr().unwrap();
        let rejected = raw::reject(address, || connect_nonblocking(address));
        (address.port(), (listener, rejected))
    });
    let failure = agent.connect_failure(&netns, port);
    is(&failure, "/facts/connect_failure", "refused");
    if agent.sees_every_sender() {
        cause(&failure, "rejected_by_firewall", "possible");
    } else {
        // Where the resets of closed ports are not seen either, a missing sender means nothing.
        cause(&failure, "connect_refused", "certain");
    }
}
