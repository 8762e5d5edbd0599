use std::net::SocketAddr;
use std::time::Duration;

use firebrick_net::poll::Mode;

use super::{KvOptions, run};
use crate::error::BenchError;
use crate::load::LoadOptions;
use crate::null::{Null, NullOptions};

fn null() -> Null {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Null::start(NullOptions { listen: any, resp: None, core: None, poll: Mode::Park }).unwrap()
}

fn options(null: &Null) -> KvOptions {
    KvOptions {
        connect: null.native().to_string(),
        in_flight: 16,
        load: LoadOptions {
            keys: 1000,
            warm_up: Duration::from_millis(20),
            time: Duration::from_millis(200),
            poll: Mode::Park,
            ..LoadOptions::default()
        },
        ..KvOptions::default()
    }
}

#[test]
fn a_closed_loop_counts_every_answer() {
    let null = null();
    let mut told = 0;
    let report = run(&options(&null), &mut |_| told += 1).unwrap();
    assert_eq!((report.errors, report.misses, report.first_error.clone()), (0, 0, None));
    assert_eq!(report.all.count, report.gets.count + report.puts.count);
    assert!(report.all.count > 200, "{report:?}");
    let share = report.gets.count as f64 / report.all.count as f64;
    assert!((0.4..0.6).contains(&share), "{share} of the requests were gets");
    assert!(report.all.p50_us > 0.0 && report.all.max_us >= report.all.p999_us, "{report:?}");
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["p50_us"].as_f64().unwrap() > 0.0 && json["gets"]["count"].as_u64().unwrap() > 0);
    assert_eq!((report.in_flight, report.rate_wanted), (16, None));
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let null = null();
    let options = KvOptions {
        rate: Some(2000.0),
        load: LoadOptions { time: Duration::from_millis(500), ..options(&null).load },
        ..options(&null)
    };
    let report = run(&options, &mut |_| {}).unwrap();
    assert!((900..=1001).contains(&report.all.count), "{report:?}");
    assert_eq!(report.rate_wanted, Some(2000.0));
}

#[test]
fn an_open_loop_charges_a_slow_server_for_the_requests_that_had_to_wait() {
    // One in flight at a rate far above what one in flight can do: requests queue behind each other, and
    // the wait counts.
    let null = null();
    let options = KvOptions { rate: Some(5_000_000.0), in_flight: 1, ..options(&null) };
    let report = run(&options, &mut |_| {}).unwrap();
    assert!(report.all.max_us > 50_000.0, "the backlog is not in the latency: {report:?}");
}

#[test]
fn options_that_make_no_sense_are_refused_in_words() {
    let null = null();
    let good = options(&null);
    for (bad, word) in [
        (KvOptions { in_flight: 0, ..good.clone() }, "in flight"),
        (
            KvOptions {
                load: LoadOptions { read_share: 1.5, ..good.load.clone() },
                ..good.clone()
            },
            "1.5",
        ),
        (KvOptions { load: LoadOptions { keys: 0, ..good.load.clone() }, ..good.clone() }, "keys"),
        (
            KvOptions {
                load: LoadOptions { value_bytes: 9 << 20, ..good.load.clone() },
                ..good.clone()
            },
            "9437184",
        ),
        (KvOptions { rate: Some(0.0), ..good.clone() }, "rate"),
        (
            KvOptions {
                load: LoadOptions { time: Duration::ZERO, ..good.load.clone() },
                ..good.clone()
            },
            "time",
        ),
        (
            KvOptions {
                load: LoadOptions { core: Some(900), ..good.load.clone() },
                ..good.clone()
            },
            "CPU 900",
        ),
        (KvOptions { table: "none".to_owned(), ..good.clone() }, "none"),
        (KvOptions { connect: "127.0.0.1:1".to_owned(), ..good.clone() }, "127.0.0.1:1"),
    ] {
        let error = run(&bad, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        let client = matches!(error, BenchError::Client(_));
        assert_eq!(client, word == "none" || word == "127.0.0.1:1", "{error:?}");
    }
}
