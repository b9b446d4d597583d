//! Requests and answers byte for byte, and answers that are none.

use netlink_packet_core::{NLM_F_ACK, NLMSG_ERROR};

use super::*;

const SEQUENCE: u32 = 7;

fn connection(from: &str, to: &str) -> Connection {
    Connection { from: from.parse().unwrap(), to: to.parse().unwrap() }
}

fn asked() -> Connection {
    connection("10.244.1.5:40000", "10.96.0.10:80")
}

fn asked_v6() -> Connection {
    connection("[fd00:244::5]:40000", "[fd00:96::10]:80")
}

/// As the kernel answers: the tuple of each direction among what else it says of a connection.
fn answer(original: Connection, reply: Connection) -> Vec<u8> {
    let family = if original.to.is_ipv4() { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
    let attributes = vec![
        ConntrackAttribute::CtaTupleOrig(tuple(original)),
        ConntrackAttribute::CtaTupleReply(tuple(reply)),
        ConntrackAttribute::CtaTimeout(10),
        ConntrackAttribute::CtaMark(0),
    ];
    message(0, SEQUENCE, family, ConntrackMessage::New(attributes))
}

fn translated(asked: Connection, to: &str) -> Vec<u8> {
    answer(asked, Connection { from: to.parse().unwrap(), to: asked.from })
}

/// `NLMSG_ERROR`: the negative errno, then the header of the request.
fn error(errno: i32) -> Vec<u8> {
    let request = request(asked(), SEQUENCE);
    let mut bytes = [&36_u32.to_ne_bytes()[..], &NLMSG_ERROR.to_ne_bytes(), &0_u16.to_ne_bytes()].concat();
    bytes.extend(SEQUENCE.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend((-errno).to_ne_bytes());
    bytes.extend(&request[..16]);
    bytes
}

/// As `linux/netfilter/nfnetlink_conntrack.h` lays it out.
#[test]
#[cfg(target_endian = "little")]
fn a_request_has_the_kernels_form() {
    let expected: [&[u8]; 9] = [
        // Length, IPCTNL_MSG_CT_GET of NFNL_SUBSYS_CTNETLINK, NLM_F_REQUEST, sequence, no port.
        &[72, 0, 0, 0, 1, 1, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0],
        // AF_INET, NFNETLINK_V0, no resource.
        &[2, 0, 0, 0],
        // CTA_TUPLE_ORIG, in it CTA_TUPLE_IP with source and destination.
        &[52, 0, 1, 0x80],
        &[20, 0, 1, 0x80],
        &[8, 0, 1, 0, 10, 244, 1, 5],
        &[8, 0, 2, 0, 10, 96, 0, 10],
        // CTA_TUPLE_PROTO with IPPROTO_TCP, source and destination port.
        &[28, 0, 2, 0x80],
        &[5, 0, 1, 0, 6, 0, 0, 0],
        &[6, 0, 2, 0, 0x9c, 0x40, 0, 0, 6, 0, 3, 0, 0, 80, 0, 0],
    ];
    assert_eq!(request(asked(), SEQUENCE), expected.concat());
    assert_eq!(request(asked_v6(), SEQUENCE)[16], libc::AF_INET6 as u8);
}

#[test]
fn the_reply_comes_from_the_endpoint() {
    let found = read(&translated(asked(), "10.244.2.9:8080"), asked(), SEQUENCE);
    assert_eq!(found, Ok(Answer::Translated("10.244.2.9:8080".parse().unwrap())));
    let found = read(&translated(asked_v6(), "[fd00:244:1::9]:8080"), asked_v6(), SEQUENCE);
    assert_eq!(found, Ok(Answer::Translated("[fd00:244:1::9]:8080".parse().unwrap())));
}

/// Recorded on Linux 6.18 after the endpoint's reset: a client at 10.77.0.1:42209 had asked for 10.96.0.10:80.
#[test]
#[cfg(target_endian = "little")]
fn a_recorded_answer_names_the_endpoint() {
    const RECORDED: &str = "d40000000001020007000000a30c0000020000003400018014000180080001000a4d0001080002000a60000a1c0002800500\
        01000600000006000200a4e1000006000300005000003400028014000180080001000a4f0009080002000a4d00011c000280\
        0500010006000000060002001f90000006000300a4e1000008000300000001ae080008000000000008000c00ddbcab9c0800\
        0b00000000020800070000000009300004802c0001800500010008000000050002000a000000050003000a00000006000400\
        230000000600050023000000";
    let bytes: Vec<u8> =
        (0..RECORDED.len()).step_by(2).map(|at| u8::from_str_radix(&RECORDED[at..at + 2], 16).unwrap()).collect();
    let asked = connection("10.77.0.1:42209", "10.96.0.10:80");
    assert_eq!(read(&bytes, asked, SEQUENCE), Ok(Answer::Translated("10.79.0.9:8080".parse().unwrap())));
}

#[test]
fn another_port_alone_is_a_translation() {
    let found = read(&translated(asked(), "10.96.0.10:8080"), asked(), SEQUENCE);
    assert_eq!(found, Ok(Answer::Translated("10.96.0.10:8080".parse().unwrap())));
}

#[test]
fn a_client_whose_own_address_was_translated_asked_the_endpoint_itself() {
    let mut reply = asked().reversed();
    reply.to = "192.168.0.1:61000".parse().unwrap();
    assert_eq!(read(&answer(asked(), reply), asked(), SEQUENCE), Ok(Answer::Untranslated));
}

#[test]
fn a_connection_found_by_its_other_direction_is_another() {
    let other = connection("10.244.2.9:80", "10.244.1.5:40000");
    let found = read(&answer(other, asked()), asked(), SEQUENCE);
    assert_eq!(found, Ok(Answer::NotTracked));
}

#[test]
fn errors_are_told_apart() {
    assert_eq!(read(&error(libc::ENOENT), asked(), SEQUENCE), Ok(Answer::NotTracked));
    for errno in [libc::EPERM, libc::EINVAL, libc::EOPNOTSUPP] {
        assert_eq!(read(&error(errno), asked(), SEQUENCE), Err(Wrong::Refused(errno)));
    }
    // An errno that cannot be negated, and a mere acknowledgement.
    let mut odd = error(libc::EPERM);
    odd[16..20].copy_from_slice(&i32::MIN.to_ne_bytes());
    assert_eq!(read(&odd, asked(), SEQUENCE), Err(Wrong::Refused(i32::MAX)));
    assert_eq!(read(&error(0), asked(), SEQUENCE), Err(Wrong::Refused(0)));
}

#[test]
fn an_answer_to_an_earlier_request_is_none() {
    let late = translated(asked(), "10.244.2.9:8080");
    assert_eq!(read(&late, asked(), SEQUENCE + 1), Err(Wrong::OtherRequest));
    assert_eq!(read(&error(libc::ENOENT), asked(), SEQUENCE + 1), Err(Wrong::OtherRequest));
}

#[test]
fn addresses_of_another_family_are_nobody() {
    for to in ["[fd00::9]:8080", "[::ffff:10.244.2.9]:8080"] {
        let found = read(&translated(asked(), to), asked(), SEQUENCE);
        assert!(matches!(found, Err(Wrong::Malformed(_))), "{found:?}");
    }
}

#[test]
fn a_tuple_that_lacks_something_is_no_connection() {
    let whole = tuple(asked());
    assert!(super::connection(&whole).is_some());
    assert_eq!(super::connection(&whole[..1]), None);
    assert_eq!(super::connection(&whole[1..]), None);
    let udp = Tuple::Proto(vec![
        ProtoTuple::Protocol(Protocol::Udp),
        ProtoTuple::SourcePort(1),
        ProtoTuple::DestinationPort(2),
    ]);
    assert_eq!(super::connection(&[whole[0].clone(), udp]), None);
    let only = message(0, SEQUENCE, NetfilterProtoFamily::IPv4, ConntrackMessage::New(Vec::new()));
    assert_eq!(read(&only, asked(), SEQUENCE), Err(Wrong::Malformed("a tuple is missing".to_owned())));
}

#[test]
fn other_messages_are_no_answer() {
    let echoed = message(NLM_F_ACK, SEQUENCE, NetfilterProtoFamily::IPv4, ConntrackMessage::Get(Vec::new()));
    assert!(matches!(read(&echoed, asked(), SEQUENCE), Err(Wrong::Malformed(_))));
}

#[test]
fn whatever_is_cut_or_garbled_is_refused_or_about_another() {
    let whole = translated(asked(), "10.244.2.9:8080");
    for length in 0..whole.len() {
        let found = read(&whole[..length], asked(), SEQUENCE);
        assert!(matches!(found, Err(Wrong::Malformed(_))), "{length}: {found:?}");
    }
    for place in 0..whole.len() {
        for value in 0..=u8::MAX {
            let mut garbled = whole.clone();
            garbled[place] = value;
            // Where the endpoint's own address stands, another is as good: nothing may panic.
            let _any = read(&garbled, asked(), SEQUENCE);
        }
    }
}
