//! Which pod and container a uid and an id stand for, from every source that this node lets us ask.
//!
//! The sources work on a thread of their own and write what they learn into the [`store`]; whoever needs a name reads it
//! there, so that no line ever waits for a socket or a disk.
//!
//! * [`facts`]: what every source says in the same words; [`allow`]: which labels and annotations of it.
//! * [`api_server`], [`kubelet`], [`cri`], `logs`: the sources, in the order in which they are believed.
//! * `object`: a pod as the API writes it, which the first two have in common.
//! * [`cluster`]: whose an address is elsewhere, if it is asked for; `addresses`: what has which address.
//! * `client`: how to speak HTTP with the first two.
//! * [`failure`]: why a source does not answer, and what to do about it.
//! * [`workers`]: the thread; [`health`]: how each source fares.

mod addresses;
pub mod allow;
pub mod api_server;
mod client;
pub mod cluster;
pub mod cri;
pub mod facts;
pub mod failure;
pub mod health;
pub mod kubelet;
mod logs;
mod object;
pub mod store;
pub mod workers;

#[cfg(test)]
mod tests;
