//! Envoy with one listener and one cluster.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    process::{Process, bound_to_us},
    stage::Stage,
};
use crate::files;

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
    start(stage, &filter, &cluster(upstream))
}

/// Starts Envoy as a proxy for HTTP, with its own timeouts and without retries.
pub fn http(stage: &Stage, upstream: (&str, u16)) -> Result<Process> {
    start(stage, &http_filter(&json!({ "cluster": "upstream" })), &cluster(upstream))
}

/// The same, which sends a request whose connection is reset again, on another connection.
pub fn http_retrying(stage: &Stage, upstream: (&str, u16)) -> Result<Process> {
    let route = json!({ "cluster": "upstream", "retry_policy": { "retry_on": "reset", "num_retries": 2 } });
    start(stage, &http_filter(&route), &cluster(upstream))
}

/// The same, which checks the upstream's health by connecting every 0.2 s.
pub fn checking(stage: &Stage, upstream: (&str, u16)) -> Result<Process> {
    let mut cluster = cluster(upstream);
    cluster["health_checks"] = json!([{
        "timeout": "1s",
        "interval": "0.2s",
        "no_traffic_interval": "0.2s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "tcp_health_check": {},
    }]);
    start(stage, &http_filter(&json!({ "cluster": "upstream" })), &cluster)
}

fn http_filter(route: &Value) -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                      HttpConnectionManager",
            "stat_prefix": "incident",
            "route_config": { "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": route }],
            }] },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
            }],
        },
    })
}

fn cluster(upstream: (&str, u16)) -> Value {
    let endpoint = json!({ "endpoint": { "address": address(upstream.0, upstream.1) } });
    json!({
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": { "cluster_name": "upstream", "endpoints": [{ "lb_endpoints": [endpoint] }] },
    })
}

fn start(stage: &Stage, filter: &Value, cluster: &Value) -> Result<Process> {
    let configuration = json!({ "static_resources": {
        "listeners": [{
            "name": "incident",
            "address": address("127.0.0.1", PORT),
            "filter_chains": [{ "filters": [filter] }],
        }],
        "clusters": [cluster],
    } });
    let file = stage.folder.join("envoy.json");
    files::write_file(&file, &configuration.to_string())?;
    let mut command = bound_to_us(stage.programs.envoy());
    command.arg("--config-path").arg(&file).args(["--concurrency", "1", "--disable-hot-restart"]);
    command.args(["--log-level", "warning"]);
    Process::serve("envoy", &mut command, &stage.folder, PORT)
}

fn address(ip: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": ip, "port_value": port } })
}
