//! Promise: Redis's own tools and client libraries work unchanged.

use std::path::Path;
use std::process::{Command, Stdio};

use firebrick_tests::brick::{Brick, Options};
use firebrick_tests::machine::{run, skip};

fn port(brick: &Brick) -> String {
    brick.resp.port().to_string()
}

#[test]
fn redis_cli() {
    let brick = Brick::start(&Options::default());
    let port = port(&brick);
    let cli =
        |args: &[&str]| run("redis-cli", &[&["-p", &port], args].concat()).expect("redis-cli");
    assert_eq!(cli(&["ping"]).trim(), "PONG");
    assert_eq!(cli(&["set", "greeting", "hello world"]).trim(), "OK");
    assert_eq!(cli(&["get", "greeting"]).trim(), "hello world");
    assert_eq!(cli(&["incr", "counter"]).trim(), "1");
    assert!(cli(&["get"]).contains("wrong number of arguments for 'get' command"));
    assert!(cli(&["nonsense"]).contains("unknown command"));
    assert!(cli(&["--scan"]).lines().count() == 2);
    assert_eq!(cli(&["-3", "get", "greeting"]).trim(), "hello world");
    assert!(cli(&["info"]).contains("redis_version"));
    assert_eq!(cli(&["dbsize"]).trim(), "2");
}

#[test]
fn redis_cli_pipe_mode_loads_in_bulk() {
    use std::io::Write;
    let brick = Brick::start(&Options { cores: "0-1", ..Options::default() });
    let mut child = Command::new("redis-cli")
        .args(["-p", &port(&brick), "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-cli");
    let mut input = child.stdin.take().unwrap();
    for number in 0..5000 {
        let (key, value) = (format!("pipe:{number}"), format!("value {number}"));
        input.write_all(&firebrick_tests::resp::command(&["SET", &key, &value])).unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("errors: 0, replies: 5000"), "{said}");
}

#[test]
fn redis_benchmark() {
    let brick = Brick::start(&Options { cores: "0-1", ..Options::default() });
    for pipeline in ["1", "16", "64"] {
        // It spins for ever when its server dies.
        let said = run(
            "timeout",
            &[
                "60",
                "redis-benchmark",
                "-p",
                &port(&brick),
                "-t",
                "ping,get,set,incr,mset",
                "-P",
                pipeline,
                "-n",
                "6400",
                "-q",
                "-r",
                "1000",
            ],
        )
        .expect("redis-benchmark");
        assert!(said.matches("requests per second").count() >= 5, "{said}");
        assert!(!said.to_lowercase().contains("error"), "{said}");
    }
}

const PYTHON: &str = r#"
import sys, redis
port = int(sys.argv[1])
for protocol in (2, 3):
    r = redis.Redis(port=port, protocol=protocol, decode_responses=True, client_name="test")
    r.flushall()
    assert r.ping()
    assert r.set("k", "välue") and r.get("k") == "välue"
    assert r.set("k", "x", nx=True) is None
    assert r.set("k", "y", get=True) == "välue"
    assert r.get("none") is None
    with r.pipeline(transaction=False) as pipe:
        for n in range(1000):
            pipe.set(f"p:{n}", n)
        assert all(pipe.execute())
    assert r.mget(["p:1", "none", "p:999"]) == ["1", None, "999"]
    assert sorted(r.scan_iter(match="p:*", count=100)) == sorted(f"p:{n}" for n in range(1000))
    assert r.dbsize() == 1001
    assert r.expire("k", 100) and 90 < r.ttl("k") <= 100
    assert r.persist("k") and r.ttl("k") == -1
    assert r.set("gone", "x", px=1)
    import time; time.sleep(0.02)
    assert r.get("gone") is None
    assert r.incrby("n", 5) == 5 and r.incrbyfloat("n", 0.5) == 5.5
    assert r.append("k", "z") == 2 and r.strlen("k") == 2 and r.getrange("k", 0, 0) == "y"
    assert r.delete("k", "n") == 2 and r.exists("p:1", "p:2", "none") == 2
    assert r.info()["redis_version"] and r.client_getname() == "test"
    assert r.config_get("maxmemory") is not None and r.time()[0] > 1_600_000_000
    r.set("text", "abc")
    try:
        r.incr("text")
        raise SystemExit("INCR of a text was taken")
    except redis.ResponseError as error:
        assert "not an integer" in str(error), error
    raw = redis.Redis(port=port, protocol=protocol)
    blob = bytes(range(256)) * 4096
    assert raw.set(blob[:300], blob) and raw.get(blob[:300]) == blob
print("all good")
"#;

#[test]
fn the_python_client_library() {
    let folder = tempfile::tempdir().unwrap();
    let venv = folder.path().join("venv");
    let path = |end: &str| venv.join(end).to_str().unwrap().to_owned();
    let made = run("python3", &["-m", "venv", venv.to_str().unwrap()]).and_then(|_| {
        run(&path("bin/pip"), &["install", "--quiet", "--disable-pip-version-check", "redis"])
    });
    if let Err(error) = made {
        skip("the_python_client_library", &format!("pip cannot install `redis`: {error}"));
        return;
    }
    let brick = Brick::start(&Options { cores: "0-1", ..Options::default() });
    let script = folder.path().join("script.py");
    std::fs::write(&script, PYTHON).unwrap();
    let said = python(&path("bin/python3"), &script, &port(&brick));
    assert!(said.contains("all good"), "{said}");
}

fn python(interpreter: &str, script: &Path, port: &str) -> String {
    run(interpreter, &[script.to_str().expect("UTF-8"), port])
        .unwrap_or_else(|error| panic!("{error}"))
}
