//! Files of each format, as they come.

use super::shape::{Missing, ValueAs};
use super::*;

fn shape(key: &[&str], value: Option<&str>) -> Shape {
    Shape {
        format: None,
        key: key.iter().map(ToString::to_string).collect(),
        join: "/".to_owned(),
        value: value.map(str::to_owned),
        value_as: ValueAs::Text,
        header: false,
        delimiter: None,
        missing: Missing::Error,
        skip_errors: false,
        dumped: false,
    }
}

type Pairs = Vec<(String, String)>;

fn read(name: &str, text: &str, shape: &Shape) -> Result<Pairs> {
    let mut pairs = Vec::new();
    for_each(Path::new(name), text.as_bytes(), shape, |_, key, value| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        pairs.push((text(key), text(value)));
        Ok(())
    })?;
    Ok(pairs)
}

fn pairs(expected: &[(&str, &str)]) -> Pairs {
    expected
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn formats_are_guessed() {
    for (name, format) in [
        ("a.tsv", Some(Format::Tsv)),
        ("dir.x/a.TSV.lz4", Some(Format::Tsv)),
        ("a.csv", Some(Format::Csv)),
        ("a.ndjson", Some(Format::Jsonl)),
        ("a.csv.gz", Some(Format::Csv)),
        ("a.csv.zst", Some(Format::Csv)),
        ("a.json", Some(Format::Json)),
        ("a.lz4", None),
        ("-", None),
    ] {
        assert_eq!(Format::guess(Path::new(name)), format, "{name}");
    }
}

#[test]
fn tsv_by_number_and_by_name() {
    let text = "id\tname\n1\tada\n2\tbob\n";
    assert_eq!(
        read("a.tsv", text, &shape(&["name", "id"], None)).unwrap(),
        pairs(&[("ada/1", "1\tada"), ("bob/2", "2\tbob")])
    );
    assert_eq!(
        read("a.tsv", "1\tada\r\n\n2\tbob", &shape(&["1"], Some("2"))).unwrap(),
        pairs(&[("1", "ada"), ("2", "bob")])
    );
}

#[test]
fn csv_unquotes_keys_and_keeps_records() {
    let text = "name,born\n\"Love, lace\",1815\n\"a\nb\",2\n";
    assert_eq!(
        read("a.csv", text, &shape(&["name"], Some("born"))).unwrap(),
        pairs(&[("Love, lace", "1815"), ("a\nb", "2")])
    );
    assert_eq!(
        read("a.csv", text, &shape(&["born"], None)).unwrap(),
        pairs(&[("1815", "\"Love, lace\",1815"), ("2", "\"a\nb\",2")])
    );
}

#[test]
fn json_fields() {
    let text = "{\"id\": 7, \"name\": \"ada\"}\n";
    assert_eq!(
        read("a.jsonl", text, &shape(&["name", "id"], None)).unwrap(),
        pairs(&[("ada/7", "{\"id\": 7, \"name\": \"ada\"}")])
    );
    assert_eq!(
        read("a.jsonl", text, &shape(&["id"], Some("name"))).unwrap(),
        pairs(&[("7", "ada")])
    );
}

#[test]
fn bad_records_name_their_line() {
    for (name, text, key, line) in [
        ("a.tsv", "1\tx\n2\n", "2", "line 2: "),
        ("a.csv", "1,x\n3\n", "2", "line 2: "),
        ("a.jsonl", "{\"k\": 1}\n{\"k\": \n", "k", "line 2: not JSON"),
        ("a.jsonl", "[]\n", "k", "line 1: not a JSON object"),
        ("a.jsonl", "{}\n", "k", "line 1: no field"),
    ] {
        let error = read(name, text, &shape(&[key], None))
            .unwrap_err()
            .to_string();
        assert!(error.contains(line), "{error}");
    }
    let error = read("a.tsv", "a\tb\n", &shape(&["c"], None)).unwrap_err();
    assert!(error.to_string().contains("the header has a, b"), "{error}");
}

/// The error that reading gives.
fn error(name: &str, text: &str, shape: &Shape) -> String {
    read(name, text, shape).unwrap_err().to_string()
}

/// A quote that was never closed swallowed 4,993 records, with exit code 0.
#[test]
fn quotes_that_do_not_match_are_errors_at_their_line() {
    let by_first = shape(&["1"], Some("2"));
    let rest: String = (0..5000).map(|n| format!("{n},x\n")).collect();
    let text = format!("a,1\nb,\"2\n{rest}");
    let found = error("a.csv", &text, &by_first);
    assert_eq!(found, "a.csv: line 2: a quote is opened and never closed");
    let found = error("a.csv", "a,1\nb,\"2\n", &by_first);
    assert!(found.contains("line 2: a quote is opened"), "{found}");
    let found = error("a.csv", "a,1\n\"b\"x,2\n", &by_first);
    assert!(
        found.contains("line 2: text after the closing quote"),
        "{found}"
    );
    // The quote of another record closes it.
    let found = error("a.csv", "a,1\nb,\"2\nc,\"x\"\n", &by_first);
    assert!(
        found.contains("line 3: text after") && found.contains("began at line 2"),
        "{found}"
    );
    // Skipping would guess where the next record begins.
    let skipping = Shape {
        skip_errors: true,
        ..by_first.clone()
    };
    error("a.csv", "a,1\n\"b\"x,2\nc,3\n", &skipping);
    // What is allowed.
    assert_eq!(
        read(
            "a.csv",
            "\"a\"\"\",5\" pipe\r\n\r\n\"b\r\nc\",\"\"",
            &by_first
        )
        .unwrap(),
        pairs(&[("a\"", "5\" pipe"), ("b\r\nc", "")])
    );
}

/// 123456789012345678901 and ...902 became one key.
#[test]
fn numbers_keep_the_text_of_the_file() {
    let text =
        "{\"id\":123456789012345678901,\"n\":1.10}\n{\"id\":123456789012345678902,\"n\":1E5}\n";
    assert_eq!(
        read("a.jsonl", text, &shape(&["id"], Some("n"))).unwrap(),
        pairs(&[
            ("123456789012345678901", "1.10"),
            ("123456789012345678902", "1E5")
        ])
    );
}

#[test]
fn keys_that_are_null_or_no_scalars_are_refused() {
    let by_id = shape(&["id"], None);
    let found = error("a.jsonl", "{\"id\":1}\n{\"id\":null}\n", &by_id);
    assert_eq!(found, "a.jsonl: line 2: the key \"id\" is null");
    for text in ["{\"id\":{}}", "{\"id\":[1]}"] {
        let found = error("a.jsonl", text, &by_id);
        assert!(found.contains("an object or an array"), "{found}");
    }
    let found = error("a.jsonl", "{\"id\":1,\"id\":2}", &by_id);
    assert!(found.contains("two fields are called \"id\""), "{found}");
    assert_eq!(
        read(
            "a.jsonl",
            "{\"id\":1,\"v\":null}",
            &shape(&["id"], Some("v"))
        )
        .unwrap(),
        pairs(&[("1", "null")])
    );
}

#[test]
fn joined_keys_escape_the_joiner() {
    assert_eq!(
        read("a.tsv", "a/b\tc\na\tb/c\n", &shape(&["1", "2"], Some("1"))).unwrap(),
        pairs(&[("a%2Fb/c", "a/b"), ("a/b%2Fc", "a")])
    );
    let mut joined = shape(&["1", "2"], None);
    for join in ["", "%"] {
        joined.join = join.to_owned();
        error("a.tsv", "a\tb\n", &joined);
    }
}

#[test]
fn delimiters() {
    let mut shape = shape(&["1"], None);
    shape.delimiter = Some(b';');
    assert_eq!(
        read("a.csv", "\"x;y\";1,5\n", &shape).unwrap(),
        pairs(&[("x;y", "\"x;y\";1,5")])
    );
    assert_eq!(
        read("a.tsv", "x;y\n", &shape).unwrap(),
        pairs(&[("x", "x;y")])
    );
    assert!(error("a.jsonl", "{}", &shape).contains("--delimiter"));
}

#[test]
fn arrays_and_objects_one_after_another() {
    let by_id = shape(&["id"], Some("v"));
    let expected = pairs(&[("1", "[{\"]\": 1}]"), ("2", "}\\\"{")]);
    let objects = [
        "{\"id\": 1,\n \"v\": [{\"]\": 1}]}",
        "{\"v\":\"}\\\\\\\"{\",\"id\":2}",
    ];
    let [first, second] = objects;
    for text in [
        format!("[{first},{second}]"),
        format!(" [\n{first}\n,\n{second}\n]\n"),
        format!("{first}{second}"),
        format!("\u{FEFF}{first}\n\n{second}\n"),
    ] {
        assert_eq!(read("a.json", &text, &by_id).unwrap(), expected, "{text}");
    }
    assert_eq!(read("a.json", "[]", &by_id).unwrap(), pairs(&[]));
    assert_eq!(read("a.json", " ", &by_id).unwrap(), pairs(&[]));
    for (text, what) in [
        (
            "[{\"id\":1,\"v\":2}",
            "line 1: the file ends within an array",
        ),
        ("[{\"id\":1,\"v\":2}\n{}]", "line 2: no comma"),
        ("[{\"id\":1,\"v\":2},]", "line 1: not a JSON object"),
        ("[]x", "line 1: text after the end"),
        ("[1]", "line 1: not a JSON object"),
        ("\n{\"id\":", "line 2: an object begins here and never ends"),
        ("{\"id\":1]", "line 1: not JSON"),
    ] {
        let found = error("a.json", text, &by_id);
        assert!(found.contains(what), "{text}: {found}");
    }
    let found = error("a.jsonl", "[{}]\n", &by_id);
    assert!(found.contains("--format json"), "{found}");
}

#[test]
fn nested_fields() {
    let text = "{\"a\":{\"b\":{\"c\":1},\"x.y\":2}}\n{\"a.b.c\":3,\"a\":{\"x.y\":4}}\n";
    assert_eq!(
        read("a.jsonl", text, &shape(&["a.b.c"], Some("a.x.y"))).unwrap(),
        pairs(&[("1", "2"), ("3", "4")])
    );
    let text = "{\"a\":{\"b\":1},\"a.b\":2}";
    assert!(error("a.jsonl", text, &shape(&["a.b"], None)).contains("and one within"));
    assert!(error("a.jsonl", "{\"a\":1}", &shape(&["a.b"], None)).contains("no field \"a.b\""));
}

#[test]
fn missing_fields_as_the_user_wants() {
    let files = [
        ("a.tsv", "1\tx\n2\n3\tz\n", "1", "2"),
        ("a.csv", "1,x\n2\n3,z\n", "1", "2"),
        (
            "a.jsonl",
            "{\"k\":1,\"v\":\"x\"}\n{\"k\":2}\n{\"k\":3,\"v\":\"z\"}",
            "k",
            "v",
        ),
    ];
    for (name, text, key, value) in files {
        let mut shape = shape(&[key], Some(value));
        assert!(error(name, text, &shape).contains("line 2: no "));
        shape.missing = Missing::Empty;
        assert_eq!(
            read(name, text, &shape).unwrap(),
            pairs(&[("1", "x"), ("2", ""), ("3", "z")])
        );
        shape.missing = Missing::Skip;
        let tally = for_each(Path::new(name), text.as_bytes(), &shape, |_, _, _| Ok(())).unwrap();
        assert_eq!((tally.records, tally.missing, tally.skipped), (2, 1, 0));
        assert_eq!(tally.first_skipped.unwrap().0, 2);
        // A column that no record has is a mistake.
        shape.value = Some("9".to_owned());
        assert!(error(name, text, &shape).contains("no record could be used"));
    }
}

#[test]
fn errors_are_skipped_only_when_asked_and_are_counted() {
    let mut shape = shape(&["k"], None);
    let text = "{\"k\":1}\nno\n{\"k\":null}\n{\"k\":2}\n";
    assert!(error("a.jsonl", text, &shape).contains("line 2: not JSON"));
    shape.skip_errors = true;
    let tally = for_each(Path::new("a.jsonl"), text.as_bytes(), &shape, |_, _, _| {
        Ok(())
    })
    .unwrap();
    assert_eq!((tally.records, tally.missing, tally.skipped), (2, 0, 2));
    let (line, what) = tally.first_skipped.unwrap();
    assert!(line == 2 && what.contains("not JSON"), "{what}");
}

#[test]
fn values_as_json() {
    let mut whole = shape(&["id"], None);
    whole.value_as = ValueAs::Json;
    let expected = pairs(&[("1", "{\"id\":\"1\",\"na\\\"me\":\"a\\tb\"}")]);
    assert_eq!(
        read("a.csv", "id,na\"me\n1,\"a\tb\"\n", &whole).unwrap(),
        expected
    );
    assert!(error("a.csv", "id\n1,2\n", &whole).contains("2 columns, and the header names 1"));
    assert!(error("a.csv", "id,id\n1,2\n", &shape(&["id"], None)).contains("say 1 or 2"));
    let mut one = shape(&["1"], Some("2"));
    one.value_as = ValueAs::Json;
    assert_eq!(
        read("a.tsv", "1\tx\"\n", &one).unwrap(),
        pairs(&[("1", "\"x\\\"\"")])
    );
    let mut field = shape(&["id"], Some("v"));
    field.value_as = ValueAs::Json;
    assert_eq!(
        read("a.jsonl", "{\"id\":1,\"v\":\"x\\n\"}", &field).unwrap(),
        pairs(&[("1", "\"x\\n\"")])
    );
}

#[test]
fn a_byte_order_mark_belongs_to_the_data_of_a_dump() {
    let mut dumped = shape(&[], None);
    dumped.dumped = true;
    assert_eq!(
        read("a.tsv", "\u{FEFF}a\t1\n", &dumped).unwrap(),
        pairs(&[("\u{FEFF}a", "1")])
    );
    assert_eq!(
        read("a.tsv", "\u{FEFF}a\t1\n", &shape(&["1"], Some("2"))).unwrap(),
        pairs(&[("a", "1")])
    );
}

#[test]
fn other_encodings_are_named() {
    let by_first = shape(&["1"], None);
    let utf16 = |mark: &str| -> Vec<u8> {
        let units = format!("{mark}ab\tc\n");
        units.encode_utf16().flat_map(u16::to_le_bytes).collect()
    };
    let big = [&b"\xFE\xFF\0a\0b"[..], b"\0a\0b\0\n"];
    for (bytes, name) in [
        (utf16("\u{FEFF}"), "UTF-16LE"),
        (utf16(""), "UTF-16LE"),
        (big[0].to_vec(), "UTF-16BE"),
        (big[1].to_vec(), "UTF-16BE"),
    ] {
        let read = for_each(Path::new("a.tsv"), &bytes[..], &by_first, |_, _, _| Ok(()));
        let found = read.unwrap_err().to_string();
        assert!(found.contains(name) && found.contains("iconv"), "{found}");
    }
}

#[test]
fn lines_may_end_with_a_carriage_return() {
    let by_first = shape(&["1"], Some("2"));
    let expected = pairs(&[("a", "1"), ("b", "2")]);
    for end in ["\r", "\r\n", "\n"] {
        for last in ["", end] {
            for (name, comma) in [("a.tsv", "\t"), ("a.csv", ",")] {
                let text = format!("a{comma}1{end}b{comma}2{last}");
                assert_eq!(read(name, &text, &by_first).unwrap(), expected, "{text:?}");
            }
            let text = format!("{{\"1\":\"a\",\"2\":1}}{end}{{\"1\":\"b\",\"2\":2}}{last}");
            assert_eq!(
                read("a.jsonl", &text, &by_first).unwrap(),
                expected,
                "{text:?}"
            );
        }
    }
    // In quotes every end of line is text; outside, a file has one kind.
    assert_eq!(
        read("a.csv", "a,\"1\n2\"\rb,\"3\r4\"\r", &by_first).unwrap(),
        pairs(&[("a", "1\n2"), ("b", "3\r4")])
    );
    assert!(error("a.csv", "a,1\rb,2\nc,3\r", &by_first).contains("line 2: a line feed"));
}

/// Of more than 1 MiB they were one record, and said nothing.
#[test]
fn long_files_may_end_their_lines_with_carriage_returns() {
    let text: String = (0..200_000).map(|n| format!("{n:06}\tv\r")).collect();
    let found = read("a.tsv", &text, &shape(&["1"], Some("2"))).unwrap();
    assert_eq!(found.len(), 200_000);
    assert_eq!(found[199_999], ("199999".to_owned(), "v".to_owned()));
    // The carriage return that is the last byte looked at belongs to the line feed behind it.
    let long = "x".repeat((1 << 20) - 3);
    let text = format!("a\t{long}\r\nb\tc\r\n");
    let found = read("a.tsv", &text, &shape(&["1"], Some("2"))).unwrap();
    assert_eq!(found, pairs(&[("a", &long), ("b", "c")]));
    // Within quotes it ends no line.
    let text = format!("a,\"\r{long}{long}\"\nb,c\n");
    let found = read("a.csv", &text, &shape(&["1"], Some("2"))).unwrap();
    assert_eq!(found.len(), 2);
}
