//! Results of the [suite](crate::suite) to read: tables for a terminal, a page with charts, and a
//! page of tables.
//!
//! [`text`] has the tables for a terminal; [`html`] the page, of [`charts`] drawn as [`svg`];
//! [`markdown`] the page of tables.

pub mod charts;
pub mod html;
pub mod markdown;
pub mod svg;
pub mod text;
