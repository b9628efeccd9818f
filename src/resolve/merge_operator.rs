//! Merge operators: what a merge makes of a value.

use std::fmt;

/// What [`Kv::merge`](crate::Kv::merge) makes of a value, in one keyspace. Registered with
/// [`Options::merge_operator`](crate::Options::merge_operator), and chosen by its name when a
/// keyspace is made
/// ([`KeyspaceOptions::merge_operator`](crate::KeyspaceOptions#structfield.merge_operator)).
/// [`AddI64`](crate::AddI64), [`Append`](crate::Append), [`MaxBytes`](crate::MaxBytes) and
/// [`SetUnion`](crate::SetUnion) need not be registered.
///
/// Operators are **pure functions**: the store decides when operands are applied, and may do it
/// more than once (on reading, in background work, when a log is replayed). So the same arguments
/// must give the same result, in every process that opens the store, for as long as the store has
/// operands. They are **total**: a value or an operand that makes no sense to them gives a result
/// all the same. What makes no sense is better refused by [`MergeOperator::check_value`] and
/// [`MergeOperator::check_operand`], before anything is written.
///
/// They are called by threads that read, that commit and that work in the background. Commits get
/// visible in their order: where an operator is called for one of them, all later commits of the
/// store, to whatever keyspace, wait until it returns, and where an LSM tree folds a short operand
/// into a short value in memory, its flushes too. So it must be short, and must not call the store.
/// A panic in background work or in a commit stops the writes of the store.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use hedgerow::{EngineKind, KeyspaceOptions, MergeOperator, Options};
///
/// /// The longest value that was merged.
/// #[derive(Debug)]
/// struct Longest;
///
/// impl MergeOperator for Longest {
///     fn name(&self) -> &str {
///         "longest"
///     }
///
///     fn merge(&self, _key: &[u8], value: Option<&[u8]>, operands: &[&[u8]]) -> Vec<u8> {
///         let all = value.into_iter().chain(operands.iter().copied());
///         all.max_by_key(|bytes| bytes.len()).unwrap_or_default().to_vec()
///     }
///
///     fn combine(&self, key: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
///         Some(self.merge(key, None, operands))
///     }
///
///     fn check_operand(&self, _key: &[u8], operand: &[u8]) -> Result<(), String> {
///         match operand.is_ascii() {
///             true => Ok(()),
///             false => Err(String::from("not ASCII")),
///         }
///     }
///
///     fn check_value(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
///         self.check_operand(key, value)
///     }
/// }
///
/// let db = Options::new().merge_operator(Longest).open(dir.path().join("my.db"))?;
/// let options = KeyspaceOptions::new(EngineKind::Lsm).merge_operator("longest");
/// let words = db.keyspace_with("words", options)?;
/// words.merge("e", "elm")?;
/// words.merge("e", "elder")?;
/// words.merge("e", "ebony")?;
/// assert_eq!(words.get("e")?.unwrap().len(), 5);
/// assert!(words.merge("e", "épicéa").is_err());
/// # Ok::<(), hedgerow::Error>(())
/// ```
pub trait MergeOperator: fmt::Debug + Send + Sync {
    /// What keyspaces call it by, stored with them. At most 255 bytes. An operator that computes
    /// something else needs another name.
    fn name(&self) -> &str;

    /// The value of `key` after `operands`, which are in the order of their commits, the oldest
    /// first, and at least one. `value` is what was there before; `None` if the key was absent. A
    /// longer result than [`MAX_VALUE_LEN_BYTES`](crate::MAX_VALUE_LEN_BYTES) is cut to that.
    fn merge(&self, key: &[u8], value: Option<&[u8]>, operands: &[&[u8]]) -> Vec<u8>;

    /// One operand that has the effect of `operands`, in their order, whatever the value before;
    /// `None` if there is none, or if it is not worth it. With it the operator is *associative*:
    /// an LSM tree keeps one operand for many, and a read that follows many merges is fast.
    fn combine(&self, key: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
        let _ = (key, operands);
        None
    }

    /// Refuses an operand, and says why, before it is written.
    fn check_operand(&self, key: &[u8], operand: &[u8]) -> Result<(), String> {
        let _ = (key, operand);
        Ok(())
    }

    /// Refuses a value that is put, and says why, before it is written.
    fn check_value(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let _ = (key, value);
        Ok(())
    }
}
