//! GET, SET and the other commands on values.

use firebrick_partition::{Condition, Expiry, Op};

use super::options::{GetExOption, SetOptions, Time};
use super::{Call, NOT_INTEGER, Plan, Planned, integer, wrong_arity};
use crate::resp::job::{Each, Work};
use crate::resp::limits::VALUE_BYTES_MAX;
use crate::resp::number::{parse_f64, parse_i64};
use crate::resp::reply::Then;
use crate::resp::write;

fn put(value: &[u8], expiry: Expiry, condition: Condition, want_old: bool) -> Op<'_> {
    Op::Put { value, expiry, condition, want_old }
}

/// GET key
pub fn get<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    Ok(Plan::One { key: call.args[1], op: Op::Get, then: Then::Bulk })
}

/// SET key value \[NX|XX\] \[GET\] \[EX s|PX ms|EXAT s|PXAT ms|KEEPTTL\]
pub fn set<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let options = SetOptions::parse(&call.args[3..])?;
    let expiry = options.expiry(call.now)?;
    let condition = match (options.nx, options.xx) {
        (true, _) => Condition::Absent,
        (_, true) => Condition::Present,
        _ => Condition::Always,
    };
    let op = put(call.args[2], expiry, condition, options.get);
    let then = if options.get { Then::Old } else { Then::Stored };
    Ok(Plan::One { key: call.args[1], op, then })
}

/// SETNX key value
pub fn setnx<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let op = put(call.args[2], Expiry::Never, Condition::Absent, false);
    Ok(Plan::One { key: call.args[1], op, then: Then::Flag })
}

/// SETEX key seconds value
pub fn setex<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    set_for(call, Time::seconds(call.args[2]), "setex")
}

/// PSETEX key milliseconds value
pub fn psetex<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    set_for(call, Time::millis(call.args[2]), "psetex")
}

fn set_for<'a>(call: &mut Call<'a, '_>, time: Time<'a>, name: &str) -> Planned<'a> {
    let expiry = Expiry::At(time.unix_ms(call.now, name)?);
    let op = put(call.args[3], expiry, Condition::Always, false);
    Ok(Plan::One { key: call.args[1], op, then: Then::Stored })
}

/// GETSET key value
pub fn getset<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let op = put(call.args[2], Expiry::Never, Condition::Always, true);
    Ok(Plan::One { key: call.args[1], op, then: Then::Old })
}

/// GETDEL key
pub fn getdel<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let op = Op::Remove { condition: Condition::Always, want_old: true };
    Ok(Plan::One { key: call.args[1], op, then: Then::Old })
}

/// GETEX key \[EX s|PX ms|EXAT s|PXAT ms|PERSIST\]
pub fn getex<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let key = call.args[1];
    let at_ms = match GetExOption::parse(&call.args[2..])? {
        GetExOption::Nothing => return get(call),
        GetExOption::Persist => 0,
        GetExOption::Time(time) => match time.unix_ms(call.now, "getex") {
            Ok(at_ms) => at_ms,
            Err(text) => {
                let text = if text == NOT_INTEGER { NOT_INTEGER } else { GETEX_TIME };
                return Ok(Plan::One { key, op: Op::Look, then: Then::NilOrError(text) });
            }
        },
    };
    Ok(Plan::Work(Work::GetEx { key: key.into(), at_ms, read: false }))
}

const GETEX_TIME: &str = "ERR invalid expire time in 'getex' command";

/// MGET key...
pub fn mget<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    Ok(Plan::Each(Each::Get, &call.args[1..]))
}

/// MSET key value...
pub fn mset<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    if call.args.len().is_multiple_of(2) {
        return Err(wrong_arity("mset"));
    }
    Ok(Plan::Each(Each::Set, &call.args[1..]))
}

/// APPEND key value
pub fn append<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let op = Op::Append { value: call.args[2] };
    Ok(Plan::One { key: call.args[1], op, then: Then::Length })
}

/// STRLEN key
pub fn strlen<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    Ok(Plan::One { key: call.args[1], op: Op::Look, then: Then::Length })
}

/// GETRANGE key start end, and SUBSTR
pub fn getrange<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let (start, end) = (integer(call.args[2])?, integer(call.args[3])?);
    Ok(Plan::One { key: call.args[1], op: Op::Get, then: Then::Range { start, end } })
}

/// SETRANGE key offset value
pub fn setrange<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let offset = integer(call.args[2])?;
    if offset < 0 {
        return Err("ERR offset is out of range".into());
    }
    let (key, value) = (call.args[1], call.args[3]);
    if value.is_empty() {
        return Ok(Plan::One { key, op: Op::Look, then: Then::Length });
    }
    if offset as u64 + value.len() as u64 > VALUE_BYTES_MAX as u64 {
        return Err(format!(
            "ERR TooLarge: string exceeds maximum allowed size ({VALUE_BYTES_MAX} bytes, 8 MiB)"
        )
        .into());
    }
    let op = Op::SetRange { offset: offset as u32, value };
    Ok(Plan::One { key, op, then: Then::Length })
}

fn add<'a>(call: &Call<'a, '_>, by: i64) -> Planned<'a> {
    Ok(Plan::One { key: call.args[1], op: Op::Increment { by }, then: Then::Number })
}

/// INCR key
pub fn incr<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    add(call, 1)
}

/// DECR key
pub fn decr<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    add(call, -1)
}

/// INCRBY key integer
pub fn incrby<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    add(call, integer(call.args[2])?)
}

/// DECRBY key integer
pub fn decrby<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let by = parse_i64(call.args[2]).ok_or(NOT_INTEGER)?;
    add(call, by.checked_neg().ok_or("ERR decrement would overflow")?)
}

/// INCRBYFLOAT key number
pub fn incrbyfloat<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let by = parse_f64(call.args[2]).ok_or("ERR value is not a valid float")?;
    let op = Op::IncrementFloat { by };
    Ok(Plan::One { key: call.args[1], op, then: Then::Text })
}

/// A reply of a status word.
pub(super) fn status<'a>(call: &mut Call<'a, '_>, text: &str) -> Planned<'a> {
    write::simple(call.out, text);
    Ok(Plan::Replied)
}
