//! Why a source does not answer, in one sentence, and what to do about it.

use std::fmt::{self, Display, Formatter};

use kube::runtime::watcher;

/// So much of what somebody else says is repeated.
const MOST_QUOTED: usize = 200;

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
    Failure::new(said(error), remedy)
}

/// What an API server or a kubelet said. The library's own text has the whole status object beside its message.
#[must_use]
pub fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            let said = [status.message.trim(), status.reason.trim()].into_iter().find(|text| !text.is_empty());
            format!("{} ({})", quoted(said.unwrap_or("no word")), status.code)
        }
        _ => chain(error),
    }
}

/// What somebody else says, harmless and of bounded length.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut quoted: String = text.chars().take(MOST_QUOTED).flat_map(harmless).collect();
    if text.chars().nth(MOST_QUOTED).is_some() {
        quoted.push('…');
    }
    quoted
}

fn harmless(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control().then(|| character.escape_default());
    let kept = escaped.is_none().then_some(character);
    escaped.into_iter().flatten().chain(kept)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_refusal_is_told_once_and_without_its_status_object() {
        let message = "nodes is forbidden: User \"agent\" cannot list resource \"nodes\" in API group \"\"";
        let refused = Status::failure(message, "Forbidden").with_code(403);
        let failure = of_request(&kube::Error::Api(refused.boxed()));
        assert_eq!(failure.what, format!("{message} (403)"));
        assert!(failure.remedy.starts_with("allow"));

        let silent = Status::failure(" ", "").with_code(500);
        assert_eq!(said(&kube::Error::Api(silent.boxed())), "no word (500)");
    }

    #[test]
    fn what_others_say_is_repeated_without_control_characters_and_not_for_ever() {
        assert_eq!(quoted("it's broken: \"é\""), "it's broken: \"é\"");
        assert_eq!(quoted("a\u{1b}[2Jb\r\n"), "a\\u{1b}[2Jb\\r\\n");
        assert_eq!(quoted(&"x".repeat(1_000_000)).chars().count(), MOST_QUOTED + 1);
    }
}
