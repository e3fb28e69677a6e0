//! A Rust file as the rules see it: without comments and literals, with its test parts known.
//!
//! Not a parser: it knows tokens that hide other tokens (comments, strings, characters) and counts braces. Formatted code needs no more.

use std::ops::Range;

/// A file.
pub struct Source {
    /// As written.
    pub text: String,
    /// Of the same length, with comments, strings and characters blanked; newlines stay.
    pub code: String,
    /// Byte ranges of items that only tests compile.
    tests: Vec<Range<usize>>,
}

/// What an item that only tests compile is.
enum TestItem {
    /// A module in a file of its own.
    Module(String),
    Other,
}

impl Source {
    /// Reads a file.
    pub fn new(text: String) -> Self {
        let code = blank(&text);
        let tests = test_items(&code).into_iter().map(|(range, _)| range).collect();
        Self { text, code, tests }
    }

    /// Names of modules in other files that only tests compile.
    pub fn test_modules(&self) -> Vec<String> {
        let items = test_items(&self.code).into_iter();
        items
            .filter_map(|(_, item)| match item {
                TestItem::Module(name) => Some(name),
                TestItem::Other => None,
            })
            .collect()
    }

    /// Line of a position, from 1.
    pub fn line(&self, position: usize) -> usize {
        self.text.as_bytes()[..position].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// Whether only tests compile this place.
    pub fn is_test(&self, position: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&position))
    }

    /// Lines outside tests.
    pub fn lines_without_tests(&self) -> usize {
        let all = self.text.lines().count();
        let lines = |range: &Range<usize>| self.text[range.clone()].lines().count();
        all - self.tests.iter().map(lines).sum::<usize>().min(all)
    }

    /// Positions of a piece of code that stands as a word of its own.
    pub fn find<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let bytes = self.code.as_bytes();
        self.code.match_indices(word).map(|(position, _)| position).filter(move |&position| {
            let before = position.checked_sub(1).map(|index| bytes[index]);
            let after = bytes.get(position + word.len()).copied();
            let is_joined = |inner: Option<u8>, outer: Option<u8>| inner.is_some_and(is_word_byte) && outer.is_some_and(is_word_byte);
            !is_joined(word.bytes().next(), before) && !is_joined(word.bytes().last(), after)
        })
    }

    /// End of the block that begins with the brace at `open`, behind its closing brace.
    pub fn block_end(&self, open: usize) -> usize {
        block_end(&self.code, open)
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return offset + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Items behind `#[cfg(test)]`.
fn test_items(code: &str) -> Vec<(Range<usize>, TestItem)> {
    let mut items: Vec<(Range<usize>, TestItem)> = Vec::new();
    for mark in ["#[cfg(test)]", "#[cfg(all(test", "#[cfg(any(test"] {
        for (start, _) in code.match_indices(mark) {
            let Some(body) = item_body(code, start) else { continue };
            let end = if code.as_bytes()[body] == b'{' { block_end(code, body) } else { body + 1 };
            let head = code[start..body].trim_end();
            let name = head.rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
            let is_file = code.as_bytes()[body] == b';' && head.trim_end_matches(name).trim_end().ends_with("mod");
            let is_nested = items.iter().any(|(range, _)| range.contains(&start));
            if !is_nested {
                items.push((start..end, if is_file { TestItem::Module(name.to_owned()) } else { TestItem::Other }));
            }
        }
    }
    items
}

/// Position of the brace or semicolon that begins or ends the body of the item at `start`.
pub fn item_body(code: &str, start: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (offset, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' | b';' if depth == 0 => return Some(offset),
            _ => {}
        }
    }
    None
}

/// Blanks comments and literals, byte for byte.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hidden = hidden_len(bytes, at);
        let end = (at + hidden.max(1)).min(bytes.len());
        let kept = bytes[at..end].iter().map(|&byte| if hidden > 0 && byte != b'\n' { b' ' } else { byte });
        out.extend(kept);
        at = end;
    }
    // Multi-byte characters occur in hidden parts only, all of whose bytes are blanked, or are kept whole.
    String::from_utf8(out).unwrap_or_default()
}

/// Length of the comment or literal that begins here; 0 for ordinary code.
fn hidden_len(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let is_word_before = at > 0 && is_word_byte(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment_len(rest),
        [b'"', ..] => quoted_len(rest),
        [b'r', b'"' | b'#', ..] if !is_word_before => raw_string_len(rest, 1),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !is_word_before => raw_string_len(rest, 2),
        [b'\'', b'\\', ..] => rest[2..].iter().skip(1).position(|byte| *byte == b'\'').map_or(1, |position| position + 4),
        [b'\'', first, ..] => {
            // A lifetime has no closing quote behind its first character.
            let width = match first {
                0..0x80 => 1,
                0xc0..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            if rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
        }
        _ => 0,
    }
}

fn block_comment_len(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < rest.len() {
        match (rest[at], rest[at + 1]) {
            (b'/', b'*') => (depth, at) = (depth + 1, at + 2),
            (b'*', b'/') if depth == 1 => return at + 2,
            (b'*', b'/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted_len(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string_len(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let start = prefix + hashes + 1;
    if rest.get(start - 1) != Some(&b'"') {
        return 0;
    }
    let mut end = vec![b'"'];
    end.resize(hashes + 1, b'#');
    rest[start..].windows(end.len()).position(|window| window == end).map_or(rest.len(), |position| start + position + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lifetimes_are_not() {
        let text = "fn f<'a>(x: &'a str) { /* { /* } */ */ g(\"}\\\"\", '}', '\\'', r#\"\"}\"#, b'{', 'ü'); } // }\nfn h() {}";
        let source = Source::new(text.to_owned());
        assert_eq!(source.code.len(), text.len());
        assert!(source.code.starts_with("fn f<'a>(x: &'a str) {"));
        let end = source.block_end(source.code.find('{').unwrap());
        assert_eq!(&text[end..end + 5], " // }");
    }

    #[test]
    fn test_items_are_known_by_their_attribute() {
        let source = Source::new("fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod far;\n".into());
        let at = |name| source.text.find(name).unwrap();
        assert!(!source.is_test(at("fn a")) && source.is_test(at("fn b")) && !source.is_test(at("fn c")));
        assert_eq!(source.lines_without_tests(), 2);
        assert_eq!(source.test_modules(), ["far"]);
    }

    #[test]
    fn words_are_found_whole() {
        let source = Source::new("unsafe_code; unsafe {} \"unsafe\" // unsafe".into());
        assert_eq!(source.find("unsafe").collect::<Vec<_>>(), [13]);
    }
}
