//! A home-made container runtime: no real one answers slowly, wrongly or with what nobody can have named so. The real
//! ones are asked by `cargo xtask containers`.

use std::{collections::HashMap, convert::Infallible, path::PathBuf, sync::Arc, sync::Mutex};

use bytes::{BufMut, Bytes};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
};

/// What comes back for a request.
#[derive(Clone)]
pub(crate) enum Answer {
    /// These bytes as the message.
    Message(Vec<u8>),
    /// These bytes as the body, with the status of success.
    Body(Vec<u8>),
    /// A status other than success.
    Status(u8, &'static str),
    /// Nothing, ever.
    Silence,
}

impl Answer {
    /// This message.
    pub(crate) fn of(message: &impl Message) -> Self {
        Self::Message(message.encode_to_vec())
    }
}

/// A running runtime.
pub(crate) struct HomeMade {
    _folder: TempDir,
    /// Where it listens.
    pub(crate) socket: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl HomeMade {
    /// Answers these methods, and `Unimplemented` to others.
    pub(crate) fn answering(answers: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let answers: Arc<HashMap<&str, Answer>> = Arc::new(answers.into_iter().collect());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        Self::serving(asked, move |stream| {
            let (answers, noted) = (Arc::clone(&answers), Arc::clone(&noted));
            async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                    let answer = answers.get(&*method).cloned().unwrap_or(Answer::Status(12, "unknown service"));
                    noted.lock().unwrap().push(method);
                    respond(answer)
                });
                // A client that closes first is no failure.
                let _closed =
                    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            }
        })
    }

    /// Says this to everyone and closes.
    pub(crate) fn saying(text: &'static str) -> Self {
        Self::serving(Arc::default(), move |mut stream: UnixStream| async move {
            // A client that closes first is no failure.
            let _written = stream.write_all(text.as_bytes()).await;
        })
    }

    fn serving<S: Future<Output = ()> + Send + 'static>(
        asked: Arc<Mutex<Vec<String>>>,
        serve: impl Fn(UnixStream) -> S + Send + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("runtime.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { _folder: folder, socket, asked }
    }

    /// The methods that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn respond(answer: Answer) -> Result<Response<Body>, Infallible> {
    let response = Response::builder().header("content-type", "application/grpc");
    let body = match answer {
        Answer::Message(message) => framed(&message),
        Answer::Body(body) => body,
        // As grpc-go does it: in the headers.
        Answer::Status(code, text) => {
            let response = response.header("grpc-status", u16::from(code)).header("grpc-message", text);
            return Ok(response.body(Full::new(Bytes::new()).boxed()).unwrap());
        }
        Answer::Silence => std::future::pending().await,
    };
    let success = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from(body)).with_trailers(async move { Some(Ok(success)) });
    Ok(response.body(body.boxed()).unwrap())
}

/// A message is not compressed (0) and as long as four bytes say.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len().try_into().unwrap());
    frame.extend_from_slice(message);
    frame
}
