//! The sockets of our network namespace, as the kernel lists them: looking at them changes nothing.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// States by their number in `net/tcp_states.h`.
const ESTABLISHED: u8 = 1;
const TIME_WAIT: u8 = 6;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

/// How often to look.
const PERIOD: Duration = Duration::from_millis(20);

/// One socket.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    local: u16,
    peer: u16,
    state: u8,
    /// What was received and not read.
    unread: u32,
}

/// Whether something listens on the port.
pub fn listens(port: u16) -> Result<bool> {
    Ok(all()?.iter().any(|socket| socket.state == LISTEN && socket.local == port))
}

/// Whether data lies unread at this local port of a connection.
pub fn has_unread(port: u16) -> Result<bool> {
    Ok(all()?.iter().any(|socket| socket.state == ESTABLISHED && socket.local == port && socket.unread > 0))
}

/// How many connections to this port were closed from this end, all data and both FINs acknowledged.
pub fn closed_towards(peer: u16) -> Result<usize> {
    Ok(all()?.iter().filter(|socket| socket.state == TIME_WAIT && socket.peer == peer).count())
}

/// Waits until the peer at this port has closed a connection, whose own port may be given.
pub fn wait_for_fin(peer: u16, local: Option<u16>, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    let is_it = |socket: &Socket| {
        socket.state == CLOSE_WAIT && socket.peer == peer && local.is_none_or(|local| socket.local == local)
    };
    while !all()?.iter().any(is_it) {
        if Instant::now() > deadline {
            bail!("the server at port {peer} has not closed the idle connection within {} s", patience.as_secs());
        }
        thread::sleep(PERIOD);
    }
    Ok(())
}

fn all() -> Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        // A machine without IPv6 has only the first one.
        if Path::new(table).exists() {
            let text = fs::read_to_string(table).with_context(|| format!("cannot read {table}"))?;
            sockets.extend(text.lines().filter_map(parse));
        }
    }
    Ok(sockets)
}

/// `sl local_address rem_address st tx_queue:rx_queue …`, all in hexadecimal digits.
fn parse(line: &str) -> Option<Socket> {
    let mut words = line.split_whitespace().skip(1);
    let mut port = || u16::from_str_radix(words.next()?.rsplit_once(':')?.1, 16).ok();
    let (local, peer) = (port()?, port()?);
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let unread = u32::from_str_radix(words.next()?.split_once(':')?.1, 16).ok()?;
    Some(Socket { local, peer, state, unread })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_socket() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0";
        assert_eq!(parse(line), Some(Socket { local: 8080, peer: 0, state: LISTEN, unread: 0 }));
        let line =
            "   1: 0000000000000000FFFF00000100007F:A8F0 0000000000000000FFFF00000100007F:1F90 08 00000000:0000001F";
        assert_eq!(parse(line), Some(Socket { local: 43248, peer: 8080, state: CLOSE_WAIT, unread: 31 }));
        assert_eq!(parse("  sl  local_address rem_address   st tx_queue rx_queue"), None);
    }
}
