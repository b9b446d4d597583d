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

#[cfg(test)]
mod tests {
    use super::*;

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
