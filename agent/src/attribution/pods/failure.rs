//! Why a source does not answer, in one sentence, and what to do about it.

use std::fmt::{self, Display, Formatter};

use kube::runtime::watcher;

/// What is wrong with a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub what: String,
    /// What helps; empty where `what` has said it.
    pub remedy: String,
}

impl Failure {
    /// Both.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl Display for Failure {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(formatter, "; {}", self.remedy) }
    }
}

/// An error and all that it came from, each once: libraries often repeat the inner one in the outer one's words.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        inner = cause.source();
    }
    text
}

/// What is wrong with a watch, and what helps.
#[must_use]
pub fn of_watch(error: &watcher::Error) -> Failure {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => of_request(error),
        watcher::Error::WatchError(status) => {
            Failure::new(format!("the watch ended: {} {}", status.code, status.message), "it is begun again")
        }
        watcher::Error::NoResourceVersion => {
            Failure::new("an answer without a resource version", "check that this is an API server")
        }
    }
}

/// What is wrong with an answer of the API server, and what helps.
#[must_use]
pub fn of_request(error: &kube::Error) -> Failure {
    let remedy = match error {
        kube::Error::Api(status) => match status.code {
            401 => "the token is not accepted: renew it, or give another --kubeconfig",
            403 => "allow `list` and `watch` to the agent's service account",
            429 => "it is overloaded; the agent asks again later",
            _ => "the agent asks again later",
        },
        kube::Error::SerdeError(_) => "check that this is an API server",
        _ => "check the address and the network; the agent asks again",
    };
    Failure::new(chain(error), remedy)
}
