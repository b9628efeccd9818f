//! Tests of typed tables, over both engines.

mod concurrency;
mod crashes;
mod indexes;
mod keys;
mod migrations;
mod model;
mod rig;
mod tables;
