//! Keys of addresses in networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::numbers::whole_key;
use super::{AsKey, Key, KeyDecoder, KeyError};

impl AsKey<Ipv4Addr> for Ipv4Addr {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.octets());
    }
}

impl Key for Ipv4Addr {
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        input.take::<4>().map(Self::from)
    }

    fn schema() -> String {
        "ipv4".into()
    }
}

impl AsKey<Ipv6Addr> for Ipv6Addr {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.octets());
    }
}

impl Key for Ipv6Addr {
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        input.take::<16>().map(Self::from)
    }

    fn schema() -> String {
        "ipv6".into()
    }
}

impl AsKey<IpAddr> for IpAddr {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(address) => {
                out.push(4);
                address.encode(out);
            }
            Self::V6(address) => {
                out.push(6);
                address.encode(out);
            }
        }
    }
}

impl Key for IpAddr {
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        match input.byte()? {
            4 => Ipv4Addr::decode(input).map(Self::V4),
            6 => Ipv6Addr::decode(input).map(Self::V6),
            other => Err(input.error(format!("{other} is no version of an address"))),
        }
    }

    fn schema() -> String {
        "ip".into()
    }
}

whole_key!(Ipv4Addr, Ipv6Addr, IpAddr);
