//! Splunk: form, codes, acknowledgement.

use std::{collections::BTreeSet, path::Path, time::Duration};

use crate::{
    feed::{Feed, PATIENCE, until},
    servers::{
        http::{Server, Trouble},
        splunk::Splunk,
    },
};

fn start(server: &Server<Splunk>, name: &str, more: &str, spools: &Path) -> Feed {
    let token = spools.join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let configuration = format!(
        "[sinks.splunk]\ntype = \"splunk\"\nurl = \"{}\"\nretry = {{ first = \"50ms\", most = \"200ms\" }}\n\
         token = {{ file = \"{}\" }}\nhttp = {{ timeout = \"500ms\" }}\nbatch = {{ lines = 50, wait = \"20ms\" }}\n{more}",
        server.url(),
        token.display()
    );
    Feed::start(name, &configuration, spools)
}

fn server(more: Splunk) -> Server<Splunk> {
    Server::start(Splunk { token: "secret".to_owned(), ..more })
}

fn unique(server: &Server<Splunk>) -> BTreeSet<String> {
    server.with(|splunk| splunk.ids().into_iter().collect())
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
fn the_server_s_troubles_delay_lines_and_lose_none() {
    let spools = tempfile::tempdir().unwrap();
    let mut server = server(Splunk::default());
    let mut feed = start(&server, "trouble", "", spools.path());
    let mut sent = feed.send(10, "x");
    for trouble in
        [Trouble::Status(429, None), Trouble::Status(503, None), Trouble::Silence, Trouble::HalfAnswer, Trouble::Close]
    {
        server.set_trouble(trouble);
        sent.extend(feed.send(20, "x"));
        std::thread::sleep(Duration::from_millis(300));
        server.set_trouble(Trouble::None);
        until("all delivered", || unique(&server) == sent);
    }
    sent.extend(feed.send(20, "x"));
    server.restart(Duration::from_millis(300));
    until("all delivered", || unique(&server) == sent);
    assert!(feed.account.take_losses().is_empty());
    feed.end(PATIENCE);
}

#[test]
fn lines_are_kept_until_they_are_indexed() {
    let spools = tempfile::tempdir().unwrap();
    let server = server(Splunk { acknowledges: true, asked_before_true: 3, ..Splunk::default() });
    let mut feed = start(&server, "ack", "acknowledge = true", spools.path());
    let mut sent = feed.send(20, "x");
    until("indexed", || unique(&server) == sent);
    // An indexer that dies says false for ever; what it had is sent again.
    server.with(|splunk| splunk.forgets = 1);
    feed.end(PATIENCE);
    let mut feed = start(&server, "ack2", "acknowledge = true\nacknowledge_within = \"1500ms\"", spools.path());
    sent.extend(feed.send(20, "x"));
    until("indexed at the second try", || unique(&server) == sent);
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
    until("the good ones delivered", || unique(&server) == sent);
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
    until("delivered", || unique(&server) == sent);
    feed.end(PATIENCE);
}
