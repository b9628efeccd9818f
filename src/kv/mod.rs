//! The one trait over both engines and the model, and the types it speaks.

mod atomic;
mod batch;
mod inherent;
mod iter;
mod model;
mod model_transaction;
mod range_size;
mod read;
mod scan;
mod stored_form;
mod transaction;
mod value_reader;
mod write;

pub(crate) use atomic::{Atomic, Committed, Watching};
pub use batch::Batch;
pub(crate) use batch::{Expiry, OpHeading, STAMP_LEN_BYTES, check_op, decode_payload, op_payload};
#[cfg(any(test, feature = "internals"))]
pub(crate) use batch::{encode_keyspace, encode_op};
pub(crate) use inherent::{inherent_reads, inherent_writes};
pub use iter::{Keys, Values};
pub use model::{Model, ModelSnapshot};
pub use model_transaction::{ModelSavepoint, ModelTransaction};
pub use range_size::RangeSize;
pub use read::KvRead;
pub(crate) use read::{Readable, part_of_value, read_once};
pub use scan::Scan;
pub(crate) use scan::ScanObserver;
pub(crate) use stored_form::StoredForm;
pub use transaction::KvTransaction;
pub(crate) use transaction::transaction_of_inherent;
pub use value_reader::ValueReader;
pub(crate) use value_reader::{as_io_error, source_error};
pub use write::{Kv, Mismatch, Update};
