//! Envoy with one listener and one cluster.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    process::{Process, bound_to_us},
    stage::{Stage, write},
};

/// The port Envoy listens on.
pub const PORT: u16 = 10_000;

/// Starts Envoy as a proxy for TCP.
pub fn tcp(stage: &Stage, upstream: (&str, u16)) -> Result<Process> {
    let filter = json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "incident",
            "cluster": "upstream",
        },
    });
    start(stage, &filter, upstream)
}

/// Starts Envoy as a proxy for HTTP, with its own timeouts and without retries.
pub fn http(stage: &Stage, upstream: (&str, u16)) -> Result<Process> {
    let filter = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                      HttpConnectionManager",
            "stat_prefix": "incident",
            "route_config": { "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
            }] },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
            }],
        },
    });
    start(stage, &filter, upstream)
}

fn start(stage: &Stage, filter: &Value, upstream: (&str, u16)) -> Result<Process> {
    let endpoint = json!({ "endpoint": { "address": address(upstream.0, upstream.1) } });
    let configuration = json!({ "static_resources": {
        "listeners": [{
            "name": "incident",
            "address": address("127.0.0.1", PORT),
            "filter_chains": [{ "filters": [filter] }],
        }],
        "clusters": [{
            "name": "upstream",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": { "cluster_name": "upstream", "endpoints": [{ "lb_endpoints": [endpoint] }] },
        }],
    } });
    let file = stage.folder.join("envoy.json");
    write(&file, &configuration.to_string())?;
    let mut command = bound_to_us(stage.programs.envoy());
    command.arg("--config-path").arg(&file).args(["--concurrency", "1", "--disable-hot-restart"]);
    command.args(["--log-level", "warning"]);
    Process::serve("envoy", &mut command, &stage.folder, PORT)
}

fn address(ip: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": ip, "port_value": port } })
}
