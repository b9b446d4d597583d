//! The stories, in one table.
//!
//! * [`connect_timeout`]: a proxy gives up connecting, and resets the application's connection.
//! * [`stale`]: a server closes an idle connection under a client that uses it again.
//! * [`half_closed`]: the same, with the server's socket still taking data.
//! * [`stale_envoy`]: the same under a proxy's pool.
//! * [`race_envoy`]: the same with nobody paused: requests around the very moment.
//! * [`race_busy`]: the same with a server that is busy as its timer comes due.
//! * [`late_reset`]: a provider acknowledges a request and resets the connection much later.
//! * [`proxied_reset`]: a proxy passes on a reset from its other side.
//! * [`other_proxies`]: proxies that pass an end on without a reset.
//! * [`client_gone`]: the client does not wait for the answer.
//! * [`upload_rejected`]: the server answers and closes while the request still comes.
//! * [`health_checks`]: resets that are meant and harm nobody.

mod client_gone;
mod connect_timeout;
mod half_closed;
mod health_checks;
pub mod late_reset;
mod other_proxies;
mod proxied_reset;
mod race_busy;
mod race_envoy;
mod stale;
mod stale_envoy;
mod upload_rejected;

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{programs::Program, servers, stage::Stage};

/// One incident, as it is played.
pub struct Story {
    /// What it is called.
    pub name: &'static str,
    /// What happens in it.
    pub about: &'static str,
    /// What it is played with.
    pub programs: &'static [Program],
    /// Plays it.
    pub play: fn(&mut Stage) -> Result<()>,
}

impl Story {
    /// How long it may take. Starting Java and Envoy on a busy machine takes most of it.
    pub const fn limit(&self, full: bool) -> Duration {
        Duration::from_secs(if full { 180 } else { 120 })
    }
}

/// All of them.
pub const STORIES: &[Story] = &[
    Story {
        name: "envoy-connect-timeout",
        about: "Envoy's connect_timeout of 1 s towards a black hole resets the application's connection",
        programs: &[Program::Envoy],
        play: connect_timeout::play,
    },
    Story {
        name: "connect-timeout-http",
        about: "the same with Envoy speaking HTTP: the application gets 503, and no reset",
        programs: &[Program::Envoy],
        play: connect_timeout::play_http,
    },
    Story {
        name: "stale-node",
        about: "Node.js closes an idle connection after 6 s, and the client uses it again",
        programs: &[Program::Node],
        play: |stage| stale::play(stage, &servers::NODE),
    },
    Story {
        name: "stale-uvicorn",
        about: "uvicorn closes an idle connection after 5 s, and the client uses it again",
        programs: &[Program::Python],
        play: |stage| stale::play(stage, &servers::UVICORN),
    },
    Story {
        name: "stale-gunicorn",
        about: "gunicorn closes an idle connection after 2 to 3 s, and the client uses it again",
        programs: &[Program::Python],
        play: |stage| stale::play(stage, &servers::GUNICORN),
    },
    Story {
        name: "stale-cherrypy",
        about: "CherryPy closes an idle connection after 10 s, and the client uses it again",
        programs: &[Program::Python],
        play: |stage| stale::play(stage, &servers::CHERRYPY),
    },
    Story {
        name: "stale-nginx",
        about: "nginx closes an idle connection after 3 s (75 s in full), and the client uses it again",
        programs: &[Program::Nginx],
        play: |stage| stale::play(stage, &servers::NGINX),
    },
    Story {
        name: "stale-haproxy",
        about: "HAProxy closes an idle connection after 3 s, and the client uses it again",
        programs: &[Program::Haproxy],
        play: |stage| stale::play(stage, &servers::HAPROXY),
    },
    Story {
        name: "stale-tomcat",
        about: "Tomcat closes an idle connection after 3 s (20 s in full), and the client uses it again",
        programs: &[Program::Tomcat],
        play: |stage| stale::play(stage, &servers::TOMCAT),
    },
    Story {
        name: "stale-tomcat-half-closed",
        about: "the client uses the connection again while Java has only shut the sending side of it",
        programs: &[Program::Tomcat],
        play: |stage| half_closed::play(stage, &servers::TOMCAT),
    },
    Story {
        name: "stale-envoy-node",
        about: "Envoy, not running for a moment, sends on a pooled connection that Node.js has closed: 503",
        programs: &[Program::Envoy, Program::Node],
        play: stale_envoy::play,
    },
    Story {
        name: "hidden-by-retry",
        about: "the same with an Envoy that retries: the client gets 200, and the reset is there all the same",
        programs: &[Program::Envoy, Program::Node],
        play: stale_envoy::play_hidden,
    },
    Story {
        name: "race-envoy-node",
        about: "requests through Envoy just as Node.js closes the idle connections of the pool: some get 503",
        programs: &[Program::Envoy, Program::Node],
        play: |stage| race_envoy::play(stage, &servers::NODE),
    },
    Story {
        name: "race-envoy-uvicorn",
        about: "the same with uvicorn, which closes after 2 s (5 s in full)",
        programs: &[Program::Envoy, Program::Python],
        play: |stage| race_envoy::play(stage, &servers::UVICORN_QUICK),
    },
    Story {
        name: "race-busy-node",
        about: "Node.js is busy when its idle timer comes due, with a request unread on that connection",
        programs: &[Program::Node],
        play: race_busy::play,
    },
    Story {
        name: "late-reset-after-idle",
        about: "a provider acknowledges a request after 2 s of idleness (10 s in full) and resets 2 s (10 s) later",
        programs: &[],
        play: late_reset::play,
    },
    Story {
        name: "proxied-reset-envoy",
        about: "an upstream of Envoy resets or dies, or the application does: Envoy repeats the reset on its other side",
        programs: &[Program::Envoy, Program::Node],
        play: proxied_reset::play,
    },
    Story {
        name: "ends-haproxy",
        about: "HAProxy as a proxy for TCP: an upload towards a black hole, a refused connect, an upstream that resets",
        programs: &[Program::Haproxy, Program::Node],
        play: other_proxies::play_haproxy,
    },
    Story {
        name: "ends-nginx",
        about: "an upstream resets in the middle of its answer, and nginx closes its client; a black hole gives 504",
        programs: &[Program::Nginx, Program::Node],
        play: other_proxies::play_nginx,
    },
    Story {
        name: "client-gone-envoy",
        about: "a client leaves before gunicorn answers, by itself and behind Envoy",
        programs: &[Program::Envoy, Program::Python],
        play: client_gone::play,
    },
    Story {
        name: "upload-rejected",
        about: "CherryPy answers 413 and closes while the upload still comes; nginx reads it to its end",
        programs: &[Program::Nginx, Program::Python],
        play: upload_rejected::play,
    },
    Story {
        name: "health-checks-haproxy",
        about: "HAProxy checks a server's health by connecting, and ends each check with a reset",
        programs: &[Program::Haproxy, Program::Node],
        play: health_checks::play_haproxy,
    },
    Story {
        name: "health-checks-envoy",
        about: "Envoy checks a server's health by connecting, and ends each check with a FIN",
        programs: &[Program::Envoy, Program::Node],
        play: health_checks::play_envoy,
    },
];

/// The story with this name.
pub fn named(name: &str) -> Result<&'static Story> {
    STORIES.iter().find(|story| story.name == name).with_context(|| format!("there is no story {name:?}"))
}

/// The stories whose name contains one of these; all if there is none.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Story>> {
    if let Some(unknown) = names.iter().find(|name| !STORIES.iter().any(|story| story.name.contains(name.as_str()))) {
        bail!("there is no story {unknown:?}: `cargo xtask incidents --list` says which there are");
    }
    let is_chosen = |story: &&Story| names.is_empty() || names.iter().any(|name| story.name.contains(name.as_str()));
    Ok(STORIES.iter().filter(is_chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_has_one_name() {
        for story in STORIES {
            assert_eq!(STORIES.iter().filter(|other| other.name == story.name).count(), 1);
            assert_eq!(named(story.name).unwrap().about, story.about);
        }
    }

    #[test]
    fn parts_of_names_choose() {
        let names = |parts: &[&str]| -> Vec<&str> {
            let parts: Vec<String> = parts.iter().map(|&part| part.to_owned()).collect();
            chosen(&parts).unwrap().iter().map(|story| story.name).collect()
        };
        assert_eq!(names(&[]).len(), STORIES.len());
        assert_eq!(names(&["node"]), ["stale-node", "stale-envoy-node", "race-envoy-node", "race-busy-node"]);
        assert_eq!(names(&["late", "tomcat"]), ["stale-tomcat", "stale-tomcat-half-closed", "late-reset-after-idle"]);
        assert!(chosen(&["nobody".to_owned()]).is_err());
    }
}
