//! The process in the container.

use std::{
    io::Read,
    net::{Ipv4Addr, TcpListener},
};

use anyhow::{Context, Result, ensure};

/// Reads one byte of what comes and closes: the rest is unread, so that the kernel sends a RST.
pub fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("cannot listen")?;
    let (mut stream, _) = listener.accept().context("cannot accept")?;
    let mut all = [0; super::inside::REQUEST.len()];
    while stream.peek(&mut all).context("nothing came")? < all.len() {}
    stream.read_exact(&mut all[..1]).context("nothing to read")?;
    drop(stream);
    // The engine tidies up only once the client has seen what it came for.
    let (mut goodbye, _) = listener.accept().context("cannot accept")?;
    ensure!(goodbye.read(&mut all).context("the client did not end")? == 0, "the client had more to say");
    Ok(())
}
