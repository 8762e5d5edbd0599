//! The options of SET, GETEX and the EXPIRE family.

use firebrick_partition::op::ExpireWhen;
use firebrick_partition::{Expiry, Now};

use super::{Fault, SYNTAX, c_text, integer, is};

/// A time as given: its number is read only when it is needed, as Redis does.
#[derive(Clone, Copy, Debug)]
pub struct Time<'a> {
    text: &'a [u8],
    ms: bool,
    absolute: bool,
}

impl<'a> Time<'a> {
    /// Seconds from now.
    pub fn seconds(text: &'a [u8]) -> Self {
        Self { text, ms: false, absolute: false }
    }

    /// Milliseconds from now.
    pub fn millis(text: &'a [u8]) -> Self {
        Self { text, ms: true, absolute: false }
    }

    fn option(word: &[u8], text: &'a [u8]) -> Option<Self> {
        let (ms, absolute) = match () {
            () if is(word, "ex") => (false, false),
            () if is(word, "px") => (true, false),
            () if is(word, "exat") => (false, true),
            () if is(word, "pxat") => (true, true),
            () => return None,
        };
        Some(Self { text, ms, absolute })
    }

    /// Redis takes an option twice: the last counts.
    fn may_follow(self, before: Self) -> bool {
        (self.ms, self.absolute) == (before.ms, before.absolute)
    }

    /// Unix milliseconds; `command` is for the error. Zero and before are refused.
    pub fn unix_ms(self, now: Now, command: &str) -> Result<u64, Fault> {
        let value = integer(self.text)?;
        (value > 0)
            .then(|| unix_ms(value, self.ms, self.absolute, now))
            .flatten()
            .map(|ms| ms as u64)
            .ok_or_else(|| invalid_time(command))
    }
}

/// Unix milliseconds of a time, if it fits.
pub fn unix_ms(value: i64, ms: bool, absolute: bool, now: Now) -> Option<i64> {
    let value = if ms { value } else { value.checked_mul(1000)? };
    if absolute { Some(value) } else { value.checked_add(now.unix_ms as i64) }
}

/// The error of a time out of range.
pub fn invalid_time(command: &str) -> Fault {
    format!("ERR invalid expire time in '{command}' command").into()
}

/// SET's options.
#[derive(Debug, Default)]
pub struct SetOptions<'a> {
    /// NX.
    pub nx: bool,
    /// XX.
    pub xx: bool,
    /// GET.
    pub get: bool,
    /// KEEPTTL.
    pub keep: bool,
    /// EX, PX, EXAT or PXAT.
    pub time: Option<Time<'a>>,
}

impl<'a> SetOptions<'a> {
    /// Reads them, in any order.
    pub fn parse(mut args: &[&'a [u8]]) -> Result<Self, Fault> {
        let mut options = Self::default();
        while let [word, rest @ ..] = args {
            args = rest;
            if is(word, "nx") && !options.xx {
                options.nx = true;
            } else if is(word, "xx") && !options.nx {
                options.xx = true;
            } else if is(word, "get") {
                options.get = true;
            } else if is(word, "keepttl") && options.time.is_none() {
                options.keep = true;
            } else if !options.keep
                && let [text, rest @ ..] = rest
                && let Some(time) = Time::option(word, text)
                && options.time.is_none_or(|before| time.may_follow(before))
            {
                options.time = Some(time);
                args = rest;
            } else {
                return Err(SYNTAX);
            }
        }
        Ok(options)
    }

    /// What happens to the expiry.
    pub fn expiry(&self, now: Now) -> Result<Expiry, Fault> {
        match self.time {
            Some(time) => Ok(Expiry::At(time.unix_ms(now, "set")?)),
            None if self.keep => Ok(Expiry::Keep),
            None => Ok(Expiry::Never),
        }
    }
}

/// GETEX's option.
#[derive(Clone, Copy, Debug)]
pub enum GetExOption<'a> {
    /// None: a GET.
    Nothing,
    /// PERSIST.
    Persist,
    /// A time.
    Time(Time<'a>),
}

impl<'a> GetExOption<'a> {
    /// Reads it.
    pub fn parse(mut args: &[&'a [u8]]) -> Result<Self, Fault> {
        let mut option = Self::Nothing;
        while let [word, rest @ ..] = args {
            args = rest;
            if is(word, "persist") && !matches!(option, Self::Time(_)) {
                option = Self::Persist;
            } else if let [text, rest @ ..] = rest
                && let Some(time) = Time::option(word, text)
                && option.takes(time)
            {
                option = Self::Time(time);
                args = rest;
            } else {
                return Err(SYNTAX);
            }
        }
        Ok(option)
    }

    fn takes(self, time: Time<'_>) -> bool {
        match self {
            Self::Nothing => true,
            Self::Persist => false,
            Self::Time(before) => time.may_follow(before),
        }
    }
}

/// NX, XX, GT, LT.
pub fn expire_when(args: &[&[u8]]) -> Result<ExpireWhen, Fault> {
    let mut when = ExpireWhen::default();
    for word in args {
        match () {
            () if is(word, "nx") => when.nx = true,
            () if is(word, "xx") => when.xx = true,
            () if is(word, "gt") => when.gt = true,
            () if is(word, "lt") => when.lt = true,
            () => return Err(format!("ERR Unsupported option {}", c_text(word, 128)).into()),
        }
    }
    if when.nx && (when.xx || when.gt || when.lt) {
        return Err("ERR NX and XX, GT or LT options at the same time are not compatible".into());
    }
    if when.gt && when.lt {
        return Err("ERR GT and LT options at the same time are not compatible".into());
    }
    Ok(when)
}
