//! A minute of real events on the way to each network sink, while everything goes wrong: the agent is killed, its disk fills
//! up, the server is restarted, slow, full or talks nonsense. In the end nothing is missing that was accepted, and what was
//! lost is what the `lost` lines say.
//!
//! Real servers stand where one can be had: nginx encrypts the way to Loki and wants a client certificate, a collector
//! (rotel) takes what goes to OTLP, rsyslog follows the agent's file while logrotate moves it. Loki and Splunk cannot be had
//! here; home-made servers hold to their rules (`tests/servers`).
//!
//! `cargo xtask sinks` builds and starts this as root, in a mount namespace of its own, with the programs in the environment.
//! All trials run side by side, each in a network namespace of its own.

mod agent;
mod collector;
#[path = "../kernel/disk.rs"]
mod disk;
#[expect(dead_code, reason = "the tests of the sinks use the rest of it")]
#[path = "../sinks/feed.rs"]
mod feed;
mod front;
mod ledger;
mod minute;
#[expect(dead_code, reason = "the kernel tests use the rest of it")]
#[path = "../kernel/netns.rs"]
mod netns;
mod process;
#[expect(dead_code, reason = "the tests of the sinks use the rest of it")]
#[path = "../servers/mod.rs"]
mod servers;
#[path = "../kernel/spooled.rs"]
mod spooled;
mod syslog;
mod traffic;

use libtest_mimic::{Arguments, Trial};

use self::{
    minute::{Minute, play},
    netns::Netns,
    servers::{http::Server, loki::Loki, splunk::Splunk},
};

/// How many minutes each trial makes events.
fn rounds() -> u32 {
    std::env::var("RSTSCOPE_CHAOS_MINUTES").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(1)
}

fn main() {
    let mut arguments = Arguments::from_args();
    let trials: [(&str, fn()); 5] = [
        ("nothing_is_lost_on_the_way_to_loki_behind_nginx", loki),
        ("nothing_is_lost_on_the_way_to_splunk", splunk),
        ("nothing_is_lost_on_the_way_to_a_collector", collector::play_minute),
        ("rsyslog_gets_every_line_of_a_file_that_logrotate_moves", syslog::play_minute),
        ("nginx_without_a_client_certificate_costs_no_line", front::without_client_certificate),
    ];
    // They mostly wait, and a minute is long.
    arguments.test_threads = arguments.test_threads.or(Some(trials.len()));
    let trials = trials.into_iter().map(|(name, play)| {
        Trial::test(name, move || {
            play();
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn loki() {
    let netns = Netns::new();
    let server = netns.run(|| Server::start(Loki::default()));
    let front = front::Front::start(&netns, server.address);
    let keys = format!("type = \"loki\"\nlabels = {{ cluster = \"chaos\" }}\n{}", front.client_keys());
    let variables = vec![("RSTSCOPE_SINK_REMOTE_URL".to_owned(), front.url())];
    play(Minute { name: "loki", port: 7001, netns: &netns, server, keys, variables, front: Some(Box::new(front)) });
}

fn splunk() {
    let netns = Netns::new();
    let splunk = Splunk { token: "secret".to_owned(), acknowledges: true, asked_before_true: 2, ..Splunk::default() };
    let server = netns.run(|| Server::start(splunk));
    let keys = "type = \"splunk\"\nacknowledge = true\nacknowledge_within = \"2s\"\n".to_owned();
    // As from a Secret in the environment of a container.
    let variables = [("URL", server.url()), ("TOKEN", "secret".to_owned())];
    let variables = variables.map(|(key, value)| (format!("RSTSCOPE_SINK_REMOTE_{key}"), value)).to_vec();
    play(Minute { name: "splunk", port: 7002, netns: &netns, server, keys, variables, front: None });
}
