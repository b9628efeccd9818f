//! What serde says about a type: asked by having it deserialize from nothing.

use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};

/// A longer description is cut: a type that leads to itself has one without end.
const LONGEST_BYTES: usize = 4 << 10;

/// A description of `V`: of a struct its name and fields, of an enum its name and variants, else
/// the kind.
pub(super) fn of<V: DeserializeOwned>() -> String {
    let mut description = String::new();
    // It always fails: there is nothing to deserialize from.
    let asked = V::deserialize(Probe(&mut description));
    match (asked, description.is_empty()) {
        (_, false) => description,
        (_, true) => "unit".into(),
    }
}

/// Writes down what it is asked for, and fails.
struct Probe<'a>(&'a mut String);

/// There is nothing to deserialize.
#[derive(Debug)]
struct Nothing;

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no value")
    }
}

impl std::error::Error for Nothing {}

impl de::Error for Nothing {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl Probe<'_> {
    /// Ends a description that is too long, before another type is asked.
    fn check_len(&mut self) -> Result<(), Nothing> {
        if self.0.len() < LONGEST_BYTES {
            return Ok(());
        }
        self.0.push('…');
        Err(Nothing)
    }

    fn say<T>(self, kind: &str) -> Result<T, Nothing> {
        self.0.push_str(kind);
        Err(Nothing)
    }
}

/// Methods of [`Deserializer`] that say one word.
macro_rules! kinds {
    ($($method:ident $kind:literal,)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Nothing> {
            self.say($kind)
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Nothing;

    kinds! {
        deserialize_any "any",
        deserialize_bool "bool",
        deserialize_i8 "i8",
        deserialize_i16 "i16",
        deserialize_i32 "i32",
        deserialize_i64 "i64",
        deserialize_i128 "i128",
        deserialize_u8 "u8",
        deserialize_u16 "u16",
        deserialize_u32 "u32",
        deserialize_u64 "u64",
        deserialize_u128 "u128",
        deserialize_f32 "f32",
        deserialize_f64 "f64",
        deserialize_char "char",
        deserialize_str "str",
        deserialize_string "str",
        deserialize_bytes "bytes",
        deserialize_byte_buf "bytes",
        deserialize_unit "unit",
        deserialize_seq "seq",
        deserialize_map "map",
        deserialize_identifier "identifier",
        deserialize_ignored_any "any",
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Nothing> {
        self.check_len()?;
        self.0.push_str("option ");
        visitor.visit_some(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: V,
    ) -> Result<V::Value, Nothing> {
        self.say(name)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Nothing> {
        self.check_len()?;
        self.0.push_str(name);
        self.0.push(' ');
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, _: V) -> Result<V::Value, Nothing> {
        self.say(&format!("tuple of {len}"))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        _: V,
    ) -> Result<V::Value, Nothing> {
        self.say(&format!("{name} of {len}"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Nothing> {
        self.say(&format!("{name} {{ {} }}", fields.join(", ")))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Nothing> {
        self.say(&format!("{name} [{}]", variants.join(", ")))
    }

    // As that of postcard: some types look different then.
    fn is_human_readable(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct City {
        name: String,
        people: u64,
    }

    #[derive(Serialize, Deserialize)]
    struct Id(u32);

    #[derive(Serialize, Deserialize)]
    enum Shape {
        Round,
        Square(f32),
    }

    /// It leads to itself by a name each time, and ran out of stack.
    #[derive(Serialize, Deserialize)]
    struct Chain(Option<Box<Chain>>);

    /// The same with the shortest name and nothing between.
    #[derive(Serialize, Deserialize)]
    struct I(Box<I>);

    #[test]
    fn types_without_end_are_cut() {
        let chain = super::of::<Chain>();
        assert!(chain.starts_with("Chain option Chain option "));
        assert!(chain.ends_with('…') && chain.len() < 4200, "{chain}");
        assert_eq!(chain, super::of::<Chain>());
        assert!(super::of::<I>().starts_with("I I "));
    }

    #[test]
    fn types_are_described() {
        assert_eq!(super::of::<City>(), "City { name, people }");
        assert_eq!(super::of::<Id>(), "Id u32");
        assert_eq!(super::of::<Shape>(), "Shape [Round, Square]");
        assert_eq!(super::of::<Option<Vec<u8>>>(), "option seq");
        assert_eq!(super::of::<(u8, u16)>(), "tuple of 2");
        assert_eq!(super::of::<BTreeMap<u8, u8>>(), "map");
        assert_eq!(super::of::<()>(), "unit");
        assert_eq!(super::of::<String>(), "str");
    }
}
