//! TLS probes: what the cookie of a uprobe says of the function that it is in.

/// What a function does with a TLS connection. Its first argument names the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TlsAction {
    /// Takes plaintext out of it: buffer and length are the second and third argument.
    Read = 1,
    /// Puts plaintext into it, likewise.
    Write = 2,
    /// Puts a file into it, whose bytes nobody sees: the result counts them.
    SendFile = 3,
    /// Begins a connection, whatever the object was used for before.
    Open = 4,
    /// Runs (a part of) the handshake: begins a connection unless it is known already.
    Handshake = 5,
    /// Says that no more will be sent.
    Shutdown = 6,
    /// Ends the connection and everything about it.
    Free = 7,
    /// Takes plaintext out of it to where it is not looked for; the result counts it.
    Skip = 8,
    /// Encrypts a record of rustls.
    Encrypt = 9,
    /// Decrypts one, in place.
    Decrypt = 10,
    /// Sends what was put into it before.
    Flush = 11,
    /// Ends the connection so that the object can serve another; inside another function it is a part of that.
    Clear = 12,
}

impl TlsAction {
    /// The action with this number.
    pub const fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Read,
            2 => Self::Write,
            3 => Self::SendFile,
            4 => Self::Open,
            5 => Self::Handshake,
            6 => Self::Shutdown,
            7 => Self::Free,
            8 => Self::Skip,
            9 => Self::Encrypt,
            10 => Self::Decrypt,
            11 => Self::Flush,
            12 => Self::Clear,
            _ => return None,
        })
    }
}

/// Where a function says how many bytes it moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TlsResult {
    /// It moves none, or all that it was given.
    None = 0,
    /// An `int` is returned: bytes if positive.
    Int = 1,
    /// A `ssize_t` is returned: bytes if positive.
    Size = 2,
    /// In the `size_t` that the fourth argument points to, if the `int` returned is 1.
    Fourth = 3,
    /// In the `size_t` that the fifth argument points to, likewise.
    Fifth = 4,
    /// In a record of TLS 1.3 (RFC 8446, section 5.2).
    Inner = 5,
    /// In a record of TLS 1.2 with AES-GCM (RFC 5288).
    Gcm = 6,
    /// In a record of TLS 1.2 with ChaCha20-Poly1305 (RFC 7905).
    ChaCha = 7,
}

impl TlsResult {
    /// Bytes by which a record's ciphertext is longer than its plaintext: the tag, and the content type or the explicit part
    /// of the nonce.
    pub const fn overhead(number: u8) -> Option<u64> {
        match number {
            5 => Some(16 + 1),
            6 => Some(16 + 8),
            7 => Some(16),
            _ => None,
        }
    }
}

/// Cookie of a probe: action and result in a byte each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsCookie(pub u64);

impl TlsCookie {
    /// Marks a probe at a return instruction, where no entry of its own stands for the function (Go).
    pub const AT_RETURN: u64 = 1 << 16;

    /// The cookie of a function.
    pub const fn new(action: TlsAction, result: TlsResult) -> Self {
        Self(action as u64 | (result as u64) << 8)
    }

    /// The same function's cookie at its return instructions.
    #[must_use]
    pub const fn at_return(self) -> Self {
        Self(self.0 | Self::AT_RETURN)
    }

    /// What the function does.
    pub const fn action(self) -> Option<TlsAction> {
        TlsAction::from_u8(self.0 as u8)
    }

    /// Number of the [`TlsResult`].
    pub const fn result(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// True at a return instruction.
    pub const fn is_at_return(self) -> bool {
        self.0 & Self::AT_RETURN != 0
    }
}

/// Value of the map of processes with TLS probes (task storage): how to find the call that a socket operation belongs to.
pub mod tls_calls {
    /// By thread.
    pub const THREAD: u32 = 1 << 0;
    /// By goroutine.
    pub const GOROUTINE: u32 = 1 << 1;
    /// By its bytes: those of a record that rustls encrypts or decrypts.
    pub const RECORDS: u32 = 1 << 2;
}
