//! The agent about itself, over HTTP: metrics for Prometheus, and whether it lives and is ready.
//!
//! It only reads. The stages write down what they do where it costs them an addition ([`vitals`], [`events`], and the
//! sinks' [`account`](crate::sinks::account)); a scrape collects it.
//!
//! * [`families`]: every metric there is, in one table; [`samples`]: their values now; [`exposition`]: as text.
//! * [`probes`]: liveness and readiness.
//! * [`server`]: who asks.

pub mod events;
pub mod exposition;
pub mod families;
pub mod probes;
mod process;
pub mod samples;
pub mod server;
pub mod vitals;
