use serde_json::{Value, json};

use super::*;

fn settings() -> LokiSettings {
    let text =
        "url = \"http://loki:3100/prefix/\"\ntenant = \"shop\"\nencoding = \"json\"\nlabels = { cluster = \"prod\" }";
    toml::from_str(text).unwrap()
}

fn body(settings: &LokiSettings, lines: &[SpooledLine]) -> Value {
    serde_json::from_slice(&Loki::new(settings).unwrap().body(lines).unwrap()).unwrap()
}

fn line(number: u8, node: &str) -> SpooledLine {
    let line = json!({
        "id": format!("boot-{number}"), "time": format!("2026-11-21T09:33:2{number}.000000001Z"), "type": "reset",
        "node": node, "cause": { "code": "stale_connection_reuse", "benign": false },
        "local": { "ip": "10.0.0.1", "port": 8080, "pod": { "name": "web-1", "namespace": "shop" } },
    });
    SpooledLine::read(line.to_string().as_bytes()).unwrap()
}

#[test]
fn a_request_has_a_stream_for_each_node_in_order_of_time() {
    let loki = Loki::new(&settings()).unwrap();
    assert_eq!(loki.push.as_str(), "http://loki:3100/prefix/loki/api/v1/push");
    let body = body(&settings(), &[line(5, "a"), line(3, "a"), line(4, "b")]);
    let streams = body["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 2);
    assert_eq!(streams[0]["stream"], json!({ "cluster": "prod", "job": "rstscope", "node": "a" }));
    let values = streams[0]["values"].as_array().unwrap();
    assert_eq!(values[0][0], "1795253603000000001");
    assert_eq!(values[1][0], "1795253605000000001");
    assert_eq!(values[0][1], line(3, "a").text, "the line itself is not changed");
}

#[test]
fn structured_metadata_is_flat_strings_and_only_what_is_known() {
    let sent = body(&settings(), &[line(1, "a")]);
    let metadata = sent["streams"][0]["values"][0][2].as_object().unwrap();
    assert!(metadata.values().all(Value::is_string), "{metadata:?}");
    assert_eq!(metadata["local_port"], "8080");
    assert_eq!(metadata["pod"], "web-1");
    assert_eq!(metadata["benign"], "false");
    assert!(!metadata.contains_key("peer_ip"));
    let without = LokiSettings { structured_metadata: false, ..settings() };
    assert_eq!(body(&without, &[line(1, "a")])["streams"][0]["values"][0].as_array().unwrap().len(), 2);
}

#[test]
fn protobuf_is_what_is_sent_unless_told_otherwise_and_never_packed_twice() {
    let settings: LokiSettings = toml::from_str("url = \"http://loki:3100\"").unwrap();
    assert_eq!(settings.encoding, Encoding::Protobuf);
    let body = Loki::new(&settings).unwrap().body(&[line(1, "a")]).unwrap();
    let unpacked = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    assert!(unpacked.windows(5).any(|window| window == b"web-1"), "the line is in it");
}

#[test]
fn labels_that_loki_would_refuse_are_refused_first() {
    for (name, value) in [("job", "x"), ("node", "x"), ("1st", "x"), ("a-b", "x"), ("", "x"), ("a", "")] {
        let labels = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let refused = LokiSettings { labels, ..settings() }.check().unwrap_err().0;
        assert!(refused.contains(&format!("labels.{name}")), "{refused}");
    }
    assert_eq!(settings().check(), Ok(()));
}

#[test]
fn blocked_ingestion_is_no_success() {
    let answer =
        Answer { status: reqwest::StatusCode::from_u16(260).unwrap(), headers: Default::default(), body: vec![] };
    assert!(matches!(Loki::new(&settings()).unwrap().judge(&answer), Verdict::Retry(..)));
}

/// Dashboards are checked against the page.
#[test]
fn the_page_names_what_is_sent_as_structured_metadata() {
    let page = include_str!("../../../../docs/sinks.md");
    let (_, rest) = page.split_once("structured metadata: ").unwrap();
    let named: Vec<&str> = rest.split("\n\n").next().unwrap().split('`').skip(1).step_by(2).collect();
    assert_eq!(named, METADATA.map(|(name, _)| name));
}
