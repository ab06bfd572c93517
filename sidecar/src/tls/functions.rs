//! The functions of each TLS library that are probed, and what they do with a connection.

use pilotfish_abi::{
    TlsAction::{Clear, Flush, Free, Handshake, Open, Read, SendFile, Shutdown, Skip, Write},
    TlsCookie,
    TlsResult::{Fifth, Fourth, Int, None as Nothing, Size},
};

/// A kind of library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Library {
    /// OpenSSL, or `BoringSSL`, `LibreSSL` and others with its functions.
    OpenSsl,
    /// `GnuTLS`.
    GnuTls,
    /// Go's `crypto/tls`.
    Go,
    /// rustls.
    Rustls,
}

impl Library {
    /// Name in `/status` and in the log.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OpenSsl => "openssl",
            Self::GnuTls => "gnutls",
            Self::Go => "go",
            Self::Rustls => "rustls",
        }
    }

    /// Its functions by name; those of rustls are found by [`rustls`](super::rustls).
    pub(super) const fn functions(self) -> &'static [Function] {
        match self {
            Self::OpenSsl => OPENSSL,
            Self::GnuTls => GNUTLS,
            Self::Go => GO,
            Self::Rustls => &[],
        }
    }
}

/// One function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    /// Symbol.
    pub name: &'static str,
    /// What it does.
    pub cookie: TlsCookie,
    /// Whether its return has to be seen.
    pub returns: bool,
}

const fn entered(name: &'static str, action: pilotfish_abi::TlsAction) -> Function {
    Function {
        name,
        cookie: TlsCookie::new(action, Nothing),
        returns: false,
    }
}

const fn returned(
    name: &'static str,
    action: pilotfish_abi::TlsAction,
    result: pilotfish_abi::TlsResult,
) -> Function {
    Function {
        name,
        cookie: TlsCookie::new(action, result),
        returns: true,
    }
}

/// OpenSSL 1.1 and 3 (`ssl.h`), `BoringSSL` (`openssl/ssl.h`).
const OPENSSL: &[Function] = &[
    returned("SSL_read", Read, Int),
    returned("SSL_read_ex", Read, Fourth),
    returned("SSL_write", Write, Int),
    returned("SSL_write_ex", Write, Fourth),
    returned("SSL_write_ex2", Write, Fifth),
    returned("SSL_sendfile", SendFile, Size),
    returned("SSL_do_handshake", Handshake, Nothing),
    returned("SSL_accept", Handshake, Nothing),
    returned("SSL_connect", Handshake, Nothing),
    entered("SSL_set_accept_state", Open),
    entered("SSL_set_connect_state", Open),
    entered("SSL_shutdown", Shutdown),
    entered("SSL_clear", Clear),
    entered("SSL_free", Free),
];

/// `GnuTLS` 3 (`gnutls/gnutls.h`).
const GNUTLS: &[Function] = &[
    returned("gnutls_record_recv", Read, Size),
    returned("gnutls_record_recv_seq", Read, Size),
    returned("gnutls_record_recv_packet", Skip, Size),
    returned("gnutls_record_send", Write, Size),
    returned("gnutls_record_send2", Write, Size),
    returned("gnutls_record_send_range", Write, Size),
    returned("gnutls_record_send_file", SendFile, Size),
    returned("gnutls_record_uncork", Flush, Nothing),
    returned("gnutls_handshake", Handshake, Nothing),
    entered("gnutls_bye", Shutdown),
    entered("gnutls_deinit", Free),
];

/// Methods of `tls.Conn`. A handshake runs once for each connection, and `Write` writes all or fails for good.
const GO: &[Function] = &[
    returned("crypto/tls.(*Conn).Read", Read, Size),
    entered("crypto/tls.(*Conn).Write", Write),
    entered("crypto/tls.(*Conn).clientHandshake", Open),
    entered("crypto/tls.(*Conn).serverHandshake", Open),
    entered("crypto/tls.(*Conn).CloseWrite", Shutdown),
    entered("crypto/tls.(*Conn).Close", Free),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_what_moves_bytes_into_a_buffer_is_seen_to_return() {
        for library in [Library::OpenSsl, Library::GnuTls, Library::Go] {
            let functions = library.functions();
            let names: BTreeSet<_> = functions.iter().map(|function| function.name).collect();
            assert_eq!(names.len(), functions.len());
            for function in functions {
                let action = function.cookie.action().unwrap();
                assert!(action != Read || function.returns, "{}", function.name);
            }
        }
    }
}
