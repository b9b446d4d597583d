use reqwest::StatusCode;

use super::*;

fn otlp() -> Otlp {
    let text = "url = \"http://c:4318\"\nresource = { \"k8s.cluster.name\" = \"prod\" }";
    Otlp::new(&toml::from_str(text).unwrap()).unwrap()
}

fn line(role: &str) -> SpooledLine {
    let line = json!({
        "id": "i-1", "time": "2026-11-21T09:33:23.123456789Z", "type": "reset", "node": "n1", "role": role,
        "cause": { "code": "stale_connection_reuse", "benign": false }, "age_ms": 12.5,
        "local": { "ip": "10.0.0.1", "port": 8080, "process": { "pid": 7, "comm": "node" } },
        "peer": { "ip": "10.0.0.2", "port": 40000 },
    });
    SpooledLine::read(line.to_string().as_bytes()).unwrap()
}

fn sent(line: SpooledLine) -> Value {
    let body: Value = serde_json::from_slice(&otlp().body(&[line]).unwrap()).unwrap();
    body["resourceLogs"][0].clone()
}

fn attribute(list: &Value, key: &str) -> Value {
    let found = list["attributes"].as_array().unwrap().iter().find(|attribute| attribute["key"] == key);
    found.map_or(Value::Null, |attribute| attribute["value"].clone())
}

#[test]
fn a_record_is_what_the_specification_s_json_asks_for() {
    let logs = sent(line("server"));
    assert_eq!(attribute(&logs["resource"], "service.name"), json!({ "stringValue": "rstscope" }));
    assert_eq!(attribute(&logs["resource"], "host.name"), json!({ "stringValue": "n1" }));
    assert_eq!(attribute(&logs["resource"], "k8s.cluster.name"), json!({ "stringValue": "prod" }));
    let record = &logs["scopeLogs"][0]["logRecords"][0];
    assert_eq!(record["timeUnixNano"], "1795253603123456789", "64-bit numbers are strings");
    assert_eq!((&record["eventName"], &record["severityNumber"]), (&json!("rstscope.reset"), &json!(13)));
    assert_eq!(record["body"]["stringValue"], line("server").text);
    assert_eq!(attribute(record, "network.local.port"), json!({ "intValue": "8080" }));
    assert_eq!(attribute(record, "rstscope.age_ms"), json!({ "doubleValue": 12.5 }));
    assert_eq!(attribute(record, "rstscope.benign"), json!({ "boolValue": false }));
    assert_eq!(attribute(record, "k8s.pod.name"), Value::Null, "what is not known is left out");
}

#[test]
fn client_and_server_are_named_only_if_it_is_known_who_is_which() {
    let record = |role| sent(line(role))["scopeLogs"][0]["logRecords"][0].clone();
    let address = |role, key| attribute(&record(role), key)["stringValue"].clone();
    assert_eq!(
        (address("server", "server.address"), address("server", "client.address")),
        (json!("10.0.0.1"), json!("10.0.0.2"))
    );
    assert_eq!(
        (address("client", "server.address"), address("client", "client.address")),
        (json!("10.0.0.2"), json!("10.0.0.1"))
    );
    assert_eq!(address("unknown", "server.address"), Value::Null);
}

#[test]
fn answers_mean_what_the_specification_says() {
    let judge = |status, body: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        otlp().judge(&Answer { status, headers: Default::default(), body: body.as_bytes().to_vec() })
    };
    assert_eq!(judge(200, "{}"), Verdict::Delivered);
    assert_eq!(judge(200, "{\"partialSuccess\":{\"rejectedLogRecords\":\"0\"}}"), Verdict::Delivered);
    let partly = "{\"partialSuccess\":{\"rejectedLogRecords\":\"3\",\"errorMessage\":\"too old\"}}";
    assert_eq!(judge(200, partly), Verdict::DeliveredBut(3, "too old".to_owned()));
    for status in [429, 502, 503, 504] {
        assert!(matches!(judge(status, ""), Verdict::Retry(..)), "{status}");
    }
    for status in [400, 413] {
        assert!(matches!(judge(status, ""), Verdict::Split(_)), "{status}");
    }
    for status in [401, 403, 404, 500, 501] {
        assert!(matches!(judge(status, ""), Verdict::Refused(_)), "{status}");
    }
}

#[test]
fn a_header_that_cannot_be_is_refused() {
    let text = "url = \"http://c:4318\"\nheaders = { \"a b\" = { env = \"X\" } }";
    let settings: OtlpSettings = toml::from_str(text).unwrap();
    assert!(settings.check().unwrap_err().0.contains("a b"));
}
