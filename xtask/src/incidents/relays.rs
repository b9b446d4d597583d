//! HAProxy and nginx as proxies for one application.

use anyhow::{Context, Result};

use super::{
    process::Process,
    servers::{PORT, haproxy_with, nginx_with},
    stage::Stage,
};

/// The port nginx listens on.
pub const NGINX_PORT: u16 = 10_002;

/// HAProxy as a proxy for TCP that gives up connecting after a second: what comes to this port goes to that address.
pub fn haproxy(stage: &Stage, routes: &[(u16, &str, u16)]) -> Result<Process> {
    let listen = |(port, ip, to): &(u16, &str, u16)| {
        format!("listen to_{port}\n  bind 127.0.0.1:{port}\n  server upstream {ip}:{to}\n")
    };
    let configuration = format!(
        "defaults\n  mode tcp\n  timeout client 60s\n  timeout server 60s\n  timeout connect 1s\n  retries 0\n{}",
        routes.iter().map(listen).collect::<String>()
    );
    let (port, ..) = routes.last().context("HAProxy needs a route")?;
    haproxy_with(stage, &configuration, *port)
}

/// nginx in front of the server; `/hole` is this address instead, to which it connects for a second.
pub fn nginx(stage: &Stage, hole: (&str, u16)) -> Result<Process> {
    let rules = format!(
        "server {{\nlisten 127.0.0.1:{NGINX_PORT};\nproxy_connect_timeout 1s;\n\
         location / {{ proxy_pass http://127.0.0.1:{PORT}; }}\nlocation /hole {{ proxy_pass http://{}:{}; }}\n}}\n",
        hole.0, hole.1
    );
    nginx_with(stage, &rules, NGINX_PORT)
}
