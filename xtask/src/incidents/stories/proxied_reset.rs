//! A reset on one side of Envoy as a proxy for TCP, which passes it on to the other side.
//!
//! The reset that the application sees is a copy: the cause is on the connection behind the proxy, where the upstream
//! resets it on purpose or dies. The other way round the application resets its connection, and the upstream sees the
//! copy. Beside them, the near misses: an end without a reset is passed on without one, and another connection of the
//! same proxy goes on.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::incidents::{
    envoy,
    network::wait_until,
    process::{Process, bound_to_us},
    servers::PORT,
    sockets,
    stage::Stage,
    verdict::Layer,
};

/// What the upstream does a while after a word, in which everything else has come to rest.
const UPSTREAM: &str = "\
require('net').createServer(socket => {
  socket.on('error', () => {})
  socket.on('data', data => {
    const word = data.toString()
    if (word == 'reset') setTimeout(() => socket.resetAndDestroy(), 300)
    else if (word == 'end') setTimeout(() => socket.end(), 300)
    else socket.write('ok')
  })
}).listen(8080, '127.0.0.1')
";
const WORD: &[u8] = b"hello";

/// Plays it.
pub fn play(stage: &mut Stage) -> Result<()> {
    let mut command = bound_to_us(stage.programs.node());
    let node = Process::serve("node", command.arg("-e").arg(UPSTREAM), &stage.folder, PORT)?;
    let _envoy = envoy::tcp(stage, ("127.0.0.1", PORT))?;
    let mut bystander = App::connect()?;
    bystander.talk()?;

    upstream_ends(stage)?;
    upstream_resets(stage)?;
    application_leaves(stage)?;
    bystander.talk().context("the connection nobody ended")?;
    for line in stage.agent.about(bystander.port) {
        stage.verdict.problem(Layer::Facts, "no line about the connection nobody ended", Some(&line));
    }
    upstream_dies(stage, &node)
}

/// The near miss: no reset comes in, and none goes out.
fn upstream_ends(stage: &mut Stage) -> Result<()> {
    let mut app = App::connect()?;
    app.talk()?;
    app.say(b"end")?;
    app.expect(stage, None)?;
    let port = app.port;
    drop(app);
    for line in stage.agent.about(port).into_iter().chain(stage.agent.about(PORT)) {
        stage.verdict.problem(Layer::Facts, "no line about a connection that ended properly", Some(&line));
    }
    Ok(())
}

fn upstream_resets(stage: &mut Stage) -> Result<()> {
    let mut app = App::connect()?;
    app.talk()?;
    app.say(b"reset")?;
    app.expect(stage, Some(ErrorKind::ConnectionReset))?;

    let (origin, ended) = upstream_lines(stage, "received", "sent")?;
    let (copy, seen) = app.lines(stage, "sent", "received")?;
    stage.verdict.is(&origin, "/local/process/comm", "node");
    stage.verdict.is(&origin, "/facts/linger_ms", 0);
    expect(stage, [&origin, &ended], "linger_zero_close", [&copy, &seen]);
    for line in [&origin, &ended] {
        stage.verdict.absent(line, "/cause/benign");
    }
    Ok(())
}

/// Its process is killed in the middle of an upload, which had filled every buffer on the way: Envoy closes with data
/// unread, and still only passes on.
fn upstream_dies(stage: &mut Stage, node: &Process) -> Result<()> {
    let mut app = App::connect()?;
    app.talk()?;
    node.stop()?;
    app.fill()?;
    node.signal("KILL")?;
    let (origin, ended) = upstream_lines(stage, "received", "sent")?;
    let (copy, seen) = app.lines(stage, "sent", "received")?;
    stage.verdict.is(&origin, "/local/process/comm", "node");
    stage.verdict.is(&origin, "/facts/actor/signal", 9);
    stage.verdict.is(&copy, "/reset/kernel_reason", "TCP_ABORT_ON_CLOSE");
    expect(stage, [&origin, &ended], "process_exit", [&copy, &seen]);
    Ok(())
}

/// It closes without reading what has come for it.
fn application_leaves(stage: &mut Stage) -> Result<()> {
    let mut app = App::connect()?;
    app.say(WORD)?;
    wait_until("the answer", || sockets::has_unread(app.port))?;
    let port = app.port;
    drop(app);

    let origin = stage.agent.reset("sent", port, envoy::PORT)?;
    let ended = stage.agent.reset("received", envoy::PORT, port)?;
    let (seen, copy) = upstream_lines(stage, "sent", "received")?;
    stage.verdict.is(&origin, "/local/process/comm", "xtask");
    stage.verdict.is(&seen, "/local/process/comm", "node");
    expect(stage, [&origin, &ended], "closed_with_unread_data", [&copy, &seen]);
    Ok(())
}

/// The upstream's line and Envoy's about the reset between them: `envoy` and `upstream` are their directions.
fn upstream_lines(stage: &mut Stage, envoy: &str, upstream: &str) -> Result<(Value, Value)> {
    let line = stage.agent.reset_of(envoy, "envoy", PORT)?;
    let port = line["local"]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let other = stage.agent.reset(upstream, PORT, port.context("a line without a port")?)?;
    Ok((other, line))
}

/// The two ends of the reset that came first have its cause; those of the one that Envoy made of it have a name for that.
fn expect(stage: &mut Stage, first: [&Value; 2], code: &str, copies: [&Value; 2]) {
    let verdict = &mut stage.verdict;
    for line in first {
        verdict.cause(line, code);
    }
    let [copy, seen] = copies;
    verdict.is(copy, "/local/process/comm", "envoy");
    verdict.is(copy, "/facts/linger_ms", 0);
    verdict.is(seen, "/tcp/error", "ECONNRESET");
    verdict.is(seen, "/facts/rst_had_timestamp", true);
    // Of the first reset, the end that belongs to Envoy.
    let [_, ended] = first;
    for line in first {
        verdict.chain(line, &[("leads_to", copy)]);
    }
    for line in copies {
        verdict.cause(line, "proxied_reset");
        verdict.chain(line, &[("follows_from", ended)]);
    }
}

/// The application at the near side of Envoy.
struct App {
    stream: TcpStream,
    port: u16,
}

impl App {
    fn connect() -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, envoy::PORT)).context("cannot connect to Envoy")?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).context("cannot set a timeout")?;
        let port = stream.local_addr().context("a connection has an address")?.port();
        Ok(Self { stream, port })
    }

    fn say(&mut self, word: &[u8]) -> Result<()> {
        self.stream.write_all(word).context("cannot send")
    }

    /// A question and its answer.
    fn talk(&mut self) -> Result<()> {
        self.say(WORD)?;
        let mut answer = [0; 2];
        self.stream.read_exact(&mut answer).context("the upstream did not answer")?;
        if &answer != b"ok" {
            bail!("the upstream answered {answer:?}");
        }
        Ok(())
    }

    /// Sends until nobody takes any more for a while.
    fn fill(&mut self) -> Result<()> {
        self.stream.set_write_timeout(Some(Duration::from_millis(300))).context("cannot set a timeout")?;
        loop {
            match self.stream.write(&[b'u'; 1 << 16]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot upload"),
            }
        }
    }

    /// Reads the end, which has this error or none.
    fn expect(&mut self, stage: &mut Stage, error: Option<ErrorKind>) -> Result<()> {
        let outcome = self.stream.read(&mut [0; 16]);
        let found = match &outcome {
            Ok(0) => None,
            Ok(_) => bail!("the application got data instead of an end"),
            Err(error) => Some(error.kind()),
        };
        if found != error {
            stage.verdict.problem(Layer::Facts, &format!("the application expected {error:?}, got {outcome:?}"), None);
        }
        Ok(())
    }

    /// Envoy's line and ours about the reset between us: `envoy` and `app` are their directions.
    fn lines(&self, stage: &mut Stage, envoy: &str, app: &str) -> Result<(Value, Value)> {
        let sent = stage.agent.reset(envoy, envoy::PORT, self.port)?;
        Ok((sent, stage.agent.reset(app, self.port, envoy::PORT)?))
    }
}
