//! Resets of living connections.

use std::{
    io::{Read, Write},
    net::Shutdown,
    thread::sleep,
    time::Duration,
};

use crate::{
    Case,
    agent::{Agent, at_leisure},
    expect::{Step, absent, is, near, number},
    netns::Netns,
    sockets::{Family, Pair, linger_zero, tcp_option, waiting_to_be_accepted},
};

pub const CASES: &[Case] = &[
    ("linger_zero_close_v4", || linger_zero_close(Family::V4)),
    ("linger_zero_close_v6", || linger_zero_close(Family::V6)),
    ("linger_zero_close_mapped", || linger_zero_close(Family::Mapped)),
    ("close_with_unread_data", close_with_unread_data),
    ("unread_data_wins_over_linger_zero", unread_data_wins_over_linger_zero),
    ("an_unread_fin_is_not_unread_data", an_unread_fin_is_not_unread_data),
    ("data_for_a_shut_down_reader_is_sent_not_received_v4", || data_for_a_shut_down_reader(Family::V4)),
    ("data_for_a_shut_down_reader_is_sent_not_received_v6", || data_for_a_shut_down_reader(Family::V6)),
    ("data_for_a_shut_down_reader_is_sent_not_received_mapped", || data_for_a_shut_down_reader(Family::Mapped)),
    ("an_agent_that_stood_still_does_not_take_data_for_a_reset", data_while_the_agent_stands_still),
    ("request_on_a_connection_long_idle", request_on_a_connection_long_idle),
    ("destroyed_by_an_administrator", destroyed_by_an_administrator),
    ("listener_closed_with_the_connection_queued", listener_closed_with_the_connection_queued),
    ("mptcp_is_not_tcp_and_its_subflow_is_told_once", mptcp),
    ("retransmissions_used_up_is_a_timeout_without_reset", retransmissions_used_up),
];

fn linger_zero_close(family: Family) {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (born, pair) = Step::of(|| netns.run(move || Pair::connect(family)));
    let (client, server) = (pair.client_port(), pair.server_port());
    let mut pair = pair;
    pair.exchange(100, 200);
    sleep(Duration::from_millis(300));
    linger_zero(&pair.server);
    let Pair { client: _open, server: closing, listener: _listener } = pair;
    let (closed, ()) = Step::of(|| drop(closing));

    let sent = agent.reset(&netns, "sent", server);
    is(&sent, "/cause/code", "linger_zero_close");
    is(&sent, "/cause/confidence", "certain");
    is(&sent, "/reset/socket", "full");
    is(&sent, "/role", "server");
    is(&sent, "/tcp/state", "ESTABLISHED");
    is(&sent, "/tcp/unread_bytes", 0);
    is(&sent, "/tcp/bytes_received", 100);
    is(&sent, "/tcp/bytes_sent", 200);
    is(&sent, "/facts/linger_ms", 0);
    if agent.has_reasons() {
        is(&sent, "/reset/kernel_reason", "TCP_STATE");
    }
    // Its own socket reports ECONNRESET a moment later, as if it had been reset.
    absent(&sent, "/tcp/error");
    is(&sent, "/facts/actor/pid", std::process::id());
    is(&sent, "/local/ip", family.address());
    is(&sent, "/peer/ip", family.address());
    is(&sent, "/peer/port", client);
    is(&sent, "/age_is_minimum", false);
    near(&sent, "/age_ms", &born.until(&closed));

    let received = agent.reset(&netns, "received", client);
    is(&received, "/cause/code", "linger_zero_close");
    is(&received, "/role", "client");
    is(&received, "/tcp/state", "ESTABLISHED");
    is(&received, "/tcp/error", "ECONNRESET");
    is(&received, "/tcp/bytes_sent", 100);
    is(&received, "/tcp/bytes_acked", 100);
    is(&received, "/tcp/bytes_received", 200);
    is(&received, "/peer/port", server);
    is(&received, "/facts/rst_had_timestamp", true);
    near(&received, "/age_ms", &born.until(&closed));

    // The two ends fit together by sequence numbers, whichever came first.
    assert_eq!(sent["facts"]["sequence"]["send_next"], received["facts"]["sequence"]["receive_next"]);
    assert_eq!(sent["facts"]["sequence"]["receive_next"], received["facts"]["sequence"]["send_next"]);
    agent.nothing_more(&netns);
}

fn close_with_unread_data() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let (client, server) = (pair.client_port(), pair.server_port());
    pair.exchange(10, 20);
    sleep(Duration::from_millis(200));
    let (asked, ()) = Step::of(|| pair.client.write_all(b"12345").unwrap());
    sleep(Duration::from_millis(100));
    let Pair { client: _open, server: closing, listener: _listener } = pair;
    let (closed, ()) = Step::of(|| drop(closing));

    let sent = agent.reset(&netns, "sent", server);
    is(&sent, "/cause/code", "closed_with_unread_data");
    is(&sent, "/cause/confidence", "certain");
    is(&sent, "/tcp/unread_bytes", 5);
    is(&sent, "/tcp/state", "ESTABLISHED");
    is(&sent, "/facts/shutdown", "both");
    near(&sent, "/idle/rx_ms", &asked.until(&closed));

    let received = agent.reset(&netns, "received", client);
    near(&received, "/idle/tx_ms", &asked.until(&closed));
    assert!(number(&received, "/idle/gap_before_last_send_ms") >= 192.0, "{received:#}");
    agent.nothing_more(&netns);
}

fn unread_data_wins_over_linger_zero() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let server = pair.server_port();
    pair.client.write_all(b"123").unwrap();
    sleep(Duration::from_millis(50));
    linger_zero(&pair.server);
    let _open = pair.close_server();
    let sent = agent.reset(&netns, "sent", server);
    is(&sent, "/cause/code", "closed_with_unread_data");
    is(&sent, "/cause/confidence", "certain");
    is(&sent, "/tcp/unread_bytes", 3);
    is(&sent, "/facts/linger_ms", 0);
    if agent.has_reasons() {
        is(&sent, "/reset/kernel_reason", "TCP_ABORT_ON_CLOSE");
    }
}

fn an_unread_fin_is_not_unread_data() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let pair = netns.run(|| Pair::connect(Family::V4));
    let server = pair.server_port();
    pair.client.shutdown(Shutdown::Write).unwrap();
    sleep(Duration::from_millis(50));
    linger_zero(&pair.server);
    let Pair { client: _open, server: closing, listener: _listener } = pair;
    drop(closing);
    let sent = agent.reset(&netns, "sent", server);
    is(&sent, "/tcp/state", "CLOSE_WAIT");
    is(&sent, "/tcp/unread_bytes", 0);
    is(&sent, "/tcp/bytes_received", 0);
    is(&sent, "/facts/first_fin/by", "peer");
}

/// `tcp_receive_reset` fires at the end that shut down, although no RST ever reached it.
fn data_for_a_shut_down_reader(family: Family) {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(move || Pair::connect(family));
    let (client, server) = (pair.client_port(), pair.server_port());
    pair.exchange(10, 10);
    let (shut, ()) = Step::of(|| pair.server.shutdown(Shutdown::Both).unwrap());
    // Not as one that is about to close.
    sleep(at_leisure(Duration::from_millis(150)));
    let (written, ()) = Step::of(|| pair.client.write_all(b"late").unwrap());

    let sent = agent.reset(&netns, "sent", server);
    is(&sent, "/cause/code", "data_after_shutdown");
    is(&sent, "/cause/confidence", "certain");
    is(&sent, "/reset/socket", "full");
    is(&sent, "/tcp/state", "FIN_WAIT2");
    is(&sent, "/facts/data_without_reader", true);
    is(&sent, "/facts/segment/flags", "PSH,ACK");
    is(&sent, "/facts/segment/payload_bytes", 4);
    is(&sent, "/facts/first_fin/by", "local");
    near(&sent, "/facts/first_fin/ms_ago", &shut.until(&written));

    let received = agent.reset(&netns, "received", client);
    is(&received, "/tcp/state", "CLOSE_WAIT");
    is(&received, "/tcp/error", "EPIPE");
    is(&received, "/facts/rst_had_timestamp", false);
    near(&received, "/facts/first_fin/ms_ago", &shut.until(&written));
    // Above all: the end that shut down received nothing.
    agent.nothing_more(&netns);
}

/// Both halves of one event, older than the agent would wait for the second one when it gets to the first.
fn data_while_the_agent_stands_still() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let (client, server) = (pair.client_port(), pair.server_port());
    pair.server.shutdown(Shutdown::Both).unwrap();
    agent.stopped(|| {
        pair.client.write_all(b"late").unwrap();
        sleep(Duration::from_millis(400));
    });

    let sent = agent.reset(&netns, "sent", server);
    is(&sent, "/cause/code", "data_after_shutdown");
    is(&sent, "/facts/data_without_reader", true);
    // The two ends find each other as well.
    let received = agent.reset(&netns, "received", client);
    is(&received, "/cause/confidence", "certain");
    agent.nothing_more(&netns);
}

/// The third incident in small: idle, then a request that is acknowledged, never answered and reset.
fn request_on_a_connection_long_idle() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    let client = pair.client_port();
    let (answered, ()) = Step::of(|| pair.exchange(50, 60));
    sleep(Duration::from_millis(700));
    let (asked, ()) = Step::of(|| pair.client.write_all(&[b'q'; 50]).unwrap());
    pair.server.read_exact(&mut [0; 50]).unwrap();
    sleep(Duration::from_millis(500));
    linger_zero(&pair.server);
    let Pair { client: _open, server: closing, listener: _listener } = pair;
    let (reset, ()) = Step::of(|| drop(closing));

    let received = agent.reset(&netns, "received", client);
    near(&received, "/idle/gap_before_last_send_ms", &answered.until(&asked));
    near(&received, "/idle/tx_ms", &asked.until(&reset));
    near(&received, "/idle/rx_ms", &answered.until(&reset));
    near(&received, "/idle_ms", &asked.until(&reset));
    is(&received, "/tcp/unacked_segments", 0);
    is(&received, "/facts/in_flight_bytes", 0);
}

/// `ss -K` sends the RST in its own process: it is the actor and never the owner.
fn destroyed_by_an_administrator() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let pair = netns.run(|| Pair::connect(Family::V4));
    let (client, server) = (pair.client_port(), pair.server_port());
    netns.run(move || {
        let output = std::process::Command::new("ss")
            .args(["-K", "-t", &format!("sport = :{client}")])
            .output()
            .expect("ss (iproute2) runs");
        assert!(output.status.success(), "{output:?}");
    });
    let sent = agent.reset(&netns, "sent", client);
    is(&sent, "/cause/code", "destroyed_by_admin");
    is(&sent, "/cause/confidence", "certain");
    is(&sent, "/tcp/state", "ESTABLISHED");
    is(&sent, "/facts/actor/comm", "ss");
    is(&sent, "/local/process/pid", std::process::id());
    is(&sent, "/role", "client");
    agent.reset(&netns, "received", server);
    agent.nothing_more(&netns);
}

/// Whoever closes the listener never owned the connection in its queue.
fn listener_closed_with_the_connection_queued() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let (listener, client) = netns.run(|| waiting_to_be_accepted(Family::V4));
    let (server, port) = (listener.local_addr().unwrap().port(), client.local_addr().unwrap().port());
    drop(listener);
    let sent = agent.reset(&netns, "sent", server);
    is(&sent, "/cause/code", "listener_closed");
    is(&sent, "/cause/confidence", "certain");
    is(&sent, "/role", "server");
    is(&sent, "/facts/has_file", false);
    absent(&sent, "/local/process");
    is(&sent, "/facts/actor/pid", std::process::id());
    let received = agent.reset(&netns, "received", port);
    is(&received, "/local/process/pid", std::process::id());
    agent.nothing_more(&netns);
}

/// `inet_sock_set_state` fires for the MPTCP socket too, and 262 ends in a 6. Its subflow is TCP.
fn mptcp() {
    let netns = Netns::new();
    if !netns.run(|| std::path::Path::new("/proc/sys/net/mptcp").exists()) {
        // Debian's 5.10 is built without it. Then no socket of that kind can exist.
        // SAFETY: socket has no memory arguments, and it makes none here.
        let result = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) };
        assert_eq!(result, -1);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EPROTONOSUPPORT));
        return;
    }
    let mut agent = Agent::shared();
    let (client, server, _listener) = netns.run(|| {
        let listener = Family::V4.listen();
        let client = crate::sockets::connect_mptcp(listener.local_addr().unwrap());
        let (server, _) = listener.accept().unwrap();
        (client, server, listener)
    });
    let (own, other) = (client.local_addr().unwrap().port(), server.local_addr().unwrap().port());
    linger_zero(&server);
    drop(server);
    is(&agent.reset(&netns, "sent", other), "/tcp/state", "ESTABLISHED");
    is(&agent.reset(&netns, "received", own), "/tcp/state", "ESTABLISHED");
    drop(client);
    agent.nothing_more(&netns);
}

fn retransmissions_used_up() {
    let (near_side, far_side) = (Netns::new(), Netns::new());
    near_side.join("near", "10.78.0.1/24", &far_side, "far", Some("10.78.0.2/24"));
    let mut agent = Agent::shared();
    let listener = far_side.run(|| std::net::TcpListener::bind(("10.78.0.2", 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let mut client = near_side.run(move || std::net::TcpStream::connect(address).unwrap());
    let (_server, _) = listener.accept().unwrap();
    tcp_option(&client, libc::TCP_USER_TIMEOUT, 700);
    far_side.ip("addr del 10.78.0.2/24 dev far");
    client.write_all(b"into the void").unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::TimedOut);

    let inode = near_side.inode();
    let line = agent.wait("a timeout", |line| line["type"] == "timeout" && line["local"]["netns"] == inode);
    is(&line, "/cause/code", "user_timeout");
    is(&line, "/tcp/error", "ETIMEDOUT");
    is(&line, "/tcp/state", "ESTABLISHED");
    absent(&line, "/reset");
    // The last send was a retransmission: when the application last wrote is not in the socket any more.
    absent(&line, "/idle/tx_ms");
    absent(&line, "/idle/gap_before_last_send_ms");
    assert!(number(&line, "/tcp/retransmits") >= 1.0, "{line:#}");
    agent.nothing_more(&near_side);
}
