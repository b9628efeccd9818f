//! Numbers and tables for people.

use std::ffi::OsString;
use std::fmt::Write as _;

/// `count` with commas between thousands.
pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things, such as `1 file` and `2 files`.
pub fn counted(count: u64, thing: &str) -> String {
    let plural = match (count, thing.strip_suffix('y')) {
        (1, _) => thing.to_owned(),
        (_, Some(stem)) => format!("{stem}ies"),
        (_, None) => format!("{thing}s"),
    };
    format!("{} {plural}", thousands(count))
}

/// A number of bytes with a unit that keeps it short.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut scaled = count as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 999.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// A command as a shell would take it.
pub fn command_line(program: &str, args: impl Iterator<Item = OsString>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+%".contains(c);
    let mut line = program.to_owned();
    for arg in args {
        let arg = arg.to_string_lossy();
        match arg.chars().all(plain) && !arg.is_empty() {
            true => write!(line, " {arg}"),
            false => write!(line, " '{}'", arg.replace('\'', "'\\''")),
        }
        .expect("a string takes everything");
    }
    line
}

/// Cells in columns: the first to the left, the others to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|at| {
            rows.iter()
                .filter_map(|row| row.get(at))
                .map(|cell| width(cell))
                .max()
        })
        .map(|width| width.unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[at] - width(cell));
            let gap = if at == 0 { "" } else { "  " };
            if at == 0 {
                write!(line, "{gap}{cell}{pad}")
            } else {
                write!(line, "{gap}{pad}{cell}")
            }
            .expect("a string takes everything");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.pop();
    out
}

/// Columns of a terminal that nobody has made wider.
pub const WIDTH: usize = 80;
/// The least that a first column is squeezed to, before a table is cut into parts.
const FIRST_COLUMN_MIN: usize = 18;
/// What keeps columns apart.
const GAP: usize = 2;

/// A [`table`] that is no wider than `most` columns: long cells of the first column go over several
/// lines, and what does not fit beside them comes in further tables below, each with the first
/// `keys` columns. The first row is the head of each.
pub fn table_within(rows: &[Vec<String>], keys: usize, most: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|at| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| width(cell)).max().unwrap_or(0)
        })
        .collect();
    let keys = keys.min(columns);
    let key_widths: usize = widths[..keys].iter().skip(1).map(|width| width + GAP).sum();
    let first = widths.first().copied().unwrap_or(0);
    // What all columns leave for the first, if that is enough; then all are in one table.
    let rest: usize = widths[keys..].iter().map(|width| width + GAP).sum();
    let left = most.saturating_sub(key_widths + rest);
    let first = match left >= first.min(FIRST_COLUMN_MIN) {
        true => first.min(left),
        false => first.min(FIRST_COLUMN_MIN.max(most / 4)),
    };
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for (at, width) in widths.iter().enumerate().skip(keys) {
        let needed = width + GAP;
        if parts.is_empty() || needed > room {
            parts.push(Vec::new());
            room = most.saturating_sub(first + key_widths);
        }
        room = room.saturating_sub(needed);
        parts.last_mut().expect("pushed above").push(at);
    }
    if parts.is_empty() {
        parts.push(Vec::new());
    }
    let parts = parts.into_iter().map(|part| {
        let mut shown = Vec::new();
        for row in rows {
            let cell = |at: usize| row.get(at).cloned().unwrap_or_default();
            let label = wrap(&cell(0), 2, first);
            let mut lines = label.lines();
            let mut cells = vec![lines.next().unwrap_or("").to_owned()];
            cells.extend((1..keys).map(cell));
            cells.extend(part.iter().map(|&at| cell(at)));
            shown.push(cells);
            shown.extend(lines.map(|line| vec![line.to_owned()]));
        }
        table(&shown)
    });
    parts.collect::<Vec<_>>().join("\n\n")
}

/// `text` in lines of at most `most` columns, cut between words, or within one that is too long;
/// all lines but the first begin with `indent` spaces.
pub fn wrap(text: &str, indent: usize, most: usize) -> String {
    let most = most.max(indent + 1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut empty = true;
    for word in text.split(' ') {
        let mut word = word;
        if !empty {
            if width(&line) + 1 + width(word) <= most {
                line.push(' ');
            } else {
                lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            }
        }
        // A word that no line holds.
        while width(&line) + width(word) > most {
            let room = most - width(&line);
            let cut = word
                .char_indices()
                .nth(room)
                .map_or(word.len(), |(at, _)| at);
            line.push_str(&word[..cut]);
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            word = &word[cut..];
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines.join("\n")
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(counted(1, "entry"), "1 entry");
        assert_eq!(counted(0, "entry"), "0 entries");
        assert_eq!(counted(2000, "file"), "2,000 files");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn the_command_can_be_pasted() {
        let args = ["bench", "--dir", "a b", "--csv", "it's", ""];
        assert_eq!(
            command_line("hedgerow", args.into_iter().map(Into::into)),
            r"hedgerow bench --dir 'a b' --csv 'it'\''s' ''"
        );
    }

    #[test]
    fn text_is_cut_between_words() {
        assert_eq!(wrap("one two three", 0, 7), "one two\nthree");
        assert_eq!(wrap("one two three", 2, 7), "one two\n  three");
        assert_eq!(wrap("abcdefghij k", 1, 4), "abcd\n efg\n hij\n k");
        assert_eq!(wrap("", 2, 10), "");
        assert_eq!(wrap("ää öö", 0, 2), "ää\nöö");
    }

    #[test]
    fn wide_tables_are_cut_into_parts() {
        let cell = |text: &str| text.to_owned();
        let rows: Vec<Vec<String>> = vec![
            ["", "who", "first", "second"].map(cell).to_vec(),
            ["a label of many words", "x", "12345678", "12345678"]
                .map(cell)
                .to_vec(),
        ];
        assert_eq!(table_within(&rows, 2, 80), table(&rows));
        let narrow = table_within(&rows, 2, 36);
        assert_eq!(
            narrow,
            "                 who     first\n\
             a label of many    x  12345678\n  words\n\n\
             \u{20}                who    second\n\
             a label of many    x  12345678\n  words",
            "{narrow}"
        );
        assert!(narrow.lines().all(|line| width(line) <= 36));
    }

    #[test]
    fn tables_align() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["bc".to_owned(), "23".to_owned()],
        ];
        assert_eq!(table(&rows), "a    1\nbc  23");
    }
}
