//! Envoy gives up connecting after 1 s and closes the application's connection, whose first bytes it has not read.
//!
//! The application sees a reset on a healthy local connection. What happened is that an address behind the proxy did
//! not answer. Beside it, the near miss: an application that waits for the server to speak first has sent nothing that
//! could be unread, and sees a clean end: the connect's line names its connection. Nor is there a reset where Envoy speaks
//! HTTP: the application gets 503.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::incidents::{
    client::Client,
    envoy, network,
    stage::Stage,
    verdict::{Layer, TWO_TICKS_MS, number, seconds},
};

const UPSTREAM_PORT: u16 = 8443;
/// As long as many a TLS ClientHello.
const HELLO: usize = 517;
/// Envoy's connect_timeout.
const TIMEOUT_MS: f64 = 1000.0;
/// How much earlier or later Envoy's timer may fire.
const TOLERANCE_MS: f64 = 20.0;

/// Plays it.
pub fn play(stage: &mut Stage) -> Result<()> {
    network::black_hole()?;
    let _envoy = envoy::tcp(stage, (network::BLACK_HOLE, UPSTREAM_PORT))?;
    speak_first(stage)?;
    listen_first(stage)
}

/// Plays it with Envoy as a proxy for HTTP, which has an answer instead of a reset.
pub fn play_http(stage: &mut Stage) -> Result<()> {
    network::black_hole()?;
    let _envoy = envoy::http(stage, (network::BLACK_HOLE, UPSTREAM_PORT))?;
    let mut client = Client::connect(envoy::PORT)?;
    let (start, status) = (Instant::now(), client.ask()?);
    let elapsed_ms = start.elapsed().as_secs_f64() * 1000.0;
    let port = client.port;
    drop(client);

    let failure = stage.agent.connect_failure(UPSTREAM_PORT)?;
    let verdict = &mut stage.verdict;
    verdict.measured(format!("connect given up after {}", seconds(&failure, "/age_ms")));
    verdict.measured(format!("Envoy answered {status}"));
    if status != 503 {
        verdict.problem(Layer::Facts, &format!("Envoy answered {status}, expected was 503"), None);
    }
    verdict.is(&failure, "/facts/connect_failure", "abandoned");
    verdict.is(&failure, "/local/process/comm", "envoy");
    verdict.within(&failure, "/age_ms", &(TIMEOUT_MS - TOLERANCE_MS..=elapsed_ms.max(TIMEOUT_MS + TOLERANCE_MS)));
    verdict.cause(&failure, "connect_timeout_application");
    // The application's connection goes on.
    verdict.chain(&failure, &[]);
    for line in stage.agent.about(port).into_iter().chain(stage.agent.about(UPSTREAM_PORT)) {
        stage.verdict.problem(Layer::Facts, "no other line, least of all a reset", Some(&line));
    }
    Ok(())
}

fn speak_first(stage: &mut Stage) -> Result<()> {
    let start = Instant::now();
    let (mut app, port) = connect()?;
    app.write_all(&[0x16; HELLO]).context("cannot send")?;
    let outcome = app.read(&mut [0; 64]);
    let elapsed_ms = start.elapsed().as_secs_f64() * 1000.0;
    if !outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset) {
        stage.verdict.problem(Layer::Facts, &format!("the application expected a reset and got {outcome:?}"), None);
    }

    let failure = stage.agent.connect_failure(UPSTREAM_PORT)?;
    let received = stage.agent.reset("received", port, envoy::PORT)?;
    let sent = stage.agent.reset("sent", envoy::PORT, port)?;
    let verdict = &mut stage.verdict;
    verdict.measured(format!("connect given up after {}", seconds(&failure, "/age_ms")));
    verdict.measured(format!("reset at age {}", seconds(&received, "/age_ms")));

    // On a busy machine everything is late; but nothing can have taken longer than the application saw.
    let latest = (TIMEOUT_MS + TOLERANCE_MS).max(elapsed_ms + TWO_TICKS_MS);
    let age = TIMEOUT_MS - TOLERANCE_MS..=latest;
    verdict.is(&failure, "/facts/connect_failure", "abandoned");
    verdict.within(&failure, "/age_ms", &age);
    verdict.absent(&failure, "/tcp/error");
    verdict.absent(&failure, "/reset");
    verdict.is(&failure, "/local/process/comm", "envoy");

    let first = number(&failure, "/age_ms").unwrap_or(TIMEOUT_MS);
    verdict.is(&received, "/tcp/state", "ESTABLISHED");
    verdict.is(&received, "/tcp/error", "ECONNRESET");
    verdict.is(&received, "/role", "client");
    verdict.is(&received, "/tcp/bytes_received", 0);
    verdict.is(&received, "/tcp/bytes_sent", HELLO);
    verdict.is(&received, "/facts/rst_had_timestamp", true);
    verdict.is(&received, "/local/process/comm", "xtask");
    verdict.within(&received, "/age_ms", &(first - 1.0..=latest));

    verdict.is(&sent, "/reset/socket", "full");
    verdict.is(&sent, "/reset/kernel_reason", "TCP_ABORT_ON_CLOSE");
    verdict.is(&sent, "/tcp/unread_bytes", HELLO);
    verdict.is(&sent, "/role", "server");
    verdict.is(&sent, "/local/process/comm", "envoy");
    verdict.within(&sent, "/age_ms", &(first - TOLERANCE_MS..=latest));

    verdict.cause(&failure, "connect_timeout_application");
    verdict.cause(&received, "proxy_connect_timeout");
    verdict.cause(&sent, "proxy_connect_timeout");

    // The whole story from the application's line alone: application ← Envoy → black hole.
    verdict.chain(&received, &[("follows_from", &failure)]);
    verdict.is(&received, "/connection/chain/0/local/process/comm", "envoy");
    verdict.is(&received, "/connection/chain/0/peer/ip", network::BLACK_HOLE);
    verdict.is(&received, "/connection/chain/0/peer/port", UPSTREAM_PORT);
    verdict.within(&received, "/connection/chain/0/age_ms", &age);
    verdict.chain(&sent, &[("follows_from", &failure)]);
    verdict.chain(&failure, &[("leads_to", &sent)]);
    Ok(())
}

fn listen_first(stage: &mut Stage) -> Result<()> {
    let (mut app, port) = connect()?;
    let outcome = app.read(&mut [0; 64]);
    if !matches!(outcome, Ok(0)) {
        let expected = format!("the application that sent nothing expected a clean end and got {outcome:?}");
        stage.verdict.problem(Layer::Facts, &expected, None);
    }
    drop(app);
    let failure = stage.agent.connect_failure(UPSTREAM_PORT)?;
    stage.verdict.is(&failure, "/facts/connect_failure", "abandoned");
    stage.verdict.cause(&failure, "connect_timeout_application");
    // Its own line there is none; the connect's line names it all the same.
    stage.verdict.is(&failure, "/connection/chain/0/relation", "leads_to");
    stage.verdict.is(&failure, "/connection/chain/0/type", "close");
    stage.verdict.is(&failure, "/connection/chain/0/confidence", "likely");
    stage.verdict.is(&failure, "/connection/chain/0/local/port", envoy::PORT);
    stage.verdict.is(&failure, "/connection/chain/0/peer/port", port);
    for line in stage.agent.about(port) {
        stage.verdict.problem(Layer::Facts, "no line about a connection on which nothing was sent", Some(&line));
    }
    Ok(())
}

fn connect() -> Result<(TcpStream, u16)> {
    let app = TcpStream::connect((Ipv4Addr::LOCALHOST, envoy::PORT)).context("cannot connect to Envoy")?;
    app.set_read_timeout(Some(Duration::from_secs(10))).context("cannot set a timeout")?;
    let port = app.local_addr().context("a connection has an address")?.port();
    Ok((app, port))
}
