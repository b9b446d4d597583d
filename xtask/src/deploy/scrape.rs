//! A real agent's `/metrics`, as promtool and a real Prometheus read them, with the alert rules loaded.
//!
//! The agent runs as root on this machine, and ends by itself; the resets are this process's own, on loopback.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Bench;
use crate::{
    child, files,
    incidents::process::{Process, bound_to_us},
};

/// The rules that Prometheus loads.
const RULES: &str = "deploy/prometheus/rstscope.rules.yaml";
/// By then the agent ends, whatever became of this process.
const LIFE: &str = "60";
/// How many connections are reset.
const RESETS: usize = 5;

/// Checks.
pub fn check(bench: &Bench) -> Result<Vec<String>> {
    let folder = bench.scratch.join("scrape");
    files::make_folder(&folder)?;
    let agent = (Ipv4Addr::LOCALHOST, free_port()?).into();
    let _agent = start_agent(bench, &folder, agent)?;
    reset(RESETS)?;

    let mut problems = Vec::new();
    // Prometheus' text format, which promtool reads; Prometheus itself asks for OpenMetrics.
    let text = get(agent, "/metrics")?;
    problems.extend(lint(bench, &text)?);
    problems.extend(scraped(bench, &folder, agent)?);
    Ok(problems)
}

/// Starts it, and waits until it says that it is ready.
fn start_agent(bench: &Bench, folder: &Path, address: SocketAddr) -> Result<Process> {
    let configuration = folder.join("rstscope.toml");
    let sink = folder.join("lines.jsonl");
    files::write_file(&configuration, &format!("[sinks.lines]\ntype = \"file\"\npath = \"{}\"\n", sink.display()))?;
    let mut command = child::as_root(child::find("timeout").context("there is no `timeout` program on this machine")?)?;
    command.args(["--signal=TERM", LIFE]).arg(&bench.rstscope).args(["run", "--instance", "deploy-check", "--config"]);
    command.arg(&configuration).arg("--spool").arg(folder.join("spool"));
    command.args(["--listen", &address.to_string(), "--program-stats"]);
    let mut agent = Process::start("rstscope", &mut command, folder)?;
    agent
        .wait_until("/readyz to say yes", || Ok(get(address, "/readyz").is_ok_and(|text| text.contains("[+]hooks"))))?;
    Ok(agent)
}

/// What promtool has to say about names, types and help.
fn lint(bench: &Bench, text: &str) -> Result<Vec<String>> {
    let mut command = bench.programs.promtool()?;
    let mut promtool = command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run promtool")?;
    let mut input = promtool.stdin.take().context("its input is piped")?;
    input.write_all(text.as_bytes()).context("promtool does not read")?;
    drop(input);
    let output = promtool.wait_with_output().context("cannot wait for promtool")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if output.status.success() && said.trim().is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![format!("promtool check metrics ({}): {}", output.status, said.trim())])
}

/// A Prometheus that scrapes the agent each second, and what it then knows.
fn scraped(bench: &Bench, folder: &Path, agent: SocketAddr) -> Result<Vec<String>> {
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()?).into();
    let configuration = folder.join("prometheus.yaml");
    let rules = bench.workspace.join(RULES);
    files::write_file(
        &configuration,
        &format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [\"{}\"]\nscrape_configs:\n  - \
             job_name: rstscope\n    static_configs: [{{ targets: [\"{agent}\"] }}]\n",
            rules.display()
        ),
    )?;
    // Bound to this process, so that it ends with it.
    let mut command = bench.programs.prometheus(bound_to_us)?;
    command.arg(format!("--config.file={}", configuration.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()));
    command.arg(format!("--web.listen-address={address}"));
    let mut prometheus = Process::start("prometheus", &mut command, folder)?;

    let mut problems = Vec::new();
    for (query, least) in [
        ("up{job=\"rstscope\"}", 1.0),
        ("sum(rstscope_resets_total{direction=\"sent\"})", RESETS as f64),
        ("sum(rstscope_program_runs_total)", 1.0),
        ("rstscope_ready", 1.0),
        ("process_resident_memory_bytes{job=\"rstscope\"}", 1.0),
    ] {
        let is_there = || Ok(value(address, query).is_some_and(|value| value >= least));
        if let Err(why) = prometheus.wait_until(&format!("{query} of {least} or more"), is_there) {
            problems.push(format!("Prometheus: {why:#}"));
        }
    }
    // Each rule was evaluated on what the agent really says.
    let rules: Value = serde_json::from_str(&get(address, "/api/v1/rules")?).context("Prometheus answers no JSON")?;
    let groups = rules["data"]["groups"].as_array().cloned().unwrap_or_default();
    let all: Vec<&Value> = groups.iter().filter_map(|group| group["rules"].as_array()).flatten().collect();
    if all.is_empty() {
        problems.push(format!("Prometheus has loaded no rule of {RULES}"));
    }
    for rule in all.iter().filter(|rule| rule["health"] == "err") {
        problems.push(format!("Prometheus cannot evaluate {}: {}", rule["name"], rule["lastError"]));
    }
    Ok(problems)
}

/// The only value of a query, once there is one.
fn value(prometheus: SocketAddr, query: &str) -> Option<f64> {
    let escaped: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer = get(prometheus, &format!("/api/v1/query?query={escaped}")).ok()?;
    let answer: Value = serde_json::from_str(&answer).ok()?;
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

/// Clients that close with SO_LINGER 0 would take `unsafe`; a server that closes with a request unread resets as well.
fn reset(count: usize) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on loopback")?;
    let address = listener.local_addr().context("a listener has an address")?;
    for _ in 0..count {
        let mut client = TcpStream::connect(address).context("cannot connect on loopback")?;
        let (server, _) = listener.accept().context("cannot accept on loopback")?;
        client.write_all(b"unread").context("cannot send on loopback")?;
        while server.peek(&mut [0; 6]).context("cannot receive on loopback")? < 6 {}
        drop(server);
        match client.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => bail!("a connection was not reset: {other:?}"),
        }
    }
    Ok(())
}

/// A free port of loopback, a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on loopback")?;
    Ok(listener.local_addr().context("a listener has an address")?.port())
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let patience = Duration::from_secs(5);
    let mut stream =
        TcpStream::connect_timeout(&address, patience).with_context(|| format!("cannot reach {address}"))?;
    stream.set_read_timeout(Some(patience)).context("cannot set a timeout")?;
    // HTTP/1.0: the body ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").context("cannot ask")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("{address}{path} does not answer"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
    if !head.lines().next().is_some_and(|line| line.contains(" 200")) {
        bail!("{address}{path}: {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}
