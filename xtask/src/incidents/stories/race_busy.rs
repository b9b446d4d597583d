//! Node.js is busy with one request when its idle timer for another connection comes due, and that one has just been used.
//!
//! It looks at its timers before it reads, so it closes the connection with the request unread, some tenths of a second
//! after it had come: the race with the idle timer, with a window as wide as the server is busy. Beside it, the near miss:
//! the same while the timer is not due is a request that waits, and is answered.

use std::{thread, time::Duration};

use anyhow::{Context, Result, bail};

use crate::incidents::{
    client::Client,
    servers::{NODE, PORT},
    sockets,
    stage::Stage,
    verdict::{Layer, TWO_TICKS_MS, number, seconds},
};

/// How long Node.js is busy, from so long before its timer comes due.
const BUSY: Duration = Duration::from_millis(900);
const BEFORE: Duration = Duration::from_millis(600);
/// How long before the others the connection begins to rest that shows how long it may.
const HEAD_START: Duration = Duration::from_secs(1);
/// When in that time the request comes.
const LATER: Duration = Duration::from_millis(150);
/// How much later than it should Node.js may close on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Plays it.
pub fn play(stage: &mut Stage) -> Result<()> {
    let timeout = NODE.timeout(stage.full);
    let _node = NODE.start(stage)?;
    let mut busy = Client::connect(PORT)?;
    let mut quiet = Client::connect(PORT)?;
    let mut waiting = Client::connect(PORT)?;
    let mut lost = Client::connect(PORT)?;
    for client in [&mut quiet, &mut waiting] {
        client.ask()?;
    }

    quiet.rest_until_idle_for(HEAD_START);
    // The near miss, in which the connection whose race is played is used for the first time.
    busy.keep_busy(BUSY)?;
    thread::sleep(LATER);
    for client in [&mut waiting, &mut lost] {
        client.ask().context("a request that waits")?;
    }
    // How long the server lets a connection rest is learned from one that is closed quietly.
    sockets::wait_for_fin(PORT, Some(quiet.port), timeout + PATIENCE)?;

    let mut busy_again = Client::connect(PORT)?;
    lost.rest_until_idle_for(timeout - BEFORE);
    busy_again.keep_busy(BUSY)?;
    thread::sleep(LATER);
    lost.send()?;
    let asked = lost.idle_at_most();
    if let Ok(status) = lost.answer() {
        bail!("Node.js should have closed the connection, and answered {status}");
    }
    let ended = lost.idle_at_most();

    let sent = stage.agent.reset("sent", PORT, lost.port)?;
    let received = stage.agent.reset("received", lost.port, PORT)?;
    let verdict = &mut stage.verdict;
    verdict.measured(format!("closed after {}", seconds(&sent, "/idle/tx_ms")));
    verdict.measured(format!("request unread for {}", seconds(&sent, "/idle/rx_ms")));
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let closes = millis(timeout) - TWO_TICKS_MS..=millis(ended) + TWO_TICKS_MS;
    verdict.is(&sent, "/reset/kernel_reason", "TCP_ABORT_ON_CLOSE");
    verdict.is(&sent, "/local/process/comm", "node");
    verdict.absent(&sent, "/facts/first_fin");
    verdict.within(&sent, "/idle/tx_ms", &closes);
    verdict.within(&sent, "/idle/rx_ms", &(0.0..=millis(ended - asked) + TWO_TICKS_MS));
    verdict.is(&received, "/tcp/state", "ESTABLISHED");
    verdict.is(&received, "/facts/rst_had_timestamp", true);
    let learned = number(&sent, "/cause/evidence/learned_idle_limit_ms").unwrap_or_default();
    verdict.measured(format!("limit {:.3} s", learned / 1000.0));
    for line in [&sent, &received] {
        verdict.cause(line, "keepalive_race");
        verdict.evidence(line, "the idle limit that Node.js has", &closes);
        if NODE.is_on_time(stage.full, learned) {
            verdict.product(line, "Node.js");
        }
    }
    for port in [waiting.port, quiet.port] {
        for line in stage.agent.about(port) {
            stage.verdict.problem(Layer::Facts, "no line about a connection that nobody used in vain", Some(&line));
        }
    }
    Ok(())
}
