//! JSON as the system contracts of 2.x read and write it.
//!
//! Reading is as tolerant as the parser of 2.x: comments, control characters inside strings, bytes that are no UTF-8, and anything
//! behind the value are accepted. Numbers keep their text, so no floating point decides what is stored. Writing escapes everything
//! that is not ASCII.

use std::collections::BTreeMap;

/// Deepest nesting that is read; the parser of 2.x stops at 1000, no entry or condition needs more than three.
const MAX_DEPTH: usize = 64;

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// As written, without leading zeros.
    Number(Vec<u8>),
    Text(Vec<u8>),
    Array(Vec<Json>),
    Object(BTreeMap<Vec<u8>, Json>),
}

impl Json {
    /// The value at the beginning of the text; `None` when there is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Parser { text, position: 0 }.value(0)
    }

    /// Members in the order of their names; null has none. `None` for what cannot have members.
    pub fn members(&self) -> Option<Vec<(&[u8], &Json)>> {
        match self {
            Self::Null => Some(Vec::new()),
            Self::Object(members) => Some(members.iter().map(|(name, value)| (&**name, value)).collect()),
            _ => None,
        }
    }

    /// The value as a text; `None` for arrays and objects.
    pub fn to_text(&self) -> Option<Vec<u8>> {
        match self {
            Self::Null => Some(Vec::new()),
            Self::Bool(is_true) => Some(is_true.to_string().into_bytes()),
            Self::Number(text) | Self::Text(text) => Some(text.clone()),
            Self::Array(_) | Self::Object(_) => None,
        }
    }
}

struct Parser<'t> {
    text: &'t [u8],
    position: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    fn take(&mut self, expected: &[u8]) -> Option<()> {
        let is_there = self.text[self.position..].starts_with(expected);
        is_there.then(|| self.position += expected.len())
    }

    /// Passes white space and comments.
    fn skip(&mut self) -> Option<()> {
        loop {
            let rest = &self.text[self.position..];
            let passed = match rest {
                [b' ' | b'\t' | b'\r' | b'\n', ..] => 1,
                [b'/', b'/', ..] => rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len()),
                [b'/', b'*', body @ ..] => body.windows(2).position(|end| end == b"*/")? + 4,
                _ => return Some(()),
            };
            self.position += passed;
        }
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip()?;
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Json::Text),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.take(b"true").map(|()| Json::Bool(true)),
            b'f' => self.take(b"false").map(|()| Json::Bool(false)),
            b'n' => self.take(b"null").map(|()| Json::Null),
            _ => None,
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.take(b"{")?;
        self.skip()?;
        let mut members = BTreeMap::new();
        if self.take(b"}").is_some() {
            return Some(Json::Object(members));
        }
        loop {
            self.skip()?;
            let name = self.string()?;
            self.skip()?;
            self.take(b":")?;
            let value = self.value(depth + 1)?;
            members.insert(name, value);
            self.skip()?;
            if self.take(b",").is_none() {
                self.take(b"}")?;
                return Some(Json::Object(members));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<Json> {
        self.take(b"[")?;
        self.skip()?;
        let mut items = Vec::new();
        if self.take(b"]").is_some() {
            return Some(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip()?;
            if self.take(b",").is_none() {
                self.take(b"]")?;
                return Some(Json::Array(items));
            }
        }
    }

    fn number(&mut self) -> Option<Json> {
        let start = self.position;
        let is_part = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
        while self.peek().is_some_and(is_part) {
            self.position += 1;
        }
        let text = &self.text[start..self.position];
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        if digits.is_empty() {
            return None;
        }
        if !digits.iter().all(u8::is_ascii_digit) {
            return is_decimal(digits).then(|| Json::Number(text.to_vec()));
        }
        let significant = &digits[digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len() - 1)..];
        let sign: &[u8] = if text.len() > digits.len() && significant != b"0" { b"-" } else { b"" };
        Some(Json::Number([sign, significant].concat()))
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        self.take(b"\"")?;
        let mut text = Vec::new();
        loop {
            let byte = self.peek()?;
            self.position += 1;
            match byte {
                b'"' => return Some(text),
                b'\\' => self.escape(&mut text)?,
                other => text.push(other),
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Option<()> {
        let byte = self.peek()?;
        self.position += 1;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = self.hex_digits()?;
                if (0xd800..0xdc00).contains(&code) {
                    self.take(b"\\u")?;
                    let low = self.hex_digits()?;
                    code = 0x10000 + ((code & 0x3ff) << 10) + (low & 0x3ff);
                }
                let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        };
        text.push(plain);
        Some(())
    }

    fn hex_digits(&mut self) -> Option<u32> {
        let digits = self.text.get(self.position..self.position + 4)?;
        self.position += 4;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}

/// Digits with a fraction or an exponent.
fn is_decimal(text: &[u8]) -> bool {
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(position) => (&text[..position], Some(&text[position + 1..])),
        None => (text, None),
    };
    let are_digits = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let mut parts = mantissa.splitn(2, |byte| *byte == b'.');
    let is_mantissa =
        parts.next().is_some_and(are_digits) && parts.next().is_none_or(|fraction| fraction.is_empty() || are_digits(fraction));
    let is_exponent = exponent.is_none_or(|digits| are_digits(digits.strip_prefix(b"+").or(digits.strip_prefix(b"-")).unwrap_or(digits)));
    is_mantissa && is_exponent
}

/// A text in quotes.
pub(super) fn quoted(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(character),
            other => other.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out.push('"');
    out
}

/// Records on one line, members in the order given, with a newline at the end.
pub(super) fn compact<'r>(records: impl IntoIterator<Item = Vec<(&'r str, &'r [u8])>>) -> String {
    let record = |members: Vec<(&str, &[u8])>| {
        let members: Vec<_> = members.iter().map(|(name, value)| format!("{}:{}", quoted(name.as_bytes()), quoted(value))).collect();
        format!("{{{}}}", members.join(","))
    };
    let records: Vec<_> = records.into_iter().map(record).collect();
    format!("[{}]\n", records.join(","))
}

/// Records on lines of their own, indented by tabs, with a newline at the end.
pub(super) fn styled<'r>(records: impl IntoIterator<Item = Vec<(&'r str, &'r [u8])>>) -> String {
    let record = |members: Vec<(&str, &[u8])>| {
        let member = |(name, value): &(&str, &[u8])| format!("\t\t{} : {}", quoted(name.as_bytes()), quoted(value));
        let members: Vec<_> = members.iter().map(member).collect();
        format!("\t{{\n{}\n\t}}", members.join(",\n"))
    };
    let records: Vec<_> = records.into_iter().map(record).collect();
    if records.is_empty() { "[]\n".into() } else { format!("[\n{}\n]\n", records.join(",\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(json: &str) -> Option<String> {
        Json::parse(json.as_bytes())?.to_text().map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn scalars_become_texts() {
        for (json, text) in [("4", "4"), ("-007", "-7"), ("-0", "0"), ("1.5", "1.5"), ("1e3", "1e3"), ("true", "true"), ("null", "")] {
            assert_eq!(text_of(json).as_deref(), Some(text), "{json}");
        }
        assert_eq!(text_of(r#""\u94fe \"q\" \n \ud83d\ude00""#).as_deref(), Some("\u{94fe} \"q\" \n \u{1f600}"));
        assert_eq!(text_of("[]"), None);
    }

    #[test]
    fn comments_and_trailing_text_are_accepted_but_trailing_commas_are_not() {
        assert!(Json::parse(b"/* a */ {\"a\" : // b\n \"1\"} trailing").is_some());
        for broken in ["", "not json", "{\"a\":1,}", "{a:1}", "[1,]", "\"open", "-", "1.e", "1..2", "{\"a\" 1}", "\"\\x\"", "/* open"] {
            assert_eq!(Json::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(Json::parse("[".repeat(1 << 20).as_bytes()).is_none());
        assert!(Json::parse(format!("{}{}", "[".repeat(60), "]".repeat(60)).as_bytes()).is_some());
    }

    #[test]
    fn members_come_in_the_order_of_their_names_and_the_last_of_equal_names_counts() {
        let json = Json::parse(br#"{"b":1,"a":2,"b":3}"#).unwrap();
        let members = json.members().unwrap();
        assert_eq!(
            members.iter().map(|(name, value)| (*name, value.to_text().unwrap())).collect::<Vec<_>>(),
            [(&b"a"[..], b"2".to_vec()), (b"b", b"3".to_vec())]
        );
        assert_eq!(Json::Bool(true).members(), None);
    }

    #[test]
    fn what_is_not_ascii_is_escaped() {
        assert_eq!(quoted("\u{94fe}\u{1f600}\u{1}\"\\/".as_bytes()), r#""\u94fe\ud83d\ude00\u0001\"\\/""#);
        assert_eq!(styled([]), "[]\n");
        assert_eq!(compact([vec![("a", &b"1"[..])]]), "[{\"a\":\"1\"}]\n");
    }
}
