//! Servers for the network sinks to talk to. They are home-made, because a real Loki, Splunk or Collector cannot be had where these tests
//! run; each holds requests against the rules that its product documents, and can misbehave on command.

pub mod certificates;
pub mod http;
pub mod loki;
pub mod otlp;
pub mod proxy;
pub mod splunk;
