//! From the spool to the server.

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use reqwest::{RequestBuilder, header::CONTENT_ENCODING};

use super::{
    Spooled,
    client::reason,
    protocol::{Answer, Pending, Protocol, SpooledLine, Verdict, usual_verdict},
    settings::{Batch, Retry},
};
use crate::{
    settings::Wrong,
    sinks::{
        account::{Account, Outcome},
        running::{Health, Orders},
        spool::{Most, Record},
    },
};

/// A server that wants nothing of ours is asked again after this time: it may have been mended on its side.
const REFUSED: Duration = Duration::from_secs(300);
/// A server that takes none of a thousand lines is not worth a thousand sentences.
const SAY_WHY: Duration = Duration::from_secs(10);
/// Of an answer's body so much is read.
const ANSWER: usize = 16 * 1024;

/// One sink's sender.
pub(super) struct Delivery<P> {
    pub spooled: Arc<Spooled>,
    pub orders: Arc<Orders>,
    pub account: Arc<Account>,
    pub health: Health,
    pub client: reqwest::Client,
    pub protocol: P,
    pub batch: Batch,
    pub retry: Retry,
    pub gzip: bool,
    /// When it was last said why lines were given up.
    pub said_why: Option<Instant>,
}

impl<P: Protocol> Delivery<P> {
    /// Sends until nothing follows and everything was sent, or the time to end has come.
    pub fn run(mut self) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return self.health.say(format_args!("cannot start its runtime: {error}")),
        };
        let mut at_most = self.batch.lines;
        let mut tries = 0;
        while let Some(records) = self.next(at_most) {
            let lines: Vec<SpooledLine> =
                records.iter().filter_map(|record| SpooledLine::read(&record.bytes)).collect();
            let verdict =
                if lines.is_empty() { Verdict::Delivered } else { runtime.block_on(self.send(&lines, tries > 0)) };
            self.note(&verdict);
            let given_up = match verdict {
                Verdict::Delivered => None,
                Verdict::DeliveredBut(count, why) => Some((count, why)),
                Verdict::Split(_) if lines.len() > 1 => {
                    self.came_back();
                    at_most = lines.len() / 2;
                    continue;
                }
                Verdict::Split(why) => Some((1, why)),
                Verdict::Retry(after, why) => {
                    self.came_back();
                    if self.orders.is_over() {
                        break;
                    }
                    tries += 1;
                    self.health.fails(&format!("{why}; tried again, lines wait in the spool"));
                    self.orders.pause(pause(&self.retry, tries, after));
                    continue;
                }
                Verdict::Refused(why) => {
                    self.came_back();
                    self.health.fails(&format!("{why}; stopped until the configuration changes, or for five minutes"));
                    if self.orders.pause_or_end(REFUSED) {
                        break;
                    }
                    continue;
                }
            };
            let refused_by_server = given_up.as_ref().map_or(0, |(count, _)| *count);
            match given_up {
                Some((count, why)) => self.give_up(count, &why),
                None => self.health.works(),
            }
            let unreadable = (records.len() - lines.len()) as u64;
            self.give_up(unreadable, "not a line of rstscope");
            self.account.delivered((lines.len() as u64).saturating_sub(refused_by_server));
            self.acknowledge(&records);
            tries = 0;
            // After a batch that had to be split, back to full size step by step.
            at_most = at_most.saturating_mul(2).min(self.batch.lines);
        }
        self.leave();
    }

    /// Writes down how a request ended.
    fn note(&self, verdict: &Verdict) {
        let outcome = match verdict {
            Verdict::Delivered => Outcome::Delivered,
            Verdict::DeliveredBut(..) => Outcome::DeliveredInPart,
            Verdict::Retry(..) => Outcome::Retried,
            Verdict::Split(_) => Outcome::Split,
            Verdict::Refused(_) => Outcome::Refused,
        };
        self.account.answered(outcome);
        self.account.fails(matches!(outcome, Outcome::Retried | Outcome::Refused));
    }

    /// The next lines: as many as may go at once, or what there is once the first of them has waited for more.
    fn next(&self, lines: usize) -> Option<Vec<Record>> {
        let most = Most { records: lines, bytes: usize::try_from(self.batch.bytes.0).unwrap_or(usize::MAX) };
        let mut waited_since = None;
        let mut inner = self.spooled.lock();
        loop {
            let from = inner.spool.acknowledged();
            let records = match inner.spool.read(from, most) {
                Ok(records) => records,
                Err(error) => {
                    drop(inner);
                    self.health.say(format_args!("cannot read its spool: {error}; tried again"));
                    self.orders.pause(self.retry.most.0);
                    if self.orders.is_over() {
                        return None;
                    }
                    inner = self.spooled.lock();
                    continue;
                }
            };
            let is_all = records.last().is_none_or(|last| last.number + 1 == inner.spool.end());
            let since = *waited_since.get_or_insert_with(Instant::now);
            if records.is_empty() {
                if inner.is_closed {
                    return None;
                }
                waited_since = None;
            } else if inner.is_closed || !is_all || records.len() >= lines || since.elapsed() >= self.batch.wait.0 {
                inner.spool.in_flight(records.last().map_or(from, |last| last.number + 1));
                return Some(records);
            }
            if self.orders.is_over() {
                return None;
            }
            let most = if records.is_empty() {
                Duration::from_secs(1)
            } else {
                self.batch.wait.0.saturating_sub(since.elapsed())
            };
            inner = self.spooled.wait(inner, most.max(Duration::from_millis(1)));
        }
    }

    async fn send(&self, lines: &[SpooledLine], after_failure: bool) -> Verdict {
        // What has not been answered by the end is there for the next agent.
        tokio::select! {
            verdict = self.attempt(lines, after_failure) => verdict,
            () = self.no_time_left() => Verdict::Retry(None, "no time left".to_owned()),
        }
    }

    async fn no_time_left(&self) {
        while !self.orders.is_over() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn attempt(&self, lines: &[SpooledLine], after_failure: bool) -> Verdict {
        if after_failure && let Some(not_yet) = self.ask_health().await {
            return not_yet;
        }
        let request = match self.request(lines) {
            Ok(request) => request,
            Err(why) => return Verdict::Refused(why),
        };
        let answer = match exchange(request).await {
            Ok(answer) => answer,
            Err(why) => return Verdict::Retry(None, why),
        };
        match self.protocol.judge(&answer) {
            Verdict::Delivered => match self.protocol.pending(&answer) {
                Ok(None) => Verdict::Delivered,
                Ok(Some(pending)) => self.until_safe(&pending).await,
                Err(why) => Verdict::Refused(why),
            },
            verdict => verdict,
        }
    }

    /// Why nothing is to be sent yet. Only an answer that asks for patience, or none, is a reason: where health cannot be asked
    /// about, as behind some proxies, or something else is wrong, the lines themselves bring it to light.
    async fn ask_health(&self) -> Option<Verdict> {
        let request = match self.protocol.ask_health(&self.client) {
            Ok(request) => request?,
            Err(Wrong(problem)) => return Some(Verdict::Refused(problem)),
        };
        match exchange(request).await {
            Ok(answer) => Some(usual_verdict(&answer)).filter(|verdict| matches!(verdict, Verdict::Retry(..))),
            Err(why) => Some(Verdict::Retry(None, why)),
        }
    }

    fn request(&self, lines: &[SpooledLine]) -> Result<RequestBuilder, String> {
        let request = self.protocol.request(&self.client).map_err(|Wrong(problem)| problem)?;
        let body = self.protocol.body(lines).map_err(|Wrong(problem)| problem)?;
        if !self.gzip {
            return Ok(request.body(body));
        }
        let packed = gzip(&body).map_err(|error| error.to_string())?;
        Ok(request.header(CONTENT_ENCODING, "gzip").body(packed))
    }

    /// Asks about lines that the server has taken, the more seldom the longer it takes.
    async fn until_safe(&self, pending: &Pending) -> Verdict {
        let began = Instant::now();
        let mut pause = Duration::from_millis(200);
        while began.elapsed() < pending.within {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
            let Ok(request) = self.protocol.ask(&self.client, pending) else { continue };
            if exchange(request).await.is_ok_and(|answer| self.protocol.is_safe(pending, &answer)) {
                return Verdict::Delivered;
            }
        }
        Verdict::Retry(None, format!("not acknowledged within {:.1} s", pending.within.as_secs_f64()))
    }

    /// Each is counted; why is said now and then.
    fn give_up(&mut self, count: u64, why: &str) {
        if count == 0 {
            return;
        }
        self.account.lose("sink_rejected", count);
        if self.said_why.is_none_or(|said| said.elapsed() >= SAY_WHY) {
            self.said_why = Some(Instant::now());
            self.health.say(format_args!("{count} lines given up, they are never taken: {why}"));
        }
    }

    /// What was given up while it was sent did not arrive, as far as anybody knows.
    fn came_back(&self) {
        let mut inner = self.spooled.lock();
        inner.spool.came_back();
        inner.tell(&self.account);
    }

    fn acknowledge(&mut self, records: &[Record]) {
        let Some(last) = records.last() else { return };
        let mut inner = self.spooled.lock();
        let acknowledged = inner.spool.acknowledge(last.number + 1);
        inner.tell(&self.account);
        drop(inner);
        if let Err(error) = acknowledged {
            self.health.say(format_args!("cannot write down what was delivered: {error}; it may be delivered again"));
        }
    }

    /// What did not get out in time.
    fn leave(&self) {
        let mut inner = self.spooled.lock();
        // The intake may still be taking what was in the queue.
        while !inner.is_closed {
            inner = self.spooled.wait(inner, Duration::from_secs(1));
        }
        let waiting = inner.spool.waiting();
        if waiting > 0 {
            let kept = if inner.spool.is_on_disk() {
                "stay in the spool for the next start"
            } else {
                "are lost: there is no spool"
            };
            self.health.say(format_args!("{waiting} lines could not be delivered in time and {kept}"));
        }
    }
}

async fn exchange(request: RequestBuilder) -> Result<Answer, String> {
    let mut response = request.send().await.map_err(|error| reason(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while body.len() < ANSWER {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            // What is missing of a success may be the part that names what was refused, or the acknowledgement.
            Err(error) if status.is_success() => return Err(format!("the answer broke off: {}", reason(&error))),
            Err(_) => break,
        }
    }
    Ok(Answer { status, headers, body })
}

/// Doubled each time, at most `most`, and of that a random part between a half and all, so that the agents of a cluster do
/// not come back all at once; never less than the server asked for.
fn pause(retry: &Retry, tries: u32, after: Option<Duration>) -> Duration {
    let doubled = retry.first.0.saturating_mul(1 << (tries - 1).min(20)).min(retry.most.0);
    let jittered = doubled.mul_f64(0.5 + fastrand::f64() / 2.0);
    after.map_or(jittered, |after| after.max(jittered))
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::units::Time;

    #[test]
    fn pauses_double_up_to_the_most_with_jitter_and_obey_the_server() {
        let retry = Retry { first: Time(Duration::from_secs(1)), most: Time(Duration::from_secs(60)) };
        for (tries, most) in [(1, 1), (2, 2), (4, 8), (7, 60), (1000, 60)] {
            let pauses: Vec<Duration> = (0..50).map(|_| pause(&retry, tries, None)).collect();
            let (least, most) = (Duration::from_secs(most) / 2, Duration::from_secs(most));
            assert!(pauses.iter().all(|pause| (least..=most).contains(pause)), "{tries}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "all the same");
        }
        assert_eq!(pause(&retry, 1, Some(Duration::from_secs(7))), Duration::from_secs(7));
    }
}
