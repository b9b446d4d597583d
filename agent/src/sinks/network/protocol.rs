//! What one kind of server adds to the delivery.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::Value;

use crate::settings::Wrong;

/// A line as it lies in the spool, read.
#[derive(Clone, Debug, PartialEq)]
pub struct SpooledLine {
    /// As it was written.
    pub text: String,
    /// The same, to look things up in.
    pub value: Value,
}

impl SpooledLine {
    /// Reads a line.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8(bytes.to_vec()).ok()?;
        let value = serde_json::from_str(&text).ok()?;
        Some(Self { text, value })
    }

    /// A string or a number at this place of the line, as a string.
    #[must_use]
    pub fn text_at(&self, pointer: &str) -> Option<String> {
        match self.value.pointer(pointer)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(bool) => Some(bool.to_string()),
            _ => None,
        }
    }

    /// When it happened, nanoseconds since 1970; 0 if the line does not say so.
    #[must_use]
    pub fn time_ns(&self) -> i128 {
        let time = self.text_at("/time").and_then(|time| time.parse::<jiff::Timestamp>().ok());
        time.map_or(0, jiff::Timestamp::as_nanosecond)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has all of them.
    Delivered,
    /// It has them but for so many, which it will never take.
    DeliveredBut(u64, String),
    /// The same again, later; not before this time, if the server says so.
    Retry(Option<Duration>, String),
    /// One of them is wrong, or they are too many: fewer at once. One alone that is wrong is given up.
    Split(String),
    /// It wants none of ours: a wrong secret, a wrong place. Somebody has to look.
    Refused(String),
}

/// Lines that a server has taken and not yet made safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// By what it can be asked about them.
    pub id: u64,
    /// How long to ask before they are sent again.
    pub within: Duration,
}

/// One kind of server.
pub trait Protocol: Send + 'static {
    /// The body of the request for these lines, without gzip.
    ///
    /// # Errors
    ///
    /// If they cannot be written in its form.
    fn body(&self, lines: &[SpooledLine]) -> Result<Vec<u8>, Wrong>;

    /// The request without its body. Secrets are read now.
    ///
    /// # Errors
    ///
    /// If a secret cannot be read.
    fn request(&self, client: &Client) -> Result<RequestBuilder, Wrong>;

    /// What the answer means.
    fn judge(&self, answer: &Answer) -> Verdict;

    /// The request that asks a server that failed whether it takes lines again, if there is one: lines are sent only then.
    ///
    /// # Errors
    ///
    /// If a secret cannot be read.
    fn ask_health(&self, _client: &Client) -> Result<Option<RequestBuilder>, Wrong> {
        Ok(None)
    }

    /// What has to be asked about before delivered lines are safe, if anything.
    ///
    /// # Errors
    ///
    /// If the answer should say so and does not.
    fn pending(&self, _answer: &Answer) -> Result<Option<Pending>, String> {
        Ok(None)
    }

    /// The request that asks.
    ///
    /// # Errors
    ///
    /// If a secret cannot be read, or nothing can be asked.
    fn ask(&self, _client: &Client, _pending: &Pending) -> Result<RequestBuilder, Wrong> {
        Err(Wrong("this kind of server is not asked".to_owned()))
    }

    /// Whether the answer to that says that they are.
    fn is_safe(&self, _pending: &Pending, _answer: &Answer) -> bool {
        false
    }
}

/// What codes mean everywhere; a protocol asks for this after its own.
#[must_use]
pub fn usual_verdict(answer: &Answer) -> Verdict {
    let said = said(answer);
    match answer.status.as_u16() {
        // The products answer with JSON or plain text. A page is from something in between that is not who was meant: nginx
        // has one with 400 for a client certificate that is missing, a portal one with 200. No line is to blame, none arrived.
        200..=299 | 400 | 422 if is_page(answer) => {
            Verdict::Refused(format!("{said}, in a page: something else than the sink's server answers at this url"))
        }
        200..=299 => Verdict::Delivered,
        401 | 403 | 407 => Verdict::Refused(said),
        400 | 413 | 422 => Verdict::Split(said),
        408 | 425 | 429 | 500..=599 => Verdict::Retry(retry_after(&answer.headers), said),
        // Not found, moved, wrong method: the address is wrong, and resending does not make it right.
        _ => Verdict::Refused(said),
    }
}

fn is_page(answer: &Answer) -> bool {
    let content_type = answer.headers.get(reqwest::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/html"))
}

/// What is to be read on a page.
fn without_tags(page: &str) -> String {
    page.split('<').map(|part| part.split_once('>').map_or(part, |(_tag, text)| text)).collect::<Vec<_>>().join(" ")
}

/// So many characters of it are shown: Loki's refusals for its limits are longer than 200.
const MOST_SAID: usize = 300;

/// The code and the beginning of what the server said to it, for a person.
#[must_use]
pub fn said(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let text = beginning(&if is_page(answer) { without_tags(&text) } else { text.into_owned() });
    format!("the server answers {}{}{text}", answer.status.as_u16(), if text.is_empty() { "" } else { ": " })
}

/// As much of a server's text as is shown, on one line.
#[must_use]
pub fn beginning(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut characters = words.chars().filter(|character| !character.is_control());
    let mut shown: String = characters.by_ref().take(MOST_SAID).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// RFC 9110, 10.2.3: seconds, or a date. More than an hour is an hour.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    const MOST: Duration = Duration::from_secs(3600);
    let text = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?;
    let wait = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let then = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
            Duration::try_from(then.duration_since(jiff::Timestamp::now())).unwrap_or_default()
        }
    };
    Some(wait.min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert("retry-after", value.parse().unwrap());
        }
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: b"so \n be\x1b it".to_vec() }
    }

    #[test]
    fn codes_mean_what_the_conventions_say() {
        assert_eq!(usual_verdict(&answer(204, None)), Verdict::Delivered);
        for code in [400, 413] {
            assert!(matches!(usual_verdict(&answer(code, None)), Verdict::Split(_)), "{code}");
        }
        for code in [401, 403, 404, 301] {
            assert!(matches!(usual_verdict(&answer(code, None)), Verdict::Refused(_)), "{code}");
        }
        for code in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(usual_verdict(&answer(code, None)), Verdict::Retry(None, _)), "{code}");
        }
    }

    #[test]
    fn what_was_said_is_one_line_and_shows_where_it_was_cut() {
        assert_eq!(said(&answer(500, None)), "the server answers 500: so be it");
        let mut long = answer(429, None);
        long.body = "a word ".repeat(300).into_bytes();
        let shown = said(&long);
        assert!(shown.starts_with("the server answers 429: a word") && shown.ends_with('…'), "{shown}");
        assert_eq!(shown.chars().count(), "the server answers 429: ".len() + MOST_SAID + 1);
    }

    #[test]
    fn a_page_is_not_from_the_server_that_was_meant() {
        for code in [200, 204, 400, 422] {
            let mut page = answer(code, None);
            page.headers.insert("content-type", "text/html; charset=utf-8".parse().unwrap());
            page.body = b"<html>\r\n<head><title>400 No certificate</title></head><hr>nginx</html>".to_vec();
            let Verdict::Refused(said) = usual_verdict(&page) else { panic!("{code}") };
            assert!(said.contains(": 400 No certificate nginx, in a page"), "{said}");
        }
        // Here it says the right thing: nginx finds a request too large, or has lost the server behind it.
        for (code, splits) in [(413, true), (502, false)] {
            let mut page = answer(code, None);
            page.headers.insert("content-type", "text/html".parse().unwrap());
            assert_eq!(matches!(usual_verdict(&page), Verdict::Split(_)), splits, "{code}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let wait = |text| retry_after(&answer(429, Some(text)).headers);
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("999999"), Some(Duration::from_secs(3600)));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("Fri, 31 Dec 2128 23:59:59 GMT"), Some(Duration::from_secs(3600)));
        assert_eq!(wait("soon"), None);
    }
}
