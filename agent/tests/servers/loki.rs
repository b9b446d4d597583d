//! The rules of Loki's push API, from its documentation (HTTP API; request validation and rate limits) and the defaults of its
//! limits.

use std::collections::BTreeMap;

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
    /// Number of streams seen.
    pub streams: BTreeMap<String, i128>,
    pub requests: usize,
    /// How many lines the largest request had.
    pub largest: usize,
    /// X-Scope-OrgID has to be this.
    pub tenant: Option<String>,
    /// The bearer token has to be this.
    pub token: Option<String>,
    /// Bodies beyond this are too large.
    pub most_bytes: Option<usize>,
    /// Lines with this in them are refused.
    pub refused_text: Option<String>,
    /// Each sentence is a rule that was broken.
    pub broken: Vec<String>,
}

impl Loki {
    /// The ids of all lines, those that came twice as well.
    pub fn ids(&self) -> Vec<String> {
        self.lines.iter().map(|line| line["id"].as_str().expect("each line has an id").to_owned()).collect()
    }

    fn breaks(&mut self, rule: String) -> Response {
        self.broken.push(rule.clone());
        Response::new(400, rule)
    }

    /// What is wrong with an entry; entries beside it are taken all the same.
    fn wrong(&mut self, stream: &str, entry: &Value) -> Option<String> {
        let time: i128 = entry[0].as_str()?.parse().ok()?;
        let line = entry[1].as_str()?;
        if line.len() > LONGEST_LINE {
            return Some("line_too_long".to_owned());
        }
        if self.refused_text.as_ref().is_some_and(|text| line.contains(text.as_str())) {
            return Some("refused as commanded".to_owned());
        }
        if let Some(metadata) = entry.get(2) {
            let Some(metadata) = metadata.as_object() else {
                return Some("structured metadata is no object".to_owned());
            };
            if metadata.len() > MOST_METADATA || !metadata.values().all(Value::is_string) {
                return Some("structured metadata: strings only, not too many".to_owned());
            }
        }
        let newest = self.streams.entry(stream.to_owned()).or_insert(time);
        if time < *newest - TOO_FAR_BEHIND_NS {
            return Some("too_far_behind".to_owned());
        }
        *newest = time.max(*newest);
        self.lines.push(serde_json::from_str(line).ok()?);
        None
    }
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
        if self.most_bytes.is_some_and(|most| request.body.len() > most) {
            return Response::new(413, "request_body_too_large");
        }
        if header("content-type").as_deref() != Some("application/json") {
            return self.breaks("content type".to_owned());
        }
        let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
            return self.breaks("no JSON".to_owned());
        };
        let Some(streams) = body["streams"].as_array() else { return self.breaks("no streams".to_owned()) };
        let (mut refused, mut count) = (Vec::new(), 0);
        for stream in streams {
            let Some(labels) = stream["stream"].as_object() else { return self.breaks("no labels".to_owned()) };
            if labels.is_empty() || labels.len() > MOST_LABELS {
                return self.breaks("missing_labels or max_label_names_per_series".to_owned());
            }
            if !labels
                .iter()
                .all(|(name, value)| is_label(name) && value.as_str().is_some_and(|value| value.len() <= 2048))
            {
                return self.breaks("invalid_labels".to_owned());
            }
            let name = stream["stream"].to_string();
            let Some(entries) = stream["values"].as_array() else { return self.breaks("no values".to_owned()) };
            count += entries.len();
            for entry in entries {
                if !entry[0].is_string() || !entry[1].is_string() {
                    return self.breaks("an entry is time and line as strings".to_owned());
                }
                refused.extend(self.wrong(&name, entry));
            }
        }
        self.largest = self.largest.max(count);
        match refused.first() {
            Some(first) => Response::new(400, format!("{first}, and {} in all", refused.len())),
            None => Response::new(204, ""),
        }
    }
}
