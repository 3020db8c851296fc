//! Path patterns of routes, and the normal form that paths are compared in.

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

/// Why a path has no single reading. Servers differ on these, so that what was judged might not be what is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// `.` or `..` as a segment, spelt out or percent-encoded.
    #[error("it has a dot segment")]
    DotSegment,
    /// `//`.
    #[error("it has an empty segment (//)")]
    EmptySegment,
    /// `%2F`, `%5C`, `\`.
    #[error("it has an encoded slash or a backslash")]
    EncodedSlash,
    /// `;`, which some servers cut off.
    #[error("it has a path parameter (;)")]
    Parameter,
    /// `%00`, `%0a`, … or a `%` without two hexadecimal digits.
    #[error("it has an invalid percent-encoding or a control character")]
    BadEncoding,
    /// Neither `*` nor starting with a slash.
    #[error("it does not begin with a slash")]
    NotAbsolute,
}

/// The form that paths are compared in: percent-encodings decoded (RFC 3986 §6.2.2.2), everything ambiguous refused.
///
/// A path that passes means the same to every server, so that it can be sent upstream as it came.
pub fn normal_path(path: &str) -> Result<Cow<'_, [u8]>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    let decoded = decode(path)?;
    let mut segments = decoded[1..].split(|b| *b == b'/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            b"." | b".." => return Err(PathError::DotSegment),
            // A trailing slash is an empty last segment, and fine.
            b"" if segments.peek().is_some() => return Err(PathError::EmptySegment),
            segment if segment.contains(&b';') => return Err(PathError::Parameter),
            segment if segment.contains(&b'\\') => return Err(PathError::EncodedSlash),
            segment if segment.iter().any(u8::is_ascii_control) => return Err(PathError::BadEncoding),
            _ => {}
        }
    }
    Ok(decoded)
}

fn decode(path: &str) -> Result<Cow<'_, [u8]>, PathError> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path.as_bytes()));
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit =
            |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
            return Err(PathError::BadEncoding);
        };
        match high << 4 | low {
            b'/' | b'\\' => return Err(PathError::EncodedSlash),
            // Decoding once more (`%252e`) is what some servers do: an encoded percent sign has no single reading.
            b'%' => return Err(PathError::BadEncoding),
            byte => decoded.push(byte),
        }
    }
    Ok(Cow::Owned(decoded))
}

/// A route's path: `*` within a segment, `**` as a whole segment for any number of them.
#[derive(Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: Box<str>,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `**`
    Any,
    /// Literal pieces between `*`.
    Glob(Vec<Box<[u8]>>),
}

/// Why a text is not a path pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathPatternError {
    /// Patterns are compared with whole paths.
    #[error("a path pattern begins with a slash")]
    NotAbsolute,
    /// `**` next to other characters.
    #[error("** stands for whole segments: put it between slashes")]
    PartialDoubleStar,
    /// The pattern's own path could never match.
    #[error("no path that is permitted can match this pattern: {0}")]
    Unmatchable(PathError),
}

impl PathPattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, PathPatternError> {
        if !text.starts_with('/') {
            return Err(PathPatternError::NotAbsolute);
        }
        let normal = normal_path(text).map_err(PathPatternError::Unmatchable)?;
        let segments = normal[1..].split(|b| *b == b'/').map(Segment::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), segments })
    }

    /// Whether a path in normal form (see [`normal_path`]) matches as a whole.
    pub fn matches(&self, path: &[u8]) -> bool {
        let Some(path) = path.strip_prefix(b"/") else { return false };
        let path: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        matches(&self.segments, &path)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Segment {
    fn parse(text: &[u8]) -> Result<Self, PathPatternError> {
        if text == b"**" {
            return Ok(Self::Any);
        }
        if text.windows(2).any(|pair| pair == b"**") {
            return Err(PathPatternError::PartialDoubleStar);
        }
        Ok(Self::Glob(text.split(|b| *b == b'*').map(Box::from).collect()))
    }
}

/// Greedy matching that returns only to the last `**`: linear in pattern times path, so that a hostile path cannot
/// make it exponential.
fn matches(pattern: &[Segment], path: &[&[u8]]) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut resume: Option<(usize, usize)> = None;
    loop {
        match pattern.get(at) {
            Some(Segment::Any) => {
                resume = Some((at + 1, position));
                at += 1;
                continue;
            }
            Some(Segment::Glob(pieces)) => {
                if path.get(position).is_some_and(|segment| glob(pieces, segment)) {
                    at += 1;
                    position += 1;
                    continue;
                }
            }
            None if position == path.len() => return true,
            None => {}
        }
        match resume {
            Some((after, from)) if from < path.len() => {
                resume = Some((after, from + 1));
                (at, position) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// Matches one segment against literal pieces with anything between them.
fn glob(pieces: &[Box<[u8]>], segment: &[u8]) -> bool {
    let [first, middle @ .., last] = pieces else {
        return pieces.first().is_some_and(|only| **only == *segment);
    };
    let Some(mut rest) = segment.strip_prefix(&**first) else { return false };
    for piece in middle {
        let Some(at) = find(rest, piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths() {
        for (pattern, path, expected) in [
            ("/acme/**", "/acme/app", true),
            ("/acme/**", "/acme/app/info/refs", true),
            ("/acme/**", "/acme/", true),
            ("/acme/**", "/acme", true),
            ("/acme/**", "/acmee/app", false),
            ("/**", "/", true),
            ("/**/git-receive-pack", "/git-receive-pack", true),
            ("/**/git-receive-pack", "/a/b/git-receive-pack", true),
            ("/**/git-receive-pack", "/a/b/git-receive-packs", false),
            ("/a/**/b/**/c", "/a/x/b/b/y/c", true),
            ("/a/**/b/**/c", "/a/x/y/c", false),
            ("/*.git", "/app.git", true),
            ("/*.git", "/x/app.git", false),
            ("/a*b*c", "/aXbYc", true),
            ("/a*a", "/a", false),
            ("/", "/", true),
            ("/", "/x", false),
        ] {
            let pattern = PathPattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_path_with_two_readings_is_refused() {
        for (path, error) in [
            ("/a/../b", PathError::DotSegment),
            ("/a/%2e%2E/b", PathError::DotSegment),
            ("/./a", PathError::DotSegment),
            ("/a//b", PathError::EmptySegment),
            ("//a", PathError::EmptySegment),
            ("/a%2Fb", PathError::EncodedSlash),
            ("/a%5cb", PathError::EncodedSlash),
            ("/a\\b", PathError::EncodedSlash),
            ("/a;x=1/b", PathError::Parameter),
            ("/a%3bx/b", PathError::Parameter),
            ("/a%0ab", PathError::BadEncoding),
            ("/a%", PathError::BadEncoding),
            ("/a%+1", PathError::BadEncoding),
            ("/%252e%252e/b", PathError::BadEncoding),
            ("*", PathError::NotAbsolute),
        ] {
            assert_eq!(normal_path(path), Err(error), "{path}");
        }
        assert_eq!(normal_path("/%61cme/b%20c").as_deref(), Ok(b"/acme/b c".as_slice()));
    }

    #[test]
    fn patterns_that_cannot_match_are_errors() {
        assert_eq!(PathPattern::parse("acme"), Err(PathPatternError::NotAbsolute));
        assert_eq!(PathPattern::parse("/a**"), Err(PathPatternError::PartialDoubleStar));
        assert_eq!(PathPattern::parse("/a//b"), Err(PathPatternError::Unmatchable(PathError::EmptySegment)));
    }
}
