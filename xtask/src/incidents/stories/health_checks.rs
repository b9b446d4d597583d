//! Health checks that only connect: HAProxy ends each with a reset, Envoy with a FIN.
//!
//! The reset is on purpose and harms nobody: the line says whose it is and that nobody needs to do anything, and the
//! server, whose kernel drops the half-made connection, shows nothing. That another server does not answer HAProxy at the
//! same time has a line of its own, and is not the reason of any reset. Nor is there a line about the requests that pass.

use std::{thread, time::Duration};

use anyhow::{Result, bail};

use crate::incidents::{
    client::Client,
    envoy, network,
    servers::{self, NODE, PORT},
    sockets,
    stage::Stage,
    verdict::Layer,
};

/// How many checks to wait for.
const CHECKS: usize = 4;
/// The port of the server that does not answer.
const DEAD_PORT: u16 = 8443;

/// Plays HAProxy's.
pub fn play_haproxy(stage: &mut Stage) -> Result<()> {
    network::black_hole()?;
    let _node = NODE.start(stage)?;
    let _haproxy = servers::haproxy_checking(stage, (network::BLACK_HOLE, DEAD_PORT))?;
    let mut lines = Vec::new();
    for _ in 0..CHECKS {
        lines.push(stage.agent.reset_of("sent", "haproxy", PORT)?);
    }
    // The near miss: a connection that was used is no health check.
    expect_ok(servers::CHECKING_PORT)?;
    lines.extend(stage.agent.about(PORT));
    let failure = stage.agent.connect_failure(DEAD_PORT)?;
    let verdict = &mut stage.verdict;
    for line in &lines {
        verdict.is(line, "/reset/direction", "sent");
        verdict.is(line, "/local/process/comm", "haproxy");
        verdict.is(line, "/role", "client");
        verdict.is(line, "/tcp/bytes_sent", 0);
        verdict.is(line, "/tcp/bytes_received", 0);
        verdict.cause(line, "linger_zero_close");
        verdict.is(line, "/cause/benign", true);
    }
    verdict.is(&failure, "/local/process/comm", "haproxy");
    verdict.cause(&failure, "connect_timeout_application");
    verdict.measured(format!("{} checks", lines.len()));
    Ok(())
}

/// Plays Envoy's.
pub fn play_envoy(stage: &mut Stage) -> Result<()> {
    let _node = NODE.start(stage)?;
    let _envoy = envoy::checking(stage, ("127.0.0.1", PORT))?;
    // Who closes first keeps the connection's end for a minute.
    for _ in 0..500 {
        if sockets::closed_towards(PORT)? >= CHECKS {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let checks = sockets::closed_towards(PORT)?;
    stage.verdict.measured(format!("{checks} checks"));
    if checks < CHECKS {
        bail!("Envoy made only {checks} checks, or did not end them with a FIN");
    }
    expect_ok(envoy::PORT)?;
    // The last ACK may find that the server has forgotten the connection: RFC 9293 wants a RST for that, benign.
    for line in stage.agent.about(PORT).iter().filter(|line| line["cause"]["benign"] != true) {
        stage.verdict.problem(Layer::Facts, "no line about a health check that ends with a FIN", Some(line));
    }
    Ok(())
}

/// The server is healthy to the checker, which lets a request through.
fn expect_ok(port: u16) -> Result<()> {
    match Client::connect(port)?.ask()? {
        200 => Ok(()),
        status => bail!("a request through the checker was answered with {status}"),
    }
}
