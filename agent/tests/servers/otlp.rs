//! The rules of OTLP/HTTP logs in JSON, from the specification of the OpenTelemetry protocol.

use serde_json::{Value, json};

use super::http::{Request, Response, Rules};

/// What it has, and what it wants.
#[derive(Default)]
pub struct Otlp {
    /// The body of each record, as often as it came.
    pub lines: Vec<Value>,
    pub requests: usize,
    /// The header `authorization` has to be this.
    pub authorization: Option<String>,
    /// Records with this in them are refused, the others of their request taken.
    pub refused_text: Option<String>,
    /// Each sentence is a rule that was broken.
    pub broken: Vec<String>,
}

fn is_decimal(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty() && text.chars().all(|digit| digit.is_ascii_digit()))
}

/// Keys are lowerCamelCase, 64-bit numbers strings, enums numbers, values of a known kind.
fn wrong(record: &Value) -> Option<&'static str> {
    const KEYS: [&str; 7] =
        ["timeUnixNano", "observedTimeUnixNano", "severityNumber", "severityText", "eventName", "body", "attributes"];
    let record = record.as_object()?;
    if !record.keys().all(|key| KEYS.contains(&key.as_str())) {
        return Some("a key that the protocol does not have");
    }
    if !is_decimal(&record["timeUnixNano"]) || !is_decimal(&record["observedTimeUnixNano"]) {
        return Some("a time is a decimal string");
    }
    if !record["severityNumber"].as_u64().is_some_and(|number| (1..=24).contains(&number)) {
        return Some("a severity is a number from 1 to 24");
    }
    let right = |attribute: &Value| {
        let (key, value) = (attribute["key"].as_str(), attribute["value"].as_object());
        let one = value.filter(|value| value.len() == 1).and_then(|value| value.iter().next());
        let right = one.is_some_and(|(kind, value)| match kind.as_str() {
            "stringValue" => value.is_string(),
            "boolValue" => value.is_boolean(),
            "intValue" => is_decimal(value),
            "doubleValue" => value.is_number(),
            _ => false,
        });
        key.is_some_and(|key| !key.is_empty()) && right
    };
    let attributes = record["attributes"].as_array()?;
    let mut keys: Vec<&str> = attributes.iter().filter_map(|attribute| attribute["key"].as_str()).collect();
    keys.sort_unstable();
    if !attributes.iter().all(right) || keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return Some("attributes have a key of their own and one value of a known kind");
    }
    None
}

impl Otlp {
    fn breaks(&mut self, rule: &str) -> Response {
        self.broken.push(rule.to_owned());
        Response::new(400, json!({ "message": rule }).to_string())
    }
}

impl Rules for Otlp {
    fn answer(&mut self, request: &Request) -> Response {
        self.requests += 1;
        if (request.method.as_str(), request.path.as_str()) != ("POST", "/v1/logs") {
            return Response::new(404, "");
        }
        if self.authorization.is_some() && request.headers.get("authorization") != self.authorization.as_ref() {
            return Response::new(401, "");
        }
        if request.headers.get("content-type").map(String::as_str) != Some("application/json") {
            return self.breaks("content type");
        }
        let Ok(body) = serde_json::from_slice::<Value>(&request.body) else { return self.breaks("no JSON") };
        let Some(resources) = body["resourceLogs"].as_array() else { return self.breaks("no resourceLogs") };
        let mut refused = 0;
        for resource in resources {
            if !resource["resource"]["attributes"].is_array() {
                return self.breaks("a resource has attributes");
            }
            for record in resource["scopeLogs"]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|scope| scope["logRecords"].as_array().cloned().unwrap_or_default())
            {
                if let Some(rule) = wrong(&record) {
                    return self.breaks(rule);
                }
                let text = record["body"]["stringValue"].as_str().unwrap_or_default();
                if self.refused_text.as_ref().is_some_and(|refused| text.contains(refused.as_str())) {
                    refused += 1;
                    continue;
                }
                let Ok(line) = serde_json::from_str(text) else { return self.breaks("the body is a line") };
                self.lines.push(line);
            }
        }
        if refused == 0 {
            return Response::new(200, "{}");
        }
        // As a 64-bit number, which is a string.
        let partial = json!({ "rejectedLogRecords": refused.to_string(), "errorMessage": "as commanded" });
        Response::new(200, json!({ "partialSuccess": partial }).to_string())
    }

    fn ids(&self) -> Vec<String> {
        self.lines.iter().map(|line| line["id"].as_str().expect("each line has an id").to_owned()).collect()
    }

    fn broken(&self) -> &[String] {
        &self.broken
    }
}
