//! A ZooKeeper server to test against.

use tokio::sync::OnceCell;

use super::{image::zookeeper, server::Server};

/// The server that all tests share; do not break it. Tests keep apart by paths.
pub(crate) async fn shared_zookeeper() -> &'static Server {
    static SHARED: OnceCell<Server> = OnceCell::const_new();
    SHARED.get_or_init(async || Server::start(zookeeper()).await).await
}
