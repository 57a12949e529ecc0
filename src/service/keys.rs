//! Who may ask: keys, compared in constant time.
//!
//! The one thing to know: every key of the configuration is looked at for every request, whether one fits early or
//! not, so that the time an answer takes says nothing about them.

use axum::http::{HeaderMap, header};
use subtle::{Choice, ConstantTimeEq};

use super::config::Keys;
use super::problem::{Kind, Problem};

/// What somebody may do; each right has those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Ask.
    Read,
    /// Report events, change availability and items.
    Write,
    /// Reload, roll back.
    Admin,
}

/// The right that a request has shown, or why it has not the one it needs.
pub fn admit(keys: &Keys, headers: &HeaderMap, needed: Right) -> Result<(), Problem> {
    if keys.is_empty() {
        return Ok(());
    }
    let Some(shown) = shown(headers) else {
        let detail = "send a key as `Authorization: Bearer <key>` or `X-Api-Key: <key>`";
        return Err(Problem::new(Kind::Unauthorized, detail));
    };
    let among = |keys: &[String]| keys.iter().fold(Choice::from(0), |found, key| found | key.as_bytes().ct_eq(shown));
    let rights = [(&keys.read, Right::Read), (&keys.write, Right::Write), (&keys.admin, Right::Admin)];
    let held = rights.map(|(keys, right)| bool::from(among(keys)).then_some(right)).into_iter().flatten().max();
    match held {
        Some(right) if right >= needed => Ok(()),
        Some(right) => Err(Problem::new(Kind::Forbidden, format!("the key may {right:?}, this needs {needed:?}"))),
        None => Err(Problem::new(Kind::Unauthorized, "nobody has this key")),
    }
}

fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get("x-api-key") {
        return Some(key.as_bytes());
    }
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let key = |name: &str| vec![format!("{name}-0123456789abcdef"), format!("{name}-another-key-of-it")];
        Keys { read: key("read"), write: key("write"), admin: key("admin") }
    }

    fn ask(header: &'static str, value: &str, needed: Right) -> Option<Kind> {
        let mut headers = HeaderMap::new();
        headers.insert(header, value.parse().unwrap());
        admit(&keys(), &headers, needed).err().map(|problem| problem.kind)
    }

    #[test]
    fn a_right_has_those_before_it() {
        use Right::{Admin, Read, Write};
        for (name, held) in [("read", Read), ("write", Write), ("admin", Admin)] {
            for needed in [Read, Write, Admin] {
                let expected = (held < needed).then_some(Kind::Forbidden);
                assert_eq!(ask("x-api-key", &format!("{name}-another-key-of-it"), needed), expected);
                assert_eq!(ask("authorization", &format!("bEARER {name}-0123456789abcdef"), needed), expected);
            }
        }
    }

    #[test]
    fn what_is_not_a_key_opens_nothing() {
        let refused = Some(Kind::Unauthorized);
        for value in ["", "read", "read-0123456789abcde", "read-0123456789abcdef0", "Bearer read-0123456789abcdef"] {
            assert_eq!(ask("x-api-key", value, Right::Read), refused, "{value}");
        }
        for value in ["read-0123456789abcdef", "Basic read-0123456789abcdef", "Bearer", "Bearer "] {
            assert_eq!(ask("authorization", value, Right::Read), refused, "{value}");
        }
        assert!(admit(&keys(), &HeaderMap::new(), Right::Read).is_err());
        assert!(admit(&Keys::default(), &HeaderMap::new(), Right::Admin).is_ok());
    }
}
