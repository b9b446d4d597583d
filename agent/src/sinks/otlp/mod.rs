//! OTLP over HTTP, logs as JSON: `POST /v1/logs` (OpenTelemetry protocol specification).
//!
//! Each line is a log record with an event name, its JSON as the body, and its facts as attributes (`record`). Answers mean
//! what the specification says: only 429, 502, 503 and 504 are tried again, and a partial success never is.

mod record;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, mpsc::Receiver},
};

use reqwest::{Client, RequestBuilder, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::record::{record, string};
use super::{
    account::Account,
    filter::Filter,
    network::{
        self, Start,
        client::client,
        protocol::{Answer, Protocol, SpooledLine, Verdict, beginning, retry_after, said, usual_verdict},
        settings::{Batch, Common, Http, Retry, SpoolSettings, Tls, url},
    },
    outputs::Line,
    running::Running,
};
use crate::settings::{Wrong, secret::Secret};

/// A receiver of OTLP, such as the OpenTelemetry Collector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtlpSettings {
    /// Its address, without the path: `http://collector.example:4318`
    pub url: String,
    /// Attributes of the resource beside `service.name` and `host.name`, such as `k8s.cluster.name`.
    #[serde(default)]
    pub resource: BTreeMap<String, String>,
    /// Headers with secrets in them, such as `authorization`.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Which lines.
    #[serde(default)]
    pub filter: Filter,
    /// How much at once.
    #[serde(default)]
    pub batch: Batch,
    /// Pauses between tries.
    #[serde(default)]
    pub retry: Retry,
    /// The HTTP client.
    #[serde(default)]
    pub http: Http,
    /// TLS.
    #[serde(default)]
    pub tls: Tls,
    /// The spool on the disk.
    #[serde(default)]
    pub spool: SpoolSettings,
}

impl OtlpSettings {
    /// What all network sinks have.
    #[must_use]
    pub fn common(&self) -> Common<'_> {
        let Self { url, batch, retry, http, tls, spool, .. } = self;
        Common { url, batch, retry, http, tls, spool }
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    ///
    /// One sentence that names the key.
    pub fn check(&self) -> Result<(), Wrong> {
        self.common().check()?;
        let is_header = |name: &str| reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok();
        match self.headers.keys().find(|name| !is_header(name)) {
            Some(name) => Err(Wrong(format!("headers: {name:?} is no name of a header"))),
            None => Ok(()),
        }
    }
}

/// Starts the sink; `folder` is for its spool.
///
/// # Errors
///
/// If a certificate cannot be read, or the system has no thread for it.
pub fn start(
    name: &str,
    settings: &OtlpSettings,
    folder: &Path,
    predecessor: Option<Running>,
    lines: Receiver<Line>,
    account: Arc<Account>,
) -> Result<Running, Wrong> {
    let start = Start {
        name: name.to_owned(),
        folder: folder.to_owned(),
        limits: settings.spool.limits(),
        batch: settings.batch.clone(),
        retry: settings.retry.clone(),
        gzip: settings.http.gzip,
        client: client(&settings.http, &settings.tls)?,
        protocol: Otlp::new(settings)?,
        predecessor,
    };
    network::start(start, lines, account).map_err(|error: io::Error| Wrong(format!("cannot start a thread: {error}")))
}

struct Otlp {
    logs: Url,
    settings: OtlpSettings,
}

impl Otlp {
    fn new(settings: &OtlpSettings) -> Result<Self, Wrong> {
        let mut logs = url(&settings.url)?;
        let path = format!("{}/v1/logs", logs.path().trim_end_matches('/'));
        logs.set_path(&path);
        Ok(Self { logs, settings: settings.clone() })
    }

    fn resource(&self, node: Option<&String>) -> Value {
        let mut attributes =
            vec![string("service.name", "rstscope"), string("service.version", env!("CARGO_PKG_VERSION"))];
        attributes.extend(node.map(|node| string("host.name", node)));
        attributes.extend(self.settings.resource.iter().map(|(key, value)| string(key, value)));
        json!({ "attributes": attributes })
    }
}

impl Protocol for Otlp {
    fn body(&self, lines: &[SpooledLine]) -> Result<Vec<u8>, Wrong> {
        let mut by_node: BTreeMap<Option<String>, Vec<Value>> = BTreeMap::new();
        let observed = jiff::Timestamp::now().as_nanosecond();
        for line in lines {
            by_node.entry(line.text_at("/node")).or_default().push(record(line, observed));
        }
        let scope = json!({ "name": "rstscope", "version": env!("CARGO_PKG_VERSION") });
        let resource_logs: Vec<Value> = by_node
            .into_iter()
            .map(|(node, records)| {
                let scope_logs = [json!({ "scope": scope, "logRecords": records })];
                json!({ "resource": self.resource(node.as_ref()), "scopeLogs": scope_logs })
            })
            .collect();
        Ok(json!({ "resourceLogs": resource_logs }).to_string().into_bytes())
    }

    fn request(&self, client: &Client) -> Result<RequestBuilder, Wrong> {
        let mut request = client.post(self.logs.clone()).header("content-type", "application/json");
        for (name, secret) in &self.settings.headers {
            request = request.header(name, secret.read()?);
        }
        Ok(request)
    }

    fn judge(&self, answer: &Answer) -> Verdict {
        match answer.status.as_u16() {
            200..=299 => match (usual_verdict(answer), partial_success(answer)) {
                (Verdict::Delivered, Some((count, why))) => Verdict::DeliveredBut(count, why),
                (verdict, _) => verdict,
            },
            429 | 502..=504 => Verdict::Retry(retry_after(&answer.headers), said(answer)),
            408 | 425 | 500..=599 => Verdict::Refused(said(answer)),
            _ => usual_verdict(answer),
        }
    }
}

/// How many records the receiver refused of a request that it took otherwise.
fn partial_success(answer: &Answer) -> Option<(u64, String)> {
    let reply: Value = serde_json::from_slice(&answer.body).ok()?;
    let partial = reply.get("partialSuccess")?;
    // 64-bit numbers are strings in this JSON; some receivers write numbers all the same.
    let rejected = partial.get("rejectedLogRecords")?;
    let count = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok())?;
    let why = partial["errorMessage"].as_str().unwrap_or("the receiver does not say why");
    (count > 0).then(|| (count, beginning(why)))
}

#[cfg(test)]
mod tests;
