use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::requests::Busy;
use super::*;
use crate::counters::{CoreState, Counts};
use crate::keeper::Why;
use crate::keeper::tests::rig::{self, FakeCores};

const SECOND: Duration = Duration::from_secs(1);

/// What the data cores were told, in order.
#[derive(Debug)]
enum Told {
    Routes(Arc<Routes>),
    Answer(u16, ControlAnswer),
    Stop,
}

/// Tells what core 1 was told.
struct Recorder(mpsc::Sender<Told>, Arc<FakeCores>);

impl Cores for Recorder {
    fn give(&self, core: u16, routes: Option<Arc<Routes>>, lease_end_ns: u64) {
        if let Some(routes) = routes.as_ref().filter(|_| core == 1) {
            let _ = self.0.send(Told::Routes(Arc::clone(routes)));
        }
        self.1.take(core, routes.map(|routes| routes.version()), lease_end_ns);
    }
    fn answer(&self, core: u16, answer: ControlAnswer) {
        let _ = self.0.send(Told::Answer(core, answer));
    }
    fn stop(&self) {
        let _ = self.0.send(Told::Stop);
    }
}

struct Rig {
    folder: tempfile::TempDir,
    board: Arc<Board>,
    told: mpsc::Receiver<Told>,
    control: ControlThread,
    port: ControlPort,
    http: SocketAddr,
}

fn rig(http_connections_max: usize, signals: bool) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let board = Arc::new(Board::new(2));
    let (sender, told) = mpsc::channel();
    let listener = crate::keeper::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let registration = rig::registration("kiln", 0xabc, 1, listener.local_addr().unwrap());
    let keeper = rig::keeper_setup(folder.path(), listener, &[], registration);
    let setup = Setup {
        http: Some(([127, 0, 0, 1], 0).into()),
        http_connections_max,
        signals,
        ..rig::setup(&board, keeper)
    };
    let recorder = Recorder(sender, FakeCores::new(&board));
    let queue = Queue::default();
    let port = queue.port();
    let control = ControlThread::spawn(setup, queue, Arc::new(recorder)).unwrap();
    control.started(10 * SECOND).unwrap().unwrap();
    // What it starts with.
    assert!(matches!(told.recv_timeout(10 * SECOND), Ok(Told::Routes(_))));
    let http = control.http().unwrap();
    Rig { folder, board, told, control, port, http }
}

impl Rig {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(10 * SECOND)).unwrap();
        stream.set_write_timeout(Some(10 * SECOND)).unwrap();
        stream
    }

    /// Status code and body.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = self.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        if path == "/metrics" {
            assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        }
        (code, body.to_owned())
    }

    fn told(&self) -> Told {
        self.told.recv_timeout(10 * SECOND).unwrap()
    }

    fn ask(&self, request: &str) {
        self.port.ask(1, 77, request.as_bytes()).unwrap();
    }

    fn answer(&self) -> serde_json::Value {
        let Told::Answer(1, ControlAnswer { token: 77, json }) = self.told() else {
            panic!("not the answer to core 1, token 77")
        };
        serde_json::from_str(&json).unwrap()
    }
}

#[test]
fn the_brick_is_ready_once_every_core_serves_and_until_it_stops() {
    let rig = rig(8, false);
    assert_eq!(rig.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(rig.get("/readyz"), (503, "data core 0 is starting\n".into()));
    for core in rig.board.cores() {
        core.set_state(CoreState::Serving);
    }
    // Once the first leases are there.
    let begin = Instant::now();
    while rig.get("/readyz").1.contains("has no lease") {
        assert!(begin.elapsed() < 10 * SECOND);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(rig.get("/readyz"), (200, "ready\n".into()));
    rig.board.begin_stop();
    assert_eq!(rig.get("/readyz"), (503, "the brick is stopping\n".into()));
    assert_eq!(rig.get("/healthz").0, 200);
    assert_eq!(rig.get("/nothing").0, 404);
    rig.control.finish().unwrap();
}

#[test]
fn metrics_are_prometheus_text_and_carry_the_cores_figures() {
    let rig = rig(8, false);
    let counts = Counts { gets: 41, hits: 40, flush_lag_bytes: 9, ..Counts::default() };
    rig.board.core(1).publish(&counts);
    rig.board.core(1).note_turn(1_500_000);
    let (code, text) = rig.get("/metrics");
    assert_eq!(code, 200);
    let mut typed = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, sort) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge"].contains(&sort));
            typed = name.to_owned();
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(name.split('{').next(), Some(typed.as_str()), "{line}");
            value.parse::<f64>().unwrap();
        }
    }
    for expected in [
        "firebrick_info{name=\"kiln\",id=\"0000000000000abc\",",
        "firebrick_ops_total{core=\"1\",kind=\"get\"} 41\n",
        "firebrick_ops_total{core=\"0\",kind=\"get\"} 0\n",
        "firebrick_lookups_total{core=\"1\",result=\"hit\"} 40\n",
        "# TYPE firebrick_flush_lag_bytes gauge\n",
        "firebrick_flush_lag_bytes{core=\"1\"} 9\n",
        "firebrick_longest_turn_seconds{core=\"1\"} 0.0015\n",
        "firebrick_ready 0\n",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let again = rig.get("/metrics").1;
    assert!(again.contains("firebrick_longest_turn_seconds{core=\"1\"} 0\n"), "a new interval");
}

#[test]
fn status_tells_brick_cores_and_tables() {
    let rig = rig(8, false);
    rig.board.core(0).publish(&Counts { puts: 3, ..Counts::default() });
    let (_, text) = rig.get("/status");
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["name"], "kiln");
    assert_eq!(status["ready"], false);
    assert_eq!(status["not_ready_because"], "data core 0 is starting");
    assert_eq!(status["cores"][0]["figures"]["puts"], 3);
    assert_eq!(status["tables"][0]["name"], "default");
    assert_eq!(status["tables"][0]["partitions"], 8);
    rig.ask("{\"do\":\"status\"}");
    assert_eq!(rig.answer()["status"]["listen"], "127.0.0.1:7400");
}

#[test]
fn tables_are_made_listed_and_dropped_and_the_cores_hear_of_it_before_the_client() {
    let rig = rig(8, false);
    rig.ask("{\"do\":\"table-create\",\"name\":\"orders\",\"durability\":\"async(5ms)\",\"partitions\":1}");
    let Told::Routes(routes) = rig.told() else { panic!("routes come first") };
    assert_eq!(routes.table_named("orders").unwrap().entries().len(), 2);
    let answer = rig.answer();
    assert_eq!(
        (&answer["ok"], &answer["table"]["durability"]),
        (&true.into(), &"async(5ms)".into())
    );

    rig.ask("{\"do\":\"table-list\"}");
    assert_eq!(rig.answer()["tables"].as_array().unwrap().len(), 2);

    rig.ask("{\"do\":\"table-drop\",\"name\":\"orders\"}");
    let Told::Routes(newest) = rig.told() else { panic!("routes come first") };
    assert!(newest.table_named("orders").is_none() && newest.version() > routes.version());
    assert_eq!(rig.answer()["ok"], true);

    // The cores removed the files, and say so; then nothing is left to remove at the next start.
    let gone: Vec<u32> =
        routes.table_named("orders").unwrap().entries().iter().map(|e| e.route.partition).collect();
    rig.port.removed(gone).unwrap();
    rig.ask("{\"do\":\"table-drop\",\"name\":\"orders\"}");
    assert_eq!(rig.answer()["ok"], false);
    let Rig { folder, control, .. } = rig;
    control.finish().unwrap();
    let again = rig::Host::of(folder, "kiln", 0xabc).start(&[]);
    assert_eq!(again.started.dropped, [0u32; 0]);
    assert_eq!(again.started.routes.tables().len(), 1);
}

#[test]
fn requests_that_cannot_be_done_get_a_sentence_and_change_nothing() {
    let rig = rig(8, false);
    let cases = [
        ("{\"do\":\"table-create\",\"name\":\"default\"}", "there is a table \"default\" already"),
        ("{\"do\":\"table-create\",\"name\":\"\"}", "cannot name a table"),
        (
            "{\"do\":\"table-create\",\"name\":\"x\",\"durability\":\"maybe\"}",
            "durability \"maybe\" is not allowed",
        ),
        ("{\"do\":\"table-create\",\"name\":\"x\",\"partitions\":0}", "give a number from 1 to 64"),
        ("{\"do\":\"table-create\",\"name\":\"x\",\"replicas\":0}", "give a number from 1 to 16"),
        ("{\"do\":\"table-create\",\"name\":\"x\",\"colour\":3}", "unknown field `colour`"),
        (
            "{\"do\":\"brick-drain\",\"brick\":\"x\",\"on\":true}",
            "no brick \"x\"; the bricks are kiln",
        ),
        ("{\"do\":\"table-drop\",\"name\":\"x\"}", "no table \"x\""),
        ("{\"do\":\"sing\"}", "the requests are status, table-list, table-create, table-drop"),
        ("\u{0}\u{1}", "not a request"),
        ("", "not a request"),
        ("[[[[[[", "not a request"),
    ];
    for (request, expected) in cases {
        rig.ask(request);
        let answer = rig.answer();
        assert_eq!(answer["ok"], false);
        let told = answer["error"].as_str().unwrap();
        assert!(told.contains(expected), "{request}: {told}");
    }
    rig.board.begin_stop();
    rig.ask("{\"do\":\"table-create\",\"name\":\"x\"}");
    let answer = rig.answer();
    assert!(answer["error"].as_str().unwrap().contains("is stopping"));
    assert_eq!(answer["kind"], "not-now", "another brick does it, or this one once it is back");
}

#[test]
fn a_failure_begins_with_the_key_by_which_clients_know_it() {
    let text = super::requests::failure(Why::NotNow, "no room").to_string();
    assert!(text.starts_with("{\"error\":\"no room\""), "{text}");
}

#[test]
fn the_queue_to_the_control_thread_is_bounded() {
    let queue = Queue::default();
    let port = queue.port();
    for token in 0..REQUESTS_MAX as u64 {
        port.ask(0, token, b"{}").unwrap();
    }
    assert_eq!(port.ask(0, 0, b"{}"), Err(Busy));
    assert_eq!(port.removed(vec![1]), Err(Busy));
    drop(queue);
    assert_eq!(port.ask(0, 0, b"{}"), Err(Busy));
    assert_eq!(Queue::default().port().ask(0, 0, &[b'x'; 5000]), Err(Busy));
}

#[test]
fn old_routes_are_freed_by_the_control_thread_and_not_before_the_cores_let_go() {
    let rig = rig(8, false);
    let create = |n: u32| {
        rig.ask(&format!("{{\"do\":\"table-create\",\"name\":\"t{n}\"}}"));
        let Told::Routes(routes) = rig.told() else { panic!("routes come first") };
        rig.answer();
        routes
    };
    let first = create(1);
    let weak = Arc::downgrade(&first);
    let second = create(2);
    assert!(Arc::strong_count(&first) >= 2, "the core's drop must not be the last");
    drop(first);
    assert!(weak.upgrade().is_some());
    create(3);
    assert!(weak.upgrade().is_none(), "freed at the next push");
    drop(second);
}

#[test]
fn clients_that_hold_connections_open_keep_nobody_out() {
    let rig = rig(4, false);
    let mut hostile: Vec<TcpStream> = (0..40).map(|_| rig.connect()).collect();
    for (n, stream) in hostile.iter_mut().enumerate() {
        // Some say nothing, some half a head, some a byte at a time.
        let _ = stream.write_all(if n % 2 == 0 { b"GET /metrics HTT" } else { b"" });
    }
    let began = Instant::now();
    assert_eq!(rig.get("/healthz").0, 200);
    assert!(began.elapsed() < 2 * SECOND);
    // All but the last few have been closed to make way.
    let closed = hostile
        .iter_mut()
        .filter(|stream| {
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            match (&**stream).read(&mut [0]) {
                Ok(n) => n == 0,
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        })
        .count();
    assert!(closed >= 36, "{closed} of 40 closed");
}

/// Leases are given on the thread that answers them.
#[test]
fn a_flood_of_statuses_of_many_partitions_keeps_nothing_else_waiting() {
    let rig = rig(256, false);
    for n in 0..16 {
        rig.ask(&format!("{{\"do\":\"table-create\",\"name\":\"t{n}\",\"partitions\":64}}"));
        while !matches!(rig.told(), Told::Answer(..)) {}
    }
    let (over, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let http = rig.http;
    let flood = || {
        while !over.load(Ordering::Relaxed) {
            let mut stream = TcpStream::connect(http).unwrap();
            write!(stream, "GET /status HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let bytes = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
            served.fetch_add(u64::from(bytes > 100_000), Ordering::Relaxed);
        }
    };
    let worst = std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(flood);
        }
        std::thread::sleep(SECOND);
        let mut worst = Duration::ZERO;
        let end = Instant::now() + 3 * SECOND;
        while Instant::now() < end {
            let began = Instant::now();
            assert_eq!(rig.get("/healthz").0, 200);
            worst = worst.max(began.elapsed());
        }
        over.store(true, Ordering::Relaxed);
        worst
    });
    let served = served.into_inner();
    eprintln!("{served} statuses; something else waited {worst:?} at most");
    assert!(served >= 50, "{served} were served");
    assert!(worst < SECOND / 2, "{worst:?} is longer than a lease");
}

#[test]
fn malformed_and_oversized_requests_end_their_connection_only() {
    let rig = rig(8, false);
    let endless = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat();
    let mut noise = Vec::new();
    for n in 0..20_000u32 {
        noise.push((n.wrapping_mul(2_654_435_761) >> 24) as u8);
    }
    for bytes in
        [endless, noise, b"\r\n\r\n\r\n".to_vec(), b"BREW /pot HTCPCP/1.0\r\n\r\n".to_vec()]
    {
        let mut stream = rig.connect();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
        assert_eq!(rig.get("/healthz").0, 200);
    }
    // A head that never comes ends after its time, not never.
    let mut silent = rig.connect();
    let began = Instant::now();
    let ended = silent.read(&mut [0]);
    assert!(matches!(ended, Ok(0)), "{ended:?} after {:?}", began.elapsed());
    assert!(began.elapsed() > 3 * SECOND);
}

#[test]
fn a_taken_http_port_is_refused_with_the_key_to_change() {
    let first = rig(8, false);
    let told = listen_http(first.http).unwrap_err().to_string();
    assert!(told.contains("http = ") && told.contains("choose another port with http"), "{told}");
}

/// Not a test of its own: the process that the tests below send signals to.
#[test]
#[ignore = "run by the signal tests"]
fn signal_child() {
    let rig = rig(8, true);
    rig.get("/healthz");
    println!("up");
    assert!(matches!(rig.told(), Told::Stop));
    assert!(rig.board.is_stopping());
    println!("stopping");
    if std::env::var("FIREBRICK_TEST_HANG").is_ok() {
        std::thread::sleep(30 * SECOND);
    }
    rig.control.finish().unwrap();
}

struct Child(std::process::Child, BufReader<std::process::ChildStdout>);

impl Child {
    fn start(hang: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "control::tests::signal_child", "--ignored", "--nocapture"]);
        if hang {
            command.env("FIREBRICK_TEST_HANG", "1");
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut child = Self(child, out);
        child.wait_for("up");
        child
    }

    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while !line.trim_end().ends_with(word) {
            line.clear();
            assert!(self.1.read_line(&mut line).unwrap() > 0, "no \"{word}\"");
        }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: kill has no memory effects; the process is a child of ours that was not waited for.
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, signal) }, 0);
    }

    /// Exit code and standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let mut text = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.0.wait().unwrap().code(), text)
    }
}

#[test]
fn sigterm_and_the_first_ctrl_c_stop_in_order() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let child = Child::start(false);
        child.signal(signal);
        assert_eq!(child.end().0, Some(0));
    }
}

#[test]
fn a_second_ctrl_c_ends_at_once_with_a_message() {
    let mut child = Child::start(true);
    child.signal(libc::SIGINT);
    child.wait_for("stopping");
    let began = Instant::now();
    child.signal(libc::SIGINT);
    let (code, told) = child.end();
    assert_eq!(code, Some(130));
    assert!(told.contains("Ctrl-C again ends at once"), "{told}");
    assert!(told.contains("ended at once; writes that were not on the disk yet are in"), "{told}");
    assert!(began.elapsed() < 5 * SECOND);
}
