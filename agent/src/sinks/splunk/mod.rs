//! Splunk's HTTP Event Collector: `POST /services/collector/event` (Splunk's HEC endpoints and error codes).
//!
//! A request is one JSON object for each line, one after the other. A plain success means that the lines look right, not that
//! they are indexed: with `acknowledge` the spool keeps them until an indexer has said so (Splunk Enterprise with indexer
//! acknowledgement switched on for the token). After a failure `GET /services/collector/health` is asked first, and lines
//! wait while it says that queues are full.

use std::{
    io,
    path::Path,
    sync::{Arc, mpsc::Receiver},
    time::Duration,
};

use reqwest::{Client, RequestBuilder, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    account::Account,
    filter::Filter,
    network::{
        self, Start,
        client::client,
        protocol::{Answer, Pending, Protocol, SpooledLine, Verdict, said, usual_verdict},
        settings::{Batch, Common, Http, Retry, SpoolSettings, Tls, url},
    },
    outputs::Line,
    running::Running,
};
use crate::settings::{Wrong, secret::Secret, units::Time};

/// A Splunk to send to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplunkSettings {
    /// Its address, without the path of the collector: `https://splunk.example:8088`
    pub url: String,
    /// The token of the collector.
    pub token: Secret,
    /// The index; by default that of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// The source of every event.
    #[serde(default = "own_name")]
    pub source: String,
    /// The source type of every event.
    #[serde(default = "own_name")]
    pub sourcetype: String,
    /// The host of every event; by default the node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Wait for the indexer's acknowledgement.
    #[serde(default)]
    pub acknowledge: bool,
    /// How long to wait for it before the lines are sent again.
    #[serde(default = "two_minutes")]
    pub acknowledge_within: Time,
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

fn own_name() -> String {
    "rstscope".to_owned()
}

fn two_minutes() -> Time {
    Time(Duration::from_secs(120))
}

impl SplunkSettings {
    /// What all network sinks have.
    #[must_use]
    pub fn common(&self) -> Common<'_> {
        let Self { url, batch, retry, http, tls, spool, .. } = self;
        Common { url, batch, retry, http, tls, spool }
    }
}

/// Starts the sink; `folder` is for its spool.
///
/// # Errors
///
/// If a certificate cannot be read, or the system has no thread for it.
pub fn start(
    name: &str,
    settings: &SplunkSettings,
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
        protocol: Splunk::new(settings)?,
        predecessor,
    };
    network::start(start, lines, account).map_err(|error: io::Error| Wrong(format!("cannot start a thread: {error}")))
}

struct Splunk {
    event: Url,
    ack: Url,
    health: Url,
    /// Names this sender to the indexers, which count acknowledgements for each channel.
    channel: String,
    settings: SplunkSettings,
}

/// What is indexed beside the event: few, flat, and what dashboards filter by.
const FIELDS: [(&str, &str); 4] =
    [("id", "/id"), ("type", "/type"), ("cause", "/cause/code"), ("namespace", "/local/pod/namespace")];

impl Splunk {
    fn new(settings: &SplunkSettings) -> Result<Self, Wrong> {
        let base = url(&settings.url)?;
        let below = |path: &str| {
            let mut url = base.clone();
            url.set_path(&format!("{}/services/collector/{path}", base.path().trim_end_matches('/')));
            url
        };
        let [event, ack, health] = ["event", "ack", "health"].map(below);
        Ok(Self { event, ack, health, channel: guid(), settings: settings.clone() })
    }

    fn object(&self, line: &SpooledLine) -> Value {
        let SplunkSettings { source, sourcetype, index, host, .. } = &self.settings;
        // Microseconds: what a double holds of a time in seconds.
        let time = (line.time_ns() / 1000) as f64 / 1e6;
        let mut object = json!({ "time": time, "source": source, "sourcetype": sourcetype, "event": line.value });
        let host = host.clone().or_else(|| line.text_at("/node"));
        let known = [("host", host), ("index", index.clone())];
        known
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .for_each(|(key, value)| object[key] = value.into());
        let fields =
            FIELDS.iter().filter_map(|(name, pointer)| Some(((*name).to_owned(), line.text_at(pointer)?.into())));
        object["fields"] = Value::Object(fields.collect::<Map<_, _>>());
        object
    }

    fn post(&self, client: &Client, url: &Url) -> Result<RequestBuilder, Wrong> {
        let request = self.with_token(client.post(url.clone()).header("content-type", "application/json"))?;
        Ok(if self.settings.acknowledge { request.header("x-splunk-request-channel", &self.channel) } else { request })
    }

    fn with_token(&self, request: RequestBuilder) -> Result<RequestBuilder, Wrong> {
        let token = self.settings.token.read()?;
        Ok(request.header("authorization", format!("Splunk {token}")))
    }
}

/// A random UUID (RFC 9562, version 4).
fn guid() -> String {
    let random = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{random:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn reply(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

impl Protocol for Splunk {
    fn body(&self, lines: &[SpooledLine]) -> Result<Vec<u8>, Wrong> {
        let objects: Vec<String> = lines.iter().map(|line| self.object(line).to_string()).collect();
        Ok(objects.join("\n").into_bytes())
    }

    fn request(&self, client: &Client) -> Result<RequestBuilder, Wrong> {
        self.post(client, &self.event)
    }

    fn judge(&self, answer: &Answer) -> Verdict {
        match (answer.status.as_u16(), reply(answer)["code"].as_u64()) {
            // The index, the channel, acknowledgement switched off: no line is to blame.
            (400, Some(7 | 10 | 11 | 14 | 16)) => Verdict::Refused(said(answer)),
            _ => usual_verdict(answer),
        }
    }

    /// 200 with code 17: it takes events; 503 with code 18: its queues are full. The indexers behind a collector that is busy
    /// recover sooner when nothing is pushed at them meanwhile.
    fn ask_health(&self, client: &Client) -> Result<Option<RequestBuilder>, Wrong> {
        self.with_token(client.get(self.health.clone())).map(Some)
    }

    fn pending(&self, answer: &Answer) -> Result<Option<Pending>, String> {
        if !self.settings.acknowledge {
            return Ok(None);
        }
        let id = reply(answer)["ackId"].as_u64().ok_or_else(|| {
            format!("{}, without an ackId: switch indexer acknowledgement on for the token", said(answer))
        })?;
        Ok(Some(Pending { id, within: self.settings.acknowledge_within.0 }))
    }

    fn ask(&self, client: &Client, pending: &Pending) -> Result<RequestBuilder, Wrong> {
        Ok(self.post(client, &self.ack)?.body(json!({ "acks": [pending.id] }).to_string()))
    }

    fn is_safe(&self, pending: &Pending, answer: &Answer) -> bool {
        answer.status.is_success() && reply(answer)["acks"][pending.id.to_string()] == true
    }
}

#[cfg(test)]
mod tests;
