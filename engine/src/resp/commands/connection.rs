//! PING, HELLO, CLIENT and the other commands on the connection itself.

use super::client::Name;
use super::server::Ask;
use super::strings::status;
use super::{Call, Client, Fault, Plan, Planned, SYNTAX, c_text, integer, is, wrong_arity};
use crate::resp::number::parse_i64;
use crate::resp::write::{self, Protocol};

/// The Redis whose behaviour this follows, for client libraries that look.
pub const REDIS_VERSION: &str = "7.2.0";

/// PING \[message\]
pub fn ping<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    match call.args {
        [_] => status(call, "PONG"),
        [_, message] => {
            write::bulk(call.out, message);
            Ok(Plan::Replied)
        }
        _ => Err(wrong_arity("ping")),
    }
}

/// ECHO message
pub fn echo<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    write::bulk(call.out, call.args[1]);
    Ok(Plan::Replied)
}

/// SELECT 0
pub fn select<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let index = integer(call.args[1])?;
    match i32::try_from(index) {
        Ok(0) => status(call, "OK"),
        Ok(_) => Err("ERR DB index is out of range".into()),
        Err(_) => Err(format!(
            "ERR value is out of range, value must between {} and {}",
            i32::MIN,
            i32::MAX
        )
        .into()),
    }
}

/// QUIT
pub fn quit<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    status(call, "OK")?;
    Ok(Plan::Quit)
}

/// RESET
pub fn reset<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    call.client.reset();
    status(call, "RESET")
}

/// HELLO \[version \[AUTH user password\] \[SETNAME name\]\]
pub fn hello<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let mut protocol = call.client.protocol;
    let mut name = None;
    if let [_, version, options @ ..] = call.args {
        protocol = match parse_i64(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err("NOPROTO unsupported protocol version".into()),
            None => return Err("ERR Protocol version is not an integer or out of range".into()),
        };
        name = hello_options(options)?;
    }
    if let Some(name) = name {
        call.client.set(Name::Connection, name);
    }
    call.client.protocol = protocol;
    let out = &mut *call.out;
    write::map(out, protocol, 7);
    for (field, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        write::bulk(out, field.as_bytes());
        write::bulk(out, value.as_bytes());
    }
    write::bulk(out, b"proto");
    write::integer(out, if protocol == Protocol::Resp3 { 3 } else { 2 });
    write::bulk(out, b"id");
    write::integer(out, call.client.id as i64);
    for (field, value) in [("mode", "standalone"), ("role", "master")] {
        write::bulk(out, field.as_bytes());
        write::bulk(out, value.as_bytes());
    }
    write::bulk(out, b"modules");
    write::array(out, 0);
    Ok(Plan::Replied)
}

/// The name, if one is given. There are no passwords: the default user's is any, as in Redis without one.
fn hello_options<'a>(mut options: &[&'a [u8]]) -> Result<Option<&'a [u8]>, Fault> {
    let mut name = None;
    loop {
        options = match options {
            [] => return Ok(name),
            [word, user, _, rest @ ..] if is(word, "auth") => {
                if user != b"default" {
                    return Err(
                        "WRONGPASS invalid username-password pair or user is disabled.".into()
                    );
                }
                rest
            }
            [word, value, rest @ ..] if is(word, "setname") => {
                if !Client::takes(value) {
                    return Err(bad_name());
                }
                name = Some(*value);
                rest
            }
            [word, ..] => {
                let word = c_text(word, 128);
                return Err(format!("ERR Syntax error in HELLO option '{word}'").into());
            }
        }
    }
}

fn bad_name() -> Fault {
    "ERR Client names cannot contain spaces, newlines or special characters.".into()
}

/// CLIENT ID
pub fn client_id<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    write::integer(call.out, call.client.id as i64);
    Ok(Plan::Replied)
}

/// CLIENT SETNAME name
pub fn client_setname<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    if call.client.set(Name::Connection, call.args[2]) {
        status(call, "OK")
    } else {
        Err(bad_name())
    }
}

/// CLIENT GETNAME
pub fn client_getname<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    match call.client.name() {
        b"" => write::null(call.out, call.client.protocol),
        name => write::bulk(call.out, name),
    }
    Ok(Plan::Replied)
}

/// CLIENT SETINFO lib-name|lib-ver value
pub fn client_setinfo<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let (word, which) = match call.args[2] {
        word if is(word, "lib-name") => ("lib-name", Name::Library),
        word if is(word, "lib-ver") => ("lib-ver", Name::LibraryVersion),
        word => return Err(format!("ERR Unrecognized option '{}'", c_text(word, 128)).into()),
    };
    if call.client.set(which, call.args[3]) {
        return status(call, "OK");
    }
    Err(format!("ERR {word} cannot contain spaces, newlines or special characters.").into())
}

/// CLIENT LIST \[TYPE type\] \[ID id...\]
pub fn client_list<'a>(call: &mut Call<'a, '_>) -> Planned<'a> {
    let (none, ids) = match &call.args[2..] {
        [] => (false, &[][..]),
        [word, kind] if is(word, "type") => {
            let others = ["master", "replica", "slave", "pubsub"];
            if !is(kind, "normal") && !others.iter().any(|other| is(kind, other)) {
                return Err(format!("ERR Unknown client type '{}'", c_text(kind, 128)).into());
            }
            (!is(kind, "normal"), &[][..])
        }
        [word, ids @ ..] if is(word, "id") && !ids.is_empty() => {
            if !ids.iter().all(|id| parse_i64(id).is_some()) {
                return Err("ERR Invalid client ID".into());
            }
            (false, ids)
        }
        _ => return Err(SYNTAX),
    };
    Ok(Plan::Ask(Ask::Clients { ids, none }))
}
