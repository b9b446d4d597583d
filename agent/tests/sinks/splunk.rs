//! Splunk: form, codes, acknowledgement.

use std::{collections::BTreeSet, path::Path, time::Duration};

use crate::{
    feed::{self, Feed, PATIENCE, until},
    servers::{
        http::{Rules, Server},
        splunk::Splunk,
    },
};

fn start(server: &Server<Splunk>, name: &str, more: &str, spools: &Path) -> Feed {
    let more = format!("{}{more}", feed::token(spools));
    Feed::start(name, &feed::configuration("splunk", &server.url(), &more), spools)
}

fn server(more: Splunk) -> Server<Splunk> {
    Server::start(Splunk { token: "secret".to_owned(), ..more })
}

#[test]
fn every_line_arrives_in_order_and_breaks_no_rule() {
    let spools = tempfile::tempdir().unwrap();
    let server = server(Splunk { indexes: BTreeSet::from(["net".to_owned()]), ..Splunk::default() });
    let mut feed = start(&server, "order", "index = \"net\"", spools.path());
    feed.send(200, "x");
    feed.end(PATIENCE);
    server.with(|splunk| {
        assert_eq!(splunk.broken, Vec::<String>::new());
        let numbers: Vec<u64> = splunk.ids().iter().map(|id| id.rsplit('-').next().unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>());
        assert!(splunk.requests < 30, "{}", splunk.requests);
    });
}

#[test]
fn lines_are_kept_until_they_are_indexed() {
    let spools = tempfile::tempdir().unwrap();
    let server = server(Splunk { acknowledges: true, asked_before_true: 3, ..Splunk::default() });
    let mut feed = start(&server, "ack", "acknowledge = true", spools.path());
    let mut sent = feed.send(20, "x");
    until("indexed", || server.ids() == sent);
    // An indexer that dies says false for ever; what it had is sent again.
    server.with(|splunk| splunk.forgets = 1);
    feed.end(PATIENCE);
    let mut feed = start(&server, "ack2", "acknowledge = true\nacknowledge_within = \"1500ms\"", spools.path());
    sent.extend(feed.send(20, "x"));
    until("indexed at the second try", || server.ids() == sent);
    feed.end(PATIENCE);
    assert_eq!(server.with(|splunk| splunk.ids().len()), 40, "nothing was indexed twice");
}

#[test]
fn one_line_that_is_refused_costs_only_itself() {
    let spools = tempfile::tempdir().unwrap();
    let server = server(Splunk { refused_text: Some("poison".to_owned()), ..Splunk::default() });
    let mut feed = start(&server, "bad", "", spools.path());
    let mut sent = feed.send(30, "good");
    feed.send(1, "poison");
    sent.extend(feed.send(30, "good"));
    until("the good ones delivered", || server.ids() == sent);
    until("the bad one counted", || feed.account.take_losses().get("sink_rejected") == Some(&1));
    feed.end(PATIENCE);
}

#[test]
fn an_index_that_does_not_exist_stops_it_and_loses_no_line() {
    let spools = tempfile::tempdir().unwrap();
    let server = server(Splunk::default());
    let mut feed = start(&server, "index", "index = \"wrong\"", spools.path());
    let sent = feed.send(5, "x");
    until("asked", || server.with(|splunk| splunk.requests > 0));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.with(|splunk| splunk.requests), 1, "it is not asked over and over");
    assert!(feed.account.take_losses().is_empty());
    feed.end(Duration::from_millis(300));
    let feed = start(&server, "index", "", spools.path());
    until("delivered", || server.ids() == sent);
    feed.end(PATIENCE);
}

#[test]
fn while_queues_are_full_it_asks_about_health_and_sends_nothing() {
    let spools = tempfile::tempdir().unwrap();
    let server = server(Splunk { queues_full: true, ..Splunk::default() });
    let mut feed = start(&server, "health", "", spools.path());
    let sent = feed.send(5, "x");
    until("asked about its health a few times", || server.with(|splunk| splunk.asked_health >= 3));
    assert_eq!(server.with(|splunk| splunk.requests), 1, "only the one that found it busy");
    assert!(server.ids().is_empty());
    server.with(|splunk| splunk.queues_full = false);
    until("delivered", || server.ids() == sent);
    let asked = server.with(|splunk| splunk.asked_health);
    let more = feed.send(5, "x");
    until("delivered", || server.ids().is_superset(&more));
    feed.end(PATIENCE);
    assert_eq!(server.with(|splunk| splunk.asked_health), asked, "one that works is not asked");
}
