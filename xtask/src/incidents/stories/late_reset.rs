//! A provider acknowledges the request that follows an idle time, never answers, and resets the connection much later.
//!
//! Beside it, the near misses: the same reset on a connection that was busy until its last request, and on one whose last
//! request came in the same tick as the answer before it. The agent does not see the provider, which in the incident was
//! on another machine.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    cli::ProviderPart,
    incidents::{
        cgroup::Cgroup,
        network::{self, Far},
        stage::Stage,
        verdict::{Layer, TWO_TICKS_MS, Verdict, seconds},
    },
};

const PORT: u16 = 8443;
const REQUEST: usize = 50;
const ANSWER: usize = 40;
/// The request that is never answered begins so.
const LAST: u8 = b'L';
/// Between the requests of the busy connection.
const BREATH: Duration = Duration::from_millis(100);
/// How late a thread of ours may wake.
const LATE_MS: f64 = 200.0;

/// Plays it.
pub fn play(stage: &mut Stage) -> Result<()> {
    let pause = Duration::from_secs(if stage.full { 10 } else { 2 });
    let program = std::env::current_exe().context("xtask has no path")?;
    let arguments = ["incident-part", "provider", &PORT.to_string(), &pause.as_millis().to_string()];
    let _provider = Far::start("provider", &program, &arguments.map(str::to_owned), &stage.folder)?;
    network::wait_until("the provider to answer", || Ok(TcpStream::connect((network::FAR, PORT)).is_ok()))?;
    let cgroup = Cgroup::make()?;
    stage.restart_agent(&["--cgroup", &cgroup.path])?;
    cgroup.enter()?;

    let idle = thread::spawn(move || request(pause, 1));
    let at_once = thread::spawn(move || request(Duration::ZERO, 2));
    let busy = request(BREATH, u32::try_from(pause.as_millis() / BREATH.as_millis()).unwrap_or(20))?;
    let idle = idle.join().ok().context("the client's thread failed")??;
    let at_once = at_once.join().ok().context("the client's thread failed")??;
    for (what, connection) in [("idle", &idle), ("busy", &busy), ("never idle", &at_once)] {
        if connection.outcome != Some(ErrorKind::ConnectionReset) {
            let found = format!("on the {what} connection a reset was expected, not {:?}", connection.outcome);
            stage.verdict.problem(Layer::Facts, &found, None);
        }
        if stage.agent.about(connection.port).iter().any(|line| line["reset"]["direction"] == "sent") {
            let found = format!("the agent was not to see the provider's end of the {what} connection");
            stage.verdict.problem(Layer::Facts, &found, None);
        }
    }

    let idle_line = stage.agent.reset("received", idle.port, PORT)?;
    let busy_line = stage.agent.reset("received", busy.port, PORT)?;
    let at_once_line = stage.agent.reset("received", at_once.port, PORT)?;
    let verdict = &mut stage.verdict;
    verdict.measured(format!("gap {}", seconds(&idle_line, "/idle/gap_before_last_send_ms")));
    verdict.measured(format!("outstanding {}", seconds(&idle_line, "/idle/tx_ms")));
    verdict.measured(format!("idle {}", seconds(&idle_line, "/idle/rx_ms")));
    verdict.measured(format!("control: gap {}", seconds(&busy_line, "/idle/gap_before_last_send_ms")));

    let pause_ms = pause.as_secs_f64() * 1000.0;
    expect_pending(verdict, &idle_line, pause_ms);
    verdict.within(&idle_line, "/idle/gap_before_last_send_ms", &about(pause_ms));
    verdict.within(&idle_line, "/idle/rx_ms", &about(2.0 * pause_ms));
    verdict.is(&idle_line, "/tcp/bytes_sent", 2 * REQUEST);
    verdict.is(&idle_line, "/tcp/bytes_received", ANSWER);
    expect_pending(verdict, &busy_line, pause_ms);
    verdict.within(&busy_line, "/idle/gap_before_last_send_ms", &about(BREATH.as_secs_f64() * 1000.0));

    verdict.cause(&idle_line, "late_reset_after_idle");
    verdict.evidence(&idle_line, "the idle time before the request", &about(pause_ms));
    expect_pending(verdict, &at_once_line, pause_ms);
    for line in [&busy_line, &at_once_line] {
        verdict.cause(line, "peer_aborted_with_request_pending");
    }
    Ok(())
}

/// What both connections show: a request was acknowledged, not answered, and reset by a live socket.
fn expect_pending(verdict: &mut Verdict, line: &Value, pause_ms: f64) {
    verdict.is(line, "/tcp/state", "ESTABLISHED");
    verdict.is(line, "/tcp/error", "ECONNRESET");
    verdict.is(line, "/role", "client");
    verdict.is(line, "/facts/rst_had_timestamp", true);
    verdict.is(line, "/facts/in_flight_bytes", 0);
    verdict.is(line, "/local/process/comm", "xtask");
    verdict.absent(line, "/facts/first_fin");
    verdict.within(line, "/idle/tx_ms", &about(pause_ms));
}

fn about(millis: f64) -> std::ops::RangeInclusive<f64> {
    millis - TWO_TICKS_MS..=millis + LATE_MS
}

/// How a connection went.
struct Connection {
    port: u16,
    outcome: Option<ErrorKind>,
}

/// Asks so many times with a pause after each answer, then once more, which is never answered.
fn request(pause: Duration, times: u32) -> Result<Connection> {
    let mut stream = TcpStream::connect((network::FAR, PORT)).context("cannot connect to the provider")?;
    stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).context("cannot set a timeout")?;
    let port = stream.local_addr().context("a connection has an address")?.port();
    for _ in 0..times {
        stream.write_all(&[b'q'; REQUEST]).context("cannot send a request")?;
        stream.read_exact(&mut [0; ANSWER]).context("the provider did not answer")?;
        let answered = Instant::now();
        thread::sleep(pause.saturating_sub(answered.elapsed()));
    }
    stream.write_all(&[LAST; REQUEST]).context("cannot send the last request")?;
    let outcome = stream.read(&mut [0; ANSWER]).err().map(|error| error.kind());
    Ok(Connection { port, outcome })
}

/// Plays the provider: a middlebox that acknowledges everything, with a worker that goes away some time after a request
/// it does not read. Closing with unread data makes the kernel send a RST.
pub fn provide(options: &ProviderPart) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, options.port)).context("cannot listen")?;
    let wait = Duration::from_millis(options.wait_ms);
    for stream in listener.incoming() {
        let mut stream = stream.context("cannot accept")?;
        thread::spawn(move || {
            stream.set_nodelay(true)?;
            let mut first = [0];
            while stream.peek(&mut first)? == 1 && first[0] != LAST {
                stream.read_exact(&mut [0; REQUEST])?;
                stream.write_all(&[b'a'; ANSWER])?;
            }
            thread::sleep(wait);
            Ok::<(), std::io::Error>(())
        });
    }
    Ok(())
}
