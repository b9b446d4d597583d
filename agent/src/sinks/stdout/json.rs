//! JSON lines.

use std::io::{self, BufWriter, Write};

use crate::{
    diagnosis::Diagnosed,
    kernel::losses::Loss,
    sinks::{AgentLine, Sink, encode::Encoder},
};

/// Writes `rstscope.v1` lines.
#[derive(Debug)]
pub struct JsonLines<W: Write> {
    out: BufWriter<W>,
    encoder: Encoder,
}

impl<W: Write> JsonLines<W> {
    /// Writes what `encoder` makes to `out`.
    pub fn new(out: W, encoder: Encoder) -> Self {
        Self { out: BufWriter::with_capacity(64 * 1024, out), encoder }
    }
}

impl<W: Write> Sink for JsonLines<W> {
    fn event(&mut self, diagnosed: &Diagnosed) -> io::Result<()> {
        self.encoder.event(diagnosed, &mut self.out)?;
        self.out.write_all(b"\n")
    }

    fn loss(&mut self, loss: &Loss) -> io::Result<()> {
        self.encoder.loss(loss, None, &mut self.out)?;
        self.out.write_all(b"\n")
    }

    fn agent(&mut self, agent: &AgentLine) -> io::Result<()> {
        self.encoder.agent(agent, &mut self.out)?;
        self.out.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
