//! Results of the [suite](crate::suite) to read: tables for a terminal, and a page with charts.
//!
//! [`text`] has the tables; [`html`] the page, of [`charts`] drawn as [`svg`].

pub mod charts;
pub mod html;
pub mod svg;
pub mod text;
