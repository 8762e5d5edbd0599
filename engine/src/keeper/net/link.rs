//! Asking other bricks: one connection for each brick and lane, made when it is needed, shared by all who ask.
//!
//! Lanes keep what must be quick from what is large: entries or a snapshot that are sent do not delay Raft's heartbeats,
//! and neither delays the bricks' leases.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::frame::{self, FRAME_BYTES_MAX, Greeting, Hello};
use super::message::{Answer, Ask, Question, Reply};

/// To connect and to shake hands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that owes answers and has been silent for so long is given up.
const SILENT_MAX: Duration = Duration::from_secs(1);
/// Questions of one connection that may wait for their answers.
const PENDING_MAX: usize = 1024;
/// Frames of one connection that may wait to be written.
const OUT_MAX: usize = 64;
/// Connections that are kept, over all bricks and lanes.
const LINKS_MAX: usize = 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Raft's heartbeats, checks and votes.
    Raft,
    /// Its entries, and snapshots.
    Bulk,
    /// Leases and all the rest.
    Asks,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(crate) struct LinkError {
    /// A sentence.
    pub(crate) text: String,
    /// The question may have arrived.
    pub(crate) sent: bool,
}

impl LinkError {
    fn unsent(text: impl Into<String>) -> Self {
        Self { text: text.into(), sent: false }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for LinkError {}

/// All connections to other bricks; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Links(Arc<Shared>);

#[derive(Default)]
struct Shared {
    cluster: AtomicU64,
    brick: AtomicU64,
    open: Mutex<HashMap<(String, u32, Lane), Arc<Link>>>,
}

impl Links {
    /// Who asks, from the next connection on.
    pub(crate) fn set_me(&self, cluster: u64, brick: u32) {
        self.0.cluster.store(cluster, Ordering::Relaxed);
        self.0.brick.store(u64::from(brick), Ordering::Relaxed);
        lock(&self.0.open).clear();
    }

    /// Asks a brick (0: whoever listens there) and waits for the answer, at most for so long.
    pub(crate) async fn ask(
        &self,
        at: &str,
        to: u32,
        lane: Lane,
        question: (bool, Ask),
        tail: &[u8],
        within: Duration,
    ) -> Result<Answer, LinkError> {
        let link = self.link(at, to, lane);
        let hello = Hello {
            cluster: self.0.cluster.load(Ordering::Relaxed),
            from: self.0.brick.load(Ordering::Relaxed) as u32,
            to,
        };
        let answer = timeout(within, link.exchange(at, hello, question, tail)).await;
        answer.unwrap_or_else(|_| {
            link.give_up_if_silent();
            let text = format!("{at} gave no answer within {} ms", within.as_millis());
            Err(LinkError { text, sent: true })
        })
    }

    fn link(&self, at: &str, to: u32, lane: Lane) -> Arc<Link> {
        let mut open = lock(&self.0.open);
        if open.len() >= LINKS_MAX {
            open.retain(|_, link| link.is_open());
        }
        Arc::clone(open.entry((at.to_owned(), to, lane)).or_default())
    }
}

type Connecting = watch::Receiver<Option<Result<Arc<Conn>, LinkError>>>;

#[derive(Default)]
struct Link(Mutex<Option<Connecting>>);

impl Link {
    async fn exchange(
        &self,
        at: &str,
        hello: Hello,
        (relayed, ask): (bool, Ask),
        tail: &[u8],
    ) -> Result<Answer, LinkError> {
        let conn = self.connection(at, hello).await?;
        let (number, waiting) = conn.begin()?;
        let _end = Pending { conn: &conn, number };
        let question = Question { number, relayed, ask };
        let bytes = frame::encode(&question, tail);
        let bytes = bytes.map_err(|error| LinkError::unsent(error.to_string()))?;
        let closed = |sent| LinkError { text: format!("{at} closed the connection"), sent };
        conn.out.send(bytes).await.map_err(|_| closed(false))?;
        waiting.await.map_err(|_| closed(true))
    }

    /// The connection, or the one that is being made. Making it goes on when whoever asked gives up.
    async fn connection(&self, at: &str, hello: Hello) -> Result<Arc<Conn>, LinkError> {
        let mut connecting = {
            let mut slot = lock(&self.0);
            match &*slot {
                Some(there) if is_usable(there) => there.clone(),
                _ => {
                    let (made, connecting) = watch::channel(None);
                    let at = at.to_owned();
                    tokio::spawn(async move {
                        let conn = timeout(CONNECT_TIMEOUT, Conn::open(&at, hello)).await;
                        let conn = conn.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                        made.send_replace(Some(conn.map(Arc::new).map_err(|error| {
                            LinkError::unsent(format!("{at} cannot be reached: {error}"))
                        })));
                    });
                    *slot = Some(connecting.clone());
                    connecting
                }
            }
        };
        let made = connecting.wait_for(Option::is_some).await;
        made.ok().and_then(|made| made.clone()).unwrap_or_else(|| {
            Err(LinkError::unsent(format!("{at} cannot be reached: the brick is stopping")))
        })
    }

    fn is_open(&self) -> bool {
        lock(&self.0).as_ref().is_some_and(is_usable)
    }

    fn give_up_if_silent(&self) {
        let slot = lock(&self.0);
        if let Some(Ok(conn)) = slot.as_ref().and_then(|there| there.borrow().clone())
            && lock(&conn.heard).elapsed() > SILENT_MAX
        {
            conn.close();
        }
    }
}

/// Being made, or made and open.
fn is_usable(connecting: &Connecting) -> bool {
    match &*connecting.borrow() {
        None => true,
        Some(Ok(conn)) => !conn.closed.load(Ordering::Relaxed),
        Some(Err(_)) => false,
    }
}

struct Conn {
    out: mpsc::Sender<Vec<u8>>,
    next: AtomicU64,
    pending: Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>,
    closed: Arc<AtomicBool>,
    heard: Arc<Mutex<Instant>>,
    tasks: [AbortHandle; 2],
}

impl Conn {
    async fn open(at: &str, hello: Hello) -> io::Result<Self> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        // What was asked and given up is not to be delivered later, when it was asked again elsewhere.
        stream.set_zero_linger()?;
        let (from, mut to) = stream.into_split();
        let mut from = BufReader::new(from);
        frame::write_preamble(&mut to).await?;
        tokio::io::AsyncWriteExt::write_all(&mut to, &frame::encode(&hello, &[])?).await?;
        frame::read_preamble(&mut from).await?;
        let greeting = frame::read(&mut from, FRAME_BYTES_MAX).await?;
        match greeting.ok_or(io::ErrorKind::UnexpectedEof)?.parse()? {
            Greeting::Welcome { .. } => {}
            Greeting::Refused(why) => return Err(io::Error::other(why)),
        }
        let pending = Arc::default();
        let closed = Arc::new(AtomicBool::new(false));
        let heard = Arc::new(Mutex::new(Instant::now()));
        let (out, frames) = mpsc::channel(OUT_MAX);
        let (theirs, shut) = (Arc::clone(&pending), Arc::clone(&closed));
        let (at, over) = (Arc::clone(&heard), Arc::clone(&closed));
        let reader = tokio::spawn(async move {
            read_replies(from, &theirs, &at).await;
            shut.store(true, Ordering::Relaxed);
            lock(&theirs).clear();
        });
        let writer = tokio::spawn(async move {
            write_frames(to, frames).await;
            over.store(true, Ordering::Relaxed);
        });
        let tasks = [reader.abort_handle(), writer.abort_handle()];
        Ok(Self { out, next: AtomicU64::new(1), pending, closed, heard, tasks })
    }

    fn begin(&self) -> Result<(u64, oneshot::Receiver<Answer>), LinkError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut pending = lock(&self.pending);
        if pending.len() >= PENDING_MAX {
            let text = format!("{PENDING_MAX} questions wait for answers already");
            return Err(LinkError::unsent(text));
        }
        if pending.is_empty() {
            // Silence counts from the first question that waits.
            *lock(&self.heard) = Instant::now();
        }
        let (answer, waiting) = oneshot::channel();
        pending.insert(number, answer);
        Ok((number, waiting))
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.tasks.iter().for_each(AbortHandle::abort);
        lock(&self.pending).clear();
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.close();
    }
}

/// Forgets a question whoever asked it has given up.
struct Pending<'a> {
    conn: &'a Conn,
    number: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        lock(&self.conn.pending).remove(&self.number);
    }
}

async fn read_replies(
    mut from: BufReader<OwnedReadHalf>,
    pending: &Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    heard: &Mutex<Instant>,
) {
    while let Ok(Some(frame)) = frame::read(&mut from, FRAME_BYTES_MAX).await {
        let Ok(Reply { number, answer }) = frame.parse() else { return };
        *lock(heard) = Instant::now();
        // Nobody waits for one that came late.
        if let Some(waiting) = lock(pending).remove(&number) {
            let _ = waiting.send(answer);
        }
    }
}

async fn write_frames(mut to: OwnedWriteHalf, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = frames.recv().await {
        if tokio::io::AsyncWriteExt::write_all(&mut to, &bytes).await.is_err() {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
