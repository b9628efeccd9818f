//! Tests that are the same for both engines, and count for each.

/// Defines these tests for each engine.
macro_rules! on_both_engines {
    ($($name:ident,)*) => {
        mod lsm {
            $(#[test] fn $name() { super::$name(hedgerow::EngineKind::Lsm) })*
        }
        mod btree {
            $(#[test] fn $name() { super::$name(hedgerow::EngineKind::BTree) })*
        }
    };
}
pub(crate) use on_both_engines;
