//! A real collector behind the server that misbehaves: rotel, an OpenTelemetry collector from the Python package index. The
//! server holds each request to the rules and hands it on; delivered is what the collector in turn sends on, as protobuf, to
//! where a back end would be.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use prost::Message;
use serde_json::Value;

use crate::{
    minute::{Minute, play},
    netns::Netns,
    process::{Process, real},
    servers::{
        http::{Request, Response, Rules, Server},
        otlp::Otlp,
    },
};

/// Before the collector.
struct BeforeCollector {
    rules: Otlp,
    collector: SocketAddr,
    delivered: Arc<Mutex<Vec<String>>>,
}

impl Rules for BeforeCollector {
    fn answer(&mut self, request: &Request) -> Response {
        let checked = self.rules.answer(request);
        if checked.status != 200 {
            return checked;
        }
        // A collector that cannot be reached is one that is not ready.
        self.hand_on(request).unwrap_or_else(|error| Response::new(503, error.to_string()))
    }

    fn ids(&self) -> Vec<String> {
        self.delivered.lock().unwrap().clone()
    }

    fn broken(&self) -> &[String] {
        self.rules.broken()
    }
}

impl BeforeCollector {
    fn hand_on(&self, request: &Request) -> std::io::Result<Response> {
        let mut connection = TcpStream::connect_timeout(&self.collector, Duration::from_secs(1))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        let head = format!(
            "POST /v1/logs HTTP/1.1\r\nHost: collector\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            request.body.len()
        );
        connection.write_all(&[head.as_bytes(), &request.body].concat())?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(502);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok(Response::new(status, body))
    }
}

/// Behind the collector.
struct Backend {
    delivered: Arc<Mutex<Vec<String>>>,
    broken: Vec<String>,
}

impl Rules for Backend {
    fn answer(&mut self, request: &Request) -> Response {
        match bodies(&request.body) {
            Some(ids) => {
                self.delivered.lock().unwrap().extend(ids);
                let mut response = Response::new(200, "");
                response.headers.push(("Content-Type".to_owned(), "application/x-protobuf".to_owned()));
                response
            }
            None => {
                self.broken.push("the collector sends on something else than lines".to_owned());
                Response::new(400, "")
            }
        }
    }

    fn ids(&self) -> Vec<String> {
        self.delivered.lock().unwrap().clone()
    }

    fn broken(&self) -> &[String] {
        &self.broken
    }
}

/// As much as is looked at of opentelemetry-proto's `ExportLogsServiceRequest`.
#[derive(Clone, PartialEq, Message)]
struct ExportLogs {
    #[prost(message, repeated, tag = "1")]
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceLogs {
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeLogs {
    #[prost(message, repeated, tag = "2")]
    log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct LogRecord {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(int32, tag = "2")]
    severity_number: i32,
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
    #[prost(string, tag = "12")]
    event_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, tag = "1")]
    string_value: String,
}

/// The ids of the lines, if each record is one: its body, and its time, severity, event name and id beside it.
fn bodies(body: &[u8]) -> Option<Vec<String>> {
    let request = ExportLogs::decode(body).ok()?;
    let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
    let records = scopes.flat_map(|scope| scope.log_records);
    let id = |record: LogRecord| {
        let line: Value = serde_json::from_str(&record.body?.string_value).ok()?;
        let time: jiff::Timestamp = line["time"].as_str()?.parse().ok()?;
        let attribute = record.attributes.into_iter().find(|attribute| attribute.key == "rstscope.id");
        let is_whole = i128::from(record.time_unix_nano) == time.as_nanosecond()
            && record.severity_number > 0
            && record.event_name.strip_prefix("rstscope.") == line["type"].as_str()
            && attribute?.value?.string_value == line["id"].as_str()?;
        is_whole.then(|| line["id"].as_str().map(str::to_owned))?
    };
    records.map(id).collect()
}

/// The minute of the sink for OTLP.
pub fn play_minute() {
    let netns = Netns::new();
    let folder = tempfile::tempdir().expect("a folder");
    let delivered = Arc::<Mutex<Vec<String>>>::default();
    let backend = Backend { delivered: Arc::clone(&delivered), broken: Vec::new() };
    let backend = netns.run(|| Server::start(backend));
    let free_port =
        || netns.run(|| TcpListener::bind(("127.0.0.1", 0)).and_then(|port| port.local_addr()).expect("a port"));
    let (http, grpc) = (free_port(), free_port());
    let mut command = real("RSTSCOPE_ROTEL");
    command.args(["start", "--exporter", "otlp", "--otlp-exporter-protocol", "http", "--batch-timeout", "200ms"]);
    command.args(["--otlp-http-endpoint", &http.to_string(), "--otlp-grpc-endpoint", &grpc.to_string()]);
    command.args(["--otlp-exporter-endpoint", &backend.url(), "--pid-file"]).arg(folder.path().join("pid"));
    let mut rotel = Process::start(&netns, command, &folder.path().join("rotel.log"));
    rotel.until("listening", || netns.run(|| TcpStream::connect(http).is_ok()));
    let server = BeforeCollector { rules: Otlp::default(), collector: http, delivered };
    let server = netns.run(|| Server::start(server));
    let keys =
        format!("type = \"otlp\"\nurl = \"{}\"\nresource = {{ \"k8s.cluster.name\" = \"chaos\" }}\n", server.url());
    play(Minute { name: "otlp", port: 7003, netns: &netns, server, keys, variables: Vec::new(), front: None });
    backend.with(|backend| assert_eq!(backend.broken, Vec::<String>::new(), "{}", rotel.said()));
}
