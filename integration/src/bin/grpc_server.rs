//! The gRPC server of `fixtures/grpc_server.py` in Rust: no schema, a method's name tells what to answer.

use anyhow::{Context as _, Result};
use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::codegen::tokio_stream::{self, Stream, StreamExt};
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, StreamingService};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// Messages of an answer that is a stream.
const STREAMED: usize = 5;
/// Longest wait for a client to give up.
const LATEST: Duration = Duration::from_secs(10);

/// Messages are the bytes that came.
type Message = Vec<u8>;
type Messages = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;
type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a method's name asks for.
#[derive(Clone, Debug)]
struct Call {
    shape: String,
    failure: Option<Status>,
}

impl Call {
    fn of(path: &str) -> Option<Self> {
        let mut words = path.strip_prefix("/trial.Calls/")?.split('_');
        let shape = words.next()?.to_owned();
        let code = Code::from_i32(words.next()?.parse().ok()?);
        let failure = (code != Code::Ok).then(|| Status::new(code, "this code was asked for"));
        Some(Self { shape, failure })
    }

    async fn answer(self, mut received: Streaming<Message>) -> Result<Response<Messages>, Status> {
        let failure = tokio_stream::iter(self.failure.clone().map(Err));
        if self.shape == "Both" {
            return Ok(Response::new(Box::pin(received.chain(failure))));
        }
        let mut last = Message::new();
        while let Some(message) = received.message().await? {
            last = message;
        }
        if self.shape == "Late" {
            tokio::time::sleep(LATEST).await;
        }
        if self.shape == "Server" {
            let messages = std::iter::repeat_n(Ok(last), STREAMED);
            let messages = tokio_stream::iter(messages).chain(failure);
            return Ok(Response::new(Box::pin(messages)));
        }
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(Response::new(Box::pin(tokio_stream::once(Ok(last))))),
        }
    }
}

impl StreamingService<Message> for Call {
    type Response = Message;
    type ResponseStream = Messages;
    type Future = Answer<Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<Streaming<Message>>) -> Self::Future {
        Box::pin(self.clone().answer(request.into_inner()))
    }
}

#[derive(Clone, Copy, Debug)]
struct Calls;

impl Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Message, Message>::default());
            Ok(match Call::of(request.uri().path()) {
                Some(call) => grpc.streaming(call, request).await,
                None => Status::unimplemented("no such service").into_http(),
            })
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).context("a port")?.parse()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Server::builder().serve(address, Calls).await?;
    Ok(())
}
