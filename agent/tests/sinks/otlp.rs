//! OTLP: form, codes, partial success.

use std::time::Duration;

use crate::{
    feed::{self, Feed, PATIENCE, until},
    servers::{
        http::{Rules, Server},
        otlp::Otlp,
    },
};

fn configuration(url: &str, more: &str) -> String {
    feed::configuration("otlp", url, more)
}

#[test]
fn every_line_arrives_in_order_and_breaks_no_rule() {
    let spools = tempfile::tempdir().unwrap();
    let secret = spools.path().join("secret");
    std::fs::write(&secret, "Bearer x").unwrap();
    let server = Server::start(Otlp { authorization: Some("Bearer x".to_owned()), ..Otlp::default() });
    let more = format!("headers = {{ authorization = {{ file = \"{}\" }} }}", secret.display());
    let mut feed = Feed::start("order", &configuration(&server.url(), &more), spools.path());
    feed.send(200, "x");
    feed.end(PATIENCE);
    server.with(|otlp| {
        assert_eq!(otlp.broken, Vec::<String>::new());
        let numbers: Vec<u64> = otlp.ids().iter().map(|id| id.rsplit('-').next().unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>());
        assert!(otlp.requests < 30, "{}", otlp.requests);
    });
}

#[test]
fn a_partial_success_is_counted_and_not_sent_again() {
    let spools = tempfile::tempdir().unwrap();
    let server = Server::start(Otlp { refused_text: Some("poison".to_owned()), ..Otlp::default() });
    let mut feed = Feed::start("partial", &configuration(&server.url(), ""), spools.path());
    let sent = feed.send(20, "good");
    feed.send(3, "poison");
    until("the good ones delivered", || server.ids() == sent);
    let mut rejected = 0;
    let began = std::time::Instant::now();
    while rejected < 3 && began.elapsed() < PATIENCE {
        rejected += feed.account.take_losses().get("sink_rejected").copied().unwrap_or(0);
        std::thread::sleep(Duration::from_millis(10));
    }
    feed.end(PATIENCE);
    assert_eq!(rejected, 3);
    assert_eq!(server.with(|otlp| otlp.ids().len()), 20, "nothing twice");
}
