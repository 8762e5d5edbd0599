//! Promise: the checker of histories passes what is linearizable and nothing else. Hand-made histories
//! of each kind of violation, and small random ones against a search of every order.

use firebrick_tests::check::{
    Back, Bytes, Call, Checked, History, Line, Operation, Verdict, Version, check, check_key,
};
use firebrick_tests::random::Random;
use proptest::prelude::*;

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
    assert_eq!(checked, Checked { keys: 2, operations: 2, unknown: 1 });
    assert!(History::default().read_lines("{\"event\":\"call\"}\n").is_err());
    let answer = serde_json::to_string(&lines[1]).expect("json");
    let error = History::default().read_lines(&format!("{answer}\n")).expect_err("no call");
    assert!(error.contains("line 1") && error.contains('7'), "{error}");
}

/// What is called on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Register,
    List,
    Counter,
    Mixed,
}

/// A register that clients use at random, each call taking its effect somewhere between call and
/// answer; some answers are lost, with the effect or without.
struct Register {
    random: Random,
    value: Option<Vec<u8>>,
    version: Version,
    written: u64,
    now: u64,
}

impl Register {
    fn call(&mut self, n: u64, family: Family) -> Call {
        let text = |kind: &str| Bytes::from(format!("{kind}{n}").as_str());
        let die = self.random.below(12);
        let older = self.written.saturating_sub(self.random.below(2));
        match (family, die) {
            (_, 0..=3) => Call::Get,
            (Family::Counter, 4..) => Call::Increment { by: 1 },
            (Family::List, 5..) | (Family::Mixed, 10..) => Call::Append { value: text("+") },
            (_, 4 | 5 | 10 | 11) => Call::Put { value: text("v") },
            (_, 6) => Call::Remove,
            (_, 7) => Call::PutIfAbsent { value: text("a") },
            (_, 8) => {
                let version = Version { epoch: 1, seq: older };
                Call::PutIfVersion { value: text("c"), version }
            }
            _ => Call::Put { value: Bytes::from("1") },
        }
    }

    fn put(&mut self, value: Option<Vec<u8>>) -> Option<Version> {
        self.written += 1;
        self.version = Version { epoch: 1, seq: self.written };
        self.value = value;
        Some(self.version)
    }

    fn current(&self) -> Option<Version> {
        Some(if self.value.is_some() { self.version } else { Version::NONE })
    }

    fn apply(&mut self, call: &Call) -> Back {
        let version = self.version;
        match call {
            Call::Get => match self.value.clone() {
                Some(value) => Back::Value { value: Bytes(value), version: Some(version) },
                None => Back::Absent,
            },
            Call::Put { value } => Back::Done { version: self.put(Some(value.0.clone())) },
            Call::Remove if self.value.is_none() => Back::Absent,
            Call::Remove => Back::Done { version: self.put(None) },
            Call::PutIfAbsent { value } if self.value.is_none() => {
                Back::Done { version: self.put(Some(value.0.clone())) }
            }
            Call::PutIfVersion { value, version }
                if self.current() == Some(*version) && self.value.is_some() =>
            {
                Back::Done { version: self.put(Some(value.0.clone())) }
            }
            Call::PutIfAbsent { .. } | Call::PutIfVersion { .. } => {
                Back::Refused { current: self.current() }
            }
            Call::Append { value } => {
                let mut bytes = self.value.clone().unwrap_or_default();
                bytes.extend_from_slice(&value.0);
                let len = bytes.len() as u64;
                Back::Length { len, version: self.put(Some(bytes)) }
            }
            Call::Increment { by } => {
                let old = self.value.as_ref().map_or(Ok(0), |v| String::from_utf8_lossy(v).parse());
                let Ok(old) = old else { return Back::Failed };
                let value: i64 = old + by;
                let version = self.put(Some(value.to_string().into_bytes()));
                Back::Integer { value, version }
            }
        }
    }
}

fn without_versions(back: Back) -> Back {
    let version = None;
    match back {
        Back::Value { value, .. } => Back::Value { value, version },
        Back::Done { .. } => Back::Done { version },
        Back::Refused { .. } => Back::Refused { current: None },
        Back::Integer { value, .. } => Back::Integer { value, version },
        Back::Length { len, .. } => Back::Length { len, version },
        other => other,
    }
}

/// `clients` that call `calls` times in all; one in `lost` loses its answer.
fn run(
    seed: u64,
    family: Family,
    clients: usize,
    calls: u64,
    lost: u64,
    versions: bool,
) -> Vec<Operation> {
    let random = Random::new(seed);
    let version = Version { epoch: 1, seq: 0 };
    let mut register = Register { random, value: None, version, written: 0, now: 0 };
    // Where each client is: its operation, and what it was answered if its effect was already.
    let mut at: Vec<Option<(usize, Option<Back>)>> = vec![None; clients];
    let mut late: Vec<Call> = Vec::new();
    let mut all: Vec<Operation> = Vec::new();
    while (all.len() as u64) < calls || at.iter().any(Option::is_some) {
        register.now += 1;
        let client = register.random.below(clients as u64) as usize;
        match at[client].take() {
            None if (all.len() as u64) < calls => {
                let call = register.call(all.len() as u64, family);
                let called_ns = register.now;
                all.push(Operation {
                    id: all.len() as u64,
                    client: client as u32,
                    called_ns,
                    call,
                    back: None,
                });
                at[client] = Some((all.len() - 1, None));
            }
            None => {}
            Some((n, None)) => {
                let call = all[n].call.clone();
                let mut call_version_free = call.clone();
                if !versions && matches!(call, Call::PutIfVersion { .. }) {
                    call_version_free = Call::Get;
                    all[n].call = Call::Get;
                }
                match register.random.below(lost) {
                    0 => late.push(call_version_free),
                    _ => at[client] = Some((n, Some(register.apply(&call_version_free)))),
                }
            }
            Some((n, Some(back))) => {
                let back = if versions { back } else { without_versions(back) };
                if register.random.below(lost) != 0 {
                    all[n].back = Some((register.now, back));
                }
            }
        }
        if register.random.below(3) == 0 && !late.is_empty() {
            let call = late.swap_remove(register.random.below(late.len() as u64) as usize);
            if register.random.below(2) == 0 {
                register.apply(&call);
            }
        }
    }
    all.retain(|o| o.back.is_some() || o.call != Call::Get);
    all.retain(|o| !matches!(o.back, Some((_, Back::Failed))));
    all
}

/// Searches every order and every choice of what happened: slow, and too simple to be wrong.
fn oracle(all: &[Operation], done: &mut Vec<usize>) -> bool {
    let is_done = |n: usize, done: &[usize]| done.contains(&n);
    if (0..all.len()).all(|n| is_done(n, done) || all[n].back.is_none()) && explains(all, done) {
        return true;
    }
    for n in 0..all.len() {
        let first = |m: usize| {
            let answered = all[m].back.as_ref().is_some_and(|b| b.0 < all[n].called_ns);
            answered && !is_done(m, done)
        };
        if is_done(n, done) || (0..all.len()).any(first) {
            continue;
        }
        done.push(n);
        let found = explains(all, done) && oracle(all, done);
        done.pop();
        if found {
            return true;
        }
    }
    false
}

/// Plays an order through. Versions that nobody was told are unknowns; those that are told must grow.
fn explains(all: &[Operation], order: &[usize]) -> bool {
    let mut value: Option<Vec<u8>> = None;
    // All versions ever written, in order; `None`: not known (yet).
    let mut versions: Vec<Option<Version>> = vec![];
    let tell = |versions: &mut Vec<Option<Version>>, told: &Version| {
        let last = versions.last_mut().expect("there is a value");
        *told != Version::NONE && *last.get_or_insert(*told) == *told
    };
    for &n in order {
        let back = all[n].back.as_ref().map(|b| &b.1);
        let mut new = None;
        let ok = match (&all[n].call, back) {
            (Call::Get, Some(Back::Absent)) => value.is_none(),
            (Call::Get, Some(Back::Value { value: v, version })) => {
                value.as_ref() == Some(&v.0) && version.is_none_or(|t| tell(&mut versions, &t))
            }
            (Call::Put { value: v }, Some(Back::Done { .. }) | None) => {
                new = Some(Some(v.0.clone()));
                true
            }
            (Call::Remove, Some(Back::Absent)) => value.is_none(),
            (Call::Remove, Some(Back::Done { .. }) | None) => {
                new = Some(None);
                value.is_some()
            }
            (Call::PutIfAbsent { value: v }, Some(Back::Done { .. }) | None) => {
                new = Some(Some(v.0.clone()));
                value.is_none()
            }
            (Call::PutIfVersion { value: v, version }, Some(Back::Done { .. }) | None) => {
                new = Some(Some(v.0.clone()));
                value.is_some() && tell(&mut versions, version)
            }
            (Call::PutIfVersion { version, .. }, Some(Back::Refused { current: Some(c) })) => {
                if *c == Version::NONE {
                    value.is_none()
                } else {
                    c != version && value.is_some() && tell(&mut versions, c)
                }
            }
            (Call::PutIfAbsent { .. }, Some(Back::Refused { current })) => {
                value.is_some() && current.is_none_or(|c| tell(&mut versions, &c))
            }
            (Call::Append { value: v }, Some(Back::Length { .. }) | None) => {
                let mut bytes = value.clone().unwrap_or_default();
                bytes.extend_from_slice(&v.0);
                let len = bytes.len() as u64;
                new = Some(Some(bytes));
                back.is_none_or(|b| matches!(b, Back::Length { len: l, .. } if *l == len))
            }
            _ => false,
        };
        if !ok {
            return false;
        }
        if let Some(new) = new {
            value = new;
            versions.push(match back {
                Some(Back::Done { version } | Back::Length { version, .. }) => *version,
                _ => None,
            });
        }
        let told: Vec<_> = versions.iter().flatten().collect();
        if told.windows(2).any(|w| w[0] >= w[1]) {
            return false;
        }
    }
    true
}

/// Changes one answer into one that another call got, or moves it.
fn damage(all: &mut [Operation], random: &mut Random) {
    if all.is_empty() {
        return;
    }
    let any = |random: &mut Random| random.below(all.len() as u64) as usize;
    let (a, b) = (any(random), any(random));
    let other = all[b].back.clone();
    if let (Some((_, back)), Some((_, other))) = (&mut all[a].back, other) {
        *back = other;
    }
}

fn same_as_oracle(all: &[Operation]) -> Result<bool, TestCaseError> {
    let expected = oracle(all, &mut Vec::new());
    let verdict = check_key(all);
    prop_assert_eq!(verdict == Verdict::Linearizable, expected, "{:#?}\n{:?}", all, verdict);
    Ok(expected)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Small histories, right and damaged: the verdict of the search of every order.
    #[test]
    fn small_histories_are_judged_as_by_trying_every_order(
        seed in any::<u64>(), clients in 2..5usize, calls in 3..8u64, lost in 3..9u64, versions in any::<bool>()
    ) {
        let mut all = run(seed, Family::Mixed, clients, calls, lost, versions);
        prop_assert!(same_as_oracle(&all)?, "a right history");
        let mut random = Random::new(seed);
        for _ in 0..3 {
            damage(&mut all, &mut random);
            same_as_oracle(&all)?;
        }
    }
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Register), Just(Family::List), Just(Family::Counter)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Long ones, with hundreds of calls in doubt, pass, and fast. Without versions (clients of the
    /// Redis protocol) the order of writes is not told, so fewer may be open at once.
    #[test]
    fn long_right_histories_pass(seed in any::<u64>(), lost in 12..40u64, versions in any::<bool>(), family in family()) {
        let clients = if versions { 12 } else { 4 };
        // Every value of a list holds all before it.
        let calls = match family {
            Family::List if versions => 800,
            Family::List => 250,
            _ => 3000,
        };
        let all = run(seed, family, clients, calls, lost, versions);
        let begun = std::time::Instant::now();
        prop_assert_eq!(check_key(&all), Verdict::Linearizable);
        println!("{family:?} {versions} {} calls, {} in doubt: {:?}", all.len(), all.iter().filter(|o| o.back.is_none()).count(), begun.elapsed());
        prop_assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }
}
