//! Grafana Loki: `POST /loki/api/v1/push`, protobuf or JSON (Loki's HTTP API reference; `push`).
//!
//! **Labels** make streams, and each stream costs Loki memory: only `job`, `node` and what the configuration adds, all of them
//! fixed. A stream for each node also keeps nodes from each other's order: Loki refuses lines that are more than an hour older
//! than the newest of their stream. Lines of one request are sorted by time; the spool keeps the order of requests.
//!
//! **Structured metadata** carries what has many values and is worth a filter without parsing: addresses, pod, cause, the
//! line's id. It takes a Loki with schema v13 and TSDB; for others `structured_metadata = false`.

mod push;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, mpsc::Receiver},
};

use reqwest::{Client, RequestBuilder, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::push::{Entry, Stream};
use super::{
    account::Account,
    filter::Filter,
    network::{
        self, Start,
        client::client,
        protocol::{Answer, Protocol, SpooledLine, Verdict, retry_after, said, usual_verdict},
        settings::{BasicAuth, Batch, Common, Http, Retry, SpoolSettings, Tls, url},
    },
    outputs::Line,
    running::Running,
};
use crate::settings::{Wrong, secret::Secret};

/// A Loki to push to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LokiSettings {
    /// Its address, without the path of the push API: `https://loki.example:3100`
    pub url: String,
    /// How lines are written.
    #[serde(default)]
    pub encoding: Encoding,
    /// The tenant, for X-Scope-OrgID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Labels of every stream beside `job` and `node`; few, with few values.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Send addresses, pods, causes as structured metadata.
    #[serde(default = "yes")]
    pub structured_metadata: bool,
    /// User and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// A bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token: Option<Secret>,
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

/// The form of a push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Protobuf in snappy's block format, as Loki's own clients send it.
    #[default]
    Protobuf,
    /// JSON, for something in between that wants to read along.
    Json,
}

const fn yes() -> bool {
    true
}

/// Loki takes 15 labels a stream by default; two are ours.
const MOST_LABELS: usize = 13;

impl LokiSettings {
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
        if self.basic_auth.is_some() && self.bearer_token.is_some() {
            return Err(Wrong("basic_auth and bearer_token exclude each other".to_owned()));
        }
        if self.labels.len() > MOST_LABELS {
            return Err(Wrong(format!("labels: Loki takes at most {MOST_LABELS} beside job and node")));
        }
        match self.labels.iter().find(|(name, value)| !is_label(name) || value.is_empty() || value.len() > 2048) {
            Some((name, _)) => Err(Wrong(format!(
                "labels.{name}: a label is letters, digits and _, not job or node, and its value 1 to 2048 bytes long"
            ))),
            None => Ok(()),
        }
    }
}

fn is_label(name: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    begins && name.len() <= 1024 && name.chars().all(plain) && !matches!(name, "job" | "node")
}

/// Starts the sink; `folder` is for its spool.
///
/// # Errors
///
/// If a certificate cannot be read, or the system has no thread for it.
pub fn start(
    name: &str,
    settings: &LokiSettings,
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
        // Snappy is part of the other encoding; Loki would unpack both, others that speak its API do not.
        gzip: settings.http.gzip && settings.encoding == Encoding::Json,
        client: client(&settings.http, &settings.tls)?,
        protocol: Loki::new(settings)?,
        predecessor,
    };
    network::start(start, lines, account).map_err(|error: io::Error| Wrong(format!("cannot start a thread: {error}")))
}

struct Loki {
    push: Url,
    settings: LokiSettings,
}

impl Loki {
    fn new(settings: &LokiSettings) -> Result<Self, Wrong> {
        let mut push = url(&settings.url)?;
        let path = format!("{}/loki/api/v1/push", push.path().trim_end_matches('/'));
        push.set_path(&path);
        Ok(Self { push, settings: settings.clone() })
    }

    fn labels(&self, line: &SpooledLine) -> BTreeMap<String, String> {
        let mut labels = self.settings.labels.clone();
        labels.insert("job".to_owned(), "rstscope".to_owned());
        labels.extend(line.text_at("/node").filter(|node| !node.is_empty()).map(|node| ("node".to_owned(), node)));
        labels
    }
}

/// What is sent as structured metadata, and where the line has it. Far below Loki's 128 names and 64 KB.
const METADATA: [(&str, &str); 19] = [
    ("id", "/id"),
    ("type", "/type"),
    ("direction", "/reset/direction"),
    ("cause", "/cause/code"),
    ("confidence", "/cause/confidence"),
    ("benign", "/cause/benign"),
    ("role", "/role"),
    ("local_ip", "/local/ip"),
    ("local_port", "/local/port"),
    ("peer_ip", "/peer/ip"),
    ("peer_port", "/peer/port"),
    ("namespace", "/local/pod/namespace"),
    ("pod", "/local/pod/name"),
    ("container", "/local/container/name"),
    ("process", "/local/process/comm"),
    ("peer_namespace", "/peer/pod/namespace"),
    ("peer_pod", "/peer/pod/name"),
    ("peer_process", "/peer/process/comm"),
    ("connection_id", "/connection/id"),
];

impl Loki {
    fn entry(&self, line: &SpooledLine) -> Entry {
        let metadata = METADATA.iter().filter(|_| self.settings.structured_metadata);
        let metadata = metadata.filter_map(|(name, pointer)| Some((*name, line.text_at(pointer)?)));
        Entry { time_ns: line.time_ns(), line: line.text.clone(), metadata: metadata.collect() }
    }
}

impl Protocol for Loki {
    fn body(&self, lines: &[SpooledLine]) -> Result<Vec<u8>, Wrong> {
        let mut streams: BTreeMap<BTreeMap<String, String>, Vec<Entry>> = BTreeMap::new();
        for line in lines {
            streams.entry(self.labels(line)).or_default().push(self.entry(line));
        }
        let streams = streams.into_iter().map(|(labels, mut entries)| {
            entries.sort_by_key(|entry| entry.time_ns);
            Stream { labels, entries }
        });
        match self.settings.encoding {
            Encoding::Protobuf => push::protobuf(streams.collect())
                .map_err(|error| Wrong(format!("cannot pack a request: {error}; set batch.bytes lower"))),
            Encoding::Json => Ok(push::json(streams.collect())),
        }
    }

    fn request(&self, client: &Client) -> Result<RequestBuilder, Wrong> {
        let content_type = match self.settings.encoding {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        };
        let mut request = client.post(self.push.clone()).header("content-type", content_type);
        if let Some(tenant) = &self.settings.tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        if let Some(auth) = &self.settings.basic_auth {
            request = request.basic_auth(&auth.user, Some(auth.password.read()?));
        }
        if let Some(token) = &self.settings.bearer_token {
            request = request.bearer_auth(token.read()?);
        }
        Ok(request)
    }

    fn judge(&self, answer: &Answer) -> Verdict {
        match answer.status.as_u16() {
            // Ingestion is blocked for this tenant, for a time.
            260 => Verdict::Retry(retry_after(&answer.headers), said(answer)),
            _ => usual_verdict(answer),
        }
    }
}

#[cfg(test)]
mod tests;
