//! A segment for a connection that one end had closed: the keep-alive race. The RST is answered by a TIME_WAIT
//! mini-socket, a listener or nobody, and must still tell whose connection that was.

use std::{io::Write, net::TcpStream, thread::sleep, time::Duration};

use crate::{
    Case,
    agent::Agent,
    expect::{Step, absent, is, near},
    netns::Netns,
    sockets::{Family, Pair, linger_zero},
};

pub const CASES: &[Case] = &[
    ("write_after_the_servers_close_is_answered_from_time_wait_v4", || answered_from_time_wait(Family::V4)),
    ("write_after_the_servers_close_is_answered_from_time_wait_v6", || answered_from_time_wait(Family::V6)),
    ("write_after_the_servers_close_is_answered_from_time_wait_mapped", || answered_from_time_wait(Family::Mapped)),
    ("the_same_by_the_listener_after_time_wait_is_gone", || answered_after_time_wait(Family::V4, true)),
    ("the_same_by_nobody_after_time_wait_is_gone_v4", || answered_after_time_wait(Family::V4, false)),
    ("the_same_by_nobody_after_time_wait_is_gone_v6", || answered_after_time_wait(Family::V6, false)),
    ("the_same_by_nobody_after_time_wait_is_gone_mapped", || answered_after_time_wait(Family::Mapped, false)),
    ("births_survive_a_destroy_that_comes_before_the_reset", orphan_destroyed_before_its_reset),
    ("closed_port_answers_a_syn_and_knows_no_connection", closed_port),
    ("a_new_connection_with_old_ends_does_not_inherit", a_new_connection_with_old_ends_does_not_inherit),
];

/// What a client and a server did, with the times of each step.
struct Story {
    client: TcpStream,
    client_port: u16,
    server_port: u16,
    listener: std::net::TcpListener,
    born: Step,
    asked: Step,
    answered: Step,
    closed: Step,
}

/// One exchange, then the server closes after having been idle.
fn server_closes_when_idle(netns: &Netns, family: Family) -> Story {
    let (born, mut pair) = Step::of(|| netns.run(move || Pair::connect(family)));
    let (client_port, server_port) = (pair.client_port(), pair.server_port());
    let (asked, ()) = Step::of(|| {
        pair.client.write_all(&[b'q'; 100]).unwrap();
        std::io::Read::read_exact(&mut pair.server, &mut [0; 100]).unwrap();
    });
    sleep(Duration::from_millis(60));
    let (answered, ()) = Step::of(|| {
        pair.server.write_all(&[b'a'; 200]).unwrap();
        std::io::Read::read_exact(&mut pair.client, &mut [0; 200]).unwrap();
    });
    sleep(Duration::from_millis(600));
    let Pair { client, server, listener } = pair;
    let (closed, ()) = Step::of(|| drop(server));
    Story { client, client_port, server_port, listener, born, asked, answered, closed }
}

/// What the client's line has to say in every variant.
fn check_client(agent: &mut Agent, netns: &Netns, story: &Story, family: Family, written: &Step) {
    let received = agent.reset(netns, "received", story.client_port);
    is(&received, "/cause/code", "stale_connection_reuse");
    is(&received, "/reset/socket", "full");
    is(&received, "/role", "client");
    is(&received, "/local/ip", family.address());
    is(&received, "/peer/ip", family.address());
    is(&received, "/peer/port", story.server_port);
    is(&received, "/tcp/state", "CLOSE_WAIT");
    is(&received, "/tcp/error", "EPIPE");
    is(&received, "/tcp/bytes_received", 200);
    is(&received, "/tcp/bytes_acked", 100);
    is(&received, "/facts/rst_had_timestamp", false);
    is(&received, "/facts/first_fin/by", "peer");
    near(&received, "/age_ms", &story.born.until(written));
    near(&received, "/idle/rx_ms", &story.answered.until(written));
    near(&received, "/idle/gap_before_last_send_ms", &story.answered.until(written));
    near(&received, "/idle/tx_ms", &written.until(written));
    near(&received, "/facts/first_fin/ms_ago", &story.closed.until(written));
    near(&received, "/facts/first_fin/idle_rx_ms", &story.answered.until(&story.closed));
    agent.nothing_more(netns);
}

/// What the server's line has to say in every variant: the connection is gone, its facts are not.
fn check_server(sent: &serde_json::Value, story: &Story, family: Family, written: &Step) {
    is(sent, "/cause/code", "stale_connection_reuse");
    is(sent, "/cause/confidence", "certain");
    is(sent, "/role", "server");
    is(sent, "/local/ip", family.address());
    is(sent, "/peer/ip", family.address());
    is(sent, "/peer/port", story.client_port);
    is(sent, "/local/process/pid", std::process::id());
    is(sent, "/tcp/bytes_received", 100);
    is(sent, "/tcp/bytes_sent", 200);
    is(sent, "/tcp/bytes_acked", 200);
    is(sent, "/facts/segment/payload_bytes", 4);
    is(sent, "/facts/first_fin/by", "local");
    is(sent, "/facts/closed_from", "FIN_WAIT2");
    is(sent, "/facts/closer/pid", std::process::id());
    is(sent, "/age_is_minimum", false);
    near(sent, "/age_ms", &story.born.until(written));
    near(sent, "/idle/rx_ms", &story.asked.until(written));
    near(sent, "/idle/tx_ms", &story.answered.until(written));
    near(sent, "/idle_ms", &story.answered.until(written));
    near(sent, "/facts/first_fin/ms_ago", &story.closed.until(written));
    near(sent, "/facts/first_fin/idle_tx_ms", &story.answered.until(&story.closed));
}

fn answered_from_time_wait(family: Family) {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut story = server_closes_when_idle(&netns, family);
    sleep(Duration::from_millis(250));
    let (written, ()) = Step::of(|| story.client.write_all(b"late").unwrap());

    if let Some(sent) = agent.reset_without_socket(&netns, story.server_port) {
        is(&sent, "/reset/socket", "timewait");
        is(&sent, "/tcp/state", "TIME_WAIT");
        check_server(&sent, &story, family, &written);
    }
    check_client(&mut agent, &netns, &story, family, &written);
}

fn answered_after_time_wait(family: Family, still_served: bool) {
    let netns = Netns::new();
    // How long the mini-socket of an orphan in FIN_WAIT2 lives.
    netns.sysctl("net.ipv4.tcp_fin_timeout", "1");
    let mut agent = Agent::shared();
    let mut story = server_closes_when_idle(&netns, family);
    if !still_served {
        story.listener = netns.run(|| Family::V4.listen());
    }
    sleep(Duration::from_millis(2500));
    let (written, ()) = Step::of(|| story.client.write_all(b"late").unwrap());

    let sent = if still_served {
        Some(agent.reset(&netns, "sent", story.server_port))
    } else {
        agent.reset_without_socket(&netns, story.server_port)
    };
    if let Some(sent) = sent {
        is(&sent, "/reset/socket", if still_served { "listener" } else { "none" });
        check_server(&sent, &story, family, &written);
    }
    check_client(&mut agent, &netns, &story, family, &written);
}

/// An orphan that stays a full socket (its FIN timeout is longer than TIME_WAIT): data for it runs `tcp_reset`, closes
/// and destroys the socket, and only then sends the RST.
fn orphan_destroyed_before_its_reset() {
    let netns = Netns::new();
    netns.sysctl("net.ipv4.tcp_fin_timeout", "120");
    let mut agent = Agent::shared();
    let mut story = server_closes_when_idle(&netns, Family::V4);
    sleep(Duration::from_millis(250));
    let (written, ()) = Step::of(|| story.client.write_all(b"late").unwrap());

    let sent = agent.reset(&netns, "sent", story.server_port);
    is(&sent, "/reset/socket", "full");
    is(&sent, "/tcp/state", "FIN_WAIT2");
    is(&sent, "/facts/data_without_reader", true);
    is(&sent, "/facts/first_fin/by", "local");
    is(&sent, "/local/process/pid", std::process::id());
    is(&sent, "/age_is_minimum", false);
    near(&sent, "/age_ms", &story.born.until(&written));
    near(&sent, "/idle/tx_ms", &story.answered.until(&written));
    check_client(&mut agent, &netns, &story, Family::V4, &written);
}

fn closed_port() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let port = netns.run(|| {
        let port = Family::V4.listen().local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap_err();
        port
    });
    if let Some(sent) = agent.reset_without_socket(&netns, port) {
        is(&sent, "/cause/code", "port_closed");
        is(&sent, "/cause/confidence", "certain");
        is(&sent, "/reset/socket", "none");
        is(&sent, "/role", "server");
        is(&sent, "/facts/segment/flags", "SYN");
        absent(&sent, "/age_ms");
        absent(&sent, "/idle");
        absent(&sent, "/local/process");
    }
    agent.connect_failure(&netns, port);
    agent.nothing_more(&netns);
}

/// The closed-connection table is keyed by both ends. A SYN from the same ends begins something new.
fn a_new_connection_with_old_ends_does_not_inherit() {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let mut pair = netns.run(|| Pair::connect(Family::V4));
    pair.exchange(10, 10);
    let (client_port, server_port) = (pair.client_port(), pair.server_port());
    // Ends without TIME_WAIT on either side, so that the port can be taken again at once.
    linger_zero(&pair.client);
    drop(pair);
    agent.reset(&netns, "sent", client_port);
    agent.reset(&netns, "received", server_port);

    netns.run(move || {
        // SAFETY: plain socket calls with addresses of the right size.
        unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            let address = |port: u16| libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: port.to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
                sin_zero: [0; 8],
            };
            let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            let (own, other) = (address(client_port), address(server_port));
            assert_eq!(libc::bind(fd, (&raw const own).cast(), length), 0);
            assert_eq!(libc::connect(fd, (&raw const other).cast(), length), -1);
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ECONNREFUSED));
            libc::close(fd);
        }
    });
    agent.connect_failure(&netns, server_port);
    if let Some(sent) = agent.reset_without_socket(&netns, server_port) {
        is(&sent, "/reset/socket", "none");
        is(&sent, "/facts/segment/flags", "SYN");
        absent(&sent, "/age_ms");
        absent(&sent, "/tcp/bytes_sent");
        absent(&sent, "/facts/closed_ms_ago");
    }
    agent.nothing_more(&netns);
}
