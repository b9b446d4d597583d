//! Failed connects: refused, ICMP, kernel timeout, given up.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    Case,
    agent::{Agent, at_leisure},
    expect::{Step, absent, is, near, number},
    netns::Netns,
    sockets::{Family, connect_nonblocking},
};

pub const CASES: &[Case] = &[
    ("connect_refused_v4", || refused(Family::V4)),
    ("connect_refused_v6", || refused(Family::V6)),
    ("connect_refused_mapped", || refused(Family::Mapped)),
    ("connect_abandoned_after_a_set_time", abandoned),
    ("connect_abandoned_after_a_syn_was_resent", abandoned_after_retransmit),
    ("connect_given_up_by_the_kernel", kernel_timeout),
    ("connect_ended_by_an_icmp_error", icmp_error),
    ("syn_ack_for_an_abandoned_connect", late_syn_ack),
];

fn black_hole(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 77, 0, 9], port))
}

fn refused(family: Family) {
    let netns = Netns::new();
    let mut agent = Agent::shared();
    let port = netns.run(move || {
        let port = family.listen().local_addr().unwrap().port();
        TcpStream::connect(family.loopback(port)).unwrap_err();
        port
    });
    let failure = agent.connect_failure(&netns, port);
    is(&failure, "/cause/code", "connect_refused");
    is(&failure, "/cause/confidence", "certain");
    is(&failure, "/facts/connect_failure", "refused");
    is(&failure, "/reset/direction", "received");
    is(&failure, "/tcp/state", "SYN_SENT");
    is(&failure, "/tcp/error", "ECONNREFUSED");
    is(&failure, "/tcp/syn_retransmits", 0);
    is(&failure, "/role", "client");
    is(&failure, "/local/ip", family.address());
    is(&failure, "/local/process/pid", std::process::id());
    absent(&failure, "/idle");
    absent(&failure, "/idle_ms");
    if let Some(sent) = agent.reset_without_socket(&netns, port) {
        is(&sent, "/reset/socket", "none");
        is(&sent, "/local/ip", family.address());
    }
    agent.nothing_more(&netns);
}

fn abandoned() {
    let (netns, _far) = Netns::with_black_hole();
    let mut agent = Agent::shared();
    let (began, socket) = Step::of(|| netns.run(|| connect_nonblocking(black_hole(4001))));
    sleep(Duration::from_millis(400));
    let (gave_up, ()) = Step::of(|| drop(socket));
    let failure = agent.connect_failure(&netns, 4001);
    is(&failure, "/cause/code", "connect_timeout_application");
    is(&failure, "/cause/confidence", "certain");
    is(&failure, "/facts/connect_failure", "abandoned");
    absent(&failure, "/reset");
    absent(&failure, "/tcp/error");
    is(&failure, "/tcp/state", "SYN_SENT");
    is(&failure, "/tcp/syn_retransmits", 0);
    is(&failure, "/facts/actor/pid", std::process::id());
    near(&failure, "/age_ms", &began.until(&gave_up));
    absent(&failure, "/idle");
    agent.nothing_more(&netns);
}

fn abandoned_after_retransmit() {
    let (netns, _far) = Netns::with_black_hole();
    // From Linux 6.5 on the second retransmission is due after two seconds otherwise.
    if netns.run(|| Path::new("/proc/sys/net/ipv4/tcp_syn_linear_timeouts").exists()) {
        netns.sysctl("net.ipv4.tcp_syn_linear_timeouts", "0");
    }
    let mut agent = Agent::shared();
    let (began, socket) = Step::of(|| netns.run(|| connect_nonblocking(black_hole(4002))));
    sleep(Duration::from_millis(1500));
    let (gave_up, ()) = Step::of(|| drop(socket));
    let failure = agent.connect_failure(&netns, 4002);
    is(&failure, "/facts/connect_failure", "abandoned");
    // The first retransmission is due after one second (RFC 6298), the second after three.
    is(&failure, "/tcp/syn_retransmits", 1);
    near(&failure, "/age_ms", &began.until(&gave_up));
}

fn kernel_timeout() {
    let (netns, _far) = Netns::with_black_hole();
    netns.sysctl("net.ipv4.tcp_syn_retries", "1");
    let mut agent = Agent::shared();
    let (elapsed, error) = netns.run(|| {
        let began = Instant::now();
        let error = TcpStream::connect(black_hole(4003)).unwrap_err();
        (began.elapsed().as_secs_f64() * 1000.0, error)
    });
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    let failure = agent.connect_failure(&netns, 4003);
    is(&failure, "/cause/code", "connect_timeout_kernel");
    is(&failure, "/cause/confidence", "certain");
    is(&failure, "/facts/connect_failure", "kernel_timeout");
    is(&failure, "/tcp/error", "ETIMEDOUT");
    // How often it tries differs between kernels (tcp_syn_linear_timeouts, from 6.5 on); every try is a segment.
    let resent = number(&failure, "/tcp/syn_retransmits");
    assert!(resent >= 1.0, "{failure:#}");
    assert_eq!(resent, number(&failure, "/tcp/segs_out") - 1.0, "{failure:#}");
    absent(&failure, "/reset");
    absent(&failure, "/facts/actor");
    // The thread was woken after the socket had closed, and began after the clock was read.
    let late = at_leisure(Duration::from_millis(100)).as_secs_f64() * 1000.0;
    near(&failure, "/age_ms", &(elapsed - late..=elapsed));
    agent.nothing_more(&netns);
}

/// A router in between that at first drops the SYN and then knows the destination to be unreachable: the error answers
/// the SYN that is resent after a second. (An error that comes back while connect() still holds the socket's lock is
/// only noted by the kernel, and over a veth pair it always does.)
fn icmp_error() {
    let (near_side, router) = (Netns::new(), Netns::new());
    near_side.join("near", "10.79.0.1/24", &router, "far", Some("10.79.0.2/24"));
    near_side.ip("route add default via 10.79.0.2");
    router.sysctl("net.ipv4.ip_forward", "1");
    router.ip("route add blackhole 203.0.113.0/24");
    let mut agent = Agent::shared();
    let (began, socket) =
        Step::of(|| near_side.run(|| connect_nonblocking(SocketAddr::from(([203, 0, 113, 5], 4004)))));
    let (switched, ()) = Step::of(|| router.ip("route replace unreachable 203.0.113.0/24"));
    let failure = agent.connect_failure(&near_side, 4004);
    is(&failure, "/cause/code", "connect_unreachable");
    is(&failure, "/cause/confidence", "certain");
    let ended = Step::of(|| drop(socket)).0;
    is(&failure, "/facts/connect_failure", "icmp_error");
    is(&failure, "/tcp/error", "EHOSTUNREACH");
    // A machine that took longer than a second for the route has the next SYN answered.
    let resent = number(&failure, "/tcp/syn_retransmits");
    let in_time = *began.until(&switched).end() < 900.0;
    assert!(if in_time { resent == 1.0 } else { resent >= 1.0 }, "{failure:#}");
    absent(&failure, "/reset");
    near(&failure, "/age_ms", &(900.0..=*began.until(&ended).end()));
    agent.nothing_more(&near_side);
}

/// The SYN-ACK comes when nobody waits for it any more: our kernel answers with a RST, and the line still knows whose
/// connect that was.
fn late_syn_ack() {
    let (near_side, far_side) = (Netns::new(), Netns::new());
    near_side.join("near", "10.80.0.1/24", &far_side, "far", Some("10.80.0.2/24"));
    let listener = far_side.run(|| std::net::TcpListener::bind(("10.80.0.2", 0)).unwrap());
    let address = listener.local_addr().unwrap();
    // The way back is slow: the answer meets a socket that is gone. No queueing discipline is needed for that: the far
    // side does not know where to send its SYN-ACK until we tell it.
    far_side.ip("neigh add 10.80.0.1 lladdr 02:00:00:00:00:07 dev far nud permanent");
    let mut agent = Agent::shared();
    let (_began, socket) = Step::of(|| near_side.run(move || connect_nonblocking(address)));
    let port = socket.local_addr().unwrap().port();
    sleep(Duration::from_millis(200));
    drop(socket);
    let failure = agent.connect_failure(&near_side, address.port());
    is(&failure, "/facts/connect_failure", "abandoned");
    far_side.ip("neigh del 10.80.0.1 dev far");

    if let Some(sent) = agent.reset_without_socket(&near_side, port) {
        is(&sent, "/cause/code", "late_syn_ack");
        is(&sent, "/cause/confidence", "certain");
        is(&sent, "/cause/benign", true);
        is(&sent, "/reset/socket", "none");
        is(&sent, "/role", "client");
        is(&sent, "/facts/segment/flags", "SYN,ACK");
        is(&sent, "/facts/closed_from", "SYN_SENT");
        is(&sent, "/local/process/pid", std::process::id());
        absent(&sent, "/idle");
    }
    agent.nothing_more(&near_side);
}
