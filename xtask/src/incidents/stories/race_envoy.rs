//! Requests come to Envoy's pool just as the server behind it closes the idle connections of the pool: some get 503.
//!
//! Nobody is paused here. Requests are spread around the server's timeout, each on a connection of its own, and which of
//! them lose is up to timers: one that the server had not read when its timer fired (`keepalive_race`), or one that
//! Envoy sent before it looked at the FIN (`stale_connection_reuse`). So this counts: every 503 has its lines, every line
//! has one of the two causes and names the server's timeout, and the bounded number of rounds has at least one.
//!
//! Beside it, the near misses: as many requests at half the timeout and as many after it, when Envoy has seen the server
//! close, give no line.

use std::{
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::incidents::{
    client::Client,
    envoy,
    servers::{PORT, Server},
    stage::Stage,
    verdict::{Layer, TWO_TICKS_MS, Verdict, number},
};

/// How many connections the pool has.
const CONNECTIONS: u32 = 16;
/// Rounds at most, each as long as the timeout: until one has lost a request, or all of them in full.
const ROUNDS: u32 = 10;
/// How long an answer takes, so that one connection cannot serve two requests of a round.
const ANSWER: Duration = Duration::from_millis(60);
/// How much earlier than the timeout the first request of a round comes, and how much later the last one. After a round
/// in which all were served, or Envoy had seen every FIN, the next one is wider.
const REACH: Duration = Duration::from_millis(2);
const WIDER: Duration = Duration::from_millis(1);
/// How much closer to the moment than sleeping brings.
const AWAKE: Duration = Duration::from_millis(3);

/// Plays it with a server.
pub fn play(stage: &mut Stage, server: &Server) -> Result<()> {
    let timeout = server.timeout(stage.full);
    let _server = server.start(stage)?;
    let _envoy = envoy::http(stage, ("127.0.0.1", PORT))?;
    let clients = (0..CONNECTIONS).map(|_| Client::connect(envoy::PORT));
    let mut clients = clients.collect::<Result<Vec<Client>>>()?;

    warm(&mut clients)?;
    rest(&clients, timeout / 2);
    warm(&mut clients)?;
    for line in stage.agent.about(PORT) {
        stage.verdict.problem(Layer::Facts, "no line about connections used before the timeout", Some(&line));
    }
    let (mut rounds, mut in_vain, mut lost, mut longest) = (0, 0, 0, Duration::ZERO);
    while rounds < ROUNDS && (stage.full || lost == 0) {
        let start = Instant::now();
        // The rest of the round before, and the near miss: what Envoy saw being closed is not used.
        thread::sleep(ANSWER);
        warm(&mut clients)?;
        let now = sweep(&mut clients, timeout, REACH + WIDER * in_vain)?;
        in_vain += u32::from(now == 0);
        lost += now;
        longest = longest.max(start.elapsed());
        rounds += 1;
    }
    let closes = timeout.as_secs_f64() * 1000.0 - TWO_TICKS_MS..=longest.as_secs_f64() * 1000.0;
    judge(stage, server, lost, &closes)?;
    stage.verdict.measured(format!("in {rounds} rounds of {CONNECTIONS} requests"));
    Ok(())
}

/// One request on every connection at once, so that the pool needs as many; all are answered.
fn warm(clients: &mut [Client]) -> Result<()> {
    for client in &mut *clients {
        client.send_for_later(ANSWER)?;
    }
    for client in clients {
        match client.answer()? {
            200 => {}
            status => bail!("a request that was not near the timeout was answered with {status}"),
        }
    }
    Ok(())
}

fn rest(clients: &[Client], time: Duration) {
    for client in clients {
        client.rest_until_idle_for(time);
    }
}

/// Sends one request on every connection in even steps around the timeout; returns how many got 503.
fn sweep(clients: &mut [Client], timeout: Duration, reach: Duration) -> Result<usize> {
    // The connections of the pool were last used within a millisecond or two of each other.
    let middle = clients.get(clients.len() / 2).context("there are no connections")?;
    let first = Instant::now() + (timeout - reach).saturating_sub(middle.idle());
    let step = 2 * reach / u32::try_from(clients.len())?;
    let mut next = first;
    for client in &mut *clients {
        wait_until(next);
        client.send_for_later(ANSWER)?;
        next += step;
    }
    let mut lost = 0;
    for client in clients {
        match client.answer()? {
            200 => {}
            503 => lost += 1,
            status => bail!("Envoy answered {status}"),
        }
    }
    Ok(lost)
}

/// Sleeping ends up to some milliseconds late, so not for the last ones.
fn wait_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now() + AWAKE));
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
}

/// Every 503 has a reset at both ends, and there is no other.
fn judge(stage: &mut Stage, server: &Server, lost: usize, closes: &RangeInclusive<f64>) -> Result<()> {
    let lines = stage.agent.about(PORT);
    let verdict = &mut stage.verdict;
    if lost == 0 {
        verdict.problem(Layer::Facts, "the race was not lost once: is this machine overloaded?", None);
    }
    let (received, others): (Vec<&Value>, Vec<&Value>) = lines.iter().partition(|line| line["peer"]["port"] == PORT);
    if received.len() != lost || others.len() != lost {
        let expected = format!(
            "{lost} requests got 503, but {} resets were received by Envoy and {} sent to it",
            received.len(),
            others.len()
        );
        verdict.problem(Layer::Facts, &expected, None);
    }
    let mut races = 0;
    for line in received {
        let sent = others.iter().find(|sent| sent["peer"]["port"] == line["local"]["port"]);
        let Some(sent) = sent else {
            verdict.problem(Layer::Facts, "a reset that was sent by this node", Some(line));
            continue;
        };
        races += usize::from(expect_lost(verdict, server, stage.full, [sent, line], closes));
    }
    verdict.measured(format!("{lost} times 503, {races} of them races"));
    Ok(())
}

/// Checks both ends; returns whether it was a race, and not stale reuse.
fn expect_lost(
    verdict: &mut Verdict,
    server: &Server,
    full: bool,
    [sent, received]: [&Value; 2],
    closes: &RangeInclusive<f64>,
) -> bool {
    // Unread data says that the request had come before the close.
    let unread = number(sent, "/tcp/unread_bytes").unwrap_or(0.0) > 0.0 && sent["reset"]["socket"] == "full";
    let code = if unread { "keepalive_race" } else { "stale_connection_reuse" };
    verdict.is(sent, "/local/process/comm", server.process);
    verdict.is(sent, "/role", "server");
    verdict.is(received, "/local/process/comm", "envoy");
    verdict.is(received, "/role", "client");
    verdict.is(received, "/tcp/state", if unread { "ESTABLISHED" } else { "CLOSE_WAIT" });
    for line in [sent, received] {
        verdict.cause(line, code);
        // Envoy answers 503 and keeps its client's connection.
        verdict.chain(line, &[]);
        verdict.evidence(line, "the idle time at the server's close", closes);
        let idle = number(sent, if unread { "/idle/tx_ms" } else { "/facts/first_fin/idle_tx_ms" });
        if let Some(product) = server.product(full)
            && idle.is_some_and(|idle| server.is_on_time(full, idle))
        {
            verdict.product(line, product);
        }
    }
    unread
}
