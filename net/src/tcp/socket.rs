//! Sockets as the kernel wants them: the system calls of setting up, none of the hot path.

use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::limits::BACKLOG;

/// A socket address in the kernel's layout.
pub struct Address {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl Address {
    pub fn new(address: SocketAddr) -> Self {
        // SAFETY: all zeroes is a valid `sockaddr_storage`.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let at = &raw mut storage;
        let len = match address {
            SocketAddr::V4(v4) => {
                let value = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: a `sockaddr_storage` is large and aligned enough for every family.
                unsafe { at.cast::<libc::sockaddr_in>().write(value) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                let value = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { at.cast::<libc::sockaddr_in6>().write(value) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self { storage, len: len as libc::socklen_t }
    }

    pub fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    pub fn len(&self) -> libc::socklen_t {
        self.len
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn set<T: Copy>(fd: RawFd, level: i32, option: i32, value: T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the option's value lives through the call, and `len` is its size.
    check(unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) }).map(drop)
}

/// A peer whose host has gone says nothing, not even that it has: after so many seconds without a word the kernel
/// asks, and after so many questions without an answer, one each interval, it ends the connection.
const KEEP_ALIVE: [(i32, i32); 3] =
    [(libc::TCP_KEEPIDLE, 300), (libc::TCP_KEEPINTVL, 60), (libc::TCP_KEEPCNT, 5)];

/// A TCP socket without Nagle's delay.
pub fn stream(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: just opened, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    set(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    for (option, value) in KEEP_ALIVE {
        set(fd.as_raw_fd(), libc::IPPROTO_TCP, option, value)?;
    }
    Ok(fd)
}

/// A listening socket. Each data core has its own on the same port (`SO_REUSEPORT`); the kernel shares
/// connections out. What is accepted inherits the options.
pub fn listener(address: SocketAddr) -> io::Result<OwnedFd> {
    let fd = stream(address)?;
    set(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    set(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    let raw = Address::new(address);
    // SAFETY: the address lives through the call and its length is that of its family.
    check(unsafe { libc::bind(fd.as_raw_fd(), raw.as_ptr(), raw.len()) })?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) })?;
    Ok(fd)
}

type NameOf = unsafe extern "C" fn(RawFd, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

/// Where a socket is bound (a port asked for as 0 has become one).
pub fn local_address(fd: RawFd) -> io::Result<SocketAddr> {
    address_by(libc::getsockname, fd)
}

/// Where a socket is connected to.
pub fn peer_address(fd: RawFd) -> io::Result<SocketAddr> {
    address_by(libc::getpeername, fd)
}

fn address_by(name_of: NameOf, fd: RawFd) -> io::Result<SocketAddr> {
    // SAFETY: all zeroes is a valid `sockaddr_storage`.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: both live through the call; `len` is the storage's size.
    check(unsafe { name_of(fd, (&raw mut storage).cast(), &raw mut len) })?;
    if i32::from(storage.ss_family) == libc::AF_INET {
        // SAFETY: the family says which layout the kernel wrote.
        let v4 = unsafe { (&raw const storage).cast::<libc::sockaddr_in>().read() };
        let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
        Ok(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
    } else {
        // SAFETY: as above; only the two internet families are made here.
        let v6 = unsafe { (&raw const storage).cast::<libc::sockaddr_in6>().read() };
        let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
        Ok(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), v6.sin6_flowinfo, v6.sin6_scope_id)
            .into())
    }
}

/// Ends both directions, so that operations in flight complete.
pub fn shutdown(fd: RawFd) {
    // SAFETY: no memory is passed. ENOTCONN (the peer was faster) is fine.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// From now on a close resets the connection and drops what the peer's kernel has not acknowledged, which it would
/// otherwise send again for minutes.
pub fn discard(fd: RawFd) {
    // (No connected socket refuses it.)
    let _ = set(fd, libc::SOL_SOCKET, libc::SO_LINGER, libc::linger { l_onoff: 1, l_linger: 0 });
}

/// Closes a descriptor that no operation uses any more.
pub fn close(fd: RawFd) {
    // SAFETY: the caller owns the descriptor and forgets it.
    unsafe { libc::close(fd) };
}
