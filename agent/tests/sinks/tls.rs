//! TLS: own authorities, client certificates, and what is said about those that are wrong.

use std::path::Path;

use rstscope::sinks::network::{
    client::{client, reason},
    settings::{Http, Tls},
};

use crate::{
    feed::{self, Feed, PATIENCE, until},
    servers::{
        certificates::{Authority, Flaw},
        http::{Rules, Server},
        loki::Loki,
        otlp::Otlp,
        splunk::Splunk,
    },
};

/// A sink that has to show a certificate delivers to a server that has to show one.
fn both_show_a_certificate<R: Rules>(kind: &str, rules: R, more: impl Fn(&Path) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let (of_server, of_clients) = (Authority::new("servers"), Authority::new("clients"));
    let server = Server::start_with(rules, Some(of_server.server(Flaw::None).serve(Some(&of_clients))));
    let ca = of_server.write(folder.path(), "ca.pem");
    let (certificate, key) = of_clients.client().write(folder.path(), "client");
    let tls = format!(
        "tls = {{ ca_file = \"{}\", cert_file = \"{}\", key_file = \"{}\" }}\n{}",
        ca.display(),
        certificate.display(),
        key.display(),
        more(folder.path())
    );
    let mut feed = Feed::start("tls", &feed::configuration(kind, &server.url(), &tls), folder.path());
    let sent = feed.send(100, "x");
    until("delivered", || server.ids() == sent);
    feed.end(PATIENCE);
    server.with(|rules| assert_eq!(rules.broken(), Vec::<String>::new()));
}

#[test]
fn both_ends_show_a_certificate() {
    let token = |folder: &Path| feed::token(folder);
    let splunk = Splunk { token: "secret".to_owned(), ..Splunk::default() };
    both_show_a_certificate("loki", Loki::default(), |_| String::new());
    both_show_a_certificate("splunk", splunk, token);
    both_show_a_certificate("otlp", Otlp::default(), |_| String::new());
}

/// What is said when a client with these settings sends to this server.
fn complaint(server: &Server<Loki>, tls: &Tls) -> String {
    let client = client(&Http::default(), tls).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sent = runtime.block_on(async { client.post(server.url()).body("x").send().await });
    reason(&sent.expect_err("the handshake fails"))
}

fn trusting(authority: &Authority, folder: &Path) -> Tls {
    Tls { ca_file: Some(authority.write(folder, "ca.pem")), ..Tls::default() }
}

#[test]
fn a_certificate_that_is_wrong_is_one_sentence_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("servers");
    for (flaw, words) in [
        (Flaw::Expired, ["has expired", "renew"]),
        (Flaw::NotYetValid, ["not valid yet", "clock"]),
        (Flaw::OtherName, ["another name", "url"]),
    ] {
        let server = Server::start_with(Loki::default(), Some(authority.server(flaw).serve(None)));
        let said = complaint(&server, &trusting(&authority, folder.path()));
        assert!(words.iter().all(|word| said.contains(word)) && !said.contains('\n'), "{flaw:?}: {said}");
    }
    let server = Server::start_with(Loki::default(), Some(authority.server(Flaw::None).serve(None)));
    let other = Authority::new("others");
    for tls in [trusting(&other, folder.path()), Tls::default()] {
        let said = complaint(&server, &tls);
        assert!(said.contains("not trusted") && said.contains("tls.ca_file"), "{said}");
    }
}

#[test]
fn a_client_certificate_that_is_missing_or_from_another_is_one_sentence_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (of_server, of_clients) = (Authority::new("servers"), Authority::new("clients"));
    let server = Server::start_with(Loki::default(), Some(of_server.server(Flaw::None).serve(Some(&of_clients))));
    let without = trusting(&of_server, folder.path());
    let (certificate, key) = Authority::new("clients").client().write(folder.path(), "other");
    let with_another = Tls { cert_file: Some(certificate), key_file: Some(key), ..without.clone() };
    for tls in [without, with_another] {
        let said = complaint(&server, &tls);
        assert!(said.contains("tls.cert_file"), "{said}");
    }
    assert!(server.ids().is_empty());
}

#[test]
fn a_certificate_that_is_wrong_loses_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("servers");
    let server = Server::start_with(Otlp::default(), Some(authority.server(Flaw::None).serve(None)));
    let with = |authority: &Authority, name: &str| {
        let ca = authority.write(folder.path(), name);
        feed::configuration("otlp", &server.url(), &format!("tls.ca_file = \"{}\"", ca.display()))
    };
    let mut feed = Feed::start("wrong", &with(&Authority::new("others"), "other.pem"), folder.path());
    let sent = feed.send(10, "x");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(feed.account.take_losses().is_empty() && server.requests() == 0);
    feed.end(std::time::Duration::from_millis(100));
    let feed = Feed::start("wrong", &with(&authority, "ca.pem"), folder.path());
    until("delivered", || server.ids() == sent);
    feed.end(PATIENCE);
}
