//! What a section is called.

use std::fmt;

/// A section's name: one to eight of `a-z 0-9 _ -`, padded with zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag([u8; 8]);

impl Tag {
    /// A tag from its name. Made for constants: a name that is no tag stops the compilation there.
    ///
    /// # Panics
    /// When `name` is not one to eight of the characters allowed.
    pub const fn new(name: &str) -> Self {
        let name = name.as_bytes();
        assert!(name.len() <= 8, "a tag is at most eight characters");
        let mut tag = [0; 8];
        let mut i = 0;
        while i < name.len() {
            tag[i] = name[i];
            i += 1;
        }
        match Self::from_bytes(tag) {
            Some(tag) => tag,
            None => panic!("a tag is one to eight of a-z, 0-9, _ and -"),
        }
    }

    /// The tag stored as these bytes, if they are one.
    pub(super) const fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        let mut len = 0;
        while len < 8 && matches!(bytes[len], b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-') {
            len += 1;
        }
        let mut i = len;
        while i < 8 {
            if bytes[i] != 0 {
                return None;
            }
            i += 1;
        }
        if len == 0 { None } else { Some(Self(bytes)) }
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().take_while(|&&byte| byte != 0);
        f.pad(&used.map(|&byte| char::from(byte)).collect::<String>())
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({self})")
    }
}
