//! A line as a log record, by OpenTelemetry's semantic conventions. What they have no name for begins with `rstscope.`.

use serde_json::{Value, json};

use crate::sinks::network::protocol::SpooledLine;

/// An attribute with a string.
pub fn string(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// How the value of an attribute is written.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Integer,
    Double,
    Flag,
}

use Kind::{Double, Flag, Integer, Text};

/// Attributes, and where the line has them.
const ATTRIBUTES: [(&str, &str, Kind); 26] = [
    ("rstscope.id", "/id", Text),
    ("rstscope.cause", "/cause/code", Text),
    ("rstscope.confidence", "/cause/confidence", Text),
    ("rstscope.benign", "/cause/benign", Flag),
    ("rstscope.direction", "/reset/direction", Text),
    ("rstscope.kernel_reason", "/reset/kernel_reason", Text),
    ("rstscope.age_ms", "/age_ms", Double),
    ("rstscope.idle_ms", "/idle_ms", Double),
    ("rstscope.connection_id", "/connection/id", Text),
    ("rstscope.peer.namespace", "/peer/pod/namespace", Text),
    ("rstscope.peer.pod", "/peer/pod/name", Text),
    ("rstscope.peer.process", "/peer/process/comm", Text),
    ("error.type", "/tcp/error", Text),
    ("network.local.address", "/local/ip", Text),
    ("network.local.port", "/local/port", Integer),
    ("network.peer.address", "/peer/ip", Text),
    ("network.peer.port", "/peer/port", Integer),
    ("k8s.namespace.name", "/local/pod/namespace", Text),
    ("k8s.pod.name", "/local/pod/name", Text),
    ("k8s.pod.uid", "/local/pod/uid", Text),
    ("k8s.container.name", "/local/container/name", Text),
    ("container.id", "/local/container/id", Text),
    ("container.image.name", "/local/container/image", Text),
    ("process.pid", "/local/process/pid", Integer),
    ("process.executable.name", "/local/process/comm", Text),
    ("process.executable.path", "/local/process/exe", Text),
];

/// The ends by who opened the connection, where that is known.
fn ends(line: &SpooledLine) -> [(&'static str, &'static str, Kind); 4] {
    let (client, server) = match line.text_at("/role").as_deref() {
        Some("client") => (["/local/ip", "/local/port"], ["/peer/ip", "/peer/port"]),
        Some("server") => (["/peer/ip", "/peer/port"], ["/local/ip", "/local/port"]),
        _ => (["", ""], ["", ""]),
    };
    [
        ("client.address", client[0], Text),
        ("client.port", client[1], Integer),
        ("server.address", server[0], Text),
        ("server.port", server[1], Integer),
    ]
}

/// The record of a line that was seen by the sink at `observed` (nanoseconds since 1970).
pub fn record(line: &SpooledLine, observed: i128) -> Value {
    let kind = line.text_at("/type").unwrap_or_default();
    let found = ATTRIBUTES.into_iter().chain(ends(line));
    let mut attributes: Vec<Value> =
        found.filter_map(|(key, pointer, kind)| attribute(line, key, pointer, kind)).collect();
    if let Some(ip) = line.text_at("/local/ip") {
        attributes.push(string("network.transport", "tcp"));
        attributes.push(string("network.type", if ip.contains(':') { "ipv6" } else { "ipv4" }));
    }
    let is_benign = line.value.pointer("/cause/benign") == Some(&Value::Bool(true));
    let (number, severity) = if kind == "agent" || is_benign { (9, "INFO") } else { (13, "WARN") };
    json!({
        "timeUnixNano": line.time_ns().to_string(),
        "observedTimeUnixNano": observed.to_string(),
        "severityNumber": number,
        "severityText": severity,
        "eventName": format!("rstscope.{kind}"),
        "body": { "stringValue": line.text },
        "attributes": attributes,
    })
}

fn attribute(line: &SpooledLine, key: &str, pointer: &str, kind: Kind) -> Option<Value> {
    // The empty pointer is the whole line.
    let value = line.value.pointer(pointer).filter(|_| !pointer.is_empty())?;
    let value = match kind {
        Text => json!({ "stringValue": value.as_str()? }),
        Integer => json!({ "intValue": value.as_u64()?.to_string() }),
        Double => json!({ "doubleValue": value.as_f64()? }),
        Flag => json!({ "boolValue": value.as_bool()? }),
    };
    Some(json!({ "key": key, "value": value }))
}
