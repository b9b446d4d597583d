//! The parser against blobs assembled here word by word, and against the running kernel.

use std::path::Path;
use std::time::{Duration, Instant};

use super::parse::kind;
use super::{Btf, BtfError, MemberLocation};

/// Where the kernel that runs these tests describes itself.
const KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// Assembles a BTF blob; every method that adds a type returns its number.
struct Blob {
    types: Vec<u32>,
    strings: Vec<u8>,
    layout: Vec<u8>,
    last: u32,
}

const FLAG: u32 = 1 << 31;

impl Blob {
    fn new() -> Blob {
        Blob { types: Vec::new(), strings: vec![0], layout: Vec::new(), last: 0 }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let offset = self.strings.len() as u32;
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        offset
    }

    /// Any type: kind and flag and count in `info`, then the size or type, then the tail.
    fn add(&mut self, name: &str, info: u32, size_or_type: u32, tail: &[u32]) -> u32 {
        let name = self.string(name);
        self.types.extend([name, info, size_or_type]);
        self.types.extend(tail);
        self.last += 1;
        self.last
    }

    fn int(&mut self, name: &str, bytes: u32) -> u32 {
        self.add(name, kind::INT << 24, bytes, &[bytes * 8])
    }

    /// Pointer, typedef or qualifier.
    fn refer(&mut self, kind: u32, name: &str, target: u32) -> u32 {
        self.add(name, kind << 24, target, &[])
    }

    fn array(&mut self, element: u32, count: u32) -> u32 {
        self.add("", kind::ARRAY << 24, 0, &[element, element, count])
    }

    /// Struct or union with members of (name, type, place).
    fn composite(&mut self, kind: u32, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let tail: Vec<u32> = members.iter().flat_map(|&(name, id, place)| [self.string(name), id, place]).collect();
        // `kind` may carry the flag of structs with bitfields.
        let info = (kind & FLAG) | (kind & !FLAG) << 24 | members.len() as u32;
        self.add(name, info, size, &tail)
    }

    fn tracepoint(&mut self, name: &str, parameters: u32) {
        let tail = vec![0; 2 * parameters as usize];
        let prototype = self.add("", kind::FUNC_PROTO << 24 | parameters, 0, &tail);
        let pointer = self.refer(kind::PTR, "", prototype);
        self.refer(kind::TYPEDEF, &format!("btf_trace_{name}"), pointer);
    }

    fn bytes(&self, word: fn(u32) -> [u8; 4]) -> Vec<u8> {
        let size = |bytes: usize| bytes as u32;
        let types = size(4 * self.types.len());
        let strings = size(self.strings.len());
        let mut header = vec![0, types, types, strings];
        if !self.layout.is_empty() {
            header.extend([types + strings, size(self.layout.len())]);
        }
        // The magic number has the byte order of all else; version 1 and flags 0 are single bytes.
        let mut bytes = match word(1) {
            [1, ..] => vec![0x9f, 0xeb, 1, 0],
            _ => vec![0xeb, 0x9f, 1, 0],
        };
        bytes.extend(word(8 + 4 * size(header.len())));
        bytes.extend(header.into_iter().chain(self.types.clone()).flat_map(word));
        bytes.extend(&self.strings);
        bytes.extend(&self.layout);
        bytes
    }

    fn parse(&self) -> Btf {
        Btf::parse(&self.bytes(u32::to_le_bytes)).expect("the blob is well-formed")
    }
}

fn at(bit_offset: u32, bit_size: u32) -> Option<MemberLocation> {
    Some(MemberLocation { bit_offset, bit_size })
}

/// A blob with something of everything, for the tests that break it.
fn sampler() -> Blob {
    let mut blob = Blob::new();
    let int = blob.int("int", 4);
    let volatile = blob.refer(kind::VOLATILE, "", int);
    let alias = blob.refer(kind::TYPEDEF, "counter_t", volatile);
    let pointer = blob.refer(kind::PTR, "", alias);
    let array = blob.array(pointer, 5);
    let inner = blob.composite(kind::STRUCT, "", 8, &[("seen", alias, 0), ("sent", int, 32)]);
    let members = [("", inner, 0), ("list", array, 64), ("bits", int, 384 | 3 << 24)];
    let outer = blob.composite(kind::STRUCT | FLAG, "outer", 52, &members);
    let zero = blob.string("ZERO");
    blob.add("state", kind::ENUM << 24 | 1, 4, &[zero, 0]);
    let huge = blob.string("HUGE");
    blob.add("wide", kind::ENUM64 << 24 | 1, 8, &[huge, 1, 2]);
    blob.tracepoint("sample", 4);
    let constant = blob.refer(kind::CONST, "", outer);
    let socket = blob.refer(kind::PTR, "", constant);
    let prototype = blob.add("", kind::FUNC_PROTO << 24 | 3, 0, &[0, socket, 0, pointer, 0, int]);
    blob.refer(kind::FUNC, "tcp_reset", prototype);
    blob.refer(kind::FWD, "elsewhere", 0);
    blob.add("variable", kind::VAR << 24, int, &[0]);
    blob.add(".data", kind::DATASEC << 24 | 1, 4, &[int, 0, 4]);
    blob.refer(kind::FLOAT, "double", 8);
    blob.add("tag", kind::DECL_TAG << 24, int, &[0]);
    blob.refer(kind::RESTRICT, "", pointer);
    blob.refer(kind::CONST, "", int);
    blob
}

/// Everything there is to ask of `sampler`, right or wrong; must neither panic nor hang.
fn ask_everything(btf: &Btf) -> usize {
    let paths = ["seen", "sent", "list", "bits", "seen.x", "list.y", "", "."];
    let members = ["outer", "counter_t", "elsewhere", "state"]
        .iter()
        .flat_map(|name| paths.iter().map(move |path| btf.member(name, path)))
        .flatten()
        .count();
    let enums = ["state", "wide", "outer"].map(|name| btf.enumerators(name));
    members
        + enums.iter().flatten().count()
        + btf.function_parameters("tcp_reset").map_or(0, |parameters| parameters.len())
        + btf.tracepoint_args("sample").unwrap_or(0)
}

#[test]
fn members_are_found_inside_unnamed_members() {
    let mut blob = Blob::new();
    let int = blob.int("int", 4);
    let long = blob.int("long", 8);
    let pair = blob.composite(kind::STRUCT, "", 8, &[("port", int, 0), ("num", int, 32)]);
    let members = [("addrpair", long, 0), ("", pair, 0)];
    let union = blob.composite(kind::UNION, "", 8, &members);
    // An unnamed member whose type has a name, behind a qualifier.
    let tree = blob.composite(kind::STRUCT, "ns_tree", 8, &[("ns_id", long, 0)]);
    let constant = blob.refer(kind::CONST, "", tree);
    let members = [("first", int, 0), ("", union, 64), ("", constant, 128)];
    let common = blob.composite(kind::STRUCT, "common", 24, &members);
    let members = [("lead", long, 0), ("body", common, 64)];
    blob.composite(kind::STRUCT, "outer", 32, &members);
    let btf = blob.parse();

    assert_eq!(btf.member("common", "first"), at(0, 32));
    assert_eq!(btf.member("common", "addrpair"), at(64, 64));
    assert_eq!(btf.member("common", "num"), at(96, 32));
    assert_eq!(btf.member("common", "ns_id"), at(128, 64));
    assert_eq!(btf.member("outer", "body"), at(64, 192));
    assert_eq!(btf.member("outer", "body.num"), at(160, 32));
    assert_eq!(btf.member("outer", "body.ns_id"), at(192, 64));
}

#[test]
fn what_is_absent_is_none() {
    let btf = sampler().parse();
    assert_eq!(btf.member("nowhere", "seen"), None);
    assert_eq!(btf.member("outer", "sk_flags"), None);
    assert_eq!(btf.member("outer", ""), None, "must not find unnamed members");
    assert_eq!(btf.member("outer", ".seen"), None);
    assert_eq!(btf.member("outer", "seen."), None);
    assert_eq!(btf.member("outer", "list.seen"), None, "no way through an array");
    assert_eq!(btf.member("outer", "seen.sent"), None, "no way through an integer");
    assert_eq!(btf.member("counter_t", "seen"), None, "not a typedef of a struct");
    assert_eq!(btf.member("state", "ZERO"), None);
    assert_eq!(btf.tracepoint_args("missing"), None);
    assert_eq!(btf.enumerators("outer"), None);
    let parameters = btf.function_parameters("tcp_reset");
    assert_eq!(
        parameters,
        Some(vec!["outer".to_owned(), String::new(), String::new()]),
        "a struct, a number, a number"
    );
    assert_eq!(btf.function_parameters("outer"), None);
    assert_eq!(btf.function_parameters(""), None);
}

#[test]
fn sizes_come_from_behind_typedefs_and_qualifiers() {
    let mut blob = Blob::new();
    let byte = blob.int("unsigned char", 1);
    let volatile = blob.refer(kind::VOLATILE, "", byte);
    // Type tags of newer kernels carry the flag.
    let tag = blob.add("rcu", kind::TYPE_TAG << 24 | FLAG, volatile, &[]);
    let alias = blob.refer(kind::TYPEDEF, "u8", tag);
    let pointer = blob.refer(kind::PTR, "", 0);
    let name = blob.array(alias, 16);
    let table = blob.array(name, 3);
    let flexible = blob.array(pointer, 0);
    let double = blob.refer(kind::FLOAT, "double", 8);
    let choice = blob.add("", kind::ENUM << 24, 4, &[]);
    let members = [
        ("state", alias, 0),
        ("next", pointer, 64),
        ("name", name, 128),
        ("table", table, 256),
        ("ratio", double, 640),
        ("choice", choice, 704),
        ("ancestors", flexible, 768),
    ];
    let anonymous = blob.composite(kind::STRUCT, "", 96, &members);
    let constant = blob.refer(kind::CONST, "", anonymous);
    blob.refer(kind::TYPEDEF, "possible_net_t", constant);
    let btf = blob.parse();

    let sizes = members.map(|(name, ..)| btf.member("possible_net_t", name));
    let expected = [at(0, 8), at(64, 64), at(128, 128), at(256, 384), at(640, 64), at(704, 32), at(768, 0)];
    assert_eq!(sizes, expected);
}

#[test]
fn bitfields_of_both_styles_have_place_and_width() {
    let mut blob = Blob::new();
    let byte = blob.int("u8", 1);
    let alias = blob.refer(kind::TYPEDEF, "bits_t", byte);
    let members = [("reuse", byte, 152 | 4 << 24), ("ipv6only", alias, 157 | 1 << 24), ("plain", alias, 160)];
    blob.composite(kind::STRUCT | FLAG, "flagged", 24, &members);
    // The older style: an integer type of 3 bits that starts at bit 2 of its byte.
    let odd = blob.add("u8", kind::INT << 24, 1, &[2 << 16 | 3]);
    let odd = blob.refer(kind::VOLATILE, "", odd);
    blob.composite(kind::STRUCT, "older", 24, &[("field", odd, 160), ("plain", byte, 168)]);
    // Without the flag all 32 bits are offset.
    blob.composite(kind::STRUCT, "large", 1 << 26, &[("far", byte, 3 << 27)]);
    let btf = blob.parse();

    assert_eq!(btf.member("flagged", "reuse"), at(152, 4));
    assert_eq!(btf.member("flagged", "ipv6only"), at(157, 1));
    assert_eq!(btf.member("flagged", "plain"), at(160, 8));
    assert_eq!(btf.member("older", "field"), at(162, 3));
    assert_eq!(btf.member("older", "plain"), at(168, 8));
    assert_eq!(btf.member("large", "far"), at(3 << 27, 8));
}

#[test]
fn the_first_definition_of_a_name_counts_and_declarations_do_not() {
    let mut blob = Blob::new();
    let int = blob.int("int", 4);
    blob.refer(kind::FWD, "sock", 0);
    blob.add("reason", kind::ENUM << 24, 4, &[]);
    blob.refer(kind::TYPEDEF, "sock", int);
    blob.composite(kind::STRUCT, "sock", 8, &[("state", int, 32)]);
    blob.composite(kind::STRUCT, "sock", 16, &[("state", int, 96)]);
    let one = blob.string("ONE");
    blob.add("reason", kind::ENUM << 24 | 1, 4, &[one, 1]);
    let btf = blob.parse();

    assert_eq!(btf.member("sock", "state"), at(32, 32));
    assert_eq!(btf.enumerators("reason"), Some(vec![(1, "ONE".to_owned())]));
}

#[test]
fn names_with_the_same_hash_stay_apart() {
    // With 200 000 names under 32-bit hashes about five pairs collide.
    let mut blob = Blob::new();
    let int = blob.int("int", 4);
    let member = blob.string("member");
    let names: Vec<String> = (0..200_000).map(|n| format!("s{n}")).collect();
    for (n, name) in (0..).zip(&names) {
        blob.add(name, kind::STRUCT << 24 | 1, 4, &[member, int, n]);
    }
    let btf = blob.parse();
    for (n, name) in (0..).zip(&names) {
        assert_eq!(btf.member(name, "member"), at(n, 32), "{name}");
    }
}

#[test]
fn tracepoints_count_their_arguments_without_the_leading_one() {
    let mut blob = Blob::new();
    blob.tracepoint("old_reset", 3);
    blob.tracepoint("new_reset", 4);
    blob.tracepoint("odd", 0);
    let int = blob.int("int", 4);
    blob.refer(kind::TYPEDEF, "btf_trace_no_pointer", int);
    let pointer = blob.refer(kind::PTR, "", int);
    blob.refer(kind::TYPEDEF, "btf_trace_no_function", pointer);
    let btf = blob.parse();

    assert_eq!(btf.tracepoint_args("old_reset"), Some(2));
    assert_eq!(btf.tracepoint_args("new_reset"), Some(3));
    for none in ["odd", "no_pointer", "no_function", "missing"] {
        assert_eq!(btf.tracepoint_args(none), None, "{none}");
    }
}

#[test]
fn enumerators_keep_their_sign_and_width() {
    let mut blob = Blob::new();
    let [a, b] = ["A", "B"].map(|name| blob.string(name));
    let minus = (-1_i32).cast_unsigned();
    blob.add("signed", kind::ENUM << 24 | FLAG | 2, 4, &[a, 7, b, minus]);
    blob.add("unsigned", kind::ENUM << 24 | 2, 4, &[a, 7, b, minus]);
    blob.add("wide", kind::ENUM64 << 24 | 2, 8, &[a, 5, 0, b, 1, 2]);
    let signed = kind::ENUM64 << 24 | FLAG | 2;
    blob.add("signed_wide", signed, 8, &[a, 5, 0, b, minus, minus]);
    // More than 16 bits can count, which kernels of 2026 allow.
    let many: Vec<u32> = (0..70_000).flat_map(|value| [a, value]).collect();
    blob.add("many", kind::ENUM << 24 | 70_000, 4, &many);
    let btf = blob.parse();

    let values = |name| btf.enumerators(name).expect("the enum exists");
    let pair = |a, b| vec![(a, "A".to_owned()), (b, "B".to_owned())];
    assert_eq!(values("many").len(), 70_000);
    assert_eq!(values("signed"), pair(7, -1));
    assert_eq!(values("unsigned"), pair(7, 4_294_967_295));
    assert_eq!(values("wide"), pair(5, 2 << 32 | 1));
    assert_eq!(values("signed_wide"), pair(5, -1));
}

#[test]
fn either_byte_order_is_read() {
    let blob = sampler();
    let little = blob.parse();
    let big = Btf::parse(&blob.bytes(u32::to_be_bytes)).expect("big-endian BTF is accepted");
    for btf in [little, big] {
        assert_eq!(btf.member("outer", "sent"), at(32, 32));
        assert_eq!(btf.member("outer", "list"), at(64, 320));
        assert_eq!(btf.member("outer", "bits"), at(384, 3));
        let wide = Some(vec![(2 << 32 | 1, "HUGE".to_owned())]);
        assert_eq!(btf.enumerators("wide"), wide);
    }
}

#[test]
fn references_in_a_circle_end() {
    let mut blob = Blob::new();
    // Type 1 and 2 are each other; 3 is an array of itself; 4 contains itself thrice, unnamed.
    blob.refer(kind::TYPEDEF, "btf_trace_circle", 2);
    blob.refer(kind::CONST, "", 1);
    blob.array(3, 2);
    let members = [("", 4, 0), ("", 4, 0), ("", 4, 0), ("self", 4, 8), ("round", 1, 0)];
    blob.composite(kind::STRUCT, "knot", 4, &members);
    blob.composite(kind::STRUCT, "list", 4, &[("array", 3, 0), ("gone", 99, 0), ("void", 0, 0)]);
    let btf = blob.parse();

    assert_eq!(btf.tracepoint_args("circle"), None);
    assert_eq!(btf.member("btf_trace_circle", "x"), None);
    assert_eq!(btf.member("knot", "absent"), None);
    assert_eq!(btf.member("knot", "round"), None);
    assert_eq!(btf.member("knot", "self.self"), at(16, 32));
    for member in ["array", "gone", "void"] {
        assert_eq!(btf.member("list", member), None, "{member}");
    }
}

#[test]
fn a_kind_of_the_future_is_skipped_if_its_length_is_told() {
    let mut blob = Blob::new();
    let int = blob.int("int", 4);
    blob.add("later", 21 << 24 | 3, 0, &[0; 7]);
    blob.composite(kind::STRUCT, "behind", 4, &[("member", int, 0)]);
    let unknown = Btf::parse(&blob.bytes(u32::to_le_bytes)).expect_err("no length is told");
    assert!(matches!(unknown, BtfError::UnknownKind { id: 2, kind: 21 }), "{unknown}");

    // One entry of four bytes for each kind: fixed part, part for each element, flags.
    blob.layout = vec![0; 21 * 4];
    blob.layout.extend([4, 8, 0, 0]);
    assert_eq!(blob.parse().member("behind", "member"), at(0, 32));

    // A length that is no whole number of words, and kind 0, which no type has.
    blob.layout[21 * 4] = 3;
    assert!(Btf::parse(&blob.bytes(u32::to_le_bytes)).is_err());
    let mut blob = Blob::new();
    blob.layout = vec![0; 4];
    blob.add("nothing", 0, 0, &[]);
    assert!(Btf::parse(&blob.bytes(u32::to_le_bytes)).is_err());
}

#[test]
fn every_truncation_is_an_error() {
    let whole = sampler().bytes(u32::to_le_bytes);
    for length in 0..whole.len() {
        let parsed = Btf::parse(&whole[..length]);
        assert!(parsed.is_err(), "{length} of {} bytes", whole.len());
    }
    Btf::parse(&whole).expect("the whole is fine");
}

#[test]
fn contradictions_are_refused() {
    let refused = |bytes: &[u8], part: &str| {
        let message = Btf::parse(bytes).expect_err(part).to_string();
        assert!(message.contains(part), "{message}");
    };
    let whole = sampler().bytes(u32::to_le_bytes);
    let with = |position: usize, word: u32| {
        let mut bytes = whole.clone();
        bytes[position..position + 4].copy_from_slice(&word.to_le_bytes());
        bytes
    };
    refused(&with(4, 12), "header is too short");
    refused(&with(4, u32::MAX), "header is cut short");
    refused(&with(8, u32::MAX), "past the end");
    refused(&with(20, u32::MAX), "past the end");
    refused(&with(12, 17), "whole number of words");
    refused(&with(20, 0), "NUL");
    refused(&with(16, 0), "NUL");
    refused(&with(24, u32::MAX), "name lies outside");

    // More members than follow, and a member with a name that is none.
    let mut blob = Blob::new();
    blob.add("short", kind::STRUCT << 24 | 2, 4, &[0, 0, 0]);
    refused(&blob.bytes(u32::to_le_bytes), "last type is cut short");
    let mut blob = Blob::new();
    blob.add("stray", kind::STRUCT << 24 | 2, 4, &[0, 0, 0, 999, 0, 0]);
    refused(&blob.bytes(u32::to_le_bytes), "name lies outside");
}

#[test]
fn no_damage_panics_or_hangs() {
    let whole = sampler().bytes(u32::to_le_bytes);
    assert_eq!(ask_everything(&sampler().parse()), 4 + 2 + 3 + 3);
    let mut accepted = 0;
    for position in 0..whole.len() {
        for value in [0, 1, 3, 4, 8, 0x7f, 0x80, 0x84, 0xff] {
            let mut damaged = whole.clone();
            damaged[position] = value;
            if let Ok(btf) = Btf::parse(&damaged) {
                ask_everything(&btf);
                accepted += 1;
            }
        }
    }
    assert!(accepted > 0, "damage to offsets goes unnoticed, by nature");
}

#[test]
fn errors_tell_the_cases_apart() {
    let missing = Btf::from_kernel(Path::new("/nonexistent/vmlinux"));
    let message = missing.as_ref().map_err(ToString::to_string).err();
    assert!(matches!(missing, Err(BtfError::Unreadable { .. })));
    assert_eq!(message.as_deref(), Some("cannot read the kernel's type information at /nonexistent/vmlinux"));
    let of = |data: &[u8]| Btf::parse(data).expect_err("it is no BTF");
    assert!(matches!(of(b""), BtfError::NotBtf));
    assert!(matches!(of(b"\x7fELF and so on"), BtfError::NotBtf));
    assert!(matches!(of(&[0x9f, 0xeb, 2, 0]), BtfError::UnsupportedVersion(2)));
    assert!(matches!(of(&[0x9f, 0xeb, 1, 0]), BtfError::Malformed(_)));
}

#[test]
fn the_running_kernel_is_understood() {
    let started = Instant::now();
    let btf = Btf::from_kernel(Path::new(KERNEL)).expect("the kernel has BTF and it can be read");
    let took = started.elapsed();
    // A release build takes a few hundredths of this; it only has to fail if parsing turns quadratic.
    assert!(took < Duration::from_secs(5), "parsing took {took:?}");

    let common = btf.composite("sock_common").expect("TCP needs sock_common");
    let state = btf.member("sock_common", "skc_state").expect("and a state");
    assert_eq!(state.bit_size, 8);
    assert!(state.bit_offset + state.bit_size <= common.size_or_type * 8);
    // A sock begins with its sock_common, an inet_sock with its sock, and so on up to tcp_sock.
    assert_eq!(btf.member("sock", "__sk_common"), at(0, common.size_or_type * 8));
    assert_eq!(btf.member("sock", "__sk_common.skc_state"), Some(state));
    let chain = [("inet_sock", "sk"), ("inet_connection_sock", "icsk_inet"), ("tcp_sock", "inet_conn")];
    for (structure, first) in chain {
        let first = btf.member(structure, first).expect(structure);
        assert_eq!(first.bit_offset, 0, "{structure}");
    }
    // Inside two layers of unnamed members; a bitfield; a named struct within.
    let port = btf.member("sock_common", "skc_dport").expect("a port");
    assert_eq!(port.bit_size, 16);
    let flag = btf.member("tcp_sock", "rx_opt.saw_tstamp").expect("a bit");
    assert_eq!(flag.bit_size, 1);
    let stamp = btf.member("inet_connection_sock", "icsk_ack.lrcvtime");
    assert_eq!(stamp.map(|stamp| stamp.bit_size), Some(32));
    let net = btf.member("possible_net_t", "net");
    assert_eq!(net.map(|net| net.bit_size), Some(64));

    assert_eq!(btf.tracepoint_args("inet_sock_set_state"), Some(3));
    assert_eq!(btf.tracepoint_args("tcp_receive_reset"), Some(1));
    assert!(matches!(btf.tracepoint_args("tcp_send_reset"), Some(2 | 3)));
    assert_eq!(btf.function_parameters("tcp_set_state"), Some(vec!["sock".to_owned(), String::new()]));
    assert_eq!(btf.function_parameters("tcp_set_stat"), None);
    let states = btf.enumerators("sock_type").expect("enum sock_type");
    assert!(states.contains(&(1, "SOCK_STREAM".to_owned())));
}
