//! The store suite: what every store has to do, run on each of them.

mod checkpoint;
mod commit;
mod isolate;
mod migrate;
mod owner;
mod postgres;
mod state;
mod upsert;
mod user_code;
pub(crate) mod worker;
mod world;

/// Runs each test on every store.
macro_rules! on_every_store {
    ($($name:ident,)*) => {
        $crate::store::on_every_database! { $($name,)* }
        mod checkpoint {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::store::world::World::checkpoint()).await;
            })*
        }
    };
}
pub(crate) use on_every_store;

/// Runs each test on every store that has tables.
macro_rules! on_every_database {
    ($($name:ident,)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::store::world::World::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::store::world::World::postgres().await).await;
            })*
        }
    };
}
pub(crate) use on_every_database;
