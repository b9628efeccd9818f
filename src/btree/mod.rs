//! See docs/architecture.md.

mod node;
