//! From a record to a written line: decode, attribute, filter, write.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use agent_common::event::Event as Record;
use anyhow::{Context, Result};
use bytes::Bytes;

use super::{naming::Naming, tally::Tally};
use crate::{
    attribution::{
        Attributor, CgroupClue, Clues, ProcessClue,
        pods::{health::Health, store::SOURCES},
    },
    diagnosis::{Diagnosed, Diagnosis},
    event::{
        Endpoint, Event, Role, What,
        decode::Decoder,
        facts::comm,
        party::{Owner, Source},
    },
    kernel::{
        clock::{self, WallClock},
        losses::Loss,
        older::Seeds,
        settle::{Settle, Settled},
    },
    sinks::{AgentLine, Sink, filter::Filter},
    telemetry::{events::left_out, vitals::Vitals},
};

/// What the reader sends.
#[derive(Debug)]
pub enum Message {
    /// A record of the ring buffer.
    Record(Bytes),
    /// Everything that happened before this moment (CLOCK_BOOTTIME, nanoseconds) was sent.
    CaughtUp(u64),
    /// Something was lost before this moment (CLOCK_BOOTTIME, nanoseconds).
    Loss(Loss, u64),
    /// As [`Message::CaughtUp`], and so was everything that was lost before.
    Complete(u64),
}

/// What the pipeline is asked for.
pub struct Asked {
    /// Which finished events.
    pub events: Filter,
    /// At most so many.
    pub count: Option<u64>,
    /// How long a line may wait for names.
    pub name_wait: Duration,
}

/// The stages behind the reader.
pub struct Pipeline {
    vitals: Arc<Vitals>,
    sink: Box<dyn Sink + Send>,
    seeds: Seeds,
    attributor: Attributor,
    diagnosis: Diagnosis,
    decoder: Decoder,
    clock: WallClock,
    settle: Settle,
    naming: Naming,
    wanted: Filter,
    /// How the pods' sources fared when it was last said.
    sources: [(Source, Health); SOURCES.len()],
    limit: Option<u64>,
    tally: Tally,
}

/// What came from the reader.
enum Taken {
    Message(Message),
    Nothing,
    /// The reader has gone and everything it sent was taken.
    End,
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    More,
    Enough,
}

impl Pipeline {
    /// Arranges the stages.
    pub fn new(
        vitals: Arc<Vitals>,
        asked: Asked,
        sink: Box<dyn Sink + Send>,
        seeds: Seeds,
        attributor: Attributor,
        diagnosis: Diagnosis,
        decoder: Decoder,
    ) -> Self {
        Self {
            vitals,
            sink,
            sources: attributor.sources(),
            naming: Naming::new(asked.name_wait),
            seeds,
            attributor,
            diagnosis,
            decoder,
            clock: WallClock::default(),
            settle: Settle::default(),
            wanted: asked.events,
            limit: asked.count,
            tally: Tally::default(),
        }
    }

    /// Works until the reader has gone, the limit is reached, or nobody reads standard output any more.
    ///
    /// # Errors
    ///
    /// If the output cannot be written for another reason (a full disk).
    pub fn run(mut self, start: AgentLine, messages: &Receiver<Message>) -> Result<Tally> {
        match self.work(start, messages) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(self.tally),
            Err(error) => Err(error).context("cannot write to standard output; free space or choose another place"),
            Ok(()) => Ok(self.tally),
        }
    }

    fn work(&mut self, start: AgentLine, messages: &Receiver<Message>) -> io::Result<()> {
        self.sink.agent(&start)?;
        self.sink.flush()?;
        let mut rescan = Instant::now();
        // What waits for another record waits by the clock of the records: on a busy machine they arrive late, but still
        // in order.
        let mut now = 0;
        let (mut settled, mut diagnosed, mut named) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let next = self.next(messages)?;
            self.vitals.pipeline.beat();
            let last = matches!(next, Taken::End);
            match next {
                Taken::Message(Message::Record(bytes)) => {
                    self.vitals.queue.took();
                    match Record::from_bytes(&bytes) {
                        Some(record) => {
                            now = now.max(record.boot_ns);
                            self.settle.take(record, &mut settled);
                        }
                        None => {
                            let malformed = Loss { cause: "record_malformed", count: 1, by_cpu: BTreeMap::new() };
                            self.lost(&malformed, clock::boot_ns())?;
                        }
                    }
                }
                Taken::Message(Message::CaughtUp(boot_ns)) => now = now.max(boot_ns),
                Taken::Message(Message::Loss(loss, until_ns)) => self.lost(&loss, until_ns)?,
                Taken::Message(Message::Complete(boot_ns)) => {
                    now = now.max(boot_ns);
                    self.diagnosis.complete(boot_ns);
                }
                Taken::Nothing => {}
                Taken::End => self.settle.finish(&mut settled),
            }
            self.settle.expire(now, &mut settled);
            for record in settled.drain(..) {
                let (event, owner) = self.typed(record);
                self.diagnosis.take(event, owner);
            }
            if last {
                self.diagnosis.finish(&mut diagnosed);
            } else {
                self.diagnosis.expire(now, &mut diagnosed);
            }
            for finished in diagnosed.drain(..) {
                self.naming.take(finished, &mut self.attributor, &mut named);
            }
            if last {
                self.naming.finish(&mut self.attributor, &mut named);
            } else {
                self.naming.expire(&mut self.attributor, &mut named);
            }
            for finished in named.drain(..) {
                if self.write(&finished)? == Next::Enough {
                    return self.stop();
                }
            }
            if last {
                return self.stop();
            }
            self.seeds.sweep();
            if rescan.elapsed() >= self.attributor.rescan_pause() {
                self.attributor.rescan();
                rescan = Instant::now();
                self.tell_sources()?;
                self.tell_unasked()?;
            }
        }
    }

    /// The next message; flushes before it waits.
    fn next(&mut self, messages: &Receiver<Message>) -> io::Result<Taken> {
        if let Ok(message) = messages.try_recv() {
            return Ok(Taken::Message(message));
        }
        self.sink.flush()?;
        let pause = self.naming.pause().unwrap_or(Duration::from_millis(500));
        Ok(match messages.recv_timeout(pause) {
            Ok(message) => Taken::Message(message),
            Err(RecvTimeoutError::Timeout) => Taken::Nothing,
            Err(RecvTimeoutError::Disconnected) => Taken::End,
        })
    }

    fn typed(&mut self, mut settled: Settled) -> (Event, Owner) {
        self.seeds.complete(&mut settled.record);
        let mut event = self.decoder.decode(&settled.record, self.clock.offset_ns());
        event.facts.data_without_reader = settled.data_without_reader;
        let owner = self.attributor.attribute(&clues(&event));
        event.backend = self.backend(&event);
        (event, owner)
    }

    /// Asked for at once, since the kernel soon forgets a connection that has ended.
    fn backend(&mut self, event: &Event) -> Option<SocketAddr> {
        if event.role != Role::Client || event.what == What::Closed {
            return None;
        }
        let address = |end: Endpoint| Some(SocketAddr::new(end.ip, end.port?));
        self.attributor.backend(address(event.local)?, address(event.peer)?)
    }

    fn write(&mut self, diagnosed: &Diagnosed) -> io::Result<Next> {
        if !self.wanted.want(diagnosed) {
            self.tally.left_out += 1;
            left_out(&self.vitals);
            return Ok(Next::More);
        }
        self.sink.event(diagnosed)?;
        self.tally.count(&diagnosed.event);
        Ok(if self.limit.is_some_and(|limit| self.tally.lines() >= limit) { Next::Enough } else { Next::More })
    }

    fn lost(&mut self, loss: &Loss, until_ns: u64) -> io::Result<()> {
        if loss.is_of_events() {
            self.diagnosis.lost(until_ns);
        }
        self.loss(loss)
    }

    fn loss(&mut self, loss: &Loss) -> io::Result<()> {
        *self.tally.lost.entry(loss.cause).or_default() += loss.count;
        self.sink.loss(loss)
    }

    /// Says it when one who is asked about pods has begun to answer, or has ceased to.
    fn tell_sources(&mut self) -> io::Result<()> {
        let sources = self.attributor.sources();
        let is_other = |((_, was), (_, is)): (&(Source, Health), &(Source, Health))| is.differs_from(was);
        if !self.sources.iter().zip(&sources).any(is_other) {
            return Ok(());
        }
        self.sources.clone_from(&sources);
        self.sink.agent(&AgentLine { pod_sources: sources.into(), ..AgentLine::new("pod_sources") })
    }

    fn tell_unasked(&mut self) -> io::Result<()> {
        match self.attributor.take_unasked() {
            0 => Ok(()),
            count => self.loss(&Loss { cause: "backend_not_asked", count, by_cpu: BTreeMap::new() }),
        }
    }

    fn stop(&mut self) -> io::Result<()> {
        self.tell_unasked()?;
        self.sink.agent(&AgentLine { lines: Some(self.tally.lines()), ..AgentLine::new("stop") })?;
        self.sink.flush()
    }
}

fn clues(event: &Event) -> Clues {
    Clues {
        process: event.owner.map(|owner| ProcessClue {
            pid: owner.tgid,
            start_boottime_ns: owner.start_boottime_ns,
            comm: comm(&owner.comm),
        }),
        cgroup: event.cgroup.map(|(id, is_creator_only)| CgroupClue { id, is_creator_only }),
    }
}
