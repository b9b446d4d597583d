//! A client that keeps a connection and uses it again without looking at it first.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::servers;

/// How long to wait for an answer. The first one of a Java takes seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Its own port.
    pub port: u16,
    last_asked: Instant,
    last_answer: Instant,
}

impl Client {
    /// Connects to a server of this story.
    pub fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("cannot connect to the server")?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot set a timeout")?;
        let port = stream.local_addr().context("a connection has an address")?.port();
        Ok(Self { stream, port, last_asked: Instant::now(), last_answer: Instant::now() })
    }

    /// Asks and reads the whole answer; returns its status.
    pub fn ask(&mut self) -> Result<u16> {
        self.ask_for("/")
    }

    /// The same with a path.
    pub fn ask_for(&mut self, path: &str) -> Result<u16> {
        self.last_asked = Instant::now();
        self.send_for(path)?;
        self.answer()
    }

    /// Asks without waiting for the answer.
    pub fn send(&mut self) -> Result<()> {
        self.send_for("/")
    }

    /// Asks for an answer that comes so much later, where the server knows how.
    pub fn send_for_later(&mut self, time: Duration) -> Result<()> {
        self.last_asked = Instant::now();
        self.send_for(&servers::path_for_later(time))
    }

    /// Asks for what keeps the server from anything else so long.
    pub fn keep_busy(&mut self, time: Duration) -> Result<()> {
        self.send_for(&servers::path_to_keep_busy(time))
    }

    fn send_for(&mut self, path: &str) -> Result<()> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: incident\r\nUser-Agent: rstscope-xtask\r\nAccept: */*\r\n\r\n");
        self.stream.write_all(request.as_bytes()).context("cannot send a request")
    }

    /// Reads the whole answer; returns its status.
    pub fn answer(&mut self) -> Result<u16> {
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            if let Some((status, length)) = complete(&text)?
                && text.len() >= length
            {
                self.last_answer = Instant::now();
                return Ok(status);
            }
            match self.stream.read(&mut buffer).context("the answer did not come")? {
                0 => bail!("the server closed instead of answering"),
                count => text.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Sleeps until the last answer is so long ago.
    pub fn rest_until_idle_for(&self, time: Duration) {
        thread::sleep(time.saturating_sub(self.last_answer.elapsed()));
    }

    /// Since the last answer, which may have come before it was read, but not before it was asked for.
    pub fn idle_at_most(&self) -> Duration {
        self.last_asked.elapsed()
    }

    /// Since the last answer was read.
    pub fn idle(&self) -> Duration {
        self.last_answer.elapsed()
    }
}

/// Status and length of an answer, head included, once its head is there.
fn complete(text: &[u8]) -> Result<Option<(u16, usize)>> {
    let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&text[..end]);
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let (status, length) = status.zip(length).with_context(|| format!("an answer without a length: {head}"))?;
    Ok(Some((status, end + 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_it_says() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n";
        assert_eq!(complete(answer).unwrap(), Some((200, answer.len())));
        assert_eq!(complete(&answer[..20]).unwrap(), None);
        assert!(complete(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
