//! As much of the Redis protocol as checking a brick through it takes: pipelined GET over RESP2.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::store::VALUE_BYTES_MAX;

/// A reply line is short: a type, a number or an error in words.
const LINE_BYTES_MAX: usize = 4096;
const READ_BYTES: usize = 256 << 10;

/// A brick that says that it does not serve now is asked again for so long.
const PATIENCE: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(50);

/// The brick says that nothing is wrong with the request: it cannot be answered now.
fn is_passing(error: &io::Error) -> bool {
    let text = error.to_string();
    ["LOADING ", "TRYAGAIN ", "CLUSTERDOWN "].iter().any(|code| text.starts_with(code))
}

/// A connection to a brick's RESP port.
pub struct Resp {
    address: SocketAddr,
    stream: TcpStream,
    /// Received, and parsed up to `at`.
    buffer: Vec<u8>,
    at: usize,
}

impl Resp {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, buffer: Vec::new(), at: 0 })
    }

    /// As [`Resp::get_many`]. A brick that does not serve at the moment (it has lost its lease, a partition changes
    /// hands) says so, and is asked again for some seconds, as clients of Redis do.
    pub async fn get_many_patiently(&mut self, keys: &[&[u8]]) -> io::Result<Vec<Option<Vec<u8>>>> {
        let began = Instant::now();
        loop {
            match self.get_many(keys).await {
                Err(error) if is_passing(&error) && began.elapsed() < PATIENCE => {
                    tokio::time::sleep(AGAIN).await;
                    // Answers to the rest of the batch may still come on the old connection.
                    *self = Self::connect(self.address).await?;
                }
                result => return result,
            }
        }
    }

    /// The values of `keys`, in order, asked for in one go. The caller bounds the batch: all requests
    /// are written before the first answer is read.
    pub async fn get_many(&mut self, keys: &[&[u8]]) -> io::Result<Vec<Option<Vec<u8>>>> {
        let mut request = Vec::with_capacity(keys.iter().map(|k| k.len() + 40).sum());
        for key in keys {
            request.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$");
            request.extend_from_slice(key.len().to_string().as_bytes());
            request.extend_from_slice(b"\r\n");
            request.extend_from_slice(key);
            request.extend_from_slice(b"\r\n");
        }
        let mut values = Vec::with_capacity(keys.len());
        let (mut reader, mut writer) = self.stream.split();
        // Written while reading: a brick does not take requests without end from one who reads nothing.
        let send = writer.write_all(&request);
        let receive = async {
            while values.len() < keys.len() {
                if let Some((value, used)) = parse_bulk(&self.buffer[self.at..])? {
                    values.push(value);
                    self.at += used;
                    continue;
                }
                self.buffer.drain(..self.at);
                self.at = 0;
                self.buffer.reserve(READ_BYTES);
                if reader.read_buf(&mut self.buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(())
        };
        tokio::try_join!(send, receive)?;
        Ok(values)
    }
}

/// A whole bulk string (`$3\r\nabc\r\n`, `$-1\r\n`) and its length on the wire; `None` when more bytes
/// are needed.
fn parse_bulk(bytes: &[u8]) -> io::Result<Option<(Option<Vec<u8>>, usize)>> {
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|&b| b == b'\n') else {
        if bytes.len() >= LINE_BYTES_MAX {
            return Err(malformed("a reply line without end"));
        }
        return Ok(None);
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or_else(|| malformed("a line without \\r"))?;
    let line = String::from_utf8_lossy(line);
    let Some(length) = line.strip_prefix('$') else {
        return Err(io::Error::other(line.trim_start_matches('-').to_owned()));
    };
    if length == "-1" {
        return Ok(Some((None, end + 1)));
    }
    let length: usize = length.parse().map_err(|_| malformed(&line))?;
    if length > VALUE_BYTES_MAX {
        return Err(malformed("a value over 8 MiB"));
    }
    let value_end = end + 1 + length;
    match bytes.get(value_end..value_end + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((Some(bytes[end + 1..value_end].to_vec()), value_end + 2))),
        Some(_) => Err(malformed("a value that is longer than its length")),
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the RESP answer makes no sense: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_any_bytes_and_may_be_none() {
        let parse = |bytes: &[u8]| parse_bulk(bytes).unwrap();
        assert_eq!(parse(b"$3\r\na\r\n\r\n$-1\r\n"), Some((Some(b"a\r\n".to_vec()), 9)));
        assert_eq!(parse(b"$-1\r\n"), Some((None, 5)));
        assert_eq!(parse(b"$0\r\n\r\n"), Some((Some(Vec::new()), 6)));
    }

    #[test]
    fn a_part_of_an_answer_waits_for_the_rest() {
        let whole = b"$5\r\nab\r\nc\r\n";
        for cut in 0..whole.len() {
            assert_eq!(parse_bulk(&whole[..cut]).unwrap(), None, "{cut}");
        }
        assert!(parse_bulk(whole).unwrap().is_some());
    }

    #[test]
    fn what_is_no_value_is_an_error_in_the_bricks_words() {
        let error = |bytes: &[u8]| parse_bulk(bytes).unwrap_err().to_string();
        assert_eq!(error(b"-LOADING the brick starts\r\n"), "LOADING the brick starts");
        assert!(error(b"$x\r\n").contains("$x"));
        assert!(error(b"$99999999999\r\n").contains("8 MiB"));
        assert!(error(b"$1\r\nabc").contains("longer"));
        assert!(error(&[b'$'; LINE_BYTES_MAX]).contains("without end"));
        assert!(error(b"$1\n").contains("without"));
    }

    #[tokio::test]
    async fn a_batch_is_answered_in_order_however_the_bytes_arrive() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let brick = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 2 * 22];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(
                request,
                b"*2\r\n$3\r\nGET\r\n$3\r\nk\xff1\r\n*2\r\n$3\r\nGET\r\n$3\r\nk\xff2\r\n"
            );
            for byte in b"$2\r\nv1\r\n$-1\r\n" {
                stream.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            stream.read_u8().await.unwrap_err();
        };
        let client = async move {
            let mut resp = Resp::connect(address).await.unwrap();
            let values = resp.get_many(&[b"k\xff1", b"k\xff2"]).await.unwrap();
            assert_eq!(values, [Some(b"v1".to_vec()), None]);
        };
        tokio::join!(brick, client);
    }
}
