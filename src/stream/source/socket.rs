//! Lines of a connection: the receiver behind `socket_text_stream`.

use std::{
    io::{self, Read},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use super::receiver::{Receiver, ReceiverSupervisor};
use crate::{
    error::{Error, Result},
    transform::without_ending,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent connection looks whether it is to end.
const READ_TIMEOUT: Duration = Duration::from_millis(200);
/// What is read at a time, in bytes; the lines that end in it are stored as one block.
const READ_BYTES: usize = 64 * 1024;
/// The most bytes of a line.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Connects, and stores each line that comes.
#[derive(Debug)]
pub(in crate::stream) struct SocketReceiver {
    name: String,
    host: String,
    port: u16,
}

impl SocketReceiver {
    pub(in crate::stream) fn new(host: &str, port: u16) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
        let name = format!("socket-{}-{port}", host.chars().map(plain).collect::<String>());
        Self { name, host: host.to_owned(), port }
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        Error::unavailable(format!("{what} address={}:{}", self.host, self.port)).caused_by(error)
    }

    fn connect(&self) -> Result<TcpStream> {
        let connect = || {
            let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in (self.host.as_str(), self.port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                    Ok(stream) => {
                        stream.set_read_timeout(Some(READ_TIMEOUT))?;
                        return Ok(stream);
                    }
                    Err(error) => failed = error,
                }
            }
            Err(failed)
        };
        connect().map_err(|error| self.failed("cannot connect to the sender of lines", error))
    }
}

impl Receiver for SocketReceiver {
    fn name(&self) -> &str {
        &self.name
    }

    fn on_start(&self, supervisor: ReceiverSupervisor) -> Result<()> {
        let mut connection = self.connect()?;
        tracing::info!(address = %format!("{}:{}", self.host, self.port), "connected to the sender of lines");
        let mut buffer = vec![0; READ_BYTES];
        // Lines that are not stored yet; the last one may go on.
        let mut text = Vec::new();
        loop {
            let read = match connection.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if supervisor.is_stopped() {
                        return Ok(());
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed("the connection to the sender of lines failed", error)),
            };
            text.extend_from_slice(buffer.get(..read).unwrap_or_default());
            // At its end the last line needs no ending.
            let whole = if read == 0 { text.len() } else { end_of_lines(&text, read) };
            let rest = text.split_off(whole);
            let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').map(without_ending).collect();
            supervisor.store(&lines)?;
            text = rest;
            if read == 0 {
                return Err(Error::unavailable("the sender of lines closed the connection"));
            }
            if text.len() > LINE_BYTES_MAX {
                let text = format!("a line is longer than a line may be line_bytes_max={LINE_BYTES_MAX}");
                return Err(Error::transform(text));
            }
        }
    }

    fn on_stop(&self) {}
}

/// Where the last whole line ends, which is among the last `new` bytes if there is one.
fn end_of_lines(text: &[u8], new: usize) -> usize {
    let begin = text.len().saturating_sub(new);
    let found = text.get(begin..).and_then(|new| new.iter().rposition(|byte| *byte == b'\n'));
    found.map_or(0, |at| begin + at + 1)
}
