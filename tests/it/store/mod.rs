//! The store suite: what every store has to do, run on each of them.

mod commit;
mod world;

/// Runs each test on every store.
macro_rules! on_every_store {
    ($($name:ident,)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::store::world::World::sqlite()).await;
            })*
        }
    };
}
pub(crate) use on_every_store;
