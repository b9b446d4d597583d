//! gRPC over the runtime's unix socket, with a limit on everything.

use std::{
    error::Error,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::timeout;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    transport::{self, Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{super::failure::quoted, error::CriError};

/// How long a runtime has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// To accept a connection, which the kernel does for it.
    pub(super) connect: Duration,
    /// For each answer. A listing of some thousand containers takes some ten milliseconds.
    pub(super) request: Duration,
}

impl Limits {
    /// Those of every use.
    pub(super) const USUAL: Self = Self { connect: Duration::from_secs(2), request: Duration::from_secs(5) };
}

/// What containerd sends at most (`DefaultMaxSendMsgSize`, its package defaults) and what the kubelet reads at most
/// (`maxMsgSize`, k8s.io/cri-client), about ten times as much as 500 pods with 5 000 containers take.
pub(super) const MOST_BYTES: usize = 16 << 20;

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the interface's own names")]
pub(super) enum Method {
    ListPodSandbox,
    ListContainers,
    ListImages,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::ListPodSandbox => "ListPodSandbox",
            Self::ListContainers => "ListContainers",
            Self::ListImages => "ListImages",
        }
    }

    fn path(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::ListPodSandbox => "/runtime.v1.RuntimeService/ListPodSandbox",
            Self::ListContainers => "/runtime.v1.RuntimeService/ListContainers",
            Self::ListImages => "/runtime.v1.ImageService/ListImages",
        })
    }
}

/// A connection to a runtime, closed when it is dropped.
pub(super) struct Connection {
    socket: PathBuf,
    limits: Limits,
    grpc: Grpc<Channel>,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(socket: &Path, limits: Limits) -> Result<Self, CriError> {
        let timed_out = || CriError::TimedOut {
            socket: socket.to_owned(),
            request: "the attempt to connect",
            limit: limits.connect,
        };
        let channel = match timeout(limits.connect, endpoint(socket)?.connect()).await {
            Ok(connected) => connected.map_err(|error| cannot_connect(socket, &error))?,
            Err(_elapsed) => return Err(timed_out()),
        };
        let grpc = Grpc::new(channel).max_decoding_message_size(MOST_BYTES);
        Ok(Self { socket: socket.to_owned(), limits, grpc })
    }

    /// Asks.
    pub(super) async fn call<Q, A>(&mut self, method: Method, question: Q) -> Result<A, CriError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        match timeout(self.limits.request, self.ask(method, question)).await {
            Ok(answer) => answer.map_err(|status| self.no_answer(method, &status)),
            Err(_elapsed) => {
                let (socket, request) = (self.socket.clone(), method.name());
                Err(CriError::TimedOut { socket, request, limit: self.limits.request })
            }
        }
    }

    async fn ask<Q, A>(&mut self, method: Method, question: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let not_ready = |error: transport::Error| Status::from_error(Box::new(error));
        self.grpc.ready().await.map_err(not_ready)?;
        let answer = self.grpc.unary(Request::new(question), method.path(), ProstCodec::default()).await?;
        Ok(answer.into_inner())
    }

    fn no_answer(&self, method: Method, status: &Status) -> CriError {
        let (socket, request) = (self.socket.clone(), method.name());
        let said = quoted(&innermost(status));
        match status.code() {
            Code::Unimplemented => CriError::NoCri(socket),
            // Our own limit, and the runtime's.
            Code::OutOfRange | Code::ResourceExhausted => CriError::TooLarge { socket, request, said },
            // What cannot be decoded; and what is not even gRPC has a source below the status.
            Code::Internal | Code::DataLoss => CriError::Malformed { socket, request, said },
            _ if status.source().is_some() => CriError::Malformed { socket, request, said },
            _ => CriError::Failed { socket, request, said },
        }
    }
}

fn endpoint(socket: &Path) -> Result<Endpoint, CriError> {
    let unusable = |said: &str| CriError::Unreachable { socket: socket.to_owned(), said: said.to_owned() };
    let path = socket.to_str().ok_or_else(|| unusable("its path is not UTF-8, give it another one"))?;
    Endpoint::from_shared(format!("unix:{path}")).map_err(|_invalid| unusable("this is no path of a socket"))
}

fn cannot_connect(socket: &Path, error: &transport::Error) -> CriError {
    match causes(error).find_map(|cause| cause.downcast_ref()) {
        Some(cause) => unreachable(socket, cause),
        None => unreachable(socket, &io::Error::other(quoted(&innermost(error)))),
    }
}

fn unreachable(socket: &Path, cause: &io::Error) -> CriError {
    let socket = socket.to_owned();
    match cause.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => CriError::NotThere(socket),
        ErrorKind::PermissionDenied => CriError::Denied(socket),
        ErrorKind::ConnectionRefused => CriError::NobodyListens(socket),
        _ => CriError::Unreachable { socket, said: cause.to_string() },
    }
}

/// The last of the causes says most: those above it say that something failed in transport.
fn innermost(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<Status>() {
        Some(status) if status.source().is_none() => format!("{:?}: {}", status.code(), status.message()),
        _ => causes(error).last().map(ToString::to_string).unwrap_or_default(),
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made up, because tests that run as root are permitted everything.
    #[test]
    fn a_missing_permission_has_a_remedy_of_its_own() {
        let socket = Path::new("/run/containerd/containerd.sock");
        let error = unreachable(socket, &ErrorKind::PermissionDenied.into());
        assert_eq!(error, CriError::Denied(socket.to_owned()));
        assert!(error.to_string().contains("run as root"), "{error}");
    }
}
