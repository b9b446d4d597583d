//! Envoy is not running for a moment, as a sidecar without CPU time; meanwhile Node.js closes the pooled connection.
//!
//! The next request waits for Envoy, which sends it on without having seen the FIN: the kernel at Node.js answers with a
//! RST, and the client gets 503. With a retry policy it gets 200 and nobody hears of the reset; the lines are the same.

use std::{thread, time::Duration};

use anyhow::{Context, Result, bail};

use crate::incidents::{
    client::Client,
    envoy,
    process::Process,
    servers::{NODE, PORT},
    sockets,
    stage::Stage,
    verdict::{Layer, TWO_TICKS_MS, number, seconds},
};

/// How long before the server's close Envoy stops: the request has to be there before the FIN, or Envoy sees that first.
const BEFORE: Duration = Duration::from_millis(2500);
/// How long after the server's close Envoy goes on.
const MARGIN: Duration = Duration::from_millis(400);
/// How much later than it should Node.js may close on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Plays it.
pub fn play(stage: &mut Stage) -> Result<()> {
    let _node = NODE.start(stage)?;
    let envoy = envoy::http(stage, ("127.0.0.1", PORT))?;
    play_with(stage, &envoy, 503)
}

/// Plays it with an Envoy that retries.
pub fn play_hidden(stage: &mut Stage) -> Result<()> {
    let _node = NODE.start(stage)?;
    let envoy = envoy::http_retrying(stage, ("127.0.0.1", PORT))?;
    play_with(stage, &envoy, 200)
}

fn play_with(stage: &mut Stage, envoy: &Process, expected: u16) -> Result<()> {
    let timeout = NODE.timeout(stage.full);
    let mut client = Client::connect(envoy::PORT)?;
    for time in [Duration::ZERO, timeout.mul_f64(0.5)] {
        // The second one is the near miss: the pooled connection is used again in time.
        client.rest_until_idle_for(time);
        let status = client.ask().context("request in time")?;
        if status != 200 {
            bail!("the request in time was answered with {status}");
        }
    }
    for line in stage.agent.about(PORT) {
        stage.verdict.problem(Layer::Facts, "no line about a connection used before the timeout", Some(&line));
    }

    client.rest_until_idle_for(timeout - BEFORE);
    envoy.stop()?;
    client.send().context("request while Envoy is stopped")?;
    sockets::wait_for_fin(PORT, None, PATIENCE)?;
    let closed_ms = client.idle_at_most().as_secs_f64() * 1000.0;
    thread::sleep(MARGIN);
    envoy.go_on()?;
    let status = client.answer().context("answer of Envoy")?;
    if status != expected {
        stage.verdict.problem(Layer::Facts, &format!("Envoy answered {status}, expected was {expected}"), None);
    }

    let received = stage.agent.reset_of("received", "envoy", PORT)?;
    let port = received["local"]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let sent = stage.agent.reset("sent", PORT, port.context("a line without a port")?)?;
    let verdict = &mut stage.verdict;
    verdict.measured(format!("idle at FIN {}", seconds(&sent, "/facts/first_fin/idle_tx_ms")));
    verdict.measured(format!("seen by Envoy {}", seconds(&received, "/facts/first_fin/idle_rx_ms")));
    verdict.measured(format!("Envoy answered {status}"));

    let timeout_ms = timeout.as_secs_f64() * 1000.0;
    // Timers fire late, never early; how late this one was, we have seen.
    let closes = timeout_ms - TWO_TICKS_MS..=closed_ms + TWO_TICKS_MS;
    let idle_at_fin = number(&sent, "/facts/first_fin/idle_tx_ms").unwrap_or(timeout_ms);
    verdict.is(&received, "/tcp/state", "CLOSE_WAIT");
    verdict.is(&received, "/tcp/error", "EPIPE");
    verdict.is(&received, "/role", "client");
    verdict.is(&received, "/facts/rst_had_timestamp", false);
    verdict.is(&received, "/facts/first_fin/by", "peer");
    verdict.within(&received, "/facts/first_fin/idle_rx_ms", &closes);
    // The request was sent when Envoy went on, so after the FIN.
    let least = number(&received, "/facts/first_fin/idle_rx_ms").unwrap_or(timeout_ms);
    verdict.within(&received, "/idle/gap_before_last_send_ms", &(least..=least + 5000.0));

    verdict.is(&sent, "/reset/socket", "timewait");
    verdict.is(&sent, "/local/process/comm", "node");
    verdict.is(&sent, "/facts/first_fin/by", "local");
    verdict.within(&sent, "/facts/first_fin/idle_tx_ms", &closes);

    for line in [&sent, &received] {
        verdict.cause(line, "stale_connection_reuse");
        verdict.chain(line, &[]);
        verdict.evidence(line, "the idle time at the server's close", &closes);
        if let Some(product) = NODE.product(stage.full)
            && NODE.is_on_time(stage.full, idle_at_fin)
        {
            verdict.product(line, product);
        }
    }
    Ok(())
}
