//! A server closes an idle connection, and a client that has not looked uses it again.
//!
//! Beside it, the near miss: a connection of the same client that is used again before the timeout is not reset.

use std::{ops::RangeInclusive, thread, time::Duration};

use anyhow::{Context, Result, bail};

use crate::incidents::{
    client::Client,
    servers::{PORT, Server},
    sockets,
    stage::Stage,
    verdict::{Layer, TWO_TICKS_MS, number, seconds},
};

/// How long after the server has closed the client uses the connection again.
const MARGIN: Duration = Duration::from_millis(400);
/// How much later than it should a server on a busy machine may close.
const PATIENCE: Duration = Duration::from_secs(10);

/// Plays it with a server.
pub fn play(stage: &mut Stage, server: &Server) -> Result<()> {
    let timeout = server.timeout(stage.full);
    let _process = server.start(stage)?;

    // A server's first answer takes longer than any other.
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

    let rest = (timeout + server.poll + PATIENCE).saturating_sub(stale.idle());
    sockets::wait_for_fin(PORT, Some(stale.port), rest)?;
    let closed_ms = millis(stale.idle_at_most());
    thread::sleep(server.settles + MARGIN);
    let before_ms = millis(stale.idle());
    stale.send().context("request after the timeout")?;
    let after_ms = millis(stale.idle_at_most());
    let answer = stale.answer();
    if let Ok(status) = answer {
        bail!("the server should have closed the connection, and answered {status}");
    }
    let times = Times { closed_ms, used: before_ms..=after_ms };
    judge(stage, server, stale.port, &times)?;
    for line in stage.agent.about(busy_port) {
        stage.verdict.problem(Layer::Facts, "no line about a connection used before the timeout", Some(&line));
    }
    Ok(())
}

/// What the client saw itself.
struct Times {
    /// How idle the connection was at most when the server closed it.
    closed_ms: f64,
    /// How idle it was when it was used again.
    used: RangeInclusive<f64>,
}

fn judge(stage: &mut Stage, server: &Server, port: u16, times: &Times) -> Result<()> {
    let timeout_ms = millis(server.timeout(stage.full));
    let sent = stage.agent.reset("sent", PORT, port)?;
    let received = stage.agent.reset("received", port, PORT)?;
    let verdict = &mut stage.verdict;
    verdict.measured(format!("idle at FIN {}", seconds(&sent, "/facts/first_fin/idle_tx_ms")));
    verdict.measured(format!("seen by the client {}", seconds(&received, "/facts/first_fin/idle_rx_ms")));

    // Timers fire late, never early; how late this one was, the client has seen.
    let closes = timeout_ms - TWO_TICKS_MS..=times.closed_ms + TWO_TICKS_MS;
    let idle_at_fin = number(&sent, "/facts/first_fin/idle_tx_ms").unwrap_or(timeout_ms);
    if !server.is_on_time(stage.full, idle_at_fin) {
        verdict.measured("which is late: is this machine overloaded?".to_owned());
    }
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
    verdict.within(
        &received,
        "/idle/gap_before_last_send_ms",
        &(times.used.start() - TWO_TICKS_MS..=times.used.end() + TWO_TICKS_MS),
    );

    for line in [&sent, &received] {
        verdict.cause(line, "stale_connection_reuse");
        verdict.evidence(line, "the idle time at the server's close", &closes);
        if let Some(product) = server.product(stage.full)
            && server.is_on_time(stage.full, idle_at_fin)
        {
            verdict.product(line, product);
        }
    }
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn expect_ok(answer: Result<u16>) -> Result<()> {
    match answer? {
        200 => Ok(()),
        status => bail!("the server answered {status}"),
    }
}
