//! RSTs of a host that this agent does not see: made by hand and sent through a raw socket.

use std::{
    net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::sockets::tcp_option;

/// The send queue of TCP_REPAIR_QUEUE, `include/uapi/linux/tcp.h`.
const SEND_QUEUE: i32 = 2;

/// Takes a connection away without a word to its peer, as a host that lost its power does, and returns the sequence
/// number it would have sent next. (TCP_REPAIR is what checkpointing uses.)
pub fn vanish(stream: TcpStream) -> u32 {
    tcp_option(&stream, libc::TCP_REPAIR, 1);
    let next = queue_sequence(&stream, SEND_QUEUE);
    drop(stream);
    next
}

fn queue_sequence(stream: &TcpStream, queue: i32) -> u32 {
    tcp_option(stream, libc::TCP_REPAIR_QUEUE, queue);
    let mut sequence = 0_u32;
    let mut length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the option is an int and `length` says so.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_QUEUE_SEQ,
            (&raw mut sequence).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "TCP_QUEUE_SEQ: {}", std::io::Error::last_os_error());
    sequence
}

/// Sends a RST from `from` to `to` with this sequence number, with a timestamp option as a live socket would. Call it in
/// the namespace of `from`.
pub fn send_rst(from: SocketAddr, to: SocketAddr, sequence: u32) {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("only IPv4 here") };
    send(&socket(), to, &rst(from, to, sequence, None));
}

/// Waits for the SYN to `server` that `connect` sends, and answers it as a reject rule does: with a RST of nobody's.
pub fn reject<T>(server: SocketAddr, connect: impl FnOnce() -> T) -> T {
    let SocketAddr::V4(server) = server else { panic!("only IPv4 here") };
    let socket = socket();
    let connecting = connect();
    let mut packet = [0_u8; 2048];
    loop {
        // SAFETY: the buffer is as long as said.
        let length = unsafe { libc::recv(socket.as_raw_fd(), packet.as_mut_ptr().cast(), packet.len(), 0) };
        assert!(length > 0, "recv: {}", std::io::Error::last_os_error());
        let segment = &packet[usize::from(packet[0] & 0xf) * 4..length.cast_unsigned()];
        let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
        // A SYN without ACK.
        if segment[13] & 0x12 == 0x02 && port(2) == server.port() {
            let client = SocketAddrV4::new([packet[12], packet[13], packet[14], packet[15]].into(), port(0));
            let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
            send(&socket, client, &rst(server, client, 0, Some(sequence.wrapping_add(1))));
            return connecting;
        }
    }
}

/// Has the kernel drop whatever comes for this listener, without an answer (`tcp_filter()`).
pub fn take_nothing(listener: &TcpListener) {
    // BPF_RET of 0 bytes, `include/uapi/linux/bpf_common.h`.
    let mut nothing = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    // SAFETY: the option is a program of one instruction, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "SO_ATTACH_FILTER: {}", std::io::Error::last_os_error());
}

fn socket() -> OwnedFd {
    // SAFETY: socket has no memory arguments; the descriptor is owned from here on.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_TCP);
        assert!(fd >= 0, "a raw socket: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

fn send(socket: &OwnedFd, to: SocketAddrV4, segment: &[u8]) {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: the address is a `sockaddr_in` of the size given, the segment as long as said.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            segment.as_ptr().cast(),
            segment.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_in>() as libc::socklen_t,
        )
    };
    assert_eq!(sent, segment.len().cast_signed(), "sendto: {}", std::io::Error::last_os_error());
}

/// A TCP header with RST, with ACK if it acknowledges, and a timestamp option.
fn rst(from: SocketAddrV4, to: SocketAddrV4, sequence: u32, acknowledges: Option<u32>) -> Vec<u8> {
    let mut header = Vec::with_capacity(32);
    header.extend(from.port().to_be_bytes());
    header.extend(to.port().to_be_bytes());
    header.extend(sequence.to_be_bytes());
    header.extend(acknowledges.unwrap_or(0).to_be_bytes());
    // Eight words long; RST or RST and ACK.
    header.extend([8 << 4, if acknowledges.is_some() { 0x14 } else { 0x04 }]);
    header.extend([0; 6]);
    header.extend([1, 1, 8, 10]);
    header.extend([0; 8]);
    let mut sum: u32 = 6 + header.len() as u32;
    for address in [from.ip().octets(), to.ip().octets()] {
        sum += u32::from(u16::from_be_bytes([address[0], address[1]]));
        sum += u32::from(u16::from_be_bytes([address[2], address[3]]));
    }
    for word in header.chunks_exact(2) {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !(sum as u16);
    header[16..18].copy_from_slice(&checksum.to_be_bytes());
    header
}
