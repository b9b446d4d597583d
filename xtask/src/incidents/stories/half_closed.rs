//! A server's idle timer fires, and the client uses the connection again before the server's socket is wholly closed.
//!
//! Java shuts the sending side of a channel that a selector watches, and closes the socket when the selector wakes again.
//! What comes in between is taken and never read, so the reset comes from the close and from a live socket. To the client
//! it is the same mistake, with the same remedy, as using a connection that is wholly closed.
//!
//! Beside it, the near miss: a client that sees the server's end and closes gets the same from the server, and no reset.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::incidents::{
    client::Client,
    servers::{PORT, Server},
    sockets,
    stage::Stage,
    verdict::{Layer, TWO_TICKS_MS, seconds},
};

/// How much later than it should a server on a busy machine may close.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is played until a client comes before the socket is wholly closed, which the selector decides.
const TRIES: usize = 6;

/// What came of one play.
struct Play {
    sent: Value,
    received: Value,
    /// How long the connection had been idle when the server's FIN was seen.
    closed_ms: f64,
    /// The port of the client that closed as well.
    careful: u16,
}

/// Plays it with a server.
pub fn play(stage: &mut Stage, server: &Server) -> Result<()> {
    let timeout = server.timeout(stage.full);
    let _process = server.start(stage)?;
    Client::connect(PORT)?.ask()?;
    let patience = timeout + server.poll + PATIENCE;
    let mut play = use_again(stage, patience)?;
    let mut careful = vec![play.careful];
    while came_too_late(&play) && careful.len() < TRIES {
        play = use_again(stage, patience)?;
        careful.push(play.careful);
    }
    let Play { sent, received, closed_ms, .. } = play;

    let verdict = &mut stage.verdict;
    verdict.measured(format!("idle at FIN {}", seconds(&sent, "/facts/first_fin/idle_tx_ms")));
    verdict.measured(format!("reset {} after it", seconds(&received, "/facts/first_fin/ms_ago")));
    let closes = timeout.as_secs_f64() * 1000.0 - TWO_TICKS_MS..=closed_ms + TWO_TICKS_MS;
    verdict.is(&sent, "/reset/kernel_reason", "TCP_ABORT_ON_CLOSE");
    verdict.is(&sent, "/facts/first_fin/by", "local");
    verdict.within(&sent, "/facts/first_fin/idle_tx_ms", &closes);
    verdict.is(&received, "/tcp/state", "CLOSE_WAIT");
    verdict.is(&received, "/facts/rst_had_timestamp", true);
    verdict.within(&received, "/facts/first_fin/idle_rx_ms", &closes);
    for line in [&sent, &received] {
        verdict.cause(line, "stale_connection_reuse");
        verdict.evidence(line, "the idle time at the server's close", &closes);
    }
    for line in careful.into_iter().flat_map(|port| stage.agent.about(port)) {
        stage.verdict.problem(Layer::Facts, "no line about a connection whose client closed it as well", Some(&line));
    }
    Ok(())
}

/// Two clients whose connections the server closes after the same idleness: one closes as well, the other sends once more.
fn use_again(stage: &mut Stage, patience: Duration) -> Result<Play> {
    let mut careful = Client::connect(PORT)?;
    let mut client = Client::connect(PORT)?;
    for client in [&mut careful, &mut client] {
        client.ask()?;
    }
    sockets::wait_for_fin(PORT, Some(client.port), patience)?;
    let closed_ms = client.idle_at_most().as_secs_f64() * 1000.0;
    client.send()?;
    if let Ok(status) = client.answer() {
        bail!("the server should have closed the connection, and answered {status}");
    }
    sockets::wait_for_fin(PORT, Some(careful.port), PATIENCE)?;
    let careful_port = careful.port;
    drop(careful);
    Ok(Play {
        sent: stage.agent.reset("sent", PORT, client.port)?,
        received: stage.agent.reset("received", client.port, PORT)?,
        closed_ms,
        careful: careful_port,
    })
}

/// The server's socket was wholly closed when the request came.
fn came_too_late(play: &Play) -> bool {
    play.sent["reset"]["kernel_reason"] != "TCP_ABORT_ON_CLOSE"
}
