//! A plain, blocking RESP connection: what a Redis client does, with nothing hidden.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One RESP2 or RESP3 value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `+text`
    Simple(String),
    /// `-text`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$5`
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` or `_`
    Nil,
    /// `*2` and `~2`
    Array(Vec<Value>),
    /// `%2`
    Map(Vec<(Value, Value)>),
    /// `,1.5`, `#t`, `(1`: as text
    Other(String),
}

impl Value {
    /// `+OK`.
    pub fn is_ok(&self) -> bool {
        *self == Self::Simple("OK".to_owned())
    }

    /// The text of an error.
    pub fn error(&self) -> Option<&str> {
        if let Self::Error(text) = self { Some(text) } else { None }
    }
    /// The next one. [`io::ErrorKind::UnexpectedEof`]: it is not all there.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Self> {
        let line = line(reader)?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| bad("an empty line"))?;
        let count = || rest.parse::<i64>().map_err(|_| bad(&line));
        Ok(match kind {
            "+" => Self::Simple(rest.to_owned()),
            "-" => Self::Error(rest.to_owned()),
            ":" => Self::Integer(count()?),
            "_" => Self::Nil,
            "$" | "*" if count()? < 0 => Self::Nil,
            "$" | "=" => Self::Bulk(bulk(reader, count()? as usize)?),
            "*" | "~" | ">" => {
                Self::Array((0..count()?).map(|_| Self::read(reader)).collect::<io::Result<_>>()?)
            }
            "%" => {
                let pairs = (0..count()?).map(|_| Ok((Self::read(reader)?, Self::read(reader)?)));
                Self::Map(pairs.collect::<io::Result<_>>()?)
            }
            "," | "#" | "(" => Self::Other(rest.to_owned()),
            _ => return Err(bad(&line)),
        })
    }
}

/// A connection to a RESP port.
#[derive(Debug)]
pub struct Resp {
    reader: BufReader<TcpStream>,
}

impl Resp {
    /// Connects; every wait on it is bounded, so that a stuck brick fails a test.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { reader: BufReader::with_capacity(1 << 16, stream) })
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends one command and waits for its answer.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Value> {
        self.send(&command(args))?;
        self.receive()
    }

    /// As [`Resp::call`], for text; the answer must come.
    pub fn ask(&mut self, line: &str) -> Value {
        let args: Vec<&str> = line.split(' ').collect();
        self.call(&args).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Waits for one answer.
    pub fn receive(&mut self) -> io::Result<Value> {
        Value::read(&mut self.reader)
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let text = line.strip_suffix("\r\n").ok_or_else(|| bad(&line))?;
    Ok(text.to_owned())
}

fn bulk(reader: &mut impl BufRead, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len + 2];
    reader.read_exact(&mut bytes)?;
    if !bytes.ends_with(b"\r\n") {
        return Err(bad("a bulk string without its end"));
    }
    bytes.truncate(len);
    Ok(bytes)
}

fn bad(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP: {line:?}"))
}

/// A command as Redis clients send it.
pub fn command<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
