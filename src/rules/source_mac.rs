//! SRC-MAC: the Ethernet address of the LAN device. headgate's own; mihomo has none.
//!
//! The tunnel looks the address up in the neighbour table when [`super::Rules::needs`]; a
//! flow without one (the router's own, a device behind another router) never matches.

use super::PayloadError;
use super::matcher::{Condition, Key, Known, Matcher, Needs, Payload, Truth};
use crate::metadata::Mac;

/// `SRC-MAC,aa:bb:cc:00:11:22`.
#[derive(Debug)]
struct SourceMac(Mac);

impl Matcher for SourceMac {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask(|metadata| metadata.source_mac == Some(self.0))
    }

    fn key(&self) -> Key<'_> {
        Key::Mac(self.0)
    }

    fn needs(&self) -> Needs {
        Needs {
            mac: true,
            ..Needs::default()
        }
    }
}

/// Reads `SRC-MAC`.
pub(super) fn source_mac(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let mac: Mac = payload.text.parse().map_err(PayloadError::Mac)?;
    Ok(Condition::new("SrcMAC", mac.to_string(), SourceMac(mac)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Endpoint, InboundType, Metadata, Network, NotMac};
    use crate::rules::{RuleError, RuleLine};
    use std::sync::Arc;

    #[test]
    fn a_device_is_known_by_its_address_alone() {
        let mut flow = Metadata::new(
            Network::Tcp,
            InboundType::TProxy,
            &Arc::from("in"),
            "10.0.0.1:1000".parse().unwrap(),
            Endpoint::parse("a.b:2000").unwrap(),
        );
        let line = RuleLine::parse("SRC-MAC,AA:BB:CC:00:11:22,p").unwrap();
        assert!(line.matcher().needs().mac);
        assert_eq!(line.matcher().truth(&Known::flow(&flow, true)), Truth::No);
        flow.source_mac = Some(Mac([0xaa, 0xbb, 0xcc, 0, 0x11, 0x22]));
        assert_eq!(line.matcher().truth(&Known::flow(&flow, true)), Truth::Yes);
        flow.source_mac = Some(Mac([0xaa, 0xbb, 0xcc, 0, 0x11, 0x23]));
        assert_eq!(line.matcher().truth(&Known::flow(&flow, true)), Truth::No);
        assert!(matches!(
            RuleLine::parse("SRC-MAC,aa:bb,p"),
            Err(RuleError::Payload {
                why: PayloadError::Mac(NotMac),
                ..
            })
        ));
    }
}
