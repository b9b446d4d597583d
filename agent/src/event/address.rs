//! Addresses as the kernel side keeps them: four words in network byte order, IPv4 in its mapped form.

use std::net::{IpAddr, Ipv6Addr};

use agent_common::connection::mapped;

/// The address; an IPv4-mapped one as IPv4.
#[must_use]
pub fn from_words(words: &[u32; 4]) -> IpAddr {
    let mut bytes = [0; 16];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(bytes).to_canonical()
}

/// The words of an address.
#[must_use]
pub fn to_words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => mapped(u32::from_ne_bytes(address.octets())),
        IpAddr::V6(address) => {
            let mut words = [0; 4];
            for (word, bytes) in words.iter_mut().zip(address.octets().chunks_exact(4)) {
                *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            words
        }
    }
}

/// What kind of address it is: how far away its owner may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// This network namespace itself (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
    Loopback,
    /// The same link (RFC 3927, RFC 4291 section 2.5.6).
    LinkLocal,
    /// A private network (RFC 1918, unique local addresses of RFC 4193).
    Private,
    /// Between a provider and its customers (RFC 6598); some clusters and overlay networks use it inside.
    Shared,
    /// Anything else.
    Public,
}

/// The scope of an address.
#[must_use]
pub const fn scope(address: IpAddr) -> Scope {
    match address {
        IpAddr::V4(v4) if v4.is_loopback() => Scope::Loopback,
        IpAddr::V4(v4) if v4.is_link_local() => Scope::LinkLocal,
        IpAddr::V4(v4) if v4.is_private() => Scope::Private,
        IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64 => Scope::Shared,
        IpAddr::V6(v6) if v6.is_loopback() => Scope::Loopback,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Scope::LinkLocal,
        IpAddr::V6(v6) if v6.is_unique_local() => Scope::Private,
        _ => Scope::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_end_where_their_networks_end() {
        for (addresses, expected) in [
            (&["127.0.0.1", "127.255.255.255", "::1"][..], Scope::Loopback),
            (&["169.254.169.254", "fe80::1", "febf::1"], Scope::LinkLocal),
            (&["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "fd00::1", "fc00::1"], Scope::Private),
            (&["100.64.0.1", "100.127.255.255"], Scope::Shared),
            (&["100.63.255.255", "100.128.0.0", "172.32.0.1", "192.169.0.1", "8.8.8.8", "2001:db8::1"], Scope::Public),
        ] {
            for address in addresses {
                assert_eq!(scope(address.parse().unwrap()), expected, "{address}");
            }
        }
    }

    #[test]
    fn words_and_back() {
        for text in ["127.0.0.1", "::1", "fd00::7", "2001:db8::ff00:1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(from_words(&to_words(address)), address);
        }
    }

    #[test]
    fn a_mapped_address_is_ipv4() {
        assert_eq!(from_words(&to_words("::ffff:10.0.0.1".parse().unwrap())).to_string(), "10.0.0.1");
    }
}
