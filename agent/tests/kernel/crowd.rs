//! Many connections at once, for the actors that hold them.

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::OwnedFd,
};

use rustix::{
    net::{AddressFamily, SocketType, bind, connect, listen, socket},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::sockets::linger_zero;

/// Room for as many descriptors as a process may have.
fn make_room() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to there it is free");
}

/// Lets as many connections wait for [`accept`] as the kernel allows by default (`net.core.somaxconn`).
pub fn queue_up(listener: &TcpListener) {
    listen(listener, 4096).expect("a longer queue");
}

/// Accepts so many, which are there already: were both ends at work at once, they would mostly wake each other up.
pub fn accept(listener: &TcpListener, count: usize) -> Vec<TcpStream> {
    make_room();
    (0..count).map(|_| listener.accept().expect("a connection").0).collect()
}

/// Connects so often to a port of loopback, from an address of its own there: each has 28 231 ports by default
/// (`ip_local_port_range`).
pub fn connect_to(port: u16, own: Ipv4Addr, count: usize) -> Vec<TcpStream> {
    make_room();
    let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let connection = |_| {
        let socket: OwnedFd = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &SocketAddrV4::new(own, 0)).expect("an address of loopback");
        connect(&socket, &server).expect("a connection");
        TcpStream::from(socket)
    };
    (0..count).map(connection).collect()
}

/// Resets so many of them, the last ones.
pub fn reset(connections: &mut Vec<TcpStream>, count: usize) {
    for connection in connections.drain(connections.len() - count..) {
        linger_zero(&connection);
    }
}
