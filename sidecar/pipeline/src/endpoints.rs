//! The two ends of a flow: who they are, and how two flows turn out to be one connection.

use crate::model::Kind;
use compact_str::{CompactString, ToCompactString};
use pilotfish_abi::{Family, Header, flag};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One end of an internet connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// The address as text, made once per flow.
    pub(crate) text: CompactString,
}

/// How the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Unix,
    /// By the socket of a TLS connection, which is not known yet.
    Unknown,
}

/// The ends of a flow, seen from the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) transport: Transport,
    /// The bytes are plaintext of a TLS connection.
    pub(crate) tls: bool,
    netns: u32,
    /// Local and remote end; `None` for unix sockets, and while the transport is not known.
    pub(crate) ends: Option<(End, End)>,
}

/// Names a place in a connection's request stream, equal for both of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionPlace {
    offset: u64,
    client: u128,
    server: u128,
    netns: u32,
    client_port: u16,
    server_port: u16,
    /// Plaintext has other offsets than the bytes that its socket moves.
    tls: bool,
}

/// The role of the local end in a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

impl Role {
    /// The role of the container in its span.
    pub(crate) const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Client => Self::Client,
            Kind::Server => Self::Server,
        }
    }
}

impl Endpoints {
    /// Reads the ends from a record of a flow; `None` for an unknown address family. A record of TLS plaintext may have
    /// none.
    pub(crate) fn from_header(header: &Header) -> Option<Self> {
        let tls = header.flags & flag::TLS != 0;
        let (transport, ends) = match Family::from_u16(header.family) {
            Some(Family::Unix) => (Transport::Unix, None),
            Some(family @ (Family::V4 | Family::V6)) => {
                let local = End::new(address(family, header.local), header.local_port);
                let remote = End::new(address(family, header.remote), header.remote_port);
                (Transport::Tcp, Some((local, remote)))
            }
            None if tls && header.family == 0 => (Transport::Unknown, None),
            None => return None,
        };
        Some(Self {
            transport,
            tls,
            netns: header.netns,
            ends,
        })
    }

    /// Completes what was not known, once, from a later record of the same flow.
    pub(crate) fn complete(&mut self, header: &Header) {
        if self.transport == Transport::Unknown
            && header.family != 0
            && let Some(complete) = Self::from_header(header)
        {
            *self = Self {
                tls: self.tls,
                ..complete
            };
        }
    }

    /// The port of the server, if the local end has this role; `None` without ends.
    pub(crate) fn server_port(&self, role: Role) -> Option<u16> {
        let (local, remote) = self.ends.as_ref()?;
        Some(match role {
            Role::Client => remote.port,
            Role::Server => local.port,
        })
    }

    /// The place `offset` of the request stream, or `None` where the other end cannot be found by its addresses.
    pub(crate) fn place(&self, role: Role, offset: u64) -> Option<ConnectionPlace> {
        let (local, remote) = self.ends.as_ref().filter(|_| self.netns != 0)?;
        let (client, server) = match role {
            Role::Client => (local, remote),
            Role::Server => (remote, local),
        };
        Some(ConnectionPlace {
            offset,
            client: client.bits(),
            server: server.bits(),
            netns: self.netns,
            client_port: client.port,
            server_port: server.port,
            tls: self.tls,
        })
    }
}

impl End {
    fn new(address: IpAddr, port: u16) -> Self {
        Self {
            address,
            port,
            text: address.to_compact_string(),
        }
    }

    fn bits(&self) -> u128 {
        match self.address {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        }
    }
}

/// IPv4-mapped IPv6 addresses are IPv4: one connection may have a socket of each family.
fn address(family: Family, bytes: [u8; 16]) -> IpAddr {
    match (family, bytes) {
        (Family::V4, [a, b, c, d, ..]) => Ipv4Addr::new(a, b, c, d).into(),
        _ => IpAddr::from(Ipv6Addr::from(bytes)).to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoints, Role, Transport};
    use pilotfish_abi::{Family, Header, flag};
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn v4(bytes: [u8; 4]) -> [u8; 16] {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&bytes);
        address
    }

    fn header(
        family: Family,
        local: [u8; 16],
        local_port: u16,
        remote: [u8; 16],
        remote_port: u16,
    ) -> Header {
        let family = family as u16;
        Header {
            family,
            netns: 7,
            local,
            local_port,
            remote,
            remote_port,
            ..Header::default()
        }
    }

    #[test]
    fn both_ends_name_the_same_place() {
        let client = header(
            Family::V4,
            v4([127, 0, 0, 1]),
            40_000,
            v4([127, 0, 0, 1]),
            80,
        );
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
        let server = header(Family::V6, mapped, 80, mapped, 40_000);
        let (client, server) = (
            Endpoints::from_header(&client).unwrap(),
            Endpoints::from_header(&server).unwrap(),
        );
        assert_eq!(client.place(Role::Client, 5), server.place(Role::Server, 5));
        assert_ne!(client.place(Role::Client, 5), server.place(Role::Server, 6));
        assert_ne!(client.place(Role::Client, 5), server.place(Role::Client, 5));
        assert_eq!(server.ends.unwrap().1.text, "127.0.0.1");
    }

    #[test]
    fn namespaces_keep_equal_addresses_apart() {
        let one = header(
            Family::V4,
            v4([127, 0, 0, 1]),
            40_000,
            v4([127, 0, 0, 1]),
            80,
        );
        let place = |header: &Header| {
            Endpoints::from_header(header)
                .unwrap()
                .place(Role::Client, 0)
        };
        assert_ne!(place(&one), place(&Header { netns: 8, ..one }));
        assert_eq!(place(&Header { netns: 0, ..one }), None);
    }

    #[test]
    fn unix_sockets_have_no_addresses_and_unknown_families_no_ends() {
        let unix = Endpoints::from_header(&header(Family::Unix, [0; 16], 0, [0; 16], 0)).unwrap();
        assert_eq!(
            (
                unix.transport,
                unix.ends.clone(),
                unix.place(Role::Client, 0)
            ),
            (Transport::Unix, None, None)
        );
        assert_eq!(
            Endpoints::from_header(&Header {
                family: 16,
                ..Header::default()
            }),
            None
        );
    }

    #[test]
    fn plaintext_of_tls_gets_its_addresses_once() {
        let known = Header {
            flags: flag::TLS,
            ..header(Family::V4, v4([10, 0, 0, 1]), 443, v4([10, 0, 0, 9]), 5000)
        };
        let mut endpoints = Endpoints::from_header(&Header {
            flags: flag::TLS,
            ..Header::default()
        })
        .unwrap();
        assert_eq!(
            (endpoints.transport, endpoints.place(Role::Server, 0)),
            (Transport::Unknown, None)
        );
        for family in [0, 16] {
            endpoints.complete(&Header { family, ..known });
            assert_eq!(endpoints.transport, Transport::Unknown);
        }
        endpoints.complete(&known);
        assert_eq!(Some(&endpoints), Endpoints::from_header(&known).as_ref());
        assert_eq!(endpoints.server_port(Role::Server), Some(443));
        endpoints.complete(&Header {
            local_port: 8443,
            ..known
        });
        assert_eq!(endpoints.server_port(Role::Server), Some(443));

        let ciphertext = Endpoints::from_header(&Header { flags: 0, ..known }).unwrap();
        assert_ne!(
            ciphertext.place(Role::Server, 0),
            endpoints.place(Role::Server, 0)
        );
    }

    #[test]
    fn ipv6_text() {
        let address = Ipv6Addr::LOCALHOST.octets();
        let ends = Endpoints::from_header(&header(Family::V6, address, 1, address, 2))
            .unwrap()
            .ends
            .unwrap();
        assert_eq!((ends.0.text.as_str(), ends.1.port), ("::1", 2));
    }
}
