//! What the programs count, per CPU and per slot. Every way to lose or skip a record has a line here.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal, $help:literal;)+) => {
        /// A counter of the eBPF programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Counter { $($(#[doc = $doc])+ $variant,)+ }

        impl Counter {
            /// All counters, in the order of the map value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Name in `/status`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Name of the metric, without the agent's prefix.
            pub const fn metric(self) -> &'static str {
                match self { $(Self::$variant => concat!("kernel_", $name),)+ }
            }

            /// One line of explanation.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)+ }
            }
        }
    };
}

counters! {
    /// Records that a program set out to deliver.
    Produced => "records_produced", "Records that a program set out to deliver to user space. It follows the traffic.";
    /// Records about processes, among those produced.
    Process => "records_of_processes",
        "Records about forks, executions and exits, among those produced. It follows process starts and ends.";
    /// Records that the full ring buffer refused.
    RingFull => "records_lost_ring_full",
        "Records lost because the ring buffer was full: spans are missing. Give the agent more CPU or a larger --ring-bytes.";
    /// Bytes of operations beyond the capture limit.
    Uncaptured => "bytes_beyond_capture",
        "Bytes that socket operations moved beyond --capture-bytes. Normal for bodies; a loss only if heads are cut.";
    /// Operations without a readable user buffer (sendfile, splice).
    NoBuffer => "operations_without_buffer",
        "Socket operations whose system call carries no user buffer (sendfile, splice). Their bytes are skipped by length.";
    /// Operations done by `io_uring`.
    IoUring => "operations_io_uring",
        "Socket operations done through io_uring, whose buffers are not visible: such a program is not traced.";
    /// Operations whose buffer could not be read.
    Unreadable => "operations_unreadable",
        "Socket operations whose user buffer could not be read, as it was not in memory. Each is a gap in its connection.";
    /// Operations of 32-bit tasks.
    Compat => "operations_compat",
        "Socket operations of 32-bit tasks, whose arguments are not read: such a program is not traced.";
    /// Operations by more than one message per call whose place could not be proven.
    Ambiguous => "operations_ambiguous",
        "Messages of sendmmsg and recvmmsg whose place in the vector could not be proven. Each is a gap in its connection.";
    /// Operations with more I/O vectors than are read.
    IovecsCut => "operations_iovecs_cut",
        "Socket operations with more I/O vectors than are read; the rest is a gap in its connection.";
    /// Sockets for which no state could be allocated.
    FlowStorage => "flow_storage_failures",
        "Socket operations skipped because no per-socket state could be allocated: the kernel is short of memory.";
    /// Ciphertext of connections whose plaintext is seen.
    Ciphertext => "bytes_ciphertext",
        "Bytes of TLS records that were not captured because their plaintext is seen. It follows the traffic.";
    /// TLS operations whose end was not seen.
    TlsUnended => "tls_operations_unended",
        "TLS calls whose return was not seen: their connection is read anew from the next call, spans in between are missing.";
    /// TLS operations that found no room to be assembled.
    TlsNoRoom => "tls_operations_without_room",
        "TLS operations whose bytes became a gap because too many were assembled at the same time.";
    /// TLS connections that could not be stored.
    TlsStorage => "tls_storage_failures",
        "TLS operations skipped because no state for their thread or connection could be allocated: the kernel is short of memory.";
    /// Ends of TLS connections, and records of plaintext, without a proof of which socket carries which.
    TlsUntied => "tls_untied",
        "Records of rustls, and connections of a program that has it, of which no proof was found that they belong together, or which ended in the handshake: they are not seen.";
    /// Children that could not be put in scope.
    ScopeStorage => "scope_storage_failures",
        "Forked tasks that could not be put in scope: the kernel is short of memory, and they are not observed.";
}

/// Value of the per-CPU counter array, one per slot, indexed by [`Counter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SlotCounters {
    /// Values in the order of [`Counter::ALL`].
    pub values: [u64; Counter::ALL.len()],
}

impl Default for SlotCounters {
    fn default() -> Self {
        Self {
            values: [0; Counter::ALL.len()],
        }
    }
}

impl SlotCounters {
    /// The value of one counter.
    pub const fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }
}
