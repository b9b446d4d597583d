//! What only looks like it.

use super::*;

pub const CASES: &[Case] = &[
    ("no_chain_between_two_processes", two_processes),
    ("no_chain_between_two_workers", two_workers),
    ("no_chain_with_an_upstream_that_carried_nothing_of_it", unused_upstream),
];

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
