//! Proxies: of a sink by itself, and of the environment.

use std::process::Command;

use crate::{
    feed::{self, Feed, PATIENCE, until},
    servers::{
        certificates::{Authority, Flaw},
        http::Server,
        loki::Loki,
        proxy::Proxy,
    },
};

/// Set for the process that sends through the proxy of its environment: what to send to.
const SEND_TO: &str = "RSTSCOPE_TEST_SEND_TO";

#[test]
fn a_sink_sends_through_its_own_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let (server, proxy) = (Server::start(Loki::default()), Proxy::start());
    let more = format!("http.proxy = \"{}\"", proxy.url());
    let mut feed = Feed::start("plain", &feed::configuration("loki", &server.url(), &more), folder.path());
    let sent = feed.send(20, "x");
    until("delivered", || server.ids() == sent);
    feed.end(PATIENCE);
    assert_eq!(proxy.asked()[0], format!("POST {}/loki/api/v1/push", server.url()));
}

#[test]
fn what_is_encrypted_goes_through_a_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("servers");
    let server = Server::start_with(Loki::default(), Some(authority.server(Flaw::None).serve(None)));
    let proxy = Proxy::start();
    let ca = authority.write(folder.path(), "ca.pem");
    let more = format!("http.proxy = \"{}\"\ntls.ca_file = \"{}\"", proxy.url(), ca.display());
    let mut feed = Feed::start("tunnel", &feed::configuration("loki", &server.url(), &more), folder.path());
    let sent = feed.send(20, "x");
    until("delivered", || server.ids() == sent);
    feed.end(PATIENCE);
    assert_eq!(proxy.asked()[0], format!("CONNECT {}", server.address));
}

#[test]
fn the_proxy_of_the_environment_is_used_unless_no_proxy_names_the_server() {
    for (no_proxy, is_used) in [("elsewhere.example", true), ("10.0.0.0/8,127.0.0.0/8", false), ("127.0.0.1", false)] {
        let (server, proxy) = (Server::start(Loki::default()), Proxy::start());
        // A process of its own: the environment is everybody's.
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "proxies::sent_by_the_process_with_the_environment", "--ignored"])
            .env(SEND_TO, server.url())
            .env("HTTP_PROXY", proxy.url())
            .env("NO_PROXY", no_proxy)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(server.ids().len(), 5);
        assert_eq!(!proxy.asked().is_empty(), is_used, "{no_proxy}: {:?}", proxy.asked());
    }
}

#[test]
#[ignore = "started by the test above, in an environment of its own"]
fn sent_by_the_process_with_the_environment() {
    let Ok(url) = std::env::var(SEND_TO) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut feed = Feed::start("environment", &feed::configuration("loki", &url, ""), folder.path());
    feed.send(5, "x");
    feed.end(PATIENCE);
}
