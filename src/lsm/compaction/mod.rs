//! Compaction: what to rewrite ([`picker`], pure), rewriting it ([`job`]), and which jobs run at
//! the same time ([`scheduler`]).

mod job;
mod picker;
mod scheduler;

pub(crate) use picker::Span;
