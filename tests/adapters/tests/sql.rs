//! The tests of GlueSQL for a storage, on either engine.

use gluesql_core::prelude::Glue;
use gluesql_test_suite::*;
use hedgerow::EngineKind;
use hedgerow_adapters::open;
use hedgerow_adapters::sql::Tables;
use tempfile::TempDir;

macro_rules! on {
    ($module:ident, $engine:expr) => {
        mod $module {
            use super::*;

            struct OnHedgerow {
                glue: Glue<Tables>,
                _dir: TempDir,
            }

            impl Tester<Tables> for OnHedgerow {
                fn new(_namespace: &str) -> Self {
                    let dir = tempfile::tempdir().unwrap();
                    let db = open(&dir.path().join("store")).unwrap();
                    Self {
                        glue: Glue::new(Tables::new(db, $engine).unwrap()),
                        _dir: dir,
                    }
                }

                fn get_glue(&mut self) -> &mut Glue<Tables> {
                    &mut self.glue
                }
            }

            generate_store_tests!(test, OnHedgerow);
            generate_alter_table_tests!(test, OnHedgerow);
        }
    };
}

on!(lsm, EngineKind::Lsm);
on!(btree, EngineKind::BTree);
