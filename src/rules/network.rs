//! NETWORK: TCP or UDP.

use super::PayloadError;
use super::matcher::{Condition, Known, Matcher, Payload, Truth};
use crate::metadata::Network;

/// `NETWORK,udp`.
#[derive(Debug)]
struct Is(Network);

impl Matcher for Is {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask(|metadata| metadata.network == self.0)
    }
}

/// Reads `NETWORK`, in any case.
pub(super) fn network(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let network = [Network::Tcp, Network::Udp]
        .into_iter()
        .find(|network| network.as_str().eq_ignore_ascii_case(payload.text))
        .ok_or(PayloadError::Network)?;
    Ok(Condition::new("Network", network.as_str(), Is(network)))
}

#[cfg(test)]
mod tests {
    use crate::metadata::{Endpoint, InboundType, Metadata, Network};
    use crate::rules::matcher::{Known, Truth};
    use crate::rules::{PayloadError, RuleError, RuleLine};
    use std::sync::Arc;

    #[test]
    fn network_is_tcp_or_udp() {
        let flow = Metadata::new(
            Network::Udp,
            InboundType::TProxy,
            &Arc::from("in"),
            "10.0.0.1:1000".parse().unwrap(),
            Endpoint::parse("a.b:2000").unwrap(),
        );
        for (payload, want) in [("UDP", Truth::Yes), ("tcp", Truth::No)] {
            let line = RuleLine::parse(&format!("NETWORK,{payload},p")).unwrap();
            assert_eq!(line.matcher().truth(&Known::flow(&flow, true)), want);
        }
        assert!(matches!(
            RuleLine::parse("NETWORK,icmp,p"),
            Err(RuleError::Payload {
                why: PayloadError::Network,
                ..
            })
        ));
    }
}
