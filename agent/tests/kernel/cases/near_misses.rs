//! What looks like one cause and is another, or is nothing at all.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread::sleep,
    time::Duration,
};

use crate::{
    Case,
    actor::Actor,
    agent::Agent,
    expect::{TWO_TICKS_MS, absent, cause, is, number, until_hit},
    netns::Netns,
    sockets::{Family, Pair, connect_nonblocking, linger_zero, tcp_option, waiting_to_be_accepted},
};

pub const CASES: &[Case] = &[
    ("cause_half_closed_client_loses_its_answer", half_closed_client),
    ("cause_client_that_left_is_not_told_of_a_reset", client_that_left),
    ("cause_refused_address_before_one_that_serves", second_address_serves),
    ("cause_stale_reuse_hidden_by_a_retry", stale_reuse_with_retry),
    ("cause_health_checks_are_benign_and_requests_are_not", health_checks),
    ("cause_health_check_of_a_server_that_speaks_first", greeted_health_check),
    ("cause_health_check_by_fin_is_silent", health_check_by_fin),
    ("cause_killed_server_is_no_keepalive_mismatch", killed_server),
    ("cause_unread_close_notify_is_benign", unread_close_notify),
    ("cause_request_that_crossed_the_fin", crossed_the_fin),
    ("cause_linger2_when_the_close_is_acknowledged", linger2_at_the_acknowledgement),
    ("cause_icmp_error_while_connect_holds_the_socket", icmp_error_noted),
    ("a_rst_into_time_wait_is_told_by_its_sender_only", rst_into_time_wait),
    ("a_reset_before_accept_leaves_its_data_readable", data_of_an_aborted_connection),
];

/// A filter on what was found out.
pub const CASES_OF_FILTERS: &[Case] = &[("hide_benign_hides_what_is_benign_and_nothing_else", hide_benign)];

const MS: fn(u64) -> Duration = Duration::from_millis;

/// It has said all it has to say and waits for the answer: the reset is not the tail of something that had ended.
fn half_closed_client() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let (client, server) = (pair.client_port(), pair.server_port());
    pair.client.write_all(b"question").unwrap();
    pair.server.read_exact(&mut [0; 8]).unwrap();
    pair.client.shutdown(Shutdown::Write).unwrap();
    sleep(MS(200));
    linger_zero(&pair.server);
    let _open = pair.close_server();
    let sent = agent.reset(&netns, "sent", server);
    is(&sent, "/tcp/state", "CLOSE_WAIT");
    // From the server's end a half-close and a close are the same. That the client is still there, it says itself.
    cause(&sent, "linger_zero_close", "certain");
    let received = agent.reset(&netns, "received", client);
    is(&received, "/tcp/state", "FIN_WAIT2");
    cause(&received, "linger_zero_close", "certain");
    absent(&received, "/cause/benign");
}

/// The near miss: the same close by the server, and nobody is there any more to lose an answer.
fn client_that_left() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    for reads_and_resets in [false, true] {
        let mut pair = netns.run(|| Pair::connect(Family::V4));
        let server = pair.server_port();
        pair.client.write_all(b"question").unwrap();
        let (mut closing, _listener) = pair.close_client();
        sleep(MS(200));
        if reads_and_resets {
            closing.read_exact(&mut [0; 8]).unwrap();
            linger_zero(&closing);
        }
        drop(closing);
        let sent = agent.reset(&netns, "sent", server);
        is(&sent, "/tcp/state", "CLOSE_WAIT");
        cause(&sent, "client_gone", "likely");
        is(&sent, "/tcp/unread_bytes", if reads_and_resets { 0 } else { 8 });
        assert!(number(&sent, "/cause/evidence/client_closed_ms_ago") >= 200.0, "{sent:#}");
        agent.nothing_more(&netns);
    }
}

/// Happy eyeballs: the refusal is true, and the application never noticed.
fn second_address_serves() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let port = netns.run(|| {
        let listener = Family::V4.listen();
        let port = listener.local_addr().unwrap().port();
        let addresses: [SocketAddr; 2] = [Family::V6.loopback(port), Family::V4.loopback(port)];
        let client = TcpStream::connect(&addresses[..]).unwrap();
        let (server, _) = listener.accept().unwrap();
        let mut pair = Pair { client, server, listener };
        pair.exchange(10, 10);
        port
    });
    let failure = agent.connect_failure(&netns, port);
    cause(&failure, "connect_refused", "certain");
    is(&failure, "/peer/ip", "::1");
    if let Some(sent) = agent.reset_without_socket(&netns, port) {
        cause(&sent, "port_closed", "certain");
        // No firewall comes into it: the kernel that refused is this one.
        is(&failure, "/cause/evidence/sender_cause", "port_closed");
        assert!(failure["cause"]["summary"].as_str().unwrap().starts_with("Nobody listens on [::1]"), "{failure:#}");
    }
    agent.nothing_more(&netns);
}

/// A client that retries on a new connection: the old one's line is right, and there is none about the new one.
fn stale_reuse_with_retry() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let (client, server) = (pair.client_port(), pair.server_port());
    pair.exchange(10, 10);
    sleep(MS(1100));
    let (mut stale, listener) = pair.close_server();
    sleep(MS(50));
    stale.write_all(b"request").unwrap();
    let address = listener.local_addr().unwrap();
    let retried = netns.run(move || TcpStream::connect(address).unwrap());
    let (accepted, _) = listener.accept().unwrap();
    let mut fresh = Pair { client: retried, server: accepted, listener };
    fresh.exchange(7, 10);
    drop(stale);
    let Pair { client: retried, server: accepted, listener: _listener } = fresh;
    drop(retried);
    drop(accepted);
    if let Some(sent) = agent.reset_without_socket(&netns, server) {
        cause(&sent, "stale_connection_reuse", "certain");
    }
    is(&agent.reset(&netns, "received", client), "/cause/code", "stale_connection_reuse");
    agent.nothing_more(&netns);
}

/// Connect, reset, gone; accepted already or not.
fn health_checks() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let checked = netns.run(|| Pair::connect(Family::V4));
    let (client, server) = (checked.client_port(), checked.server_port());
    linger_zero(&checked.client);
    let _open = checked.close_client();
    let sent = agent.reset(&netns, "sent", client);
    cause(&sent, "linger_zero_close", "certain");
    is(&sent, "/cause/benign", true);
    is(&sent, "/cause/evidence/looks_like_health_check", true);
    let received = agent.reset(&netns, "received", server);
    is(&received, "/cause/benign", true);

    let (listener, waiting) = netns.run(|| waiting_to_be_accepted(Family::V4));
    linger_zero(&waiting);
    drop(waiting);
    let received = agent.reset(&netns, "received", listener.local_addr().unwrap().port());
    cause(&received, "aborted_before_accept", "certain");
    is(&received, "/cause/benign", true);

    // The same with a request: somebody gave up.
    let mut asked = netns.run(|| Pair::connect(Family::V4));
    let (client, server) = (asked.client_port(), asked.server_port());
    asked.client.write_all(b"question").unwrap();
    linger_zero(&asked.client);
    let _open = asked.close_client();
    absent(&agent.reset(&netns, "sent", client), "/cause/benign");
    absent(&agent.reset(&netns, "received", server), "/cause/benign");
}

/// The check has gone when the server's greeting comes.
fn greeted_health_check() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let pair = netns.run(|| Pair::connect(Family::V4));
    let (client, server) = (pair.client_port(), pair.server_port());
    let (mut greeter, _listener) = pair.close_client();
    sleep(MS(50));
    greeter.write_all(b"220 mail.example ESMTP\r\n").unwrap();
    if let Some(sent) = agent.reset_without_socket(&netns, client) {
        cause(&sent, "client_gone", "certain");
        is(&sent, "/cause/benign", true);
    }
    let received = agent.reset(&netns, "received", server);
    is(&received, "/cause/code", "client_gone");
    is(&received, "/cause/benign", true);
}

fn health_check_by_fin() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let pair = netns.run(|| Pair::connect(Family::V4));
    let (mut server, _listener) = pair.close_client();
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    drop(server);
    agent.nothing_more(&netns);
}

fn hide_benign() {
    let netns = Netns::new();
    let mut agent = Agent::start(&["--hide-benign"]);
    let check = netns.run(|| Pair::connect(Family::V4));
    linger_zero(&check.client);
    drop(check);
    let mut lost = netns.run(|| Pair::connect(Family::V4));
    let (client, server) = (lost.client_port(), lost.server_port());
    lost.exchange(10, 10);
    linger_zero(&lost.client);
    drop(lost);
    agent.reset(&netns, "sent", client);
    agent.reset(&netns, "received", server);
    agent.nothing_more(&netns);
}

/// It had read everything, so its sockets ended with a FIN, just as an idle server's do.
fn killed_server() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (mut actor, mut client, port) = netns.run(|| {
        let mut actor = Actor::start("victim", "server", &[]);
        let port: u16 = actor.tell("port").parse().unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(actor.tell("accept"), "accepted");
        client.write_all(b"hello").unwrap();
        assert_eq!(actor.tell("read 5"), "read");
        (actor, client, port)
    });
    let peer = client.local_addr().unwrap().port();
    sleep(MS(1100));
    actor.kill();
    sleep(MS(100));
    client.write_all(b"again").unwrap();
    if let Some(sent) = agent.reset_without_socket(&netns, port) {
        cause(&sent, "process_exit", "certain");
        is(&sent, "/cause/evidence/signal", 9);
        let received = agent.reset(&netns, "received", peer);
        is(&received, "/cause/code", "process_exit");
        is(&received, "/tcp/state", "CLOSE_WAIT");
    }
}

/// The client's farewell and its FIN come together, and the server closes without reading the farewell.
fn unread_close_notify() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut unread = |bytes: usize| {
        let mut pair = netns.run(|| Pair::connect(Family::V4));
        let server = pair.server_port();
        pair.exchange(10, 10);
        pair.client.write_all(&vec![21; bytes]).unwrap();
        let (closing, _listener) = pair.close_client();
        sleep(MS(100));
        drop(closing);
        let sent = agent.reset(&netns, "sent", server);
        is(&sent, "/tcp/state", "CLOSE_WAIT");
        agent.nothing_more(&netns);
        sent
    };
    until_hit(|| {
        let sent = unread(24);
        // A slow machine takes its time between the two; then they have nothing to do with each other.
        let apart = number(&sent, "/facts/first_fin/idle_rx_ms");
        if apart > TWO_TICKS_MS + 4.0 * number(&sent, "/tcp/srtt_ms") {
            cause(&sent, "client_gone", "likely");
            return false;
        }
        cause(&sent, "tls_close_notify", "possible");
        is(&sent, "/cause/benign", true);
        true
    });
    let sent = unread(240);
    cause(&sent, "client_gone", "likely");
    absent(&sent, "/cause/benign");
}

/// The server's FIN is lost on the way, so the client cannot know of it: the server's neighbour entry points nowhere.
fn crossed_the_fin() {
    let (near_side, far_side) = (Netns::new(), Netns::new());
    near_side.join("near", "10.82.0.1/24", &far_side, "far", Some("10.82.0.2/24"));
    let mut agent = Agent::shared();
    let listener = far_side.run(|| TcpListener::bind(("10.82.0.2", 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let client = near_side.run(move || TcpStream::connect(address).unwrap());
    let (server, _) = listener.accept().unwrap();
    let mut pair = Pair { client, server, listener };
    pair.exchange(10, 10);
    sleep(MS(1100));
    far_side.ip("neigh replace 10.82.0.1 lladdr 02:00:00:00:00:07 dev far nud permanent");
    let (mut client, _listener) = pair.close_server();
    client.write_all(b"on its way").unwrap();
    let sent = agent.reset(&far_side, "sent", address.port());
    is(&sent, "/tcp/state", "FIN_WAIT1");
    cause(&sent, "keepalive_race", "likely");
    is(&sent, "/cause/evidence/crossed_the_fin", true);
    assert!(number(&sent, "/cause/evidence/idle_at_close_ms") >= 1090.0, "{sent:#}");
}

/// TCP_LINGER2 below 0, and a close that the peer acknowledges: the kernel does not wait for the peer's own.
fn linger2_at_the_acknowledgement() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let server = pair.server_port();
    pair.exchange(10, 10);
    tcp_option(&pair.server, libc::TCP_LINGER2, -1);
    let _open = pair.close_server();
    let sent = agent.reset(&netns, "sent", server);
    is(&sent, "/facts/segment/payload_bytes", 0);
    cause(&sent, "linger2", if agent.has_reasons() { "certain" } else { "likely" });
}

/// The error comes back before connect() has let go of the socket, as it always does over a veth pair: the kernel takes a
/// note of it and the socket stays in SYN_SENT.
fn icmp_error_noted() {
    let (near_side, router) = (Netns::new(), Netns::new());
    near_side.join("near", "10.83.0.1/24", &router, "far", Some("10.83.0.2/24"));
    near_side.ip("route add default via 10.83.0.2");
    router.sysctl("net.ipv4.ip_forward", "1");
    router.ip("route add unreachable 203.0.113.0/24");
    let mut agent = Agent::shared();
    // Neighbours are looked up first, which takes longer than connect() does.
    let warm_up = near_side.run(|| connect_nonblocking(SocketAddr::from(([203, 0, 113, 5], 4300))));
    agent.connect_failure(&near_side, 4300);
    drop(warm_up);
    let socket = near_side.run(|| connect_nonblocking(SocketAddr::from(([203, 0, 113, 5], 4301))));
    sleep(MS(50));
    drop(socket);
    let failure = agent.connect_failure(&near_side, 4301);
    is(&failure, "/facts/connect_failure", "abandoned");
    is(&failure, "/facts/icmp_error", "EHOSTUNREACH");
    cause(&failure, "connect_unreachable", "likely");
}

/// No kernel has a hook where a mini-socket takes a RST.
fn rst_into_time_wait() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let client = pair.client_port();
    pair.exchange(10, 10);
    let (open, _listener) = pair.close_server();
    sleep(MS(100));
    linger_zero(&open);
    drop(open);
    let sent = agent.reset(&netns, "sent", client);
    is(&sent, "/tcp/state", "CLOSE_WAIT");
    cause(&sent, "linger_zero_close", "certain");
    agent.nothing_more(&netns);
}

/// accept() hands out the dead connection, and what had come can be read: the server acts on a request of nobody's.
fn data_of_an_aborted_connection() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (listener, mut client) = netns.run(|| waiting_to_be_accepted(Family::V4));
    client.write_all(b"question").unwrap();
    linger_zero(&client);
    drop(client);
    let received = agent.reset(&netns, "received", listener.local_addr().unwrap().port());
    cause(&received, "aborted_before_accept", "certain");
    is(&received, "/tcp/unread_bytes", 8);
    absent(&received, "/cause/benign");
    let (mut server, _) = listener.accept().unwrap();
    let mut data = [0; 8];
    server.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"question");
    let inode = netns.inode();
    drop(server);
    let more = agent.rest(&netns, MS(400));
    // Its sender's line, and none about the server's end of what was dead already.
    assert!(
        more.iter().all(|line| line["reset"]["direction"] == "sent" && line["local"]["netns"] == inode),
        "{more:#?}"
    );
    assert_eq!(more.len(), 1, "{more:#?}");
}
