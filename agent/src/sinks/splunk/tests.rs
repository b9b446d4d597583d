use reqwest::StatusCode;

use super::*;

fn splunk() -> Splunk {
    Splunk::new(&toml::from_str("url = \"https://s:8088/\"\ntoken = { env = \"T\" }\nindex = \"net\"").unwrap())
        .unwrap()
}

fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: Default::default(),
        body: body.as_bytes().to_vec(),
    }
}

#[test]
fn a_request_is_objects_one_after_the_other() {
    let line = json!({
        "id": "i-1", "time": "2026-11-21T09:33:23.123456789Z", "type": "reset", "node": "n1",
        "cause": { "code": "unknown" }, "local": { "ip": "10.0.0.1" },
    });
    let line = SpooledLine::read(line.to_string().as_bytes()).unwrap();
    let body = splunk().body(&[line.clone(), line.clone()]).unwrap();
    let objects: Vec<Value> = serde_json::Deserializer::from_slice(&body).into_iter().map(Result::unwrap).collect();
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[0]["time"].to_string(), "1795253603.123456");
    assert_eq!(objects[0]["event"], line.value);
    assert_eq!((&objects[0]["host"], &objects[0]["index"]), (&json!("n1"), &json!("net")));
    assert_eq!(objects[0]["fields"], json!({ "id": "i-1", "type": "reset", "cause": "unknown" }));
    assert_eq!(splunk().event.as_str(), "https://s:8088/services/collector/event");
    assert_eq!(splunk().health.as_str(), "https://s:8088/services/collector/health");
}

#[test]
fn codes_mean_what_splunk_says() {
    let judge = |status, code| splunk().judge(&answer(status, &json!({ "text": "x", "code": code }).to_string()));
    assert_eq!(judge(200, 0), Verdict::Delivered);
    for (status, code) in [(400, 5), (400, 6), (400, 12), (400, 13), (400, 15)] {
        assert!(matches!(judge(status, code), Verdict::Split(_)), "{code}");
    }
    for (status, code) in [(400, 7), (400, 10), (400, 11), (400, 14), (401, 2), (401, 3), (403, 1), (403, 4)] {
        assert!(matches!(judge(status, code), Verdict::Refused(_)), "{code}");
    }
    // 18 is the health endpoint's: queues are full.
    for (status, code) in [(500, 8), (503, 9), (429, 9), (503, 18)] {
        assert!(matches!(judge(status, code), Verdict::Retry(..)), "{code}");
    }
}

#[test]
fn only_an_acknowledgement_that_is_true_makes_lines_safe() {
    let mut splunk = splunk();
    assert_eq!(splunk.pending(&answer(200, "{\"code\":0}")), Ok(None));
    splunk.settings.acknowledge = true;
    assert!(splunk.pending(&answer(200, "{\"code\":0}")).unwrap_err().contains("ackId"));
    let pending = splunk.pending(&answer(200, "{\"code\":0,\"ackId\":7}")).unwrap().unwrap();
    for (body, is_safe) in
        [("{\"acks\":{\"7\":true}}", true), ("{\"acks\":{\"7\":false}}", false), ("{}", false), ("", false)]
    {
        assert_eq!(splunk.is_safe(&pending, &answer(200, body)), is_safe, "{body}");
    }
    assert!(!splunk.is_safe(&pending, &answer(503, "{\"acks\":{\"7\":true}}")));
}

#[test]
fn a_channel_is_a_random_uuid() {
    let (one, other) = (guid(), guid());
    assert_ne!(one, other);
    assert_eq!(one.len(), 36);
    assert_eq!(&one[14..15], "4");
    assert!("89ab".contains(&one[19..20]), "{one}");
}

/// Dashboards are checked against the page.
#[test]
fn the_page_names_the_indexed_fields() {
    let page = include_str!("../../../../docs/sinks.md");
    let (_, rest) = page.split_once("indexed fields: ").unwrap();
    let named: Vec<&str> = rest.split("\n\n").next().unwrap().split('`').skip(1).step_by(2).collect();
    assert_eq!(named, FIELDS.map(|(name, _)| name));
}
