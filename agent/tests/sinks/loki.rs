//! Loki: order, limits, codes.

use std::time::{Duration, Instant};

use crate::{
    feed::{self, Feed, PATIENCE, until},
    servers::{
        http::{Rules, Server, Trouble},
        loki::Loki,
    },
};

fn configuration(url: &str, more: &str) -> String {
    feed::configuration("loki", url, more)
}

#[test]
fn every_line_arrives_in_order_and_breaks_no_rule_as_protobuf() {
    in_order("");
}

#[test]
fn every_line_arrives_in_order_and_breaks_no_rule_as_json() {
    in_order("encoding = \"json\"\n");
}

fn in_order(encoding: &str) {
    let spools = tempfile::tempdir().unwrap();
    let server = Server::start(Loki { tenant: Some("shop".to_owned()), ..Loki::default() });
    let more = format!("{encoding}tenant = \"shop\"\nlabels = {{ cluster = 'a \"b\" \\ ü' }}");
    let mut feed = Feed::start("order", &configuration(&server.url(), &more), spools.path());
    let sent = feed.send(300, "x");
    feed.end(PATIENCE);
    server.with(|loki| {
        assert_eq!(loki.broken, Vec::<String>::new());
        let ids = loki.ids();
        let numbers: Vec<u64> = ids.iter().map(|id| id.rsplit('-').next().unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (0..300).collect::<Vec<_>>(), "each once, in order");
        assert_eq!(sent.len(), 300);
        assert!(loki.largest <= 50 && loki.requests < 40, "{} lines, {} requests", loki.largest, loki.requests);
        assert_eq!(loki.streams.len(), 1, "one stream for a node: {:?}", loki.streams);
        let stream = loki.streams.first_key_value().unwrap().0;
        assert!(stream.contains(r#""cluster": "a \"b\" \\ ü""#), "{stream}");
        assert_eq!(loki.with_metadata, 300);
    });
}

#[test]
fn one_line_that_is_refused_costs_only_itself() {
    let spools = tempfile::tempdir().unwrap();
    let server = Server::start(Loki { refused_text: Some("poison".to_owned()), ..Loki::default() });
    let mut feed = Feed::start("bad", &configuration(&server.url(), ""), spools.path());
    let mut sent = feed.send(30, "good");
    feed.send(1, "poison");
    sent.extend(feed.send(30, "good"));
    until("the good ones delivered", || server.ids() == sent);
    until("the bad one counted", || feed.account.take_losses().get("sink_rejected") == Some(&1));
    feed.end(PATIENCE);
}

#[test]
fn a_wrong_secret_stops_it_and_what_waits_is_delivered_by_the_next_one() {
    let spools = tempfile::tempdir().unwrap();
    let token = spools.path().join("token");
    std::fs::write(&token, "wrong\n").unwrap();
    let server = Server::start(Loki { token: Some("right".to_owned()), ..Loki::default() });
    let more = format!("bearer_token = {{ file = \"{}\" }}", token.display());
    let mut feed = Feed::start("secret", &configuration(&server.url(), &more), spools.path());
    let sent = feed.send(5, "x");
    until("asked", || server.with(|loki| loki.requests > 0));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.with(|loki| loki.requests), 1, "it is not asked over and over");
    let began = Instant::now();
    feed.end(Duration::from_millis(300));
    assert!(began.elapsed() < Duration::from_secs(3), "the end waits for nobody");
    assert!(server.ids().is_empty());
    std::fs::write(&token, "right\n").unwrap();
    let feed = Feed::start("secret", &configuration(&server.url(), &more), spools.path());
    until("delivered", || server.ids() == sent);
    feed.end(PATIENCE);
}

#[test]
fn a_server_that_hangs_does_not_hold_up_the_end_and_the_spool_keeps_the_lines() {
    let spools = tempfile::tempdir().unwrap();
    let server = Server::start(Loki::default());
    server.set_trouble(Trouble::Silence);
    let slow = configuration(&server.url(), "").replace("500ms", "60s");
    let mut feed = Feed::start("hang", &slow, spools.path());
    let sent = feed.send(5, "x");
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    feed.end(Duration::from_millis(500));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    server.set_trouble(Trouble::None);
    let feed = Feed::start("hang", &configuration(&server.url(), ""), spools.path());
    until("delivered", || server.ids() == sent);
    feed.end(PATIENCE);
}

#[test]
fn without_a_spool_s_disk_lines_are_still_delivered() {
    let spools = tempfile::tempdir().unwrap();
    // A file where the folder should be, which even root cannot write below.
    std::fs::write(spools.path().join("loki"), "").unwrap();
    let server = Server::start(Loki::default());
    let mut feed = Feed::start("memory", &configuration(&server.url(), ""), spools.path());
    let sent = feed.send(20, "x");
    until("delivered", || server.ids() == sent);
    feed.end(PATIENCE);
}
