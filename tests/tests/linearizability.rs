//! Promise: the checker of histories passes what is linearizable and nothing else. Hand-made histories
//! of each kind of violation; `linear_random.rs` has random ones.

#![allow(clippy::unnecessary_wraps, reason = "rows are written with the functions of their fields")]

use firebrick_tests::check::{Back, Bytes, Call, Checked, History, Life, Line, Version, check};

/// `(client, called, answered, call, back)`; answered 0: never.
type Row = (u32, u64, u64, Call, Option<Back>);

fn at(epoch: u32, seq: u64) -> Option<Version> {
    Some(Version { epoch, seq })
}

fn put(value: &str) -> Call {
    Call::Put { value: value.into() }
}

fn value(value: &str, version: Option<Version>) -> Option<Back> {
    Some(Back::Value { value: value.into(), version })
}

fn done(version: Option<Version>) -> Option<Back> {
    Some(Back::Done { version })
}

fn history(rows: &[Row]) -> History {
    let mut history = History::default();
    for (id, (client, called, _, call, _)) in rows.iter().enumerate() {
        let (id, key) = (id as u64, Bytes::from("k"));
        let line = Line::Call { id, client: *client, at_ns: *called, key, call: call.clone() };
        history.push(line).expect("a call");
    }
    for (id, (_, _, answered, _, back)) in rows.iter().enumerate() {
        if let Some(back) = back {
            let line = Line::Back { id: id as u64, at_ns: *answered, back: back.clone() };
            history.push(line).expect("an answer");
        }
    }
    history
}

fn good(rows: &[Row]) {
    if let Err(violation) = check(&history(rows)) {
        panic!("{violation}");
    }
}

/// The text of the violation.
fn bad(rows: &[Row]) -> String {
    let violation = check(&history(rows)).expect_err("this history has no order");
    assert!(!violation.is_undecided());
    violation.to_string()
}

#[test]
fn a_stale_read() {
    let rows = |read: &str| {
        [
            (1, 1, 2, put("old"), done(at(1, 1))),
            (1, 3, 4, put("new"), done(at(1, 2))),
            (2, 5, 6, Call::Get, value(read, None)),
        ]
    };
    good(&rows("new"));
    let text = bad(&rows("old"));
    assert!(text.contains("client 2") && text.contains("get -> \"old\""), "{text}");
    assert!(
        text.contains("can only have been") && text.contains("3 bytes that no get was told at 1.2"),
        "{text}"
    );
}

#[test]
fn a_read_beside_a_write_sees_either_and_then_never_goes_back() {
    let rows = |first: &str, second: &str| {
        [
            (1, 1, 2, put("old"), done(None)),
            (1, 3, 20, put("new"), done(None)),
            (2, 5, 6, Call::Get, value(first, None)),
            (3, 7, 8, Call::Get, value(second, None)),
        ]
    };
    good(&rows("old", "old"));
    good(&rows("old", "new"));
    good(&rows("new", "new"));
    bad(&rows("new", "old"));
}

#[test]
fn a_lost_write() {
    bad(&[(1, 1, 2, put("a"), done(None)), (1, 3, 4, Call::Get, Some(Back::Absent))]);
    good(&[(1, 1, 0, put("a"), None), (1, 3, 4, Call::Get, Some(Back::Absent))]);
}

#[test]
fn a_phantom() {
    bad(&[(1, 1, 2, put("a"), done(None)), (1, 3, 4, Call::Get, value("b", None))]);
    // A write that is called after the read was answered explains nothing.
    bad(&[(2, 1, 2, Call::Get, value("a", None)), (1, 3, 4, put("a"), done(None))]);
    // One that failed for sure did not happen.
    bad(&[(1, 1, 2, put("a"), Some(Back::Failed)), (1, 3, 4, Call::Get, value("a", None))]);
}

#[test]
fn a_write_of_unknown_outcome_may_happen_late_and_once() {
    let rows = |third: &str| {
        [
            (1, 1, 0, put("late"), None),
            (2, 2, 3, put("a"), done(None)),
            (2, 4, 5, Call::Get, value("a", None)),
            (2, 6, 7, Call::Get, value("late", None)),
            (2, 8, 9, put("b"), done(None)),
            (2, 10, 11, Call::Get, value(third, None)),
        ]
    };
    good(&rows("b"));
    let text = bad(&rows("late"));
    assert!(text.contains("not known"), "{text}");
}

#[test]
fn a_write_applied_twice() {
    let sum = |value| Some(Back::Integer { value, version: None });
    let add = || Call::Increment { by: 1 };
    good(&[
        (1, 1, 2, add(), sum(1)),
        (1, 3, 4, add(), sum(2)),
        (1, 5, 6, Call::Get, value("2", None)),
    ]);
    bad(&[(1, 1, 2, add(), sum(1)), (1, 3, 4, add(), sum(3))]);
    bad(&[(1, 1, 2, add(), sum(1)), (1, 3, 4, Call::Get, value("2", None))]);
    // Two in doubt explain a step of two, and no more.
    good(&[(1, 1, 0, add(), None), (2, 2, 0, add(), None), (1, 3, 4, add(), sum(3))]);
    bad(&[(1, 1, 0, add(), None), (2, 2, 0, add(), None), (1, 3, 4, add(), sum(4))]);
    let more = |bytes: &str| Call::Append { value: bytes.into() };
    let len = |len| Some(Back::Length { len, version: None });
    bad(&[(1, 1, 2, more("x"), len(1)), (1, 3, 4, Call::Get, value("xx", None))]);
    good(&[
        (1, 1, 0, more("x"), None),
        (1, 3, 4, more("y"), len(2)),
        (1, 5, 6, Call::Get, value("xy", None)),
    ]);
    bad(&[
        (1, 1, 0, more("x"), None),
        (1, 3, 4, more("y"), len(2)),
        (1, 5, 6, Call::Get, value("yx", None)),
    ]);
}

#[test]
fn two_orders() {
    let rows = |third: &str, fourth: &str| {
        [
            (1, 1, 20, put("a"), done(None)),
            (2, 1, 20, put("b"), done(None)),
            (3, 21, 22, Call::Get, value(third, None)),
            (4, 23, 24, Call::Get, value(fourth, None)),
        ]
    };
    good(&rows("a", "a"));
    good(&rows("b", "b"));
    bad(&rows("a", "b"));
    // While both are open two readers may not disagree about their order.
    bad(&[
        (1, 1, 30, put("a"), done(None)),
        (2, 1, 30, put("b"), done(None)),
        (3, 2, 3, Call::Get, value("a", None)),
        (3, 4, 5, Call::Get, value("b", None)),
        (4, 6, 7, Call::Get, value("a", None)),
    ]);
}

#[test]
fn conditions() {
    let absent = |v: &str| Call::PutIfAbsent { value: v.into() };
    let refused = |current| Some(Back::Refused { current });
    good(&[(1, 1, 2, absent("a"), done(at(1, 1))), (2, 3, 4, absent("b"), refused(at(1, 1)))]);
    // Two winners; a refusal without a reason; a refusal that names what never was.
    bad(&[(1, 1, 2, absent("a"), done(None)), (2, 3, 4, absent("b"), done(None))]);
    bad(&[(1, 1, 2, absent("a"), refused(None))]);
    bad(&[(1, 1, 2, put("a"), done(at(1, 1))), (2, 3, 4, absent("b"), refused(at(1, 2)))]);
    let cas = |v: &str, epoch, seq| Call::PutIfVersion {
        value: v.into(),
        version: Version { epoch, seq },
    };
    good(&[
        (1, 1, 2, put("a"), done(at(1, 1))),
        (1, 3, 4, cas("b", 1, 1), done(at(1, 2))),
        (2, 5, 6, cas("c", 1, 1), refused(at(1, 2))),
    ]);
    bad(&[
        (1, 1, 2, put("a"), done(at(1, 1))),
        (1, 3, 4, cas("b", 1, 1), done(at(1, 2))),
        (2, 5, 6, cas("c", 1, 1), done(at(1, 3))),
    ]);
    good(&[(1, 1, 2, cas("b", 1, 1), refused(Some(Version::NONE)))]);
    bad(&[(1, 1, 2, put("a"), done(None)), (1, 3, 4, Call::Remove, Some(Back::Absent))]);
}

#[test]
fn versions_grow_and_belong_to_their_values() {
    bad(&[(1, 1, 2, put("a"), done(at(1, 2))), (1, 3, 4, put("b"), done(at(1, 1)))]);
    bad(&[(1, 1, 2, put("a"), done(at(1, 2))), (1, 3, 4, Call::Get, value("a", at(1, 1)))]);
    // What a read says of a write in doubt binds later reads.
    let rows = |seq| {
        [
            (1, 1, 0, put("a"), None),
            (2, 3, 4, Call::Get, value("a", at(2, 7))),
            (2, 5, 6, Call::Get, value("a", at(2, seq))),
        ]
    };
    good(&rows(7));
    bad(&rows(8));
}

#[test]
fn a_removed_value_does_not_come_back() {
    let rows = |last| {
        [
            (1, 1, 2, put("a"), done(at(1, 1))),
            (1, 3, 4, Call::Remove, done(at(1, 2))),
            (2, 5, 6, Call::Get, Some(Back::Absent)),
            (3, 7, 8, Call::Get, last),
        ]
    };
    good(&rows(Some(Back::Absent)));
    bad(&rows(value("a", at(1, 1))));
}

#[test]
fn the_smallest_window_is_shown() {
    let mut rows = Vec::new();
    for n in 0..500 {
        let (from, text) = (n * 10 + 10, format!("v{n}"));
        rows.push((1, from, from + 5, put(&text), done(None)));
        rows.push((2, from + 6, from + 8, Call::Get, value(&text, None)));
    }
    good(&rows);
    rows.push((3, 3_011, 3_013, Call::Get, value("v200", None)));
    let violation = check(&history(&rows)).expect_err("v200 was overwritten long before");
    // The stale read, an earlier one of the same value, one of a newer value, and who wrote them.
    assert!(violation.window.len() <= 5, "{violation}");
    assert_eq!(violation.of, rows.len());
    assert!(violation.window.iter().any(|o| o.client == 3));
}

#[test]
fn lines_are_read_back_and_a_torn_last_one_is_left_out() {
    let lines = [
        Line::Call {
            id: 7,
            client: 1,
            at_ns: 5,
            key: Bytes(vec![0, b'"', b'k', 255]),
            call: put("a\\\n"),
        },
        Line::Back { id: 7, at_ns: 9, back: done(at(3, 4)).expect("it is") },
        Line::Call {
            id: 8,
            client: 1,
            at_ns: 10,
            key: "k".into(),
            call: Call::Increment { by: -3 },
        },
    ];
    let mut text = String::new();
    for line in &lines {
        text += &serde_json::to_string(line).expect("json");
        text += "\n";
    }
    let mut history = History::default();
    history.read_lines(&format!("{text}{{\"event\":\"ca")).expect("the torn line does not count");
    assert_eq!(history.len(), 2);
    let checked = check(&history).expect("nothing contradicts it");
    assert_eq!(checked, Checked { keys: 2, operations: 2, unknown: 1, undecided: 0 });
    assert!(History::default().read_lines("{\"event\":\"call\"}\n").is_err());
    let answer = serde_json::to_string(&lines[1]).expect("json");
    let error = History::default().read_lines(&format!("{answer}\n")).expect_err("no call");
    assert!(error.contains("line 1") && error.contains('7'), "{error}");
}

fn life(early_ns: u64, late_ns: u64) -> Life {
    Life { ms: 0, from_now: false, early_ns, late_ns }
}

fn put_for(value: &str, life: Life) -> Call {
    Call::PutFor { value: value.into(), life }
}

#[test]
fn a_value_goes_in_its_time() {
    let rows = |called, back| {
        let put = (1, 1, 2, put_for("v", life(10, 20)), done(at(1, 1)));
        [put, (2, called, called + 1, Call::Get, back)]
    };
    let (there, gone) = (value("v", at(1, 1)), Some(Back::Absent));
    good(&rows(3, there.clone()));
    bad(&rows(3, gone.clone()));
    for either in [9, 15, 20] {
        good(&rows(either, there.clone()));
        good(&rows(either, gone.clone()));
    }
    bad(&rows(21, there));
    good(&rows(21, gone));
}

#[test]
fn a_value_that_is_gone_stays_gone() {
    let put = (1, 1, 2, put_for("v", life(10, 90)), done(at(1, 1)));
    let gone = (1, 20, 21, Call::Get, Some(Back::Absent));
    bad(&[put.clone(), gone.clone(), (2, 30, 31, Call::Get, value("v", at(1, 1)))]);
    bad(&[put.clone(), gone.clone(), (2, 30, 31, Call::Persist, done(at(1, 2)))]);
    good(&[put, gone, (2, 30, 31, Call::Persist, Some(Back::Absent))]);
}

#[test]
fn a_value_may_be_made_to_live_on() {
    let rows = |call, answered, called, back| {
        let longer =
            (2, 3, answered, call, (answered > 0).then(|| Back::Done { version: at(1, 2) }));
        let put = (1, 1, 2, put_for("v", life(10, 20)), done(at(1, 1)));
        [put, longer, (1, called, called + 1, Call::Get, back)]
    };
    let (longer, there) = (Call::Expire { life: life(50, 60) }, value("v", at(1, 2)));
    let gone = Some(Back::Absent);
    for call in [longer.clone(), Call::Persist] {
        good(&rows(call.clone(), 4, 40, there.clone()));
        bad(&rows(call.clone(), 4, 40, gone.clone()));
        // Nobody knows whether it did.
        good(&rows(call.clone(), 0, 40, there.clone()));
        good(&rows(call, 0, 40, gone.clone()));
    }
    bad(&rows(longer.clone(), 4, 61, there.clone()));
    bad(&rows(longer, 0, 61, there.clone()));
    good(&rows(Call::Persist, 0, 61, there));
}

#[test]
fn a_write_of_unknown_outcome_may_have_come_and_gone() {
    let put = (1, 1, 0, put_for("v", life(10, 20)), None);
    let gone = |at| (2, at, at + 1, Call::Get, Some(Back::Absent));
    let there = (2, 12, 13, Call::Get, value("v", None));
    good(&[put.clone(), there.clone(), gone(15), gone(30)]);
    bad(&[put, there, gone(15), (3, 17, 18, Call::Get, value("v", None))]);
}

#[test]
fn the_time_that_is_left_is_told() {
    let left = |called, ms, end: Life| {
        let back = Some(Back::Integer { value: ms, version: None });
        [(1, 1, 2, put_for("v", end), done(None)), (2, called, called + 1, Call::Left, back)]
    };
    let ms = 1_000_000;
    let end = life(90 * ms, 100 * ms);
    good(&left(50 * ms, 45, end));
    bad(&left(50 * ms, 38, end));
    bad(&left(50 * ms, 51, end));
    bad(&left(50 * ms, -1, end));
    // It counts from the call on.
    good(&left(50 * ms, 45, Life { from_now: true, ..end }));
}
