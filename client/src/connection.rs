//! One TCP connection of the driver: dials, shakes hands, cuts frames.

use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use firebrick_net::CloseReason;
use firebrick_net::frame::{self, Decoded, Decoder, HELLO_BYTES, Hello};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{Error, Result};
use crate::session::Link;

/// Read at a time.
pub(crate) const READ_BYTES: usize = 64 << 10;
/// Reads in one round, so that a flood on one connection leaves time for the others.
const READS_MAX: usize = 8;

/// What the peer's kernel does not take for so many times the silence is given up by ours. Not earlier: a brick that is
/// only busy takes nothing either.
const UNACKNOWLEDGED: u32 = 16;

type Dialling = Pin<Box<dyn Future<Output = Result<TcpStream>> + Send>>;

struct Up {
    stream: TcpStream,
    decoder: Decoder,
    out: Vec<u8>,
    /// Bytes of `out` written already.
    written: usize,
}

enum State {
    Dialling(Dialling),
    Up(Box<Up>),
}

/// From the dial to the loss.
pub(crate) struct Connection {
    pub link: Link,
    address: Arc<str>,
    state: State,
    /// The session was told that no more fits.
    pub blocked: bool,
    /// The socket did not take all at the last write.
    pub was_full: bool,
}

impl Connection {
    pub fn dial(link: Link, address: Arc<str>, silence: Duration) -> Self {
        let dial = Box::pin(dial(address.clone(), silence));
        Self { link, address, state: State::Dialling(dial), blocked: false, was_full: false }
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Ready when connected and shaken hands, or with why not.
    pub fn poll_dial(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let State::Dialling(dial) = &mut self.state else { return Poll::Pending };
        let stream = ready!(dial.as_mut().poll(cx))?;
        let up = Up { stream, decoder: Decoder::new(), out: Vec::new(), written: 0 };
        self.state = State::Up(Box::new(up));
        Poll::Ready(Ok(()))
    }

    /// Reads what is there. Ready means that something was read; an error, that the connection is lost.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut [u8],
        mut frame: impl FnMut(&[u8]) -> Result<()>,
    ) -> Poll<Result<()>> {
        let State::Up(up) = &mut self.state else { return Poll::Pending };
        let address = &self.address;
        let lost = |why: &str| {
            Poll::Ready(Err(Error::Connection { address: address.clone(), why: why.into() }))
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
            up.take(&input[..len], &mut frame)?;
        }
        Poll::Ready(Ok(()))
    }

    /// What to call the loss of this connection.
    pub fn lost(&self, why: &str) -> Error {
        Error::Connection { address: self.address.clone(), why: why.into() }
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

/// How long it may take is the session's to say, which drops this.
async fn dial(address: Arc<str>, silence: Duration) -> Result<TcpStream> {
    let shake = async {
        let mut stream = TcpStream::connect(&*address).await?;
        stream.set_nodelay(true)?;
        give_up_after(&stream, silence.saturating_mul(UNACKNOWLEDGED))?;
        stream.write_all(&Hello::OURS.encode()).await?;
        let mut theirs = [0; HELLO_BYTES];
        stream.read_exact(&mut theirs).await?;
        Ok::<_, io::Error>((stream, theirs))
    };
    let no_brick = |why: &str| Error::Connection { address: address.clone(), why: why.into() };
    match shake.await {
        Ok((stream, theirs)) => match Hello::decode(theirs) {
            Ok(_) => Ok(stream),
            // No brick at all, or one of its other ports.
            Err(CloseReason::Malformed(_)) => Err(no_brick("what listens there is something else")),
            Err(reason) => Err(refused(&reason)),
        },
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(no_brick("what listens there hung up"))
        }
        Err(error) => Err(no_brick(&error.to_string())),
    }
}

/// The kernel gives up what the peer does not acknowledge for so long: a cut link is not kept for its own quarter of
/// an hour.
fn give_up_after(stream: &TcpStream, time: Duration) -> io::Result<()> {
    let ms = i32::try_from(time.as_millis()).unwrap_or(i32::MAX).max(1);
    // SAFETY: the socket is open while `stream` is borrowed, and the option's value is an `int` that lives through
    // the call.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_USER_TIMEOUT,
            (&raw const ms).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
