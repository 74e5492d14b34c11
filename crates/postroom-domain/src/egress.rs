//! Where deliveries may go: the rule that keeps endpoints from reaching into the operator's network.
//!
//! The rule is "globally reachable or allowed by the operator", not a list of the bad addresses somebody thought of.
//! This module looks at URLs and addresses only. It never resolves a name: whoever connects has to ask
//! [`Policy::check_addr`] about every address the name led to, and to dial exactly those.
//!
//! The ranges are those of the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890 and its updates).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::Host;

use crate::Invalid;
use crate::endpoint::EndpointUrl;

/// Which addresses and ports may be connected to.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    allow: Vec<IpNet>,
    own: Vec<SocketAddr>,
}

/// Why an address may not be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// Not reachable from the whole Internet, and not allowed by the operator.
    #[error("{address} is {range}, which deliveries may not reach")]
    NotPublic {
        /// The address, an IPv4 address inside IPv6 taken out.
        address: IpAddr,
        /// What kind of address it is.
        range: &'static str,
    },
    /// This server itself.
    #[error("{0} is this server itself")]
    Itself(SocketAddr),
    /// A port on which no webhook receiver listens, but something that must not be talked to by accident does.
    #[error("port {0} belongs to another kind of service")]
    Port(u16),
}

impl Policy {
    /// A policy that lets through what is globally reachable, and the networks in `allow` whatever they are.
    ///
    /// `own` are the addresses this server listens on; they are refused even inside `allow`. An unspecified address
    /// (`0.0.0.0:8080`) stands for every address of this machine with that port: see [`Policy::check_connected`].
    #[must_use]
    pub fn new(allow: Vec<IpNet>, own: Vec<SocketAddr>) -> Self {
        let own = own.into_iter().map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port())).collect();
        Self { allow: allow.into_iter().map(canonical_net).collect(), own }
    }

    /// Whether a URL may be the URL of an endpoint, as far as can be told without resolving a name.
    ///
    /// # Errors
    /// Code `blocked_address` or `blocked_port`, and what the operator can do about it.
    pub fn check_url(&self, url: &EndpointUrl) -> Result<(), Invalid> {
        let url = url.as_url();
        let port = url.port_or_known_default().unwrap_or(0);
        let literal = |ip: IpAddr| self.check_addr(SocketAddr::new(ip, port)).map_err(Invalid::from);
        match url.host() {
            Some(Host::Ipv4(ip)) => literal(ip.into()),
            Some(Host::Ipv6(ip)) => literal(ip.into()),
            Some(Host::Domain(name)) if is_localhost(name) => literal(Ipv4Addr::LOCALHOST.into())
                .or_else(|first| literal(Ipv6Addr::LOCALHOST.into()).map_err(|_| first)),
            // With a list of allowed networks only the address can tell whether the port is allowed.
            Some(Host::Domain(_)) if self.allow.is_empty() && is_denied_port(port) => Err(Blocked::Port(port).into()),
            Some(Host::Domain(_)) => Ok(()),
            None => Err(Invalid::new("invalid_url", "the URL has no host")),
        }
    }

    /// Whether a connection to this address may be made.
    ///
    /// # Errors
    /// Why not.
    pub fn check_addr(&self, addr: SocketAddr) -> Result<(), Blocked> {
        let ip = addr.ip().to_canonical();
        if self.is_own(ip, addr.port(), ip.is_loopback()) {
            return Err(Blocked::Itself(addr));
        }
        // These are nobody's address: no list of networks, however wide, was meant to open them.
        let nobody = ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        if !nobody && self.allow.iter().any(|net| net.contains(&ip)) {
            return Ok(());
        }
        if let Some(range) = special_range(ip) {
            return Err(Blocked::NotPublic { address: ip, range });
        }
        if is_denied_port(addr.port()) { Err(Blocked::Port(addr.port())) } else { Ok(()) }
    }

    /// Whether a connection that was just made may be used. A connection between two equal addresses is one of this
    /// machine to itself, whichever of its interfaces it was, so a listener on all interfaces is found without asking
    /// the system for them.
    ///
    /// # Errors
    /// It leads to this server itself.
    pub fn check_connected(&self, local: SocketAddr, peer: SocketAddr) -> Result<(), Blocked> {
        let ip = peer.ip().to_canonical();
        let to_this_machine = local.ip().to_canonical() == ip;
        if self.is_own(ip, peer.port(), to_this_machine) { Err(Blocked::Itself(peer)) } else { Ok(()) }
    }

    fn is_own(&self, ip: IpAddr, port: u16, on_this_machine: bool) -> bool {
        let of_all_interfaces = |own: &SocketAddr| own.ip().is_unspecified() && on_this_machine;
        self.own.iter().any(|own| own.port() == port && (own.ip() == ip || of_all_interfaces(own)))
    }
}

impl From<Blocked> for Invalid {
    fn from(blocked: Blocked) -> Self {
        match blocked {
            Blocked::NotPublic { .. } => Self::new(
                "blocked_address",
                format!("{blocked}; the operator can allow networks with POSTROOM_ALLOW_PRIVATE_NETWORKS"),
            ),
            Blocked::Itself(_) => Self::new("blocked_address", format!("{blocked}; give the address of your receiver")),
            Blocked::Port(_) => {
                Self::new("blocked_port", format!("{blocked}; use 443, 80 or a port of your own above 1024"))
            }
        }
    }
}

/// An IPv4 network written as an IPv4-mapped IPv6 one is the IPv4 network: addresses are compared in that form.
fn canonical_net(net: IpNet) -> IpNet {
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(net, IpNet::V4),
            None => net,
        },
        IpNet::V4(_) | IpNet::V6(_) => net,
    }
}

/// RFC 6761: these names mean this machine, whatever a resolver says.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Ports of services that speak something else and believe whoever can reach them, in order.
const DENIED_PORTS: [u16; 45] = [
    0, 7, 9, 19, 22, 23, 25, 53, 110, 111, 135, 139, 143, 389, 445, 465, 514, 587, 636, 873, 993, 995, 1433, 1521,
    2049, 2181, 2375, 2376, 2379, 2380, 2525, 3306, 3389, 4222, 5432, 5672, 5900, 6379, 9042, 9092, 9200, 9300, 10250,
    11211, 27017,
];

fn is_denied_port(port: u16) -> bool {
    DENIED_PORTS.binary_search(&port).is_ok()
}

/// What kind of special address this is; `None` when it is globally reachable.
fn special_range(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => SPECIAL_V4.iter().find(|(net, _)| net.contains(&ip)).map(|(_, range)| *range),
        IpAddr::V6(ip) => special_v6(ip),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 3], prefix: u8) -> Ipv6Net {
    let [a, b, c] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

const SPECIAL_V4: [(Ipv4Net, &str); 18] = [
    (v4(0, 0, 0, 0, 8), "an address of \"this network\""),
    (v4(10, 0, 0, 0, 8), "a private address"),
    (v4(100, 64, 0, 0, 10), "a shared address (carrier-grade NAT)"),
    (v4(127, 0, 0, 0, 8), "a loopback address"),
    (v4(168, 63, 129, 16, 32), "a cloud provider's metadata address"),
    (v4(169, 254, 0, 0, 16), "a link-local address"),
    (v4(172, 16, 0, 0, 12), "a private address"),
    (v4(192, 0, 0, 0, 24), "a protocol address"),
    (v4(192, 0, 2, 0, 24), "a documentation address"),
    (v4(192, 31, 196, 0, 24), "a protocol address"),
    (v4(192, 52, 193, 0, 24), "a protocol address"),
    (v4(192, 88, 99, 0, 24), "a 6to4 relay address"),
    (v4(192, 168, 0, 0, 16), "a private address"),
    (v4(198, 18, 0, 0, 15), "a benchmarking address"),
    (v4(198, 51, 100, 0, 24), "a documentation address"),
    (v4(203, 0, 113, 0, 24), "a documentation address"),
    (v4(224, 0, 0, 0, 4), "a multicast address"),
    (v4(240, 0, 0, 0, 4), "a reserved address"),
];

/// Names for what lies outside of 2000::/3, which as a whole is refused, and the exceptions inside of it.
const SPECIAL_V6: [(Ipv6Net, &str); 10] = [
    (v6([0x0064, 0xff9b, 0], 96), "an address translated to IPv4 (NAT64)"),
    (v6([0x0064, 0xff9b, 1], 48), "an address translated to IPv4 (NAT64)"),
    (v6([0x2001, 0, 0], 32), "an address tunnelled to IPv4 (Teredo)"),
    (v6([0x2001, 0, 0], 23), "a protocol address"),
    (v6([0x2001, 0x0db8, 0], 32), "a documentation address"),
    (v6([0x2002, 0, 0], 16), "an address tunnelled to IPv4 (6to4)"),
    (v6([0x3fff, 0, 0], 20), "a documentation address"),
    (v6([0xfc00, 0, 0], 7), "a private address"),
    (v6([0xfe80, 0, 0], 10), "a link-local address"),
    (v6([0xff00, 0, 0], 8), "a multicast address"),
];

fn special_v6(ip: Ipv6Addr) -> Option<&'static str> {
    const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0], 3);
    if ip.is_loopback() {
        return Some("a loopback address");
    }
    if let Some((_, range)) = SPECIAL_V6.iter().find(|(net, _)| net.contains(&ip)) {
        return Some(range);
    }
    if !GLOBAL_UNICAST.contains(&ip) {
        return Some("not a global address");
    }
    // ISATAP (RFC 5214) writes any IPv4 address behind ::0:5efe or ::200:5efe of any prefix.
    let segments = ip.segments();
    (segments[4] & !0x0200 == 0 && segments[5] == 0x5efe).then_some("an address tunnelled to IPv4 (ISATAP)")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(allow: &[&str], own: &[&str]) -> Policy {
        Policy::new(
            allow.iter().map(|net| net.parse().unwrap()).collect(),
            own.iter().map(|addr| addr.parse().unwrap()).collect(),
        )
    }

    fn url_code(policy: &Policy, url: &str) -> Option<&'static str> {
        policy.check_url(&EndpointUrl::parse(url).unwrap()).err().map(|invalid| invalid.code)
    }

    #[test]
    fn special_addresses_are_refused_in_every_family() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.31.196.1",
            "192.52.193.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "100:0:0:1::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:30::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:808:808::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "2a00:1450::5efe:7f00:1",
            "2a00:1450::200:5efe:a00:1",
        ] {
            let addr = SocketAddr::new(ip.parse().unwrap(), 443);
            assert!(matches!(Policy::default().check_addr(addr), Err(Blocked::NotPublic { .. })), "{ip}");
        }
    }

    #[test]
    fn addresses_of_the_whole_internet_pass() {
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "168.63.129.17",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.255.255",
            "198.17.0.1",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "3ffe::1",
            "3fff:1000::1",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(Policy::default().check_addr(SocketAddr::new(ip.parse().unwrap(), 443)), Ok(()), "{ip}");
        }
    }

    #[test]
    fn every_spelling_of_a_literal_has_the_verdict_of_the_plain_one() {
        for url in [
            "http://127.0.0.1/",
            "http://127.0.0.1./",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://0177.0000.0000.01/",
            "http://017700000001/",
            "http://127.0.0.1:8081/",
            "http://１２７.0.0.1/",
            "http://①②⑦.0.0.1/",
            "http://127。0。0。1/",
            "http://%31%32%37.0.0.1/",
            "http://[::1]/",
            "http://[0:0:0:0:0:0:0:1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::127.0.0.1]/",
            "http://0/",
            "http://0.0.0.0/",
            "http://[::]/",
            "https://10.0.0.1/",
            "https://169.254.169.254/latest/meta-data/",
            "http://LOCALHOST/",
            "http://localhost./",
            "http://a.localhost/",
            "http://[64:ff9b::10.0.0.1]/",
            "http://[2002:a00:1::]/",
        ] {
            assert_eq!(url_code(&Policy::default(), url), Some("blocked_address"), "{url}");
        }
        for url in ["https://example.com/", "https://8.8.8.8/", "https://[2606:4700::1111]:8443/", "http://a.internal/"]
        {
            assert_eq!(url_code(&Policy::default(), url), None, "{url}");
        }
    }

    #[test]
    fn allowed_networks_open_exactly_themselves() {
        let local = policy(&["127.0.0.0/8", "fd00::/8"], &[]);
        for (url, code) in [
            ("http://127.0.0.1:9000/", None),
            ("http://127.0.0.1:6379/", None),
            ("http://[::ffff:127.0.0.1]:9000/", None),
            ("http://localhost:9000/", None),
            ("http://[fd00::1]/", None),
            ("http://[::1]:9000/", Some("blocked_address")),
            ("http://10.0.0.1/", Some("blocked_address")),
            ("http://8.8.8.8:25/", Some("blocked_port")),
        ] {
            assert_eq!(url_code(&local, url), code, "{url}");
        }
        let mapped = policy(&["::ffff:10.0.0.0/104"], &[]);
        assert_eq!(mapped.check_addr("10.1.2.3:80".parse().unwrap()), Ok(()));
        let everything = policy(&["0.0.0.0/0", "::/0"], &[]);
        for nobody in ["0.0.0.0:80", "[::]:80", "224.0.0.1:80", "255.255.255.255:80", "[ff02::1]:80"] {
            assert!(everything.check_addr(nobody.parse().unwrap()).is_err(), "{nobody}");
        }
    }

    #[test]
    fn ports_of_other_services_are_refused_unless_the_address_is_allowed() {
        for port in [22, 25, 53, 465, 587, 3306, 5432, 6379, 9200, 11211, 27017] {
            assert_eq!(url_code(&Policy::default(), &format!("http://example.com:{port}/")), Some("blocked_port"));
            assert_eq!(url_code(&Policy::default(), &format!("http://8.8.8.8:{port}/")), Some("blocked_port"));
            assert_eq!(url_code(&policy(&["10.0.0.0/8"], &[]), &format!("http://example.com:{port}/")), None);
            assert_eq!(url_code(&policy(&["10.0.0.0/8"], &[]), &format!("http://10.0.0.1:{port}/")), None);
        }
        assert!(DENIED_PORTS.is_sorted(), "searched by halves");
    }

    #[test]
    fn this_server_is_refused_even_in_an_allowed_network() {
        let on_loopback = policy(&["127.0.0.0/8", "10.0.0.0/8"], &["127.0.0.1:8080", "10.0.0.5:9090"]);
        for (addr, refused) in [
            ("127.0.0.1:8080", true),
            ("[::ffff:127.0.0.1]:8080", true),
            ("127.0.0.1:8081", false),
            ("127.0.0.2:8080", false),
            ("10.0.0.5:9090", true),
        ] {
            let addr = addr.parse().unwrap();
            assert_eq!(on_loopback.check_addr(addr) == Err(Blocked::Itself(addr)), refused, "{addr}");
        }
        let everywhere = policy(&["127.0.0.0/8", "10.0.0.0/8"], &["0.0.0.0:8080"]);
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(everywhere.check_addr(addr("127.0.0.2:8080")), Err(Blocked::Itself(addr("127.0.0.2:8080"))));
        assert_eq!(everywhere.check_addr(addr("10.0.0.5:8080")), Ok(()), "only the connection can tell");
        let connected = |local, peer| everywhere.check_connected(addr(local), addr(peer)).is_err();
        assert!(connected("10.0.0.5:51000", "10.0.0.5:8080"));
        assert!(!connected("10.0.0.5:51000", "10.0.0.5:8081"));
        assert!(!connected("10.0.0.5:51000", "10.0.0.6:8080"));
    }

    proptest! {
        #[test]
        fn an_ipv4_address_inside_ipv6_is_never_let_through_where_the_plain_one_is_not(bits: u32, port: u16) {
            let plain = Ipv4Addr::from_bits(bits);
            let verdict = Policy::default().check_addr(SocketAddr::new(plain.into(), port)).is_ok();
            let mapped = SocketAddr::new(plain.to_ipv6_mapped().into(), port);
            prop_assert_eq!(Policy::default().check_addr(mapped).is_ok(), verdict);
            let [a, b] = [(bits >> 16) as u16, (bits & 0xffff) as u16];
            for hidden in [
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, a, b),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, a, b),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b),
                Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !a, !b),
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x5efe, a, b),
                Ipv6Addr::new(0x2a00, 1, 2, 3, 0x0200, 0x5efe, a, b),
            ] {
                prop_assert!(Policy::default().check_addr(SocketAddr::new(hidden.into(), port)).is_err(), "{}", hidden);
            }
        }

        #[test]
        fn a_literal_in_a_url_has_the_verdict_of_its_address(bits: u32, six: u128, port in 1_u16..) {
            for ip in [IpAddr::from(Ipv4Addr::from_bits(bits)), IpAddr::from(Ipv6Addr::from_bits(six))] {
                let addr = SocketAddr::new(ip, port);
                let url = EndpointUrl::parse(&format!("http://{addr}/")).unwrap();
                for policy in [Policy::default(), policy(&["0.0.0.0/1", "8000::/1"], &[])] {
                    prop_assert_eq!(policy.check_url(&url).is_ok(), policy.check_addr(addr).is_ok());
                }
            }
            let number = EndpointUrl::parse(&format!("http://{bits}:{port}/")).unwrap();
            let plain = SocketAddr::new(Ipv4Addr::from_bits(bits).into(), port);
            prop_assert_eq!(Policy::default().check_url(&number).is_ok(), Policy::default().check_addr(plain).is_ok());
        }
    }
}
