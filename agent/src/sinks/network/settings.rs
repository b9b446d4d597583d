//! What all network sinks are told alike.

use std::{path::PathBuf, time::Duration};

use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    settings::{
        Wrong,
        secret::Secret,
        units::{Size, Time},
    },
    sinks::{
        fsync::Fsync,
        spool::{self, LEAST_DISK_BYTES, LEAST_MEMORY_BYTES, SEGMENT_BYTES},
    },
};

/// How much is sent at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// Lines in one request.
    pub lines: usize,
    /// Bytes of lines in one request, before gzip.
    pub bytes: Size,
    /// How long the first line of a request waits for more.
    pub wait: Time,
}

impl Default for Batch {
    fn default() -> Self {
        Self { lines: 500, bytes: Size(512 << 10), wait: Time(Duration::from_secs(1)) }
    }
}

/// How long to wait between two tries: doubled each time, with jitter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// After the first failure.
    pub first: Time,
    /// At most.
    pub most: Time,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: Time(Duration::from_millis(500)), most: Time(Duration::from_secs(60)) }
    }
}

/// The HTTP client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// For a request and its answer.
    pub timeout: Time,
    /// For the connection, TLS included.
    pub connect_timeout: Time,
    /// A proxy for this sink; by default that of HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Compress requests.
    pub gzip: bool,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            timeout: Time(Duration::from_secs(10)),
            connect_timeout: Time(Duration::from_secs(5)),
            proxy: None,
            gzip: true,
        }
    }
}

/// TLS, for a URL that begins with https.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Certificates (PEM) to trust instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The client's certificate and what is between it and the CA (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// The client's private key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// User and password (RFC 7617).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// The spool on the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolSettings {
    /// Bytes on the disk; beyond that the oldest lines are dropped and counted.
    pub disk_bytes: Size,
    /// Bytes in memory while the disk takes nothing; beyond that likewise.
    pub memory_bytes: Size,
    /// When to wait until it is on the medium.
    pub fsync: Fsync,
}

impl Default for SpoolSettings {
    fn default() -> Self {
        Self { disk_bytes: Size(256 << 20), memory_bytes: Size(8 << 20), fsync: Fsync::default() }
    }
}

impl SpoolSettings {
    /// As the spool takes it.
    #[must_use]
    pub fn limits(&self) -> spool::Limits {
        spool::Limits {
            disk_bytes: self.disk_bytes.0,
            segment_bytes: SEGMENT_BYTES,
            memory_bytes: usize::try_from(self.memory_bytes.0).unwrap_or(usize::MAX),
            fsync: match self.fsync {
                Fsync::Never => spool::Fsync::Never,
                Fsync::Every(Time(pause)) => spool::Fsync::Every(pause),
                Fsync::Always => spool::Fsync::Always,
            },
        }
    }
}

/// Everything above, of one sink.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    /// The server.
    pub url: &'a str,
    /// See there.
    pub batch: &'a Batch,
    /// See there.
    pub retry: &'a Retry,
    /// See there.
    pub http: &'a Http,
    /// See there.
    pub tls: &'a Tls,
    /// See there.
    pub spool: &'a SpoolSettings,
}

impl Common<'_> {
    /// Checks what types cannot.
    ///
    /// # Errors
    ///
    /// One sentence that names the key.
    pub fn check(&self) -> Result<(), Wrong> {
        let wrong = |text: String| Err(Wrong(text));
        url(self.url)?;
        if let Some(proxy) = &self.http.proxy {
            url(proxy).map_err(|Wrong(problem)| Wrong(format!("http.proxy: {problem}")))?;
        }
        if !(1..=100_000).contains(&self.batch.lines) {
            return wrong("batch.lines is between 1 and 100000".to_owned());
        }
        if !(1 << 10..=64 << 20).contains(&self.batch.bytes.0) {
            return wrong("batch.bytes is between 1KiB and 64MiB".to_owned());
        }
        if self.retry.first > self.retry.most {
            return wrong("retry.first is longer than retry.most".to_owned());
        }
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            return wrong("tls.cert_file and tls.key_file belong together; give both or none".to_owned());
        }
        if self.spool.disk_bytes.0 < LEAST_DISK_BYTES {
            return wrong(format!("spool.disk_bytes is at least {}", Size(LEAST_DISK_BYTES)));
        }
        if self.spool.memory_bytes.0 < LEAST_MEMORY_BYTES as u64 {
            return wrong(format!("spool.memory_bytes is at least {}", Size(LEAST_MEMORY_BYTES as u64)));
        }
        Ok(())
    }
}

/// An address that shows no secret.
///
/// # Errors
///
/// If it is none, or has a password in it.
pub fn url(text: &str) -> Result<Url, Wrong> {
    let example = "such as https://loki.example:3100";
    let url = Url::parse(text).map_err(|error| Wrong(format!("the url is not one ({error}); give one {example}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(Wrong(format!("the url has to begin with http:// or https:// and to name a host, {example}")));
    }
    if url.password().is_some() || !url.username().is_empty() || url.query().is_some() {
        return Err(Wrong(
            "the url holds a user, a password or a query, which would be shown; name them by their own keys".to_owned(),
        ));
    }
    Ok(url)
}
