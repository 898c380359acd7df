//! The status page.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// The status page, and who may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatusPage {
    /// Where it is served. A reload moves it.
    pub listen: StatusListen,
    /// What a viewer has to know; never absent where others than this machine could connect.
    pub token: Option<StatusToken>,
    /// Names by which browsers may call it, in lower case, besides `localhost` and the address that they connect to.
    pub hosts: Vec<Arc<str>>,
}

/// Where the page is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StatusListen {
    /// An address of TCP.
    Ip(SocketAddr),
    /// The absolute path of a unix socket, of [`super::MAX_SOCKET_PATH`] bytes at most.
    Unix(PathBuf),
}

/// A secret that viewers tell. Not shown by `Debug`, and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StatusToken(Zeroizing<String>);

impl StatusToken {
    /// Characters, at least: 95 bits, if each is one of 64.
    pub(crate) const SHORTEST: usize = 16;
    /// Characters, at most: a request with it must fit into the server's limit.
    pub(crate) const LONGEST: usize = 512;

    /// The token in `text`; `None` if it is too short, too long, or cannot be in a header (`token68`, RFC 9110 section
    /// 11.2).
    #[must_use]
    pub(crate) fn new(text: &str) -> Option<Self> {
        let is_sendable = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        let fits = (Self::SHORTEST..=Self::LONGEST).contains(&text.len()) && text.bytes().all(is_sendable);
        fits.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// Returns whether `told` is the token, in a time that depends on nothing but their lengths.
    #[must_use]
    pub(crate) fn is(&self, told: &str) -> bool {
        self.0.as_bytes().ct_eq(told.as_bytes()).into()
    }
}

impl fmt::Debug for StatusToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatusToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = StatusToken::new("0123456789abcdef").unwrap();
        for (row, told, expected) in [
            ("itself", "0123456789abcdef", true),
            ("nothing", "", false),
            ("its beginning", "0123456789abcde", false),
            ("more", "0123456789abcdef0", false),
            ("another case", "0123456789ABCDEF", false),
            ("another first", "1123456789abcdef", false),
            ("another last", "0123456789abcdee", false),
        ] {
            assert_eq!(token.is(told), expected, "{row}");
        }
        assert_eq!(format!("{token:?}"), "StatusToken(..)");
    }
}
