//! A server closes an idle connection, and a client that has not looked uses it again.
//!
//! Beside it, the near miss: a connection of the same client that is used again before the timeout is not reset.

use std::{thread, time::Duration};

use anyhow::{Context, Result, bail};

use crate::incidents::{
    client::Client,
    servers::{PORT, Server},
    stage::Stage,
    verdict::{Layer, TWO_TICKS_MS, seconds},
};

/// How long after the server's close the client uses the connection again.
const MARGIN: Duration = Duration::from_millis(400);
/// How much later than its timeout a server on a busy machine closes.
const LATE_MS: f64 = 200.0;

/// Plays it with a server.
pub fn play(stage: &mut Stage, server: &Server) -> Result<()> {
    let timeout = server.timeout(stage.full);
    let _process = server.start(stage)?;

    // The first answer of a Java takes seconds on a busy machine.
    expect_ok(Client::connect(PORT)?.ask()).context("very first request")?;
    let mut stale = Client::connect(PORT)?;
    let mut busy = Client::connect(PORT)?;
    for client in [&mut stale, &mut busy] {
        expect_ok(client.ask()).context("first request")?;
    }
    busy.rest_until_idle_for(timeout.mul_f64(0.7));
    expect_ok(busy.ask()).context("request before the timeout")?;
    let busy_port = busy.port;
    drop(busy);

    stale.rest_until_idle_for(timeout + server.poll + MARGIN);
    let idle_ms = stale.idle().as_secs_f64() * 1000.0;
    stale.send().context("request after the timeout")?;
    let answer = stale.answer();
    if let Ok(status) = answer {
        bail!("the server should have closed the connection, and answered {status} after {idle_ms:.0} ms");
    }
    thread::sleep(Duration::from_millis(50));

    judge(stage, server, stale.port, idle_ms)?;
    for line in stage.agent.about(busy_port) {
        stage.verdict.problem(Layer::Facts, "no line about a connection used before the timeout", Some(&line));
    }
    Ok(())
}

fn judge(stage: &mut Stage, server: &Server, port: u16, idle_ms: f64) -> Result<()> {
    let timeout_ms = server.timeout(stage.full).as_secs_f64() * 1000.0;
    let sent = stage.agent.reset("sent", PORT, port)?;
    let received = stage.agent.reset("received", port, PORT)?;
    let verdict = &mut stage.verdict;
    verdict.measured(format!("idle at FIN {}", seconds(&sent, "/facts/first_fin/idle_tx_ms")));
    verdict.measured(format!("seen by the client {}", seconds(&received, "/facts/first_fin/idle_rx_ms")));

    // Timers fire late, never early.
    let closes = timeout_ms - TWO_TICKS_MS..=timeout_ms + server.poll.as_secs_f64() * 1000.0 + LATE_MS;
    verdict.is_one_of(&sent, "/reset/socket", &["timewait", "listener"]);
    verdict.is(&sent, "/role", "server");
    verdict.is(&sent, "/local/process/comm", server.process);
    verdict.is(&sent, "/facts/first_fin/by", "local");
    verdict.within(&sent, "/facts/first_fin/idle_tx_ms", &closes);
    verdict.is(&sent, "/facts/segment/flags", "PSH,ACK");

    verdict.is(&received, "/tcp/state", "CLOSE_WAIT");
    verdict.is(&received, "/tcp/error", "EPIPE");
    verdict.is(&received, "/role", "client");
    verdict.is(&received, "/local/process/comm", "xtask");
    verdict.is(&received, "/facts/rst_had_timestamp", false);
    verdict.is(&received, "/facts/first_fin/by", "peer");
    verdict.within(&received, "/facts/first_fin/idle_rx_ms", &closes);
    verdict.within(&received, "/idle/gap_before_last_send_ms", &(idle_ms - TWO_TICKS_MS..=idle_ms + LATE_MS));

    for line in [&sent, &received] {
        verdict.cause(line, "stale_connection_reuse");
        verdict.evidence(line, "the idle time at the server's close", &closes);
        if let Some(product) = server.product(stage.full) {
            verdict.product(line, product);
        }
    }
    Ok(())
}

fn expect_ok(answer: Result<u16>) -> Result<()> {
    match answer? {
        200 => Ok(()),
        status => bail!("the server answered {status}"),
    }
}
