//! The rules of Loki's push API, from its documentation (HTTP API; request validation and rate limits), the defaults of its
//! limits, and `pkg/push/push.proto`, whose fields are declared here once more: what the agent wrote by a wrong number is not
//! read back by the same one.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::Value;

use super::http::{Request, Response, Rules};

const MOST_LABELS: usize = 15;
const LONGEST_LINE: usize = 256 * 1024;
const MOST_METADATA: usize = 128;
/// Half of max_chunk_age: an older line than that, seen from the newest of its stream, is refused.
const TOO_FAR_BEHIND_NS: i128 = 3_600_000_000_000;

/// What it has, and what it wants.
#[derive(Default)]
pub struct Loki {
    /// Each line as often as it came.
    pub lines: Vec<Value>,
    /// How many of them had structured metadata.
    pub with_metadata: usize,
    /// The streams seen, and the newest time of each.
    pub streams: BTreeMap<String, i128>,
    pub requests: usize,
    /// How many lines the largest request had.
    pub largest: usize,
    /// X-Scope-OrgID has to be this.
    pub tenant: Option<String>,
    /// The bearer token has to be this.
    pub token: Option<String>,
    /// Lines with this in them are refused.
    pub refused_text: Option<String>,
    /// Each sentence is a rule that was broken.
    pub broken: Vec<String>,
}

impl Loki {
    fn breaks(&mut self, rule: String) -> Response {
        self.broken.push(rule.clone());
        Response::new(400, rule)
    }

    /// What is wrong with an entry; entries beside it are taken all the same.
    fn wrong(&mut self, stream: &str, entry: Entry) -> Option<String> {
        let Entry { time, line, metadata } = entry;
        if line.len() > LONGEST_LINE {
            return Some("line_too_long".to_owned());
        }
        if self.refused_text.as_ref().is_some_and(|text| line.contains(text.as_str())) {
            return Some("refused as commanded".to_owned());
        }
        if metadata.len() > MOST_METADATA || metadata.iter().any(|(name, _)| !is_label(name)) {
            return Some("structured metadata: labels, not too many".to_owned());
        }
        let newest = self.streams.entry(stream.to_owned()).or_insert(time);
        if time < *newest - TOO_FAR_BEHIND_NS {
            return Some("too_far_behind".to_owned());
        }
        *newest = time.max(*newest);
        let Ok(line) = serde_json::from_str::<Value>(&line) else { return Some("no line of rstscope".to_owned()) };
        let id = line["id"].as_str().map(str::to_owned);
        if !metadata.is_empty() && metadata.iter().find(|(name, _)| name == "id").map(|(_, id)| id.clone()) != id {
            return Some("metadata of another line".to_owned());
        }
        self.with_metadata += usize::from(!metadata.is_empty());
        self.lines.push(line);
        None
    }
}

/// A stream as either encoding has it.
struct Stream {
    labels: BTreeMap<String, String>,
    entries: Vec<Entry>,
}

struct Entry {
    time: i128,
    line: String,
    metadata: Vec<(String, String)>,
}

#[derive(Clone, PartialEq, Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<StreamAdapter>,
}

#[derive(Clone, PartialEq, Message)]
struct StreamAdapter {
    #[prost(string, tag = "1")]
    labels: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<EntryAdapter>,
}

#[derive(Clone, PartialEq, Message)]
struct EntryAdapter {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    line: String,
    #[prost(message, repeated, tag = "3")]
    structured_metadata: Vec<LabelPairAdapter>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPairAdapter {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

fn of_protobuf(body: &[u8]) -> Result<Vec<Stream>, &'static str> {
    let body = snap::raw::Decoder::new().decompress_vec(body).map_err(|_| "not in snappy's block format")?;
    let request = PushRequest::decode(body.as_slice()).map_err(|_| "no PushRequest")?;
    let entry = |entry: EntryAdapter| {
        let Timestamp { seconds, nanos } = entry.timestamp.ok_or("an entry has a time")?;
        if !(0..1_000_000_000).contains(&nanos) {
            return Err("nanoseconds of a second");
        }
        let metadata = entry.structured_metadata.into_iter().map(|pair| (pair.name, pair.value)).collect();
        Ok(Entry { time: i128::from(seconds) * 1_000_000_000 + i128::from(nanos), line: entry.line, metadata })
    };
    let stream = |stream: StreamAdapter| {
        let labels = of_selector(&stream.labels).ok_or("labels are no selector")?;
        Ok(Stream { labels, entries: stream.entries.into_iter().map(entry).collect::<Result<_, _>>()? })
    };
    request.streams.into_iter().map(stream).collect()
}

/// `{name="value", name="value"}`, values quoted as in Go.
fn of_selector(text: &str) -> Option<BTreeMap<String, String>> {
    let mut rest = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (end, '"') => break end,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    'u' => {
                        let digits: String = characters.by_ref().take(4).map(|(_, digit)| digit).collect();
                        value.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                    }
                    quoted @ ('"' | '\\') => value.push(quoted),
                    _ => return None,
                },
                (_, raw) if raw.is_control() => return None,
                (_, character) => value.push(character),
            }
        };
        if labels.insert(name.to_owned(), value).is_some() {
            return None;
        }
        rest = &after[end + 1..];
        rest = rest.strip_prefix(", ").unwrap_or(rest);
    }
    Some(labels)
}

fn of_json(body: &[u8]) -> Result<Vec<Stream>, &'static str> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "no JSON")?;
    let strings = |value: &Value| {
        let pairs = value.as_object()?.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        pairs.collect::<Option<Vec<(String, String)>>>()
    };
    let entry = |entry: &Value| {
        let time = entry[0].as_str().and_then(|time| time.parse().ok()).ok_or("a time is nanoseconds as a string")?;
        let line = entry[1].as_str().ok_or("a line is a string")?.to_owned();
        let metadata =
            entry.get(2).map_or(Some(Vec::new()), strings).ok_or("structured metadata is a flat object of strings")?;
        Ok(Entry { time, line, metadata })
    };
    let stream = |stream: &Value| {
        let labels = strings(&stream["stream"]).ok_or("labels are strings")?.into_iter().collect();
        let entries = stream["values"].as_array().ok_or("no values")?;
        Ok(Stream { labels, entries: entries.iter().map(entry).collect::<Result<_, &'static str>>()? })
    };
    body["streams"].as_array().ok_or("no streams")?.iter().map(stream).collect()
}

fn is_label(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

impl Rules for Loki {
    fn answer(&mut self, request: &Request) -> Response {
        self.requests += 1;
        let header = |name: &str| request.headers.get(name).cloned();
        if (request.method.as_str(), request.path.as_str()) != ("POST", "/loki/api/v1/push") {
            return Response::new(404, "404 page not found");
        }
        if self.tenant.is_some() && header("x-scope-orgid") != self.tenant {
            return Response::new(401, "no org id");
        }
        if self.token.as_ref().is_some_and(|token| header("authorization") != Some(format!("Bearer {token}"))) {
            return Response::new(401, "unauthorized");
        }
        let (content_type, encoding) = (header("content-type"), header("content-encoding"));
        let streams = match (content_type.as_deref(), encoding.as_deref()) {
            (Some("application/x-protobuf"), None) => of_protobuf(&request.body),
            (Some("application/json"), None | Some("gzip")) => of_json(&request.body),
            _ => Err("content type or encoding"),
        };
        let streams = match streams {
            Ok(streams) => streams,
            Err(rule) => return self.breaks(rule.to_owned()),
        };
        let (mut refused, mut count) = (Vec::new(), 0);
        for Stream { labels, entries } in streams {
            if labels.is_empty() || labels.len() > MOST_LABELS {
                return self.breaks("missing_labels or max_label_names_per_series".to_owned());
            }
            if !labels.iter().all(|(name, value)| is_label(name) && value.len() <= 2048) {
                return self.breaks("invalid_labels".to_owned());
            }
            if !entries.is_sorted_by_key(|entry| entry.time) {
                return self.breaks("entries of a request are sorted".to_owned());
            }
            let name = format!("{labels:?}");
            count += entries.len();
            refused.extend(entries.into_iter().filter_map(|entry| self.wrong(&name, entry)));
        }
        self.largest = self.largest.max(count);
        match refused.first() {
            Some(first) => Response::new(400, format!("{first}, and {} in all", refused.len())),
            None => Response::new(204, ""),
        }
    }

    fn ids(&self) -> Vec<String> {
        self.lines.iter().map(|line| line["id"].as_str().expect("each line has an id").to_owned()).collect()
    }

    fn broken(&self) -> &[String] {
        &self.broken
    }
}
