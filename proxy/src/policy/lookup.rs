//! From a destination to the decision on its connection: the most specific host entry wins.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::host::{Destination, Host, HostPattern};
use super::refusal::Refusal;
use super::rule::{Action, HostRule};

/// Ports that a host key without a port stands for.
pub(super) const DEFAULT_PORTS: [u16; 2] = [443, 80];

/// What becomes of hosts that no entry names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultAction {
    /// Refuse.
    #[default]
    Deny,
    /// Pass through unread.
    Tunnel,
}

/// What becomes of a connection.
#[derive(Clone, Debug)]
pub enum Decision<'p> {
    /// It is refused.
    Refuse(Refusal),
    /// Bytes pass unread; by this rule, or by `default = "tunnel"` where there is none.
    Tunnel(Option<&'p Arc<HostRule>>),
    /// TLS ends here and every request is judged by this rule.
    Intercept(&'p Arc<HostRule>),
}

/// The compiled `[hosts]` table.
#[derive(Debug, Default)]
pub struct Policy {
    default: DefaultAction,
    names: HashMap<Arc<str>, Ports>,
    addresses: HashMap<IpAddr, Ports>,
    below: HashMap<Arc<str>, Ports>,
    rules: Vec<Arc<HostRule>>,
}

/// The rules of one host, by port.
#[derive(Debug, Default)]
struct Ports {
    unspecific: Option<Arc<HostRule>>,
    specific: Vec<(u16, Arc<HostRule>)>,
}

/// Collects entries; two for the same hosts and port conflict.
#[derive(Debug, Default)]
pub struct PolicyBuilder(Policy);

impl PolicyBuilder {
    /// Starts from the action for hosts without an entry.
    pub fn new(default: DefaultAction) -> Self {
        Self(Policy { default, ..Policy::default() })
    }

    /// Adds an entry, or returns the one that stands for the same hosts and port already.
    pub fn add(&mut self, rule: HostRule) -> Result<(), Arc<HostRule>> {
        let rule = Arc::new(rule);
        let ports = match &rule.pattern {
            HostPattern::Exact(Host::Name(name)) => self.0.names.entry(name.clone()).or_default(),
            HostPattern::Exact(Host::Ip(address)) => self.0.addresses.entry(*address).or_default(),
            HostPattern::Below(suffix) => self.0.below.entry(suffix.clone()).or_default(),
        };
        match rule.port {
            None => match &ports.unspecific {
                Some(there) => return Err(there.clone()),
                None => ports.unspecific = Some(rule.clone()),
            },
            Some(port) => match ports.specific.iter().find(|(p, _)| *p == port) {
                Some((_, there)) => return Err(there.clone()),
                None => ports.specific.push((port, rule.clone())),
            },
        }
        self.0.rules.push(rule);
        Ok(())
    }

    /// The finished policy.
    pub fn build(self) -> Policy {
        self.0
    }
}

impl Ports {
    fn rule(&self, port: u16) -> Option<&Arc<HostRule>> {
        let specific = self.specific.iter().find(|(p, _)| *p == port).map(|(_, rule)| rule);
        specific.or_else(|| self.unspecific.as_ref().filter(|_| DEFAULT_PORTS.contains(&port)))
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        let unspecific = self.unspecific.as_ref().map(|_| DEFAULT_PORTS).into_iter().flatten();
        unspecific.chain(self.specific.iter().map(|(port, _)| *port))
    }
}

impl Policy {
    /// Decides what becomes of a connection to `destination`.
    pub fn decide(&self, destination: &Destination) -> Decision<'_> {
        match self.rule(destination) {
            Some(rule) => match rule.action {
                Action::Intercept => Decision::Intercept(rule),
                Action::Tunnel | Action::Direct => Decision::Tunnel(Some(rule)),
                Action::Deny => Decision::Refuse(Refusal::Denied {
                    destination: destination.clone(),
                    rule: rule.origin.clone(),
                }),
            },
            None => match self.default {
                DefaultAction::Tunnel => Decision::Tunnel(None),
                DefaultAction::Deny => Decision::Refuse(self.not_permitted(destination)),
            },
        }
    }

    /// The rule that speaks of a destination: the exact host before wildcards, the longest suffix first.
    pub fn rule(&self, destination: &Destination) -> Option<&Arc<HostRule>> {
        self.candidates(destination.host()).find_map(|ports| ports.rule(destination.port()))
    }

    /// Whether some port of this host is permitted: whether the stub resolver answers for the name.
    pub fn permits_host(&self, host: &Host) -> bool {
        let deciding = |port| self.candidates(host).find_map(|ports| ports.rule(port));
        let ports = self.candidates(host).flat_map(Ports::ports).chain(DEFAULT_PORTS);
        ports.into_iter().any(|port| match deciding(port) {
            Some(rule) => rule.action != Action::Deny,
            None => self.default == DefaultAction::Tunnel,
        })
    }

    /// Every port on which something is permitted, in ascending order.
    pub fn ports(&self) -> Vec<u16> {
        let permitted = self.rules.iter().filter(|rule| rule.action != Action::Deny);
        let mut ports: Vec<u16> = permitted
            .flat_map(|rule| rule.port.map_or_else(|| DEFAULT_PORTS.to_vec(), |port| vec![port]))
            .collect();
        if self.default == DefaultAction::Tunnel {
            ports.extend(DEFAULT_PORTS);
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// All entries, in the order they were written.
    pub fn rules(&self) -> &[Arc<HostRule>] {
        &self.rules
    }

    /// What becomes of hosts that no entry names.
    pub fn default_action(&self) -> DefaultAction {
        self.default
    }

    /// Entries that may speak of a host, the most specific first.
    fn candidates<'p, 'h>(&'p self, host: &'h Host) -> impl Iterator<Item = &'p Ports> + use<'p, 'h> {
        let (exact, name) = match host {
            Host::Name(name) => (self.names.get(name), Some(&**name)),
            Host::Ip(address) => (self.addresses.get(address), None),
        };
        let suffixes = std::iter::successors(name, |name| name.split_once('.').map(|(_, rest)| rest)).skip(1);
        exact.into_iter().chain(suffixes.filter_map(|suffix| self.below.get(suffix)))
    }

    fn not_permitted(&self, destination: &Destination) -> Refusal {
        let mut ports: Vec<u16> = self.candidates(destination.host()).flat_map(Ports::ports).collect();
        ports.sort_unstable();
        ports.dedup();
        if ports.is_empty() {
            Refusal::HostNotInPolicy { destination: destination.clone() }
        } else {
            Refusal::PortNotInPolicy { destination: destination.clone(), ports }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::RuleOrigin;
    use super::*;

    fn rule(key: &str, action: Action) -> HostRule {
        let (pattern, port) = HostPattern::parse(key).unwrap();
        let origin = RuleOrigin { file: key.into(), line: None };
        HostRule { pattern, port, origin, action, credential: None, routes: vec![] }
    }

    fn policy(default: DefaultAction, entries: &[(&str, Action)]) -> Policy {
        let mut builder = PolicyBuilder::new(default);
        for (key, action) in entries {
            builder.add(rule(key, *action)).unwrap();
        }
        builder.build()
    }

    /// Short form of a decision: the key of the rule and what it does.
    fn decide(policy: &Policy, destination: &str) -> String {
        match policy.decide(&Destination::parse(destination, None).unwrap()) {
            Decision::Refuse(Refusal::Denied { rule, .. }) => format!("denied by {rule}"),
            Decision::Refuse(Refusal::PortNotInPolicy { ports, .. }) => format!("ports {ports:?}"),
            Decision::Refuse(Refusal::HostNotInPolicy { .. }) => "unknown host".into(),
            Decision::Refuse(other) => panic!("{other:?}"),
            Decision::Tunnel(None) => "tunnel by default".into(),
            Decision::Tunnel(Some(rule)) => format!("tunnel by {}", rule.origin),
            Decision::Intercept(rule) => format!("intercept by {}", rule.origin),
        }
    }

    #[test]
    fn the_most_specific_entry_wins_whatever_the_order() {
        let mut entries = vec![
            ("*.corp.test", Action::Tunnel),
            ("*.git.corp.test", Action::Intercept),
            ("evil.git.corp.test", Action::Deny),
            ("git.corp.test", Action::Intercept),
            ("git.corp.test:8443", Action::Tunnel),
            ("direct.test", Action::Direct),
            ("192.0.2.7", Action::Tunnel),
        ];
        for _ in 0..entries.len() {
            entries.rotate_left(1);
            let policy = policy(DefaultAction::Deny, &entries);
            for (destination, expected) in [
                ("a.corp.test:443", "tunnel by *.corp.test"),
                ("a.corp.test:80", "tunnel by *.corp.test"),
                ("a.corp.test:22", "ports [80, 443]"),
                ("corp.test:443", "unknown host"),
                ("notcorp.test:443", "unknown host"),
                ("git.corp.test:443", "intercept by git.corp.test"),
                ("git.corp.test:8443", "tunnel by git.corp.test:8443"),
                ("a.git.corp.test:443", "intercept by *.git.corp.test"),
                ("a.b.git.corp.test:443", "intercept by *.git.corp.test"),
                ("evil.git.corp.test:443", "denied by evil.git.corp.test"),
                ("direct.test:443", "tunnel by direct.test"),
                ("192.0.2.7:443", "tunnel by 192.0.2.7"),
                ("192.0.2.8:443", "unknown host"),
            ] {
                assert_eq!(decide(&policy, destination), expected, "{destination}");
            }
        }
    }

    #[test]
    fn the_default_applies_to_hosts_without_an_entry_on_any_port() {
        let policy = policy(DefaultAction::Tunnel, &[("no.test", Action::Deny)]);
        assert_eq!(decide(&policy, "x.test:22"), "tunnel by default");
        assert_eq!(decide(&policy, "no.test:443"), "denied by no.test");
    }

    #[test]
    fn two_entries_for_the_same_hosts_conflict() {
        let mut builder = PolicyBuilder::new(DefaultAction::Deny);
        builder.add(rule("a.test", Action::Deny)).unwrap();
        builder.add(rule("a.test:443", Action::Tunnel)).unwrap();
        assert_eq!(builder.add(rule("A.test.", Action::Tunnel)).unwrap_err().origin.to_string(), "a.test");
        assert_eq!(builder.add(rule("a.test:443", Action::Deny)).unwrap_err().port, Some(443));
    }

    #[test]
    fn names_are_answered_when_some_port_is_permitted() {
        let policy = policy(
            DefaultAction::Deny,
            &[("a.test:22", Action::Tunnel), ("*.b.test", Action::Tunnel), ("no.b.test", Action::Deny)],
        );
        for (name, expected) in
            [("a.test", true), ("x.b.test", true), ("b.test", false), ("no.b.test", false), ("c.test", false)]
        {
            assert_eq!(policy.permits_host(&Host::parse(name).unwrap()), expected, "{name}");
        }
        assert_eq!(policy.ports(), [22, 80, 443]);
    }
}
