//! The HTTP server: `/metrics`, `/livez`, `/readyz`.
//!
//! On a thread of its own, so that whoever asks slowly or often cannot hold up a stage. It reads nothing but the request's
//! head and answers everybody who reaches the address: nothing of it is secret within a cluster, and nothing can be changed.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use super::{
    exposition::{Format, text},
    probes::{Answer, liveness, readiness},
    samples::Sources,
};

/// Connections at once; more wait in the listener's queue.
const CONNECTIONS: usize = 32;
/// Whoever connects has to ask within this time, and again on a connection that is kept.
const HEAD: Duration = Duration::from_secs(30);

const PLAIN: &str = "text/plain; charset=utf-8";

/// Listens, and answers from then on. Returns the address, with its port where any was asked for (port 0).
///
/// # Errors
///
/// If nobody can listen there; the sentence says what to do.
pub fn start(address: SocketAddr, sources: Sources) -> Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address} for /metrics and probes; name another address with --listen")
    })?;
    let address = listener.local_addr().context("a listener has an address")?;
    listener.set_nonblocking(true).context("preparing the listener")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    std::thread::Builder::new()
        .name("http".to_owned())
        .spawn(move || runtime.block_on(serve(listener, Arc::new(sources))))
        .context("starting the thread that answers /metrics")?;
    Ok(address)
}

async fn serve(listener: TcpListener, sources: Arc<Sources>) -> io::Result<()> {
    /// Between two tries to accept while there are no descriptors.
    const PAUSE: Duration = Duration::from_millis(100);

    let listener = tokio::net::TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let sources = Arc::clone(&sources);
        tokio::spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| {
                let response = respond(request.method(), request.uri().path(), accept(&request), &sources);
                async { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), answer);
            // Whoever breaks off does not get an answer.
            let _broken_off = connection.await;
            drop(place);
        });
    }
}

fn accept<T>(request: &Request<T>) -> Option<&str> {
    request.headers().get(ACCEPT).and_then(|value| value.to_str().ok())
}

fn respond(method: &Method, path: &str, accept: Option<&str>, sources: &Sources) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut response = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => {
            let format = Format::asked(accept);
            match text(sources, format) {
                Ok(text) => response(StatusCode::OK, format.content_type(), text),
                Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
            }
        }
        "/livez" => probe(liveness(&sources.vitals)),
        "/readyz" => probe(readiness(&sources.vitals)),
        "/" => response(StatusCode::OK, PLAIN, "rstscope: /metrics /livez /readyz\n".to_owned()),
        _ => response(StatusCode::NOT_FOUND, PLAIN, "there are /metrics, /livez and /readyz\n".to_owned()),
    }
}

fn probe(Answer { is_well, text }: Answer) -> Response<Full<Bytes>> {
    response(if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, PLAIN, text)
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;
    use crate::kernel::attach::Attached;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn it_answers_while_others_say_nothing() {
        let sources = Sources::default();
        let vitals = Arc::clone(&sources.vitals);
        let address = start("127.0.0.1:0".parse().unwrap(), sources).unwrap();
        let _silent: Vec<TcpStream> = (0..CONNECTIONS / 2).map(|_| TcpStream::connect(address).unwrap()).collect();
        let metrics = ask(address, "GET /metrics");
        assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("rstscope_build_info{"), "{metrics}");
        assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
        assert!(ask(address, "GET /readyz").starts_with("HTTP/1.1 503"));
        assert!(ask(address, "GET /livez?verbose").starts_with("HTTP/1.1 200"));
        vitals.attached(&Attached::default());
        assert!(ask(address, "GET /readyz").starts_with("HTTP/1.1 200"));
        assert!(ask(address, "POST /metrics").starts_with("HTTP/1.1 405"));
        assert!(ask(address, "GET /debug").starts_with("HTTP/1.1 404"));
        let refused = format!("{:#}", start(address, Sources::default()).unwrap_err());
        assert!(refused.contains("--listen") && refused.contains("in use"), "{refused}");
    }
}
