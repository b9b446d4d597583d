//! The rules of Splunk's HTTP Event Collector, from its documentation and the codes that its senders agree on.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::http::{Request, Response, Rules};

/// What it has, and what it wants.
#[derive(Default)]
pub struct Splunk {
    pub token: String,
    /// What was indexed: each event as often as it came.
    pub events: Vec<Value>,
    /// Those that bring events or ask about acknowledgements.
    pub requests: usize,
    /// Queues are full: events are refused as by a busy server, and the health endpoint says so.
    pub queues_full: bool,
    /// How often its health was asked about.
    pub asked_health: usize,
    /// Indexer acknowledgement is on.
    pub acknowledges: bool,
    /// What was taken and not indexed yet, by channel and ackId; and how often it was asked about.
    pub taken: BTreeMap<(String, u64), (Vec<Value>, u32)>,
    /// An ackId turns true when it was asked about so often.
    pub asked_before_true: u32,
    /// So many requests are forgotten instead of indexed, as by an indexer that dies.
    pub forgets: u32,
    /// The next ackId of each channel.
    pub next_ack: BTreeMap<String, u64>,
    pub indexes: BTreeSet<String>,
    pub refused_text: Option<String>,
    /// Each sentence is a rule that was broken.
    pub broken: Vec<String>,
}

fn code(status: u16, code: u64, text: &str) -> Response {
    Response::new(status, json!({ "text": text, "code": code }).to_string())
}

impl Splunk {
    /// The code of the first thing that is wrong with an object.
    fn wrong(&self, object: &Value) -> Option<u64> {
        match &object["event"] {
            Value::Null => return Some(12),
            Value::String(text) if text.is_empty() => return Some(13),
            Value::Object(event) if event.is_empty() => return Some(13),
            _ => {}
        }
        // All of them may be left out: a sender that has no name for its host leaves that to Splunk.
        let is_text = |key: &&str| object.get(key).is_none_or(Value::is_string);
        if !object["time"].is_number() || !["host", "source", "sourcetype"].iter().all(is_text) {
            return Some(6);
        }
        let flat = |value: &Value| !value.is_object() && !value.is_array();
        if object["fields"].as_object().is_none_or(|fields| !fields.values().all(flat)) {
            return Some(15);
        }
        if object["index"].as_str().is_some_and(|index| !self.indexes.contains(index)) {
            return Some(7);
        }
        self.refused_text.as_ref().filter(|text| object["event"].to_string().contains(text.as_str())).map(|_| 6)
    }

    fn take(&mut self, channel: Option<String>, body: &[u8]) -> Response {
        let objects: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(body).into_iter().collect();
        let Ok(objects) = objects else {
            self.broken.push("no JSON objects one after the other".to_owned());
            return code(400, 6, "Invalid data format");
        };
        if objects.is_empty() {
            return code(400, 5, "No data");
        }
        if let Some((number, wrong)) =
            objects.iter().enumerate().find_map(|(number, object)| Some((number, self.wrong(object)?)))
        {
            let body = json!({ "text": "Invalid", "code": wrong, "invalid-event-number": number });
            return Response::new(400, body.to_string());
        }
        let events = objects.into_iter().map(|mut object| object["event"].take()).collect();
        let Some(channel) = channel.filter(|_| self.acknowledges) else {
            self.events.extend::<Vec<Value>>(events);
            return code(200, 0, "Success");
        };
        let next = self.next_ack.entry(channel.clone()).or_default();
        let id = *next;
        *next += 1;
        if self.forgets > 0 {
            self.forgets -= 1;
        } else {
            self.taken.insert((channel, id), (events, 0));
        }
        Response::new(200, json!({ "text": "Success", "code": 0, "ackId": id }).to_string())
    }

    fn answer_acks(&mut self, channel: &str, body: &[u8]) -> Response {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut acks = serde_json::Map::new();
        for id in body["acks"].as_array().into_iter().flatten().filter_map(Value::as_u64) {
            let key = (channel.to_owned(), id);
            // False also stands for an id that it does not know.
            let mut is_indexed = false;
            if let Some((_, asked)) = self.taken.get_mut(&key) {
                *asked += 1;
                is_indexed = *asked >= self.asked_before_true;
            }
            if is_indexed {
                self.events.extend(self.taken.remove(&key).into_iter().flat_map(|(events, _)| events));
            }
            acks.insert(id.to_string(), is_indexed.into());
        }
        Response::new(200, json!({ "acks": acks }).to_string())
    }
}

impl Rules for Splunk {
    fn answer(&mut self, request: &Request) -> Response {
        self.requests += usize::from(request.method == "POST");
        match request.headers.get("authorization").and_then(|value| value.strip_prefix("Splunk ")) {
            None => return code(401, 2, "Token is required"),
            Some(token) if token != self.token => return code(403, 4, "Invalid token"),
            Some(_) => {}
        }
        // The health endpoint takes no channel.
        if (request.method.as_str(), request.path.as_str()) == ("GET", "/services/collector/health") {
            self.asked_health += 1;
            return match self.queues_full {
                true => code(503, 18, "HEC is unhealthy, queues are full"),
                false => code(200, 17, "HEC is healthy"),
            };
        }
        let channel = request.headers.get("x-splunk-request-channel").cloned();
        if self.acknowledges && channel.as_ref().is_none_or(|channel| channel.len() != 36) {
            return code(400, 10, "Data channel is missing");
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/services/collector/event") if self.queues_full => code(503, 9, "Server is busy"),
            ("POST", "/services/collector/event") => self.take(channel, &request.body),
            ("POST", "/services/collector/ack") if self.acknowledges => {
                self.answer_acks(&channel.unwrap_or_default(), &request.body)
            }
            ("POST", "/services/collector/ack") => code(400, 14, "ACK is disabled"),
            _ => Response::new(404, "no such endpoint"),
        }
    }

    fn ids(&self) -> Vec<String> {
        self.events.iter().map(|line| line["id"].as_str().expect("each line has an id").to_owned()).collect()
    }

    fn broken(&self) -> &[String] {
        &self.broken
    }
}
