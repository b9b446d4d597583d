//! The processes in the container.

use std::{
    io::Read,
    net::{Ipv4Addr, TcpListener},
};

use anyhow::{Context, Result, ensure};

/// Serves one connection as its first byte says. `h`: closes with the rest unread, so that the kernel sends a RST, and
/// waits for a goodbye. `q`: reads everything, closes and ends, and the container with it.
pub fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("cannot listen")?;
    let (mut stream, _) = listener.accept().context("cannot accept")?;
    let mut all = [0; super::inside::REQUEST.len()];
    while stream.peek(&mut all).context("nothing came")? < all.len() {}
    if all.starts_with(b"q") {
        return stream.read_exact(&mut all).context("nothing to read");
    }
    stream.read_exact(&mut all[..1]).context("nothing to read")?;
    drop(stream);
    // The engine tidies up only once the client has seen what it came for.
    let (mut goodbye, _) = listener.accept().context("cannot accept")?;
    ensure!(goodbye.read(&mut all).context("the client did not end")? == 0, "the client had more to say");
    Ok(())
}

/// Does nothing until it is killed.
pub fn pause() -> ! {
    loop {
        std::thread::park();
    }
}
