//! Settings of the edge to the outside: who is believed, how often anybody may ask, and HTTPS.

use std::num::NonZeroU32;
use std::path::PathBuf;

use ipnet::IpNet;

use super::reader::Reader;

/// Requests of REST a minute.
#[derive(Clone, Copy, Debug)]
pub struct RestQuotas {
    /// With one key.
    pub per_key: NonZeroU32,
    /// From one address, without a key.
    pub per_address: NonZeroU32,
    /// From one address, with keys that are not known to be good.
    pub wrong_keys: NonZeroU32,
}

/// Where the certificate and its key are, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, ours first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The edge to the outside.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Networks of the proxies that are believed about addresses.
    pub trusted_proxies: Vec<IpNet>,
    /// Requests of REST.
    pub rest: RestQuotas,
    /// HTTPS instead of HTTP, when given.
    pub tls: Option<TlsFiles>,
    /// Messages of one printer a minute.
    pub messages: NonZeroU32,
}

pub(super) fn read_edge(read: &mut Reader<'_>) -> Edge {
    let trusted_proxies = read.parsed("TRUSTED_PROXIES", Vec::new(), |text| {
        let networks = text.split(',').map(str::trim).filter(|one| !one.is_empty());
        networks
            .map(|one| {
                network(one).ok_or_else(|| {
                    format!("`{one}` is not a network such as 10.0.0.0/8 or fd00::/8, or an address")
                })
            })
            .collect()
    });
    let mut rate = |name, default: u32| {
        let default = NonZeroU32::new(default).unwrap_or(NonZeroU32::MAX);
        read.number(name, default, NonZeroU32::MIN, NonZeroU32::MAX)
    };
    let rest = RestQuotas {
        per_key: rate("REQUESTS_PER_KEY", 12_000),
        per_address: rate("REQUESTS_PER_ADDRESS", 12_000),
        wrong_keys: rate("WRONG_KEYS_PER_ADDRESS", 300),
    };
    let messages = rate("MESSAGES_PER_PRINTER", 600);
    let tls = match (read.text("TLS_CERT_FILE"), read.text("TLS_KEY_FILE")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate: certificate.into(), key: key.into() }),
        _ => {
            read.wrong
                .push("TLS_CERT_FILE and TLS_KEY_FILE go together: set both, or none for plain HTTP.".into());
            None
        }
    };
    Edge { trusted_proxies, rest, tls, messages }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse().ok().map(|address: std::net::IpAddr| address.into()))
}

#[cfg(test)]
mod tests {
    use super::super::{Auth, Config, Error};

    fn read(pairs: &[(&str, &str)]) -> Result<Config, Error> {
        Config::from_lookup(&|name| match pairs.iter().find(|(key, _)| *key == name) {
            None if name == "DATABASE_URL" => Some("postgres://u:hunter2@db/pm".into()),
            found => found.map(|(_, value)| (*value).to_owned()),
        })
    }

    fn complaint(pairs: &[(&str, &str)]) -> String {
        read(pairs).map(|_| ()).map_err(|error| error.to_string()).unwrap_err()
    }

    #[test]
    fn trusted_proxies_are_networks_or_addresses() {
        let edge = read(&[("TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8,192.0.2.7,")]).unwrap().edge;
        let shown: Vec<_> = edge.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"]);
        assert!(read(&[]).unwrap().edge.trusted_proxies.is_empty());
        let text = complaint(&[("TRUSTED_PROXIES", "10.0.0.0/8,ingress")]);
        assert!(text.contains("TRUSTED_PROXIES") && text.contains("`ingress` is not a network"), "{text}");
    }

    #[test]
    fn a_certificate_has_a_key() {
        let text = complaint(&[("TLS_CERT_FILE", "/tls/crt")]);
        assert!(text.contains("TLS_CERT_FILE and TLS_KEY_FILE go together"), "{text}");
        assert!(
            read(&[("TLS_CERT_FILE", "/tls/crt"), ("TLS_KEY_FILE", "/tls/key")]).unwrap().edge.tls.is_some()
        );
    }

    #[test]
    fn an_open_server_on_the_network_must_be_asked_for_twice() {
        for listen in ["0.0.0.0:8000", "192.0.2.7:8000", "[::]:8000"] {
            let off = [("AUTH", "off"), ("LISTEN_ADDR", listen)];
            let text = complaint(&off);
            assert!(
                text.contains("AUTH=`off`") && text.contains("OPEN_TO_EVERYBODY_WHO_REACHES_IT=yes"),
                "{text}"
            );
            let sure = read(&[&off[..], &[("OPEN_TO_EVERYBODY_WHO_REACHES_IT", "yes")]].concat()).unwrap();
            assert!(matches!(sure.auth, Auth::Off));
            let typo = complaint(&[&off[..], &[("OPEN_TO_EVERYBODY_WHO_REACHES_IT", "true")]].concat());
            assert!(typo.contains("OPEN_TO_EVERYBODY_WHO_REACHES_IT=`true`"), "{typo}");
        }
        for listen in ["127.0.0.1:8000", "[::1]:8000"] {
            assert!(matches!(read(&[("AUTH", "off"), ("LISTEN_ADDR", listen)]).unwrap().auth, Auth::Off));
        }
        let on = read(&[("OPEN_TO_EVERYBODY_WHO_REACHES_IT", "yes")]).unwrap();
        assert!(matches!(on.auth, Auth::On { .. }), "alone it opens nothing");
    }
}
