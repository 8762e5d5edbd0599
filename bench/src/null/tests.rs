use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use firebrick_net::poll::Mode;

use super::resp::{Command, Parsed, parse};
use super::{Null, NullError, NullOptions};

fn options() -> NullOptions {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    NullOptions { listen: any, resp: Some(any), core: None, poll: Mode::Park }
}

#[test]
fn commands_are_cut_where_they_end() {
    let get = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nmore";
    assert_eq!(parse(get), Parsed::Command(Command { len: get.len() - 4, name: b"GET" }));
    for cut in 0..get.len() - 4 {
        assert_eq!(parse(&get[..cut]), Parsed::Short, "{cut}");
    }
    assert_eq!(parse(b"PING x\r\n"), Parsed::Command(Command { len: 8, name: b"PING" }));
    for bad in
        [&b"*x\r\n"[..], b"*0\r\n", b"*1\r\n+3\r\n", b"*1\r\n$99999999\r\n", b"*1\r\n$1\r\nabc\r\n"]
    {
        assert_eq!(parse(bad), Parsed::Bad, "{bad:?}");
    }
}

#[test]
fn a_resp_pipeline_is_answered_in_order_and_whole() {
    let null = Null::start(options()).unwrap();
    let mut stream = TcpStream::connect(null.resp().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let get = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    let set = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
    let mut writer = stream.try_clone().unwrap();
    let input = [&get[..], set].concat().repeat(20_000);
    let sender = std::thread::spawn(move || writer.write_all(&input).unwrap());
    let answer = [&b"$64\r\n"[..], &[b'x'; 64], b"\r\n+OK\r\n"].concat();
    let mut got = vec![0; answer.len() * 20_000];
    stream.read_exact(&mut got).unwrap();
    assert!(got.chunks(answer.len()).all(|chunk| chunk == answer));
    sender.join().unwrap();
    null.stop().unwrap();
}

#[test]
fn a_port_in_use_and_a_cpu_that_is_not_there_are_named() {
    let null = Null::start(options()).unwrap();
    let taken = NullOptions { listen: null.native(), ..options() };
    let error = Null::start(taken).unwrap_err();
    assert!(matches!(error, NullError::Listen(address, _) if address == null.native()));
    assert!(error.to_string().contains(&null.native().to_string()));
    let error = Null::start(NullOptions { core: Some(900), ..options() }).unwrap_err();
    assert!(error.to_string().contains("CPU 900"), "{error}");
}
