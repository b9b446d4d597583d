//! The request for one connection of the kernel's connection tracking, and what its answer says.
//!
//! `IPCTNL_MSG_CT_GET` by the tuple of the direction that opened the connection (`ctnetlink_get_conntrack` in
//! `net/netfilter/nf_conntrack_netlink.c`); the answer is one `IPCTNL_MSG_CT_NEW`, or an error.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple},
};

/// A TCP connection as the end that opened it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who opened it.
    pub from: SocketAddr,
    /// Whom it asked for.
    pub to: SocketAddr,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not this address is behind the connection, but another.
    Translated(SocketAddr),
    /// The address asked for is who answers.
    Untranslated,
    /// No connection of these ends is known.
    NotTracked,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The answer to another request.
    #[error("an answer to an earlier request")]
    OtherRequest,
    /// The kernel refuses.
    #[error("{}", std::io::Error::from_raw_os_error(*.0))]
    Refused(i32),
    /// It makes no sense.
    #[error("an answer that makes no sense: {0}")]
    Malformed(String),
}

impl Connection {
    /// The other direction as it is without any translation.
    #[cfg(test)]
    const fn reversed(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// The request for a connection, both ends of which have one family of addresses.
#[must_use]
pub fn request(connection: Connection, sequence: u32) -> Vec<u8> {
    let family = if connection.to.is_ipv4() { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
    let original = ConntrackAttribute::CtaTupleOrig(tuple(connection));
    message(NLM_F_REQUEST, sequence, family, ConntrackMessage::Get(vec![original]))
}

/// What the kernel's answer to the request with this sequence number says.
///
/// # Errors
///
/// If it says nothing about the connection.
pub fn read(answer: &[u8], asked: Connection, sequence: u32) -> Result<Answer, Wrong> {
    let message = NetlinkMessage::<NetfilterMessage>::deserialize(answer);
    let (header, payload) = message.map_err(|error| Wrong::Malformed(error.to_string()))?.into_parts();
    if header.sequence_number != sequence {
        return Err(Wrong::OtherRequest);
    }
    let attributes = match payload {
        NetlinkPayload::InnerMessage(NetfilterMessage {
            inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
            ..
        }) => attributes,
        NetlinkPayload::Error(error) if error.raw_code() == -libc::ENOENT => return Ok(Answer::NotTracked),
        NetlinkPayload::Error(error) => return Err(Wrong::Refused(error.raw_code().saturating_neg())),
        _ => return Err(Wrong::Malformed("it is no connection".to_owned())),
    };
    let (mut original, mut reply) = (None, None);
    for attribute in &attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => original = connection(parts),
            ConntrackAttribute::CtaTupleReply(parts) => reply = connection(parts),
            _ => {}
        }
    }
    let (Some(original), Some(reply)) = (original, reply) else {
        return Err(Wrong::Malformed("a tuple is missing".to_owned()));
    };
    Ok(if original != asked {
        // The kernel looks in both directions: this is the other end's view of some connection.
        Answer::NotTracked
    } else if reply.from == asked.to {
        Answer::Untranslated
    } else if reply.from.is_ipv4() == asked.to.is_ipv4() {
        Answer::Translated(reply.from)
    } else {
        return Err(Wrong::Malformed("addresses of two families".to_owned()));
    })
}

fn message(flags: u16, sequence: u32, family: NetfilterProtoFamily, inner: ConntrackMessage) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    // NFNETLINK_V0; no resource.
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn tuple(Connection { from, to }: Connection) -> Vec<Tuple> {
    vec![
        Tuple::Ip(vec![IPTuple::SourceAddress(from.ip()), IPTuple::DestinationAddress(to.ip())]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(Protocol::Tcp),
            ProtoTuple::SourcePort(from.port()),
            ProtoTuple::DestinationPort(to.port()),
        ]),
    ]
}

/// The ends in a tuple of TCP; none if one of them is missing.
fn connection(parts: &[Tuple]) -> Option<Connection> {
    let (mut from, mut to) = (None::<IpAddr>, None::<IpAddr>);
    let (mut from_port, mut to_port, mut protocol) = (None, None, None);
    for part in parts {
        match part {
            Tuple::Ip(addresses) => addresses.iter().for_each(|address| match address {
                IPTuple::SourceAddress(address) => from = Some(*address),
                IPTuple::DestinationAddress(address) => to = Some(*address),
                _ => {}
            }),
            Tuple::Proto(numbers) => numbers.iter().for_each(|number| match number {
                ProtoTuple::Protocol(number) => protocol = Some(*number),
                ProtoTuple::SourcePort(port) => from_port = Some(*port),
                ProtoTuple::DestinationPort(port) => to_port = Some(*port),
                _ => {}
            }),
            _ => {}
        }
    }
    (protocol? == Protocol::Tcp)
        .then_some(Connection { from: SocketAddr::new(from?, from_port?), to: SocketAddr::new(to?, to_port?) })
}

#[cfg(test)]
mod tests;
