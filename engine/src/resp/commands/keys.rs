//! DEL, EXPIRE, SCAN and the other commands on keys.

use firebrick_partition::op::ExpireWhen;
use firebrick_partition::{Condition, Op};

use super::options::{expire_when, invalid_time, unix_ms};
use super::{Call, Plan, Planned, SYNTAX, integer, is};
use crate::resp::job::{Each, Work};
use crate::resp::limits::SCAN_COUNT_MAX;
use crate::resp::number::parse_cursor;
use crate::resp::reply::{ScanFilter, Then};

/// DEL key..., UNLINK key...
pub fn del<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    if let [_, key] = call.args {
        let op = Op::Remove { condition: Condition::Always, want_old: false };
        return Ok(Plan::One { key, op, then: Then::Flag });
    }
    Ok(Plan::Each(Each::Remove, &call.args[1..]))
}

/// EXISTS key..., TOUCH key...
pub fn exists<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    if let [_, key] = call.args {
        return Ok(Plan::One { key, op: Op::Look, then: Then::Flag });
    }
    Ok(Plan::Each(Each::Exists, &call.args[1..]))
}

fn look<'a>(call: &Call<'a, '_>, then: Then) -> Planned<'a> {
    Ok(Plan::One { key: call.args[1], op: Op::Look, then })
}

/// TYPE key
pub fn type_of<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    look(call, Then::Type)
}

/// TTL key
pub fn ttl<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    look(call, Then::TimeLeft { ms: false })
}

/// PTTL key
pub fn pttl<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    look(call, Then::TimeLeft { ms: true })
}

/// EXPIRETIME key
pub fn expiretime<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    look(call, Then::ExpiresAt { ms: false })
}

/// PEXPIRETIME key
pub fn pexpiretime<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    look(call, Then::ExpiresAt { ms: true })
}

fn expire_at<'a>(call: &Call<'a, '_>, name: &str, ms: bool, absolute: bool) -> Planned<'a> {
    let when = expire_when(&call.args[3..])?;
    let value = integer(call.args[2])?;
    let at_ms = unix_ms(value, ms, absolute, call.now).ok_or_else(|| invalid_time(name))?;
    // 0 would mean "never"; before 1970 is as past as 1 ms after it.
    let op = Op::Expire { at_ms: at_ms.max(1) as u64, when };
    Ok(Plan::One { key: call.args[1], op, then: Then::Flag })
}

/// EXPIRE key seconds \[NX|XX|GT|LT\]
pub fn expire<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    expire_at(call, "expire", false, false)
}

/// PEXPIRE key milliseconds \[NX|XX|GT|LT\]
pub fn pexpire<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    expire_at(call, "pexpire", true, false)
}

/// EXPIREAT key unix-seconds \[NX|XX|GT|LT\]
pub fn expireat<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    expire_at(call, "expireat", false, true)
}

/// PEXPIREAT key unix-milliseconds \[NX|XX|GT|LT\]
pub fn pexpireat<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    expire_at(call, "pexpireat", true, true)
}

/// PERSIST key
pub fn persist<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let op = Op::Expire { at_ms: 0, when: ExpireWhen { xx: true, ..ExpireWhen::default() } };
    Ok(Plan::One { key: call.args[1], op, then: Then::Flag })
}

/// SCAN cursor \[MATCH pattern\] \[COUNT n\] \[TYPE name\]
pub fn scan<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let cursor = parse_cursor(call.args[1]).ok_or("ERR invalid cursor")?;
    let mut filter = ScanFilter::default();
    let mut count = 10;
    let mut rest = &call.args[2..];
    while let [word, value, more @ ..] = rest {
        if is(word, "count") {
            count = integer(value)?;
            if count < 1 {
                return Err(SYNTAX);
            }
        } else if is(word, "match") {
            filter.pattern = Some((*value).into());
        } else if is(word, "type") {
            filter.none = !is(value, "string");
        } else {
            return Err(SYNTAX);
        }
        rest = more;
    }
    if !rest.is_empty() {
        return Err(SYNTAX);
    }
    let count = count.min(i64::from(SCAN_COUNT_MAX)) as u32;
    let then = Then::Scan(Box::new(filter));
    Ok(Plan::One { key: b"", op: Op::Scan { cursor, count }, then })
}

/// KEYS pattern
pub fn keys<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let filter = ScanFilter { pattern: Some(call.args[1].into()), ..ScanFilter::default() };
    Ok(Plan::Work(Work::Keys { filter, cursor: 0 }))
}

/// RANDOMKEY
pub fn randomkey<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    // Any mixing will do: the choice need not be hard to guess.
    let seed = call.now.boot_ns ^ call.client.id << 32 ^ call.client.commands;
    let random = super::super::hash_key(&seed.to_le_bytes());
    Ok(Plan::Work(Work::RandomKey { random, left: None }))
}

/// FLUSHALL \[ASYNC|SYNC\], FLUSHDB
pub fn flush<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    match &call.args[1..] {
        [] => {}
        [word] if is(word, "async") || is(word, "sync") => {}
        _ => return Err(SYNTAX),
    }
    Ok(Plan::Work(Work::Clear))
}

/// DBSIZE
pub fn dbsize<'a>(_: &mut Call<'a, '_>) -> Planned<'a> {
    Ok(Plan::Work(Work::Count))
}
