//! What the reference node's JSON parser accepts beyond JSON: comments, control characters and bytes that are not UTF-8 inside strings,
//! and anything behind the first value.
//!
//! [`clean`] is used only when the strict parser has refused a body, to turn it into strict JSON or to say that it is nested too deeply.
//! The result is never longer than six times the input and is parsed strictly, so nothing wrong passes because of this.

use std::io::Write;

use millrace_base::limits::MAX_JSON_DEPTH;

/// The value is nested deeper than [`MAX_JSON_DEPTH`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooDeep;

/// What one look at the first value of a body says, before anything is built of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Nothing against it, or it is no strict JSON and has to be read to tell.
    Fits,
    /// It is nested deeper than [`MAX_JSON_DEPTH`].
    TooDeep,
    /// It is a list of more elements than asked about.
    TooMany,
}

/// Looks at a body once, and no further than until it is known to be too much: a body is refused at the cost of its first requests.
pub fn shape(json: &[u8], most: usize) -> Shape {
    let (mut depth, mut commas, mut in_string, mut bytes) = (0usize, 0usize, false, json.iter());
    let is_list = json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' if in_string => drop(bytes.next()),
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 1 && is_list => commas += 1,
            // A comment, in which nothing counts.
            b'/' => return Shape::Fits,
            _ => continue,
        }
        match depth {
            _ if in_string => {}
            0 => return Shape::Fits,
            _ if depth > MAX_JSON_DEPTH => return Shape::TooDeep,
            _ if commas >= most => return Shape::TooMany,
            _ => {}
        }
    }
    Shape::Fits
}

/// Strict JSON of the first value in `body`, as far as it can be told without parsing.
pub fn clean(body: &[u8]) -> Result<Vec<u8>, TooDeep> {
    let text = String::from_utf8_lossy(body);
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let (mut at, mut depth, mut in_string) = (0, 0usize, false);
    while let Some(&byte) = bytes.get(at) {
        if in_string {
            at += copy_string_byte(&bytes[at..], &mut out);
            in_string = byte != b'"';
            continue;
        }
        match comment_length(&bytes[at..]) {
            Some(0) => {}
            Some(skipped) => {
                at += skipped;
                continue;
            }
            // Kept and cut off here: the strict parser refuses a lone slash, and nothing is searched twice.
            None => {
                out.push(byte);
                break;
            }
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_JSON_DEPTH {
            return Err(TooDeep);
        }
        out.push(byte);
        at += 1;
        if depth == 0 && matches!(byte, b'}' | b']') {
            break;
        }
    }
    Ok(out)
}

/// Copies one byte of a string, or an escape of two; returns how many bytes were taken.
fn copy_string_byte(rest: &[u8], out: &mut Vec<u8>) -> usize {
    match rest {
        [b'\\', next, ..] => {
            out.extend_from_slice(&[b'\\', *next]);
            2
        }
        [byte @ 0..=0x1f, ..] => {
            write!(out, "\\u{byte:04x}").expect("writing to memory cannot fail");
            1
        }
        [byte, ..] => {
            out.push(*byte);
            1
        }
        [] => 0,
    }
}

/// Length of the comment that starts here, 0 when none does; `None` when it has no end.
fn comment_length(rest: &[u8]) -> Option<usize> {
    match rest {
        [b'/', b'*', body @ ..] => body.windows(2).position(|pair| pair == b"*/").map(|end| end + 4),
        [b'/', b'/', body @ ..] => Some(body.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |end| end + 3)),
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_text_behind_the_value_are_dropped() {
        let body = b"/*c*/{\"a\":\"/*kept*/\", // gone\n\"b\":1}garbage".as_slice();
        assert_eq!(clean(body).unwrap(), b"{\"a\":\"/*kept*/\", \"b\":1}");
    }

    #[test]
    fn control_characters_and_foreign_bytes_in_strings_become_valid() {
        let cleaned = clean(b"{\"a\":\"x\n\xff\\\"y\"}").unwrap();
        assert_eq!(String::from_utf8(cleaned).unwrap(), "{\"a\":\"x\\u000a\u{fffd}\\\"y\"}");
    }

    #[test]
    fn depth_is_that_of_brackets_outside_strings() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        let is_too_deep = |json: &[u8]| shape(json, 1_000) == Shape::TooDeep;
        assert!(!is_too_deep(&nested(MAX_JSON_DEPTH)) && is_too_deep(&nested(MAX_JSON_DEPTH + 1)));
        let quoted = format!("[\"{}\\\"{}\"]", "[".repeat(500), "[".repeat(500));
        assert!(!is_too_deep(quoted.as_bytes()) && !is_too_deep(b"5"));
        assert!(!is_too_deep(&[b"[]".as_slice(), &nested(500)].concat()), "text behind the first value does not count");
    }

    #[test]
    fn deep_nesting_is_told_apart_from_malformed_text() {
        assert_eq!(clean(&[b'['; MAX_JSON_DEPTH + 1]), Err(TooDeep));
        assert!(clean(&[b'['; MAX_JSON_DEPTH]).is_ok());
        assert_eq!(clean(b"/* unclosed {").unwrap(), b"/");
    }

    #[test]
    fn list_of_too_many_elements_is_known_before_it_is_read_to_its_end() {
        let list = |count: usize| format!(" [{}]", vec![r#"{"a":[1,2,3],"b":"x,y\\","c":{}}"#; count].join(","));
        assert_eq!((shape(list(5).as_bytes(), 5), shape(list(6).as_bytes(), 5)), (Shape::Fits, Shape::TooMany));
        let cut_off = &list(1_000)[..400];
        assert_eq!(shape(cut_off.as_bytes(), 5), Shape::TooMany);
        assert_eq!(shape(format!("{{\"a\":{}}}", list(9)).as_bytes(), 5), Shape::Fits, "only the outermost list counts");
        assert_eq!(shape(format!("[1/* {} */]", ",".repeat(9)).as_bytes(), 5), Shape::Fits, "a comment is no element");
        assert_eq!(shape(format!("[1]{}", ",2".repeat(9)).as_bytes(), 5), Shape::Fits, "text behind the first value does not count");
    }
}
