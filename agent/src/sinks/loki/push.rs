//! The bodies of a push: logproto's `PushRequest` (`pkg/push/push.proto` of Loki, declared by hand: no protoc is needed to
//! build), or the same as JSON.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::{Value, json};

/// Lines with the same labels, sorted by time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Names and values.
    pub labels: BTreeMap<String, String>,
    /// What is in it.
    pub entries: Vec<Entry>,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Nanoseconds since 1970.
    pub time_ns: i128,
    /// The line itself.
    pub line: String,
    /// Structured metadata: names and values; none if it is not wanted.
    pub metadata: Vec<(&'static str, String)>,
}

#[derive(Clone, PartialEq, Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<StreamAdapter>,
}

#[derive(Clone, PartialEq, Message)]
struct StreamAdapter {
    /// As a LogQL selector.
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

/// `google.protobuf.Timestamp`: nanoseconds always count forward.
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

/// `application/x-protobuf`: in snappy's block format, which is part of the content type and no content encoding.
///
/// # Errors
///
/// If it has more bytes than that format can count (4 GiB).
pub fn protobuf(streams: Vec<Stream>) -> Result<Vec<u8>, snap::Error> {
    let streams = streams.into_iter().map(|Stream { labels, entries }| StreamAdapter {
        labels: selector(&labels),
        entries: entries.into_iter().map(entry).collect(),
    });
    let request = PushRequest { streams: streams.collect() };
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec())
}

fn entry(Entry { time_ns, line, metadata }: Entry) -> EntryAdapter {
    const SECOND: i128 = 1_000_000_000;
    let pair = |(name, value): (&str, String)| LabelPairAdapter { name: name.to_owned(), value };
    EntryAdapter {
        timestamp: Some(Timestamp {
            seconds: i64::try_from(time_ns.div_euclid(SECOND)).unwrap_or_default(),
            nanos: i32::try_from(time_ns.rem_euclid(SECOND)).unwrap_or_default(),
        }),
        line,
        structured_metadata: metadata.into_iter().map(pair).collect(),
    }
}

/// `{cluster="prod", job="rstscope"}`. Values are quoted as in Go, whose rules LogQL has.
fn selector(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' | '"' => text.extend(['\\', character]),
            _ if character.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => text.push(character),
        }
    }
    text
}

/// `application/json`.
#[must_use]
pub fn json(streams: Vec<Stream>) -> Vec<u8> {
    let value = |Entry { time_ns, line, metadata }: Entry| {
        let time = time_ns.to_string();
        if metadata.is_empty() {
            return json!([time, line]);
        }
        let metadata: serde_json::Map<String, Value> =
            metadata.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        json!([time, line, metadata])
    };
    let streams: Vec<Value> = streams
        .into_iter()
        .map(|Stream { labels, entries }| {
            json!({ "stream": labels, "values": entries.into_iter().map(value).collect::<Vec<_>>() })
        })
        .collect();
    json!({ "streams": streams }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_bytes_that_push_proto_says() {
        let labels = BTreeMap::from([("job".to_owned(), "x".to_owned())]);
        let entries =
            vec![Entry { time_ns: 1_000_000_002, line: "l".to_owned(), metadata: vec![("a", "b".to_owned())] }];
        let body = protobuf(vec![Stream { labels, entries }]).unwrap();
        let body = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        // Written down by the encoding's rules: field number << 3 | wire type, length, content.
        let expected = [
            &[0x0a, 30, 0x0a, 9][..],
            b"{job=\"x\"}",
            &[0x12, 17, 0x0a, 4, 0x08, 1, 0x10, 2, 0x12, 1],
            b"l",
            &[0x1a, 6, 0x0a, 1],
            b"a",
            &[0x12, 1],
            b"b",
        ]
        .concat();
        assert_eq!(body, expected);
    }

    #[test]
    fn a_time_before_1970_counts_its_nanoseconds_forward() {
        let timestamp = entry(Entry { time_ns: -1, line: String::new(), metadata: vec![] }).timestamp.unwrap();
        assert_eq!((timestamp.seconds, timestamp.nanos), (-1, 999_999_999));
    }

    #[test]
    fn a_value_is_quoted_as_in_go() {
        let labels = BTreeMap::from([("a".to_owned(), "x\"y\\z\nü".to_owned()), ("b".to_owned(), "1".to_owned())]);
        assert_eq!(selector(&labels), "{a=\"x\\\"y\\\\z\\u000aü\", b=\"1\"}");
    }
}
