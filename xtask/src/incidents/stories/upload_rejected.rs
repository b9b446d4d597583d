//! A server answers an upload that is too large after its head, and closes while the body still comes.
//!
//! CherryPy does so: a reset, which may keep the client from reading the 413 that it already has. Where exactly the body
//! was when it closed is up to the two processes, so there is one play without and one with a server that looks only when
//! every buffer is full. None of it is the reuse of an idle connection, although some of it comes after a FIN. Beside it,
//! the near miss: nginx reads the rest before it closes, and there is no line. At last the client alone, as if the server
//! were on another machine.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::incidents::{
    cgroup::Cgroup,
    process::Process,
    servers::{CHERRYPY, NGINX, PORT},
    stage::Stage,
    verdict::{Layer, number},
};

/// More than the servers take (nginx by itself, CherryPy as it is started here), and than the buffers on the way hold.
const BODY: usize = 32 << 20;

/// Plays it.
pub fn play(stage: &mut Stage) -> Result<()> {
    let nginx = NGINX.start(stage)?;
    let port = upload(stage, None)?;
    for line in stage.agent.about(port) {
        stage.verdict.problem(Layer::Facts, "no line about an upload that was read to its end", Some(&line));
    }
    drop(nginx);

    let cherrypy = CHERRYPY.start(stage)?;
    for busy in [None, Some(&cherrypy)] {
        let port = upload(stage, busy)?;
        let received = stage.agent.reset("received", port, PORT)?;
        let sent = stage.agent.reset("sent", PORT, port)?;
        let unread = number(&sent, "/tcp/unread_bytes").unwrap_or_default();
        stage.verdict.measured(format!("{unread} bytes unread"));
        stage.verdict.is(&received, "/role", "client");
        // What was on its way when the connection's own socket sent its reset may be answered by another one, which may even
        // leave before it.
        let others = stage.agent.about(port);
        let is_own = |line: &Value| line["reset"]["socket"] == "full";
        let own_was_there = [&sent].into_iter().chain(&others).any(is_own);
        stage.verdict.cause(&received, "early_response_close");
        for line in [&sent].into_iter().chain(&others) {
            let another = own_was_there && !is_own(line);
            stage.verdict.cause(line, if another { "close_aftermath" } else { "early_response_close" });
            stage.verdict.is(line, "/reset/direction", "sent");
            stage.verdict.is(line, "/role", "server");
            stage.verdict.is(line, "/local/process/comm", CHERRYPY.process);
        }
    }

    let cgroup = Cgroup::make()?;
    stage.restart_agent(&["--cgroup", &cgroup.path])?;
    cgroup.enter()?;
    for busy in [None, Some(&cherrypy)] {
        let port = upload(stage, busy)?;
        let received = stage.agent.reset("received", port, PORT)?;
        stage.verdict.cause(&received, seen_alone(&received));
        for line in stage.agent.about(port) {
            stage.verdict.problem(Layer::Facts, "the agent was not to see the server's end", Some(&line));
        }
    }
    Ok(())
}

/// What the client's end shows by itself depends on which came first: the server's FIN, if any, or its reset.
fn seen_alone(received: &Value) -> &'static str {
    match (received["tcp"]["state"].as_str(), received["facts"]["rst_had_timestamp"].as_bool()) {
        (Some("CLOSE_WAIT"), Some(true)) => "peer_closed_without_reading",
        (Some("CLOSE_WAIT"), _) => "early_response_close",
        _ => "transfer_cancelled",
    }
}

/// Uploads until the server has enough and has said so; returns the client's port. A busy server looks only when every
/// buffer is full.
fn upload(stage: &mut Stage, busy: Option<&Process>) -> Result<u16> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).context("cannot connect to the server")?;
    let port = stream.local_addr().context("a connection has an address")?.port();
    stream.set_read_timeout(Some(Duration::from_secs(20))).context("cannot set a timeout")?;
    if let Some(server) = busy {
        server.stop()?;
    }
    let body = vec![b'u'; BODY];
    let mut sender = stream.try_clone().context("cannot use a connection twice")?;
    let uploading = thread::spawn(move || {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: incident\r\nContent-Type: application/octet-stream\r\nContent-Length: {BODY}\r\n\r\n"
        );
        sender.write_all(head.as_bytes())?;
        sender.write_all(&body)
    });
    if let Some(server) = busy {
        thread::sleep(Duration::from_millis(300));
        server.go_on()?;
    }
    let sent = uploading.join().ok().context("the client's thread failed")?;
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    let refused = answer.starts_with(b"HTTP/1.1 413");
    stage.verdict.measured(format!("413 {}", if refused { "read" } else { "lost" }));
    let cut_off = |error: &std::io::Error| matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    match (sent, ended) {
        (Ok(()), Ok(_)) if !refused => bail!("the server took the upload"),
        (Err(error), _) | (_, Err(error)) if !cut_off(&error) => Err(error).context("cannot upload"),
        _ => Ok(port),
    }
}
