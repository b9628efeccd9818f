//! Keys that are structs: their fields, one after the other.

use super::{AsPrefix, Key};

/// A struct whose keys are those of the tuple of its fields. Implemented by
/// [`key_struct!`](crate::key_struct).
pub trait StructKey: Key {
    /// The fields, in their order.
    type Fields: Key;
}

/// The first fields of a struct, as a tuple: a prefix of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields<T>(pub T);

impl<S: StructKey, T: AsPrefix<S::Fields>> AsPrefix<S> for Fields<T> {
    // A whole key is given as the struct; here all keys that begin with the fields are meant.
    const IS_WHOLE: bool = false;

    fn encode_prefix(&self, out: &mut Vec<u8>) {
        self.0.encode_prefix(out);
    }
}

/// Makes a struct a key: lists its fields, in the order in which keys compare, with their types,
/// each of which is [`Delimited`](crate::Delimited). List them as they are in the struct, and the
/// order of keys is the one that `derive(Ord)` gives.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = hedgerow::Db::open(dir.path().join("my.db"))?;
/// use hedgerow_typed::{Fields, TableDefinition, key_struct};
///
/// #[derive(Debug, PartialEq)]
/// struct OrderId {
///     customer: String,
///     number: u32,
/// }
/// key_struct!(OrderId { customer: String, number: u32 });
///
/// let orders = TableDefinition::<OrderId, String>::new("orders").open(&db)?;
/// let id = OrderId { customer: "ada".into(), number: 1 };
/// orders.put(&id, &"a hedge".to_owned())?;
/// let of_ada = orders.prefix(Fields(("ada",))).next().unwrap()?;
/// assert_eq!(of_ada, (id, "a hedge".to_owned()));
/// # Ok::<(), hedgerow_typed::Error>(())
/// ```
#[macro_export]
macro_rules! key_struct {
    ($name:ident { $($field:ident: $type:ty),+ $(,)? }) => {
        impl $crate::Key for $name {
            fn decode(
                input: &mut $crate::KeyDecoder<'_>,
            ) -> ::std::result::Result<Self, $crate::KeyError> {
                $(let $field = <$type as $crate::Key>::decode(input)?;)+
                ::std::result::Result::Ok(Self { $($field),+ })
            }

            fn schema() -> ::std::string::String {
                let fields: ::std::vec::Vec<::std::string::String> =
                    ::std::vec![$(<$type as $crate::Key>::schema()),+];
                ::std::format!("({})", fields.join(", "))
            }
        }

        impl $crate::AsKey<$name> for $name {
            fn encode(&self, out: &mut ::std::vec::Vec<u8>) {
                $(<$type as $crate::AsKey<$type>>::encode(&self.$field, out);)+
            }
        }

        impl $crate::AsPrefix<$name> for $name {
            fn encode_prefix(&self, out: &mut ::std::vec::Vec<u8>) {
                $crate::AsKey::encode(self, out);
            }
        }

        impl $crate::StructKey for $name {
            type Fields = ($($type,)+);
        }

        impl $crate::Delimited for $name
        where
            $($type: $crate::Delimited,)+
        {
        }
    };
}
