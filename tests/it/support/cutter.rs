//! A proxy before a server that loses one answer to a chosen message: the client's message reaches the server or not, and
//! then the connection is gone, reset, or silent. Or the answer comes late.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What becomes of the next matching message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not reach the server; the connection ends.
    CutBefore,
    /// It reaches the server; the connection ends without an answer.
    CutAfter,
    /// It reaches the server; both sides get a TCP reset.
    ResetAfter,
    /// It does not reach the server, and nothing passes any more; the connection stays.
    SilentBefore,
    /// It reaches the server, and nothing passes any more; the connection stays.
    SilentAfter,
    /// It reaches the server; the answer comes later.
    Late(Duration),
}

/// The proxy; it ends with its test.
pub(crate) struct Cutter {
    /// Where clients connect.
    pub(crate) address: String,
    server: Arc<Mutex<String>>,
    armed: Armed,
    cuts: Arc<AtomicUsize>,
}

type Armed = Arc<Mutex<Option<Fault>>>;

impl Cutter {
    /// A proxy before `server` that looks for `pattern` in what clients send.
    pub(crate) async fn start(server: String, pattern: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (armed, cuts) = (Armed::default(), Arc::new(AtomicUsize::new(0)));
        let (watched, counted) = (Arc::clone(&armed), Arc::clone(&cuts));
        let server = Arc::new(Mutex::new(server));
        let leads_to = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = leads_to.lock().unwrap().clone();
                let Ok(upstream) = TcpStream::connect(server).await else { continue };
                // A message in two parts must not wait for the acknowledgement of the first, on either side.
                upstream.set_nodelay(true).unwrap();
                tokio::spawn(carry(client, upstream, pattern, Arc::clone(&watched), Arc::clone(&counted)));
            }
        });
        Self { address, server, armed, cuts }
    }

    /// New connections lead to another server.
    pub(crate) fn lead_to(&self, server: String) {
        *self.server.lock().unwrap() = server;
    }

    /// The next matching message does not reach the server.
    pub(crate) fn cut_before(&self) {
        self.arm(Fault::CutBefore);
    }

    /// The next matching message reaches the server, and its answer does not come back.
    pub(crate) fn cut_after(&self) {
        self.arm(Fault::CutAfter);
    }

    /// The next matching message meets this.
    pub(crate) fn arm(&self, fault: Fault) {
        *self.armed.lock().unwrap() = Some(fault);
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
    armed: Armed,
    cuts: Arc<AtomicUsize>,
) {
    let (mut sent, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            count = client.read(&mut sent) => {
                let Ok(count @ 1..) = count else { return };
                // It falls back by itself, so each time. An error: the client is gone, which the next read tells.
                let _ = client.set_quickack(true);
                let part = &sent[..count];
                if part.windows(pattern.len()).any(|window| window == pattern) {
                    let fault = armed.lock().unwrap().take();
                    if let Some(fault) = fault {
                        cuts.fetch_add(1, Ordering::SeqCst);
                        if !matches!(fault, Fault::CutBefore | Fault::SilentBefore) {
                            let _ = server.write_all(part).await;
                            // The server has answered: it is done. The client has not heard it.
                            let count = server.read(&mut answered).await.unwrap_or(0);
                            if let Fault::Late(wait) = fault {
                                tokio::time::sleep(wait).await;
                                let _ = client.write_all(&answered[..count]).await;
                                continue;
                            }
                        }
                        if fault == Fault::ResetAfter {
                            for socket in [&client, &server] {
                                socket.set_zero_linger().unwrap();
                            }
                        }
                        if matches!(fault, Fault::SilentBefore | Fault::SilentAfter) {
                            std::future::pending::<()>().await;
                        }
                        return;
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
