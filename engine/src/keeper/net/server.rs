//! Listening on the control port.
//!
//! A connection has a time to shake hands and may not be idle for long; its questions are done at the same time, a
//! bounded number of them. When all places are taken the oldest of a stranger makes way, or else the brick's that was
//! silent longest: so that holding connections open keeps no brick out, and costs none that is in its own.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::frame::{self, FRAME_BYTES_MAX, Greeting, Hello, STRANGER_BYTES_MAX};
use super::message::{Answer, Ask, Question, Reply};

/// Connections at a time: three of each of 256 bricks, and some that want to join.
pub(super) const CONNECTIONS_MAX: usize = 800;
/// Questions of one connection that are worked on at a time; more wait in the socket.
const WORKING_MAX: usize = 64;
/// To shake hands.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// Without a question.
const IDLE_MAX: Duration = Duration::from_mins(1);
/// For one answer to be taken.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Who answers.
pub(crate) trait Handler: Send + Sync + 'static {
    /// The cluster's number (0: none yet) and the brick's id.
    fn me(&self) -> (u64, u32);

    /// The answer to a question. `relayed`: another brick passed it on.
    fn answer(
        &self,
        from: Hello,
        relayed: bool,
        ask: Ask,
        tail: Vec<u8>,
    ) -> impl Future<Output = Answer> + Send;
}

/// Accepts connections until it is dropped.
pub(crate) async fn serve<H: Handler>(listener: TcpListener, handler: Arc<H>) {
    let began = Instant::now();
    let mut open: Vec<(Arc<AtomicU64>, AbortHandle)> = Vec::new();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: the connection waits in the kernel meanwhile.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        open.retain(|(_, task)| !task.is_finished());
        if open.len() >= CONNECTIONS_MAX {
            // The first of equals is the oldest.
            let silent =
                open.iter().enumerate().min_by_key(|(_, (at, _))| at.load(Ordering::Relaxed));
            if let Some((at, _)) = silent {
                open.remove(at).1.abort();
            }
        }
        // 0: it is no brick's yet.
        let at = Arc::new(AtomicU64::new(0));
        let (handler, clock) = (Arc::clone(&handler), Arc::clone(&at));
        let task = tasks.spawn(async move {
            let ms = move || began.elapsed().as_millis() as u64;
            let heard = move || clock.store(ms().max(1), Ordering::Relaxed);
            // Whatever ends it, the other side sees its connection close.
            let _ = connection(stream, handler, heard).await;
        });
        open.push((at, task));
    }
}

async fn connection<H: Handler>(
    stream: TcpStream,
    handler: Arc<H>,
    heard: impl Fn(),
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    let shake = shake_hands(&mut from, &mut to, &*handler);
    let Some(hello) = timeout(HELLO_TIMEOUT, shake).await?? else { return Ok(()) };
    let is_brick = hello.cluster != 0;
    let bytes_max = if is_brick { FRAME_BYTES_MAX } else { STRANGER_BYTES_MAX };
    if is_brick {
        heard();
    }
    let (out, replies) = mpsc::channel::<Vec<u8>>(WORKING_MAX);
    // Everything of this connection ends with it.
    let mut tasks = JoinSet::new();
    tasks.spawn(write_replies(to, replies));
    let places = Arc::new(Semaphore::new(WORKING_MAX));
    loop {
        while tasks.try_join_next().is_some() {}
        if out.is_closed() {
            return Ok(());
        }
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        let Some(frame) = timeout(IDLE_MAX, frame::read(&mut from, bytes_max)).await?? else {
            // It asks no more, and may still listen.
            drop(out);
            let all = async { while tasks.join_next().await.is_some() {} };
            let _ = timeout(WRITE_TIMEOUT, all).await;
            return Ok(());
        };
        if is_brick {
            heard();
        }
        let Question { number, relayed, ask } = frame.parse()?;
        if !is_brick && !matches!(ask, Ask::Join { .. }) {
            return Ok(());
        }
        let (handler, out, tail) = (Arc::clone(&handler), out.clone(), frame.into_tail());
        tasks.spawn(async move {
            let answer = handler.answer(hello, relayed, ask, tail).await;
            let bytes = frame::encode(&Reply { number, answer }, &[]).or_else(|error| {
                let answer = Answer::Refused(error.to_string());
                frame::encode(&Reply { number, answer }, &[])
            });
            if let Ok(bytes) = bytes {
                let _ = out.send(bytes).await;
            }
            drop(place);
        });
    }
}

/// `None`: they do not belong to each other, and the other has been told.
async fn shake_hands<H: Handler>(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut OwnedWriteHalf,
    handler: &H,
) -> io::Result<Option<Hello>> {
    frame::read_preamble(from).await?;
    frame::write_preamble(to).await?;
    let hello = frame::read(from, STRANGER_BYTES_MAX).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let hello: Hello = hello.parse()?;
    let (cluster, brick) = handler.me();
    let refusal = if cluster == 0 {
        Some("it has not joined its cluster yet".to_owned())
    } else if hello.cluster != 0 && hello.cluster != cluster {
        Some(format!("it belongs to cluster {cluster:016x}, not to {:016x}", hello.cluster))
    } else if hello.to != 0 && hello.to != brick {
        Some(format!("it is brick {brick}, not brick {}", hello.to))
    } else {
        None
    };
    let greeting = match &refusal {
        Some(why) => Greeting::Refused(why.clone()),
        None => Greeting::Welcome { cluster, brick },
    };
    to.write_all(&frame::encode(&greeting, &[])?).await?;
    Ok(refusal.is_none().then_some(hello))
}

async fn write_replies(mut to: OwnedWriteHalf, mut replies: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = replies.recv().await {
        match timeout(WRITE_TIMEOUT, to.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}
