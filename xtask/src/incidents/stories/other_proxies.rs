//! HAProxy and nginx pass an end on with a FIN, so that the application sees no reset: the line of what failed behind them
//! names its connection all the same.
//!
//! Where HAProxy's connect timeout runs out in the middle of an upload it closes the client first, which is a reset, and
//! then the socket that still connects. Beside them, the near misses: nginx answers 504 and keeps its client.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::incidents::{
    client::Client,
    network,
    process::{Process, bound_to_us},
    relays,
    servers::PORT,
    stage::Stage,
    verdict::Layer,
};

/// Where HAProxy listens for what goes to the black hole, to the upstream, and to nobody.
const TO_HOLE: u16 = 10_001;
const TO_UPSTREAM: u16 = 10_002;
const TO_NOBODY: u16 = 10_003;
const HOLE_PORT: u16 = 8443;
const NOBODYS_PORT: u16 = 8099;
/// More than HAProxy reads before it is connected.
const UPLOAD: usize = 300_000;

/// Answers a word, and resets after the next one. As a server for HTTP it resets in the middle of its answer.
const UPSTREAM: &str = "\
require('net').createServer(socket => {
  let words = 0
  socket.on('error', () => {})
  socket.on('data', data => {
    if (data.toString().startsWith('GET')) {
      socket.write('HTTP/1.1 200 OK\\r\\nContent-Length: 1000\\r\\n\\r\\nhalf')
      setTimeout(() => socket.resetAndDestroy(), 300)
    } else if (words++ == 0) socket.write('ok')
    else setTimeout(() => socket.resetAndDestroy(), 300)
  })
}).listen(8080, '127.0.0.1')
";

/// Plays it with HAProxy.
pub fn play_haproxy(stage: &mut Stage) -> Result<()> {
    network::black_hole()?;
    let _upstream = upstream(stage)?;
    let routes = [
        (TO_HOLE, network::BLACK_HOLE, HOLE_PORT),
        (TO_UPSTREAM, "127.0.0.1", PORT),
        (TO_NOBODY, "127.0.0.1", NOBODYS_PORT),
    ];
    let _haproxy = relays::haproxy(stage, &routes)?;
    upload_to_a_black_hole(stage)?;

    let mut app = connect(TO_NOBODY)?;
    expect_end(&mut app)?;
    let refused = stage.agent.connect_failure(NOBODYS_PORT)?;
    stage.verdict.cause(&refused, "connect_refused");
    quietly_closed(stage, &refused, "haproxy", TO_NOBODY, &app)?;

    let mut app = connect(TO_UPSTREAM)?;
    app.write_all(b"hello").context("cannot send")?;
    app.read_exact(&mut [0; 2]).context("no answer")?;
    app.write_all(b"reset").context("cannot send")?;
    expect_end(&mut app)?;
    let reset = stage.agent.reset_of("received", "haproxy", PORT)?;
    stage.verdict.cause(&reset, "linger_zero_close");
    quietly_closed(stage, &reset, "haproxy", TO_UPSTREAM, &app)
}

fn upload_to_a_black_hole(stage: &mut Stage) -> Result<()> {
    let mut app = connect(TO_HOLE)?;
    app.write_all(&vec![b'u'; UPLOAD]).context("cannot upload")?;
    let port = app.local_addr().context("a connection has an address")?.port();
    let failure = stage.agent.connect_failure(HOLE_PORT)?;
    let sent = stage.agent.reset("sent", TO_HOLE, port)?;
    let received = stage.agent.reset("received", port, TO_HOLE)?;
    let verdict = &mut stage.verdict;
    verdict.cause(&failure, "connect_timeout_application");
    verdict.is(&failure, "/connection/chain/0/peer/port", port);
    for line in [&sent, &received] {
        verdict.cause(line, "proxy_connect_timeout");
        // Its client was closed first: no more than possible.
        verdict.is(line, "/connection/chain/0/confidence", "possible");
        verdict.is(line, "/connection/chain/0/relation", "follows_from");
        verdict.is(line, "/connection/chain/0/peer/ip", network::BLACK_HOLE);
    }
    Ok(())
}

/// Plays it with nginx.
pub fn play_nginx(stage: &mut Stage) -> Result<()> {
    network::black_hole()?;
    let _upstream = upstream(stage)?;
    let _nginx = relays::nginx(stage, (network::BLACK_HOLE, HOLE_PORT))?;

    let mut app = connect(relays::NGINX_PORT)?;
    app.write_all(b"GET / HTTP/1.1\r\nHost: incident\r\n\r\n").context("cannot ask")?;
    expect_end(&mut app)?;
    let reset = stage.agent.reset_of("received", "nginx", PORT)?;
    stage.verdict.cause(&reset, "linger_zero_close");
    quietly_closed(stage, &reset, "nginx", relays::NGINX_PORT, &app)?;

    // The near miss.
    let mut client = Client::connect(relays::NGINX_PORT)?;
    let status = client.ask_for("/hole")?;
    if status != 504 {
        stage.verdict.problem(Layer::Facts, &format!("nginx answered {status}, expected was 504"), None);
    }
    let failure = stage.agent.connect_failure(HOLE_PORT)?;
    stage.verdict.cause(&failure, "connect_timeout_application");
    stage.verdict.chain(&failure, &[]);
    Ok(())
}

fn upstream(stage: &Stage) -> Result<Process> {
    let mut command = bound_to_us(stage.programs.node());
    Process::serve("node", command.arg("-e").arg(UPSTREAM), &stage.folder, PORT)
}

fn connect(port: u16) -> Result<TcpStream> {
    let app = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("cannot connect to the proxy")?;
    app.set_read_timeout(Some(Duration::from_secs(20))).context("cannot set a timeout")?;
    Ok(app)
}

/// Reads to the end, which is a proper one.
fn expect_end(app: &mut TcpStream) -> Result<()> {
    app.read_to_end(&mut Vec::new()).context("the application expected a clean end")?;
    Ok(())
}

/// The line of what failed names the application's connection, about which there is no line.
fn quietly_closed(stage: &mut Stage, line: &Value, proxy: &str, port: u16, app: &TcpStream) -> Result<()> {
    let own = app.local_addr().context("a connection has an address")?.port();
    let link = |key: &str| format!("/connection/chain/0/{key}");
    let verdict = &mut stage.verdict;
    verdict.is(line, &link("relation"), "leads_to");
    verdict.is(line, &link("type"), "close");
    verdict.is(line, &link("confidence"), "likely");
    verdict.is(line, &link("local/process/comm"), proxy);
    verdict.is(line, &link("local/port"), port);
    verdict.is(line, &link("peer/port"), own);
    verdict.absent(line, "/connection/chain/1");
    for line in stage.agent.about(own) {
        stage.verdict.problem(Layer::Facts, "no line about the application's connection", Some(&line));
    }
    Ok(())
}
