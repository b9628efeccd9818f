//! Rust source as tokens: without comments and attributes, and without what only tests are
//! compiled with.

/// A token of Rust source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An identifier or a keyword.
    Word,
    /// A sign: `::` and `..` are one token, every other sign is one character.
    Sign,
    /// A string, character or number; the text of strings is left out.
    Literal,
    /// `'a`.
    Lifetime,
}

impl Token<'_> {
    pub fn is(&self, text: &str) -> bool {
        self.kind != Kind::Literal && self.text == text
    }

    pub fn is_word(&self) -> bool {
        self.kind == Kind::Word
    }
}

/// Stands before an item with the attribute `macro_export`.
pub const EXPORTED: Token<'static> = Token {
    kind: Kind::Sign,
    text: "#[macro_export]",
};

/// All tokens of `source`, comments left out.
pub fn tokens(source: &str) -> Vec<Token<'_>> {
    let bytes = source.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        let first = bytes[at];
        let (kind, len) = if first.is_ascii_whitespace() {
            at += 1;
            continue;
        } else if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        } else if rest.starts_with("/*") {
            at += block_comment_len(rest);
            continue;
        } else if let Some(len) = string_len(rest) {
            (Kind::Literal, len)
        } else if first == b'\'' {
            quote_len(rest)
        } else if first.is_ascii_digit() {
            (Kind::Literal, word_len(rest))
        } else if first == b'_' || first.is_ascii_alphabetic() || !first.is_ascii() {
            let raw = if rest.starts_with("r#") { 2 } else { 0 };
            (Kind::Word, raw + word_len(&rest[raw..]))
        } else if rest.starts_with("::") || rest.starts_with("..") {
            (Kind::Sign, 2)
        } else {
            (Kind::Sign, 1)
        };
        out.push(Token {
            kind,
            text: &rest[..len],
        });
        at += len;
    }
    out
}

fn word_len(rest: &str) -> usize {
    rest.find(|c: char| c != '_' && !c.is_alphanumeric())
        .unwrap_or(rest.len())
        .max(1)
}

/// Length of the block comment, which may hold others, at the start of `rest`.
fn block_comment_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of the string of any kind at the start of `rest`, if one is there.
fn string_len(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix).unwrap_or_default();
        after.starts_with('"') || (prefix.ends_with('r') && after.starts_with("#"))
    })?;
    let after = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = after.len() - after.trim_start_matches('#').len();
        let body = after[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let len = body.find(&end).map_or(body.len(), |len| len + end.len());
        return Some(prefix.len() + hashes + 1 + len);
    }
    let mut escaped = false;
    for (at, byte) in after.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(prefix.len() + at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// A character or a lifetime at the start of `rest`, which is a single quote.
fn quote_len(rest: &str) -> (Kind, usize) {
    let mut chars = rest.char_indices().skip(1);
    let first = chars.next();
    let second = chars.next();
    if let Some((at, '\\')) = first {
        // The character after the backslash may be a quote itself.
        let end = rest[at + 2..].find('\'').map(|len| at + 2 + len + 1);
        return (Kind::Literal, end.unwrap_or(rest.len()));
    }
    if let Some((at, '\'')) = second {
        return (Kind::Literal, at + 1);
    }
    (Kind::Lifetime, 1 + word_len(&rest[1..]))
}

/// The tokens that a build without tests compiles: every attribute is left out, and so is what an
/// attribute `cfg` that needs `test` stands before. Of other conditions both sides count.
pub fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at].is("#") {
            out.push(tokens[at]);
            at += 1;
            continue;
        }
        let inner = tokens.get(at + 1).is_some_and(|token| token.is("!"));
        let open = at + 1 + usize::from(inner);
        if !tokens.get(open).is_some_and(|token| token.is("[")) {
            out.push(tokens[at]);
            at += 1;
            continue;
        }
        let end = group_end(tokens, open);
        let attribute = &tokens[open + 1..end];
        at = end + 1;
        if attribute[0].is("cfg") && Condition::of(&attribute[2..]) == Condition::False {
            if inner {
                return Vec::new();
            }
            at = item_end(tokens, at);
        } else if attribute[0].is("macro_export") {
            out.push(EXPORTED);
        }
    }
    out
}

/// Position of the bracket that closes the one at `open`.
pub fn group_end(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.is("(") || token.is("[") || token.is("{") {
            depth += 1;
        } else if token.is(")") || token.is("]") || token.is("}") {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
    }
    tokens.len() - 1
}

/// Position behind the item, statement, field or arm that starts at `start`.
fn item_end(tokens: &[Token<'_>], start: usize) -> usize {
    let mut at = start;
    // Further attributes belong to the item.
    while at + 1 < tokens.len() && tokens[at].is("#") && tokens[at + 1].is("[") {
        at = group_end(tokens, at + 1) + 1;
    }
    let words = tokens[at..].iter().take_while(|token| token.is_word());
    let ends_with_semicolon = words
        .take(3)
        .any(|word| ["use", "let", "static", "type"].contains(&word.text))
        || (tokens[at].is("const") && !tokens[at + 1].is("fn"));
    let ends_with_comma = !tokens[at..]
        .iter()
        .take_while(|token| token.is_word() || token.is("("))
        .take(6)
        .any(|word| ["fn", "impl", "struct", "enum", "mod", "trait"].contains(&word.text));
    while at < tokens.len() {
        let token = tokens[at];
        if token.is("(") || token.is("[") || token.is("{") {
            at = group_end(tokens, at);
            if token.is("{") && !ends_with_semicolon {
                return at + 1;
            }
        } else if token.is(";") || (token.is(",") && ends_with_comma) {
            return at + 1;
        } else if token.is(")") || token.is("]") || token.is("}") {
            return at;
        }
        at += 1;
    }
    at
}

/// What a `cfg` comes to when `test` is off and the rest is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    False,
    Unknown,
    True,
}

impl Condition {
    fn of(tokens: &[Token<'_>]) -> Self {
        let Some(name) = tokens.first() else {
            return Self::Unknown;
        };
        let inside = tokens
            .get(1)
            .is_some_and(|token| token.is("("))
            .then(|| &tokens[2..group_end(tokens, 1)]);
        let parts = inside.map(|inside| split_at_commas(inside));
        let parts = || parts.iter().flatten().map(|part| Self::of(part));
        match name.text {
            "test" => Self::False,
            "not" => match parts().next() {
                Some(Self::False) => Self::True,
                Some(Self::True) => Self::False,
                _ => Self::Unknown,
            },
            "all" if parts().any(|part| part == Self::False) => Self::False,
            "all" if parts().all(|part| part == Self::True) => Self::True,
            "any" if parts().any(|part| part == Self::True) => Self::True,
            "any" if parts().all(|part| part == Self::False) => Self::False,
            _ => Self::Unknown,
        }
    }
}

/// The parts of `tokens` between commas outside of brackets.
pub fn split_at_commas<'t, 'a>(tokens: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < tokens.len() {
        if tokens[at].is("(") || tokens[at].is("[") || tokens[at].is("{") {
            at = group_end(tokens, at);
        } else if tokens[at].is(",") {
            parts.push(&tokens[start..at]);
            start = at + 1;
        }
        at += 1;
    }
    parts.push(&tokens[start.min(tokens.len())..]);
    parts.retain(|part| !part.is_empty());
    parts
}
