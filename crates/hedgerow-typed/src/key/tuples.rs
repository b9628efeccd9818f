//! Keys of several parts.

use super::{AsKey, AsPrefix, Delimited, Key, KeyDecoder, KeyError};

impl AsKey<()> for () {
    fn encode(&self, _: &mut Vec<u8>) {}
}

impl AsPrefix<()> for () {
    fn encode_prefix(&self, _: &mut Vec<u8>) {}
}

impl Key for () {
    fn decode(_: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        Ok(())
    }

    fn schema() -> String {
        "()".into()
    }
}

// There is one value: nothing follows it in another.
impl Delimited for () {}

/// The traits of the tuple of the parts before the last and the last: their types, what stands for
/// them, and their positions.
macro_rules! tuple_key {
    ($($key:ident $part:ident $at:tt)* ; $last_key:ident $last_part:ident $last_at:tt) => {
        impl<$($key, $part: AsKey<$key>,)* $last_key, $last_part: AsKey<$last_key>>
            AsKey<($($key,)* $last_key,)> for ($($part,)* $last_part,)
        {
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$at.encode(out);)*
                self.$last_at.encode(out);
            }
        }

        impl<$($key: Delimited,)* $last_key: Key> Key for ($($key,)* $last_key,) {
            fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
                Ok(($($key::decode(input)?,)* $last_key::decode(input)?,))
            }

            fn schema() -> String {
                let parts: Vec<String> = vec![$($key::schema(),)* $last_key::schema()];
                format!("({})", parts.join(", "))
            }
        }

        impl<$($key: Delimited,)* $last_key: Delimited> Delimited for ($($key,)* $last_key,) {}
    };
}

/// The tuple of the parts before the last and the last as a prefix of tuples with the parts that
/// follow them.
macro_rules! tuple_prefix {
    ($($key:ident $part:ident $at:tt)* ; $last_key:ident $last_part:ident $last_at:tt ;
     $is_whole:expr ; $($more:ident)*) => {
        impl<
            $($key, $part: AsKey<$key>,)* $last_key, $last_part: AsPrefix<$last_key>, $($more,)*
        > AsPrefix<($($key,)* $last_key, $($more,)*)> for ($($part,)* $last_part,)
        {
            const IS_WHOLE: bool = $is_whole && $last_part::IS_WHOLE;

            fn encode_prefix(&self, out: &mut Vec<u8>) {
                $(self.$at.encode(out);)*
                self.$last_at.encode_prefix(out);
            }
        }
    };
}

/// The prefixes of tuples of all lengths that begin with these parts.
macro_rules! tuple_prefixes {
    ([$($parts:tt)*] [$($last:tt)*] []) => {
        tuple_prefix!($($parts)* ; $($last)* ; true ; );
    };
    ([$($parts:tt)*] [$($last:tt)*] [$($more:ident)*]) => {
        tuple_prefixes!(@each [$($parts)*] [$($last)*] [] [$($more)*]);
    };
    (@each $parts:tt $last:tt [] [$($more:ident)*]) => {
        tuple_prefixes!(@one $parts $last true []);
        tuple_prefixes!(@next $parts $last [] [$($more)*]);
    };
    (@each $parts:tt $last:tt [$($taken:ident)+] [$($more:ident)*]) => {
        tuple_prefixes!(@one $parts $last false [$($taken)+]);
        tuple_prefixes!(@next $parts $last [$($taken)+] [$($more)*]);
    };
    (@next $parts:tt $last:tt $taken:tt []) => {};
    (@next $parts:tt $last:tt [$($taken:ident)*] [$next:ident $($more:ident)*]) => {
        tuple_prefixes!(@each $parts $last [$($taken)* $next] [$($more)*]);
    };
    (@one [$($parts:tt)*] [$($last:tt)*] $is_whole:tt [$($taken:ident)*]) => {
        tuple_prefix!($($parts)* ; $($last)* ; $is_whole ; $($taken)*);
    };
}

macro_rules! tuple {
    ([$($parts:tt)*] [$($last:tt)*] [$($more:ident)*]) => {
        tuple_key!($($parts)* ; $($last)*);
        tuple_prefixes!([$($parts)*] [$($last)*] [$($more)*]);
    };
}

tuple!([] [A P 0] [B C D E F G H]);
tuple!([A P 0] [B Q 1] [C D E F G H]);
tuple!([A P 0 B Q 1] [C R 2] [D E F G H]);
tuple!([A P 0 B Q 1 C R 2] [D S 3] [E F G H]);
tuple!([A P 0 B Q 1 C R 2 D S 3] [E T 4] [F G H]);
tuple!([A P 0 B Q 1 C R 2 D S 3 E T 4] [F U 5] [G H]);
tuple!([A P 0 B Q 1 C R 2 D S 3 E T 4 F U 5] [G V 6] [H]);
tuple!([A P 0 B Q 1 C R 2 D S 3 E T 4 F U 5 G V 6] [H W 7] []);
