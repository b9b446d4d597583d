//! What servers do wrong, for every kind of them: nothing is lost by it, and what no pause mends is not asked over and over.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, SystemTime},
};

use crate::{
    feed::{self, Feed, PATIENCE, until},
    servers::{
        http::{Rules, Server, Trouble},
        loki::Loki,
        otlp::Otlp,
        splunk::Splunk,
    },
};

fn splunk(acknowledges: bool) -> Splunk {
    Splunk { token: "secret".to_owned(), acknowledges, asked_before_true: 1, ..Splunk::default() }
}

/// What a sink of this type needs beside the address.
fn more(kind: &str, folder: &Path) -> String {
    if kind == "splunk" { feed::token(folder) } else { String::new() }
}

/// Codes that any of the three tries again, and whatever can happen to a connection.
fn passing() -> Vec<Trouble> {
    vec![
        Trouble::status(429),
        Trouble::status(503),
        Trouble::Silence,
        Trouble::HalfAnswer,
        Trouble::HalfBody,
        Trouble::Reset,
        Trouble::Garbage,
        Trouble::Close,
    ]
}

fn passes<R: Rules>(kind: &str, rules: R, more_keys: &str, troubles: Vec<Trouble>) {
    let spools = tempfile::tempdir().unwrap();
    let mut server = Server::start(rules);
    let more = format!("{}{more_keys}", more(kind, spools.path()));
    let mut feed = Feed::start("trouble", &feed::configuration(kind, &server.url(), &more), spools.path());
    let mut sent = feed.send(10, "x");
    for trouble in troubles {
        server.set_trouble(trouble.clone());
        let before = server.requests();
        sent.extend(feed.send(20, "x"));
        // One that is closed as soon as it is there brings no request.
        until("met with the trouble", || server.requests() > before || trouble == Trouble::Close);
        std::thread::sleep(Duration::from_millis(300));
        server.set_trouble(Trouble::None);
        until(&format!("all delivered after {trouble:?}"), || server.ids() == sent);
    }
    sent.extend(feed.send(20, "x"));
    server.restart(Duration::from_millis(300));
    until("all delivered after a restart", || server.ids() == sent);
    assert!(feed.account.take_losses().is_empty());
    feed.end(PATIENCE);
    server.with(|rules| assert_eq!(rules.broken(), Vec::<String>::new()));
}

#[test]
fn troubles_of_loki_delay_lines_and_lose_none() {
    passes("loki", Loki::default(), "", [passing(), vec![Trouble::status(500), Trouble::status(260)]].concat());
}

#[test]
fn troubles_of_splunk_delay_lines_and_lose_none() {
    passes("splunk", splunk(false), "", [passing(), vec![Trouble::status(500)]].concat());
}

#[test]
fn troubles_of_splunk_with_acknowledgement_delay_lines_and_lose_none() {
    let more = "acknowledge = true\nacknowledge_within = \"1s\"\n";
    passes("splunk", splunk(true), more, [passing(), vec![Trouble::status(500)]].concat());
}

#[test]
fn troubles_of_a_collector_delay_lines_and_lose_none() {
    passes("otlp", Otlp::default(), "", [passing(), vec![Trouble::status(502), Trouble::status(504)]].concat());
}

/// Each is stopped by, and keeps the lines for, what somebody has to look at.
fn stops<R: Rules>(kind: &str, rules: impl Fn() -> R, troubles: &[Trouble]) {
    for trouble in
        [Trouble::status(401), Trouble::status(403), Trouble::status(404), Trouble::Page].iter().chain(troubles)
    {
        let spools = tempfile::tempdir().unwrap();
        let server = Server::start(rules());
        server.set_trouble(trouble.clone());
        let configuration = feed::configuration(kind, &server.url(), &more(kind, spools.path()));
        let mut feed = Feed::start("stopped", &configuration, spools.path());
        let sent = feed.send(5, "x");
        until("asked", || server.requests() > 0);
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(server.requests(), 1, "{trouble:?}: it is not asked over and over");
        assert!(feed.account.take_losses().is_empty(), "{trouble:?}");
        feed.end(Duration::from_millis(100));
        server.set_trouble(Trouble::None);
        let feed = Feed::start("stopped", &configuration, spools.path());
        until("delivered", || server.ids() == sent);
        feed.end(PATIENCE);
    }
}

#[test]
fn loki_s_refusal_stops_it_and_loses_no_line() {
    stops("loki", Loki::default, &[]);
}

#[test]
fn splunk_s_refusal_stops_it_and_loses_no_line() {
    stops("splunk", || splunk(false), &[]);
}

#[test]
fn a_collector_s_refusal_stops_it_and_loses_no_line() {
    // The specification forbids to try again after this one.
    stops("otlp", Otlp::default, &[Trouble::status(500)]);
}

fn splits<R: Rules>(kind: &str, rules: R, more_keys: &str) {
    let spools = tempfile::tempdir().unwrap();
    let server = Server::start(rules);
    server.set_trouble(Trouble::TooLarge(10_000));
    let more = format!("{}{more_keys}", more(kind, spools.path()));
    let mut feed = Feed::start("large", &feed::configuration(kind, &server.url(), &more), spools.path());
    let sent = feed.send(50, &"x".repeat(300));
    until("delivered", || server.ids() == sent);
    assert!(server.requests() > 2, "it was split");
    assert!(feed.account.take_losses().is_empty());
    feed.end(PATIENCE);
}

#[test]
fn a_request_that_is_too_large_is_split() {
    // The other encoding is too small for that: these lines are much alike.
    splits("loki", Loki::default(), "encoding = \"json\"");
    splits("splunk", splunk(false), "");
    splits("otlp", Otlp::default(), "");
}

#[test]
fn a_line_that_is_too_large_alone_is_given_up_and_counted() {
    let spools = tempfile::tempdir().unwrap();
    let server = Server::start(Otlp::default());
    server.set_trouble(Trouble::TooLarge(10_000));
    let mut feed = Feed::start("largest", &feed::configuration("otlp", &server.url(), ""), spools.path());
    let mut sent = feed.send(2, "x");
    feed.send(1, &"x".repeat(20_000));
    sent.extend(feed.send(2, "x"));
    until("the others delivered", || server.ids() == sent);
    until("the large one counted", || feed.account.take_losses().get("sink_rejected") == Some(&1));
    feed.end(PATIENCE);
}

/// The memory runs over while a request waits for its answer, because there is no disk: the oldest lines go, and these are the
/// ones on their way.
fn runs_over(meanwhile: Trouble, timeout: &str) -> (Feed, Server<Loki>, BTreeSet<String>) {
    let folder = tempfile::tempdir().unwrap();
    let no_folder = folder.path().join("file");
    std::fs::write(&no_folder, "").unwrap();
    let server = Server::start(Loki::default());
    server.set_trouble(meanwhile);
    let configuration = feed::patient("loki", &server.url(), timeout, "spool = { memory_bytes = \"1MiB\" }\n");
    let mut feed = Feed::start("over", &configuration, &no_folder);
    let mut sent = feed.send(50, "x");
    until("on their way", || server.requests() > 0);
    sent.extend(feed.send(1500, &"x".repeat(2000)));
    (feed, server, sent)
}

#[test]
fn a_line_that_arrives_while_it_is_given_up_is_not_told_as_lost() {
    let (feed, server, sent) = runs_over(Trouble::Late(Duration::from_secs(2)), "20s");
    until("the first answer", || feed.account.read().delivered > 0);
    server.set_trouble(Trouble::None);
    until("the rest", || feed.account.read().waiting.is_some_and(|waiting| waiting.lines == 0));
    let delivered = server.ids();
    let first = (0..50).filter(|number| delivered.contains(&format!("over-{number}"))).count();
    assert_eq!(first, 50, "these were on their way");
    let lost = feed.account.take_losses();
    assert!(lost["spool_unwritable"] > 500, "the memory has run over: {lost:?}");
    assert_eq!(lost["spool_unwritable"] + delivered.len() as u64, sent.len() as u64);
    feed.end(PATIENCE);
}

#[test]
fn a_line_that_is_given_up_on_its_way_is_told_as_lost_once_nobody_answered() {
    let (feed, server, sent) = runs_over(Trouble::Silence, "2s");
    until("given up waiting", || feed.account.read().is_failing);
    server.set_trouble(Trouble::None);
    until("the rest", || feed.account.read().waiting.is_some_and(|waiting| waiting.lines == 0));
    let lost = feed.account.take_losses();
    assert_eq!(lost["spool_unwritable"] + server.ids().len() as u64, sent.len() as u64);
    assert!(!server.ids().contains("over-0"), "the oldest go first");
    feed.end(PATIENCE);
}

/// Nothing is sent before the time that the server names, though the pauses of this sink are much shorter.
fn waits(retry_after: String, until_then: SystemTime) {
    let spools = tempfile::tempdir().unwrap();
    let server = Server::start(Loki::default());
    server.set_trouble(Trouble::Status(429, Some(retry_after)));
    let mut feed = Feed::start("after", &feed::configuration("loki", &server.url(), ""), spools.path());
    let sent = feed.send(1, "x");
    until("asked", || server.requests() > 0);
    server.set_trouble(Trouble::None);
    until("delivered", || server.ids() == sent);
    assert!(SystemTime::now() >= until_then, "{:?} early", until_then.elapsed());
    assert_eq!(server.requests(), 2);
    feed.end(PATIENCE);
}

#[test]
fn retry_after_is_obeyed_as_seconds() {
    waits("2".to_owned(), SystemTime::now() + Duration::from_secs(2));
}

#[test]
fn retry_after_is_obeyed_as_a_date() {
    let then = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 3).unwrap();
    waits(then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(), then.into());
}
