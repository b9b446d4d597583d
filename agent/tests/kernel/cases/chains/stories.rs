//! What belongs together.

use super::*;

pub const CASES: &[Case] = &[
    ("chain_from_the_application_to_the_black_hole", black_hole),
    ("chain_of_a_refused_connect", refused),
    ("chain_of_a_reset_that_is_passed_on", passed_on),
    ("chain_over_two_proxies", two_proxies),
    ("chain_to_a_quiet_close", quiet_close),
    ("chain_of_what_comes_after_a_quiet_close", after_a_quiet_close),
    ("chain_of_a_client_that_is_closed_first", client_first),
    ("chain_from_a_client_that_left", client_left),
];

/// What takes more than the 50 ms of one thread where a machine is emulated.
pub const CASES_OF_MANY: &[Case] = &[("chain_of_each_of_several_connections", several)];

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

/// The proxy had closed before the application said anything. What it says then is answered by a reset.
fn after_a_quiet_close() {
    let mut stage = Stage::new(Netns::new());
    let mut agent = Agent::shared();
    until_hit(|| {
        let mut application = stage.application("down");
        let nobody = stage.netns.run(|| Family::V4.listen().local_addr().expect("bound").port());
        stage.proxy.tell(&format!("connect up 127.0.0.1:{nobody}; close down"));
        sleep(MS(300));
        application.write_all(&[b'h'; HELLO]).expect("sent");
        let failed = agent.connect_failure(&stage.netns, nobody);
        let received = agent.reset(&stage.netns, "received", port_of(&application));
        let Some(sent) = agent.reset_without_socket(&stage.netns, stage.port) else {
            // Nor does the application's end show why then.
            return true;
        };
        if failed["connection"].get("chain").is_none() {
            return false;
        }
        // By the time the answer was sent, the connect's line had left with what was known.
        chain(&failed, &[("leads_to", "close", port_of(&application))], "likely");
        for line in [&received, &sent] {
            cause(line, "proxy_connect_timeout", "likely");
            chain(line, &[("follows_from", "connect_failure", nobody)], "likely");
            names(line, 0, &failed);
        }
        true
    });
}

/// As HAProxy does it: the timeout closes the client first, and then the socket that still connects.
fn client_first() {
    let (netns, _far) = Netns::with_black_hole();
    let mut stage = Stage::new(netns);
    let mut agent = Agent::shared();
    let mut port = 5600;
    until_hit(|| {
        port += 1;
        let mut application = stage.application("down");
        application.write_all(&[b'h'; HELLO]).expect("sent");
        stage.proxy.tell(&format!("begin up {}; sleep 300; close down; close up", hole(port)));
        let sent = agent.reset(&stage.netns, "sent", stage.port);
        let failed = agent.connect_failure(&stage.netns, port);
        if apart_ms(&sent, &failed) > BEFOREHAND_MS {
            unchained(&[&sent, &failed]);
            return false;
        }
        cause(&sent, "proxy_connect_timeout", "possible");
        chain(&sent, &[("follows_from", "connect_failure", port)], "possible");
        chain(&failed, &[("leads_to", "reset", port_of(&application))], "possible");
        true
    });

    let mut application = stage.application("down");
    application.write_all(&[b'h'; HELLO]).expect("sent");
    stage.proxy.tell(&format!("begin up {}; sleep 300; close down; sleep 50; close up", hole(5599)));
    let sent = agent.reset(&stage.netns, "sent", stage.port);
    cause(&sent, "closed_with_unread_data", "certain");
    unchained(&[&sent, &agent.connect_failure(&stage.netns, 5599)]);
}
