//! One TCP connection of the driver: dials again and again, shakes hands, cuts frames.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use firebrick_net::CloseReason;
use firebrick_net::frame::{self, Decoded, Decoder, HELLO_BYTES, Hello};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::session::Link;

/// Read at a time.
pub(crate) const READ_BYTES: usize = 64 << 10;
/// Reads in one round, so that a flood on one connection leaves time for the others.
const READS_MAX: usize = 8;

type Dial = Pin<Box<dyn Future<Output = Result<TcpStream>> + Send>>;

struct Up {
    link: Link,
    stream: TcpStream,
    decoder: Decoder,
    out: Vec<u8>,
    /// Bytes of `out` written already.
    written: usize,
}

enum State {
    /// Until this time.
    Resting(u64),
    Dialling(Dial),
    Up(Box<Up>),
    /// Never dials again.
    GaveUp,
}

pub(crate) struct Connection {
    address: Arc<str>,
    dial_timeout: Duration,
    backoff: Backoff,
    state: State,
}

impl Connection {
    pub fn new(address: Arc<str>, dial_timeout: Duration) -> Self {
        Self { address, dial_timeout, backoff: Backoff::default(), state: State::Resting(0) }
    }

    pub fn link(&self) -> Option<Link> {
        if let State::Up(up) = &self.state { Some(up.link) } else { None }
    }

    pub fn gave_up(&self) -> bool {
        matches!(self.state, State::GaveUp)
    }

    pub fn give_up(&mut self) {
        self.state = State::GaveUp;
    }

    /// When it is to be polled to dial again.
    pub fn retry_at_ns(&self) -> Option<u64> {
        if let State::Resting(until) = self.state { Some(until) } else { None }
    }

    /// Closes, to dial again after a rest. (Hands were shaken, but a brick that closes at once must
    /// not be dialled in a loop: only a frame from it ends the row of failures.)
    pub fn drop_link(&mut self, now_ns: u64) {
        self.state = State::Resting(now_ns + self.backoff.next_ns());
    }

    /// Ready with the link when connected and shaken hands, or with each failure.
    pub fn poll_dial(
        &mut self,
        now_ns: u64,
        link: Link,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Link>> {
        if let State::Resting(until) = self.state
            && until <= now_ns
        {
            let dial = dial(self.address.clone(), self.dial_timeout);
            self.state = State::Dialling(Box::pin(dial));
        }
        let State::Dialling(dial) = &mut self.state else { return Poll::Pending };
        match ready!(dial.as_mut().poll(cx)) {
            Ok(stream) => {
                let decoder = Decoder::new();
                let up = Up { link, stream, decoder, out: Vec::new(), written: 0 };
                self.state = State::Up(Box::new(up));
                Poll::Ready(Ok(link))
            }
            Err(error) => {
                self.state = State::Resting(now_ns + self.backoff.next_ns());
                Poll::Ready(Err(error))
            }
        }
    }

    /// Reads what is there. Ready means that something was read; an error, that the connection is lost.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut [u8],
        mut frame: impl FnMut(&[u8]) -> Result<()>,
    ) -> Poll<Result<()>> {
        let State::Up(up) = &mut self.state else { return Poll::Pending };
        let lost = |why: &str| {
            let address = self.address.clone();
            Poll::Ready(Err(Error::Connection { address, why: why.into() }))
        };
        for n in 0..READS_MAX {
            match up.stream.poll_read_ready(cx) {
                Poll::Pending if n == 0 => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return lost(&error.to_string()),
                Poll::Ready(Ok(())) => {}
            }
            let len = match up.stream.try_read(input) {
                Ok(0) => return lost("it closed the connection"),
                Ok(len) => len,
                // Readiness was stale; the next `poll_read_ready` registers the waker.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return lost(&error.to_string()),
            };
            self.backoff.reset();
            up.take(&input[..len], &mut frame)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes not written yet.
    pub fn queued(&self) -> usize {
        if let State::Up(up) = &self.state { up.out.len() - up.written } else { 0 }
    }

    /// Queues a frame; how many bytes it takes.
    pub fn queue(&mut self, payload: &[u8]) -> usize {
        let State::Up(up) = &mut self.state else { return 0 };
        if up.written > up.out.len() / 2 {
            up.out.drain(..up.written);
            up.written = 0;
        }
        up.out.extend_from_slice(&frame::header(payload, &[]));
        up.out.extend_from_slice(payload);
        frame::HEADER_BYTES + payload.len()
    }

    /// Writes what is queued, as far as the socket takes it.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let State::Up(up) = &mut self.state else { return Ok(()) };
        while up.written < up.out.len() {
            match Pin::new(&mut up.stream).poll_write(cx, &up.out[up.written..]) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(len)) => up.written += len,
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        up.out.clear();
        up.written = 0;
        if up.out.capacity() > 4 * READ_BYTES {
            up.out = Vec::new();
        }
        Ok(())
    }
}

impl Up {
    /// Cuts frames out of what was read.
    fn take(&mut self, bytes: &[u8], frame: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut result = Ok(());
        let fed = self.decoder.feed(bytes, |decoded| {
            if result.is_ok() {
                result = match &decoded {
                    Decoded::Whole { start, len } => frame(&bytes[*start..*start + *len]),
                    Decoded::Assembled(payload) => frame(payload),
                };
            }
        });
        fed.map_err(|reason| refused(&reason))?;
        result
    }
}

async fn dial(address: Arc<str>, timeout: Duration) -> Result<TcpStream> {
    let shake = async {
        let mut stream = TcpStream::connect(&*address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&Hello::OURS.encode()).await?;
        let mut theirs = [0; HELLO_BYTES];
        stream.read_exact(&mut theirs).await?;
        Ok::<_, io::Error>((stream, theirs))
    };
    let unreachable = |why: String| Error::Connection { address: address.clone(), why: why.into() };
    match tokio::time::timeout(timeout, shake).await {
        Ok(Ok((stream, theirs))) => match Hello::decode(theirs) {
            Ok(_) => Ok(stream),
            Err(reason) => Err(refused(&reason)),
        },
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("no answer within {} ms", timeout.as_millis()))),
    }
}

/// Why a connection cannot be used, in words.
pub(crate) fn refused(reason: &CloseReason) -> Error {
    match reason {
        CloseReason::Version { theirs } => Error::Protocol(
            format!("it speaks protocol version {theirs}, not {}", frame::PROTOCOL_VERSION).into(),
        ),
        CloseReason::Malformed(what) => Error::protocol(what),
        CloseReason::Io(errno) => {
            Error::Protocol(io::Error::from_raw_os_error(*errno).to_string().into())
        }
        CloseReason::Finished => Error::protocol("it closed the connection"),
    }
}
