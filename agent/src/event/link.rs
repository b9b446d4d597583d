//! One link of a proxy chain, as a line has it in `connection.chain`: another line that this one follows from or leads to.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Age, Endpoint, Millis, What,
    address::scope,
    end::{Party, party},
    party::Owner,
};

/// Which of the two came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// The other one: this line is its consequence.
    FollowsFrom,
    /// This one: the other line is its consequence.
    LeadsTo,
}

/// An end of another connection, with whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Address and port.
    pub endpoint: Endpoint,
    /// Whose it is, as far as that is known.
    pub owner: Owner,
    /// Its network namespace, if it is on this node.
    pub netns: Option<u32>,
}

/// A link.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Which came first.
    pub relation: Relation,
    /// What happened to the other connection.
    pub what: What,
    /// When.
    pub time: Timestamp,
    /// The name of its cause, as its own line says it.
    pub cause: Option<&'static str>,
    /// The name of the other connection.
    pub connection: Option<String>,
    /// Its age then.
    pub age: Option<Age>,
    /// The proxy's end of it.
    pub local: End,
    /// The far end of it.
    pub peer: End,
    /// How long the later one came after the earlier one.
    pub after: Millis,
    /// How sure it is that they belong together: the name of a confidence.
    pub confidence: &'static str,
}

/// How a link looks in JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct LinkLine {
    relation: Relation,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    confidence: &'static str,
    after_ms: Millis,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<Millis>,
    local: Party,
    peer: Party,
}

impl From<&Link> for LinkLine {
    fn from(link: &Link) -> Self {
        let end = |end: &End| party(&end.endpoint, Some(&end.owner), end.netns);
        Self {
            relation: link.relation,
            kind: link.what.kind(),
            direction: link.what.direction(),
            cause: link.cause,
            confidence: link.confidence,
            after_ms: link.after,
            connection: link.connection.clone(),
            age_ms: link.age.filter(|age| !age.is_minimum).map(|age| age.millis),
            local: end(&link.local),
            peer: end(&link.peer).in_scope(scope(link.peer.endpoint.ip)),
        }
    }
}
