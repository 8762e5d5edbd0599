//! The test hosts themselves: what the cluster's fault tests believe of their network.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use firebrick_tests::machine::skip;
use firebrick_tests::network::{Network, missing};

fn on<T: Send>(network: &Network, host: usize, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            network.enter(host).expect("the host");
            work()
        });
        there.join().expect("the work")
    })
}

/// A cut link lets nothing pass in one direction, and says nothing about it; healed, it works again.
#[test]
fn hosts_reach_each_other_until_a_link_is_cut() {
    if let Some(why) = missing() {
        return skip("hosts_reach_each_other_until_a_link_is_cut", &why);
    }
    let network = Network::new(2).expect("two hosts");
    let listener = on(&network, 0, || TcpListener::bind(network.at(0, 7000)).expect("listen"));
    let dial = || {
        on(&network, 1, || {
            TcpStream::connect_timeout(&network.at(0, 7000), Duration::from_millis(300))
        })
    };
    let mut client = dial().expect("a way");
    let (mut server, from) = listener.accept().expect("a client");
    assert_eq!(from.ip(), network.address(1));
    client.write_all(b"hello").expect("sent");
    let mut word = [0; 5];
    server.read_exact(&mut word).expect("received");

    network.cut(0, 1);
    assert!(dial().is_err(), "the answers to a handshake do not come");
    client.write_all(b"there").expect("sent");
    server.read_exact(&mut word).expect("the other direction works");
    server.write_all(b"lost?").expect("sent");
    client.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    assert!(client.read_exact(&mut word).is_err(), "a cut link let something pass");

    network.heal();
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    client.read_exact(&mut word).expect("TCP sends it again");
    assert_eq!(&word, b"lost?");
    assert!(dial().is_ok());
}
