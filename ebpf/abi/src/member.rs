//! Members of kernel structures whose offsets user space resolves from the running kernel's BTF.
//!
//! Rust eBPF has no CO-RE relocations, so the offsets travel as one read-only array that the loader fills in.

macro_rules! members {
    ($($variant:ident => $structure:literal, $path:literal;)+) => {
        /// A member of a kernel structure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        #[expect(missing_docs, reason = "named after the structure and the member")]
        pub enum Member { $($variant,)+ }

        impl Member {
            /// All members, in the order of the offsets array.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The structure's name in BTF.
            pub const fn structure(self) -> &'static str {
                match self { $(Self::$variant => $structure,)+ }
            }

            /// Path of member names; anonymous structures and unions on the way are not named.
            pub const fn path(self) -> &'static str {
                match self { $(Self::$variant => $path,)+ }
            }
        }
    };
}

members! {
    TaskGroupLeader => "task_struct", "group_leader";
    TaskThreadPid => "task_struct", "thread_pid";
    TaskSignal => "task_struct", "signal";
    TaskPid => "task_struct", "pid";
    TaskExecutions => "task_struct", "self_exec_id";
    TaskStart => "task_struct", "start_boottime";
    SignalLive => "signal_struct", "live.counter";
    PidLevel => "pid", "level";
    PidNumbers => "pid", "numbers";
    UpidNumber => "upid", "nr";
    UpidNamespace => "upid", "ns";
    PidNamespaceInode => "pid_namespace", "ns.inum";
    SockFamily => "sock", "__sk_common.skc_family";
    SockLocalPort => "sock", "__sk_common.skc_num";
    SockRemotePort => "sock", "__sk_common.skc_dport";
    SockLocalV4 => "sock", "__sk_common.skc_rcv_saddr";
    SockRemoteV4 => "sock", "__sk_common.skc_daddr";
    SockLocalV6 => "sock", "__sk_common.skc_v6_rcv_saddr";
    SockRemoteV6 => "sock", "__sk_common.skc_v6_daddr";
    SockNet => "sock", "__sk_common.skc_net.net";
    SockShutdown => "sock", "sk_shutdown";
    SockType => "sock", "sk_type";
    SockProtocol => "sock", "sk_protocol";
    NetInode => "net", "ns.inum";
    TcpBytesReceived => "tcp_sock", "bytes_received";
    TcpBytesAcked => "tcp_sock", "bytes_acked";
    TcpReceiveNext => "tcp_sock", "rcv_nxt";
    TcpCopiedSequence => "tcp_sock", "copied_seq";
    TcpWriteSequence => "tcp_sock", "write_seq";
    InetUpperProtocol => "inet_connection_sock", "icsk_ulp_ops";
    TcpSendUnacknowledged => "tcp_sock", "snd_una";
}
