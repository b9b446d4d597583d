//! The network sinks against servers that hold them to their products' rules.

#[path = "../servers/mod.rs"]
mod servers;

mod feed;
mod loki;
mod otlp;
mod proxies;
mod splunk;
mod tls;
mod troubles;
