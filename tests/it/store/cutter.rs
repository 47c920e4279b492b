//! A proxy before a server that loses one answer to a chosen message: the client's message reaches the server or not, and
//! then the connection is gone.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const IDLE: u8 = 0;
const CUT_BEFORE: u8 = 1;
const CUT_AFTER: u8 = 2;

/// The proxy; it ends with its test.
pub(crate) struct Cutter {
    /// Where clients connect.
    pub(crate) address: String,
    mode: Arc<AtomicU8>,
    cuts: Arc<AtomicUsize>,
}

impl Cutter {
    /// A proxy before `server` that looks for `pattern` in what clients send.
    pub(crate) async fn start(server: String, pattern: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (mode, cuts) = (Arc::new(AtomicU8::new(IDLE)), Arc::new(AtomicUsize::new(0)));
        let (armed, counted) = (Arc::clone(&mode), Arc::clone(&cuts));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(upstream) = TcpStream::connect(&server).await else { continue };
                tokio::spawn(carry(client, upstream, pattern, Arc::clone(&armed), Arc::clone(&counted)));
            }
        });
        Self { address, mode, cuts }
    }

    /// The next matching message does not reach the server.
    pub(crate) fn cut_before(&self) {
        self.mode.store(CUT_BEFORE, Ordering::SeqCst);
    }

    /// The next matching message reaches the server, and its answer does not come back.
    pub(crate) fn cut_after(&self) {
        self.mode.store(CUT_AFTER, Ordering::SeqCst);
    }

    /// How many connections were cut.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    pattern: &'static [u8],
    mode: Arc<AtomicU8>,
    cuts: Arc<AtomicUsize>,
) {
    let (mut sent, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            count = client.read(&mut sent) => {
                let Ok(count @ 1..) = count else { return };
                let part = &sent[..count];
                if part.windows(pattern.len()).any(|window| window == pattern) {
                    match mode.swap(IDLE, Ordering::SeqCst) {
                        CUT_BEFORE => {
                            cuts.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                        CUT_AFTER => {
                            cuts.fetch_add(1, Ordering::SeqCst);
                            let _ = server.write_all(part).await;
                            // The server has answered: it is done. The client never hears it.
                            let _ = server.read(&mut answered).await;
                            return;
                        }
                        _ => {}
                    }
                }
                if server.write_all(part).await.is_err() { return }
            }
            count = server.read(&mut answered) => {
                let Ok(count @ 1..) = count else { return };
                if client.write_all(&answered[..count]).await.is_err() { return }
            }
        }
    }
}
