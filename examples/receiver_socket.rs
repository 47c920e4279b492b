//! Words of lines that somebody sends over a connection, counted exactly once each, by a receiver that acknowledges.
//!
//!     ADDRESS=localhost:9999 WAL=words.wal SQLITE_FILE=words.db cargo run --example receiver_socket
//!
//! The program connects to `ADDRESS`, and again when the connection is lost. Whatever `store` returned for lies on the disk, and is
//! counted once, also if this program is killed; only then the sender is told how many lines of this connection that are. A
//! sender that sends again what was not acknowledged loses nothing. `nc -lk 9999` will do to look at it; where nobody sends
//! again anyway, `StreamingContext::socket_text_stream` is all of this in one line. No Kafka is needed.
#![allow(clippy::print_stdout, reason = "a program that tells what it did")]

use std::{
    env,
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use directstream::{
    Error, Result,
    stream::{Receiver, ReceiverSupervisor, StreamingContext},
    transform::Upsert,
    types::ColumnType,
};

/// Lines of a connection, acknowledged by their number.
#[derive(Debug)]
struct AcknowledgedLines {
    address: String,
}

impl AcknowledgedLines {
    fn receive(&self, supervisor: &ReceiverSupervisor) -> io::Result<()> {
        let mut sender = TcpStream::connect(&self.address)?;
        sender.set_nodelay(true)?;
        sender.set_read_timeout(Some(Duration::from_millis(200)))?;
        let (mut buffer, mut text, mut stored) = (vec![0; 64 * 1024], Vec::new(), 0);
        while !supervisor.is_stopped() {
            match sender.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("the sender closed the connection")),
                Ok(read) => text.extend_from_slice(&buffer[..read]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let rest = text.split_off(whole);
            // All lines that are here are one block, and one flush of the disk.
            let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
            if !lines.is_empty() {
                supervisor.store(&lines).map_err(io::Error::other)?;
                stored += lines.len();
                writeln!(sender, "{stored}")?;
            }
            text = rest;
        }
        Ok(())
    }
}

impl Receiver for AcknowledgedLines {
    fn name(&self) -> &str {
        "acknowledged-lines"
    }

    fn on_start(&self, supervisor: ReceiverSupervisor) -> Result<()> {
        let failed = |error| Error::unavailable("the connection to the sender failed").caused_by(error);
        self.receive(&supervisor).map_err(failed)
    }

    fn on_stop(&self) {}
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let setting = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let receiver = AcknowledgedLines { address: setting("ADDRESS", "localhost:9999") };
    let store = format!("sqlite:{}", setting("SQLITE_FILE", "words.db"));

    let context = StreamingContext::builder("receiver-socket", Duration::from_millis(50)).store(&store)?.build()?;
    let lines = context.receiver_stream(receiver, setting("WAL", "words.wal"))?;
    lines
        .flat_map(|line| line.text().unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .map(|word| (word, 1_i64))
        .reduce_by_key(|a, b| a + b)
        .save_to_table(
            Upsert::into("word_counts")
                .key("word")
                .of_type(ColumnType::Text)
                .add("count")
                .of_type(ColumnType::BigInt)
                .create(),
        )?;

    context.start().await?;
    tokio::select! {
        ended = context.await_termination() => drop(ended?),
        _ = tokio::signal::ctrl_c() => {
            context.stop();
            context.await_termination().await?;
        }
    }
    println!("{} lines", context.reporter().totals().records);
    Ok(())
}
