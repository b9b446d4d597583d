//! A client that does not wait for the answer, and a server that does not notice and answers.
//!
//! Through Envoy the client's end is passed on as one: the application has no reset, and gunicorn's late answer meets
//! the connection that Envoy had closed for it. Beside it, the near miss: a client that waits gets its answer after the
//! same time, and there is no line.

use std::{thread, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::incidents::{
    client::Client,
    envoy,
    servers::{GUNICORN, PORT},
    stage::Stage,
    verdict::{Layer, TWO_TICKS_MS, number, seconds},
};

/// How long an answer takes.
const ANSWER: Duration = Duration::from_millis(900);
/// How long the client waits for it.
const PATIENCE: Duration = Duration::from_millis(300);

/// Plays it.
pub fn play(stage: &mut Stage) -> Result<()> {
    let _server = GUNICORN.start(stage)?;
    let _envoy = envoy::http(stage, ("127.0.0.1", PORT))?;
    for port in [PORT, envoy::PORT] {
        wait(stage, port)?;
    }
    leave(stage, PORT, "xtask")?;
    let app = leave(stage, envoy::PORT, "envoy")?;
    for line in stage.agent.about(app) {
        stage.verdict.problem(Layer::Facts, "no line about the application's own connection to Envoy", Some(&line));
    }
    Ok(())
}

/// The near miss.
fn wait(stage: &mut Stage, port: u16) -> Result<()> {
    let mut client = Client::connect(port)?;
    client.send_for_later(ANSWER)?;
    match client.answer().context("a client that waits")? {
        200 => {}
        status => bail!("a client that waited got {status}"),
    }
    drop(client);
    for line in stage.agent.about(PORT) {
        stage.verdict.problem(Layer::Facts, "no line about a client that waited", Some(&line));
    }
    Ok(())
}

/// Leaves before the answer; `closer` is the process that closes the connection to the server. Returns the client's own
/// port.
fn leave(stage: &mut Stage, port: u16, closer: &str) -> Result<u16> {
    let mut client = Client::connect(port)?;
    client.send_for_later(ANSWER)?;
    thread::sleep(PATIENCE);
    let own = client.port;
    drop(client);

    let received = stage.agent.reset_of("received", GUNICORN.process, PORT)?;
    let peer = received["peer"]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let sent = stage.agent.reset("sent", peer.context("a line without a port")?, PORT)?;
    expect(stage, &sent, &received, closer);
    Ok(own)
}

fn expect(stage: &mut Stage, sent: &Value, received: &Value, closer: &str) {
    let verdict = &mut stage.verdict;
    verdict.measured(format!("{closer} had left {} before the answer", seconds(sent, "/facts/first_fin/ms_ago")));
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let took = millis(ANSWER) - TWO_TICKS_MS..=number(received, "/age_ms").unwrap_or(millis(ANSWER)) + TWO_TICKS_MS;
    verdict.is(sent, "/reset/socket", "timewait");
    verdict.is(sent, "/role", "client");
    verdict.is(sent, "/local/process/comm", closer);
    verdict.is(sent, "/facts/first_fin/by", "local");
    verdict.is(received, "/tcp/state", "CLOSE_WAIT");
    verdict.is(received, "/role", "server");
    verdict.is(received, "/facts/first_fin/by", "peer");
    verdict.is(received, "/facts/rst_had_timestamp", false);
    verdict.within(received, "/idle/gap_before_last_send_ms", &took);
    for line in [sent, received] {
        verdict.cause(line, "client_gone");
        verdict.chain(line, &[]);
    }
    verdict.evidence(received, "the time the server took", &took);
}
