//! Nodes that proxy providers bring, and which of them a group takes (clash-api.md 3.9 and 3.10). Pure.
//!
//! A provider's nodes change while the program runs; the registry is built anew then, and groups take
//! their members out of what there is.

use std::collections::HashSet;
use std::sync::Arc;

use super::name_filter::NameFilter;
use super::options::{ProxyOptions, TestOptions};

/// What a provider has at the moment.
#[derive(Clone, Debug)]
pub struct ProviderNodes {
    /// Its name.
    pub name: Box<str>,
    /// `health-check`; without periodic tests unless it is enabled.
    pub test: TestOptions,
    /// Its nodes, filtered and renamed, none twice.
    pub nodes: Arc<[ProxyOptions]>,
}

/// What a group takes from providers.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `use`, or every provider.
    pub providers: Vec<Box<str>>,
    /// `filter`: the order of the expressions is the order of the nodes; empty: all.
    pub filter: Vec<NameFilter>,
    /// `exclude-filter`.
    pub exclude: Vec<NameFilter>,
    /// `exclude-type`: names of types, in lower case.
    pub exclude_types: Vec<Box<str>>,
}

impl Wanted {
    /// Those of `nodes`, given by name and type, that the group takes, none twice: their indexes.
    #[must_use]
    pub fn choose(&self, nodes: &[(&str, &str)]) -> Vec<usize> {
        let wanted = |&(_, (name, kind)): &(usize, &(&str, &str))| {
            let mut types = self.exclude_types.iter();
            !types.any(|excluded| excluded.eq_ignore_ascii_case(kind))
                && !self.exclude.iter().any(|filter| filter.matches(name))
        };
        let left: Vec<_> = nodes.iter().enumerate().filter(wanted).collect();
        let (mut taken, mut chosen) = (HashSet::new(), Vec::new());
        let mut take = |index: usize| {
            if taken.insert(index) {
                chosen.push(index);
            }
        };
        if self.filter.is_empty() {
            left.iter().for_each(|(index, _)| take(*index));
        }
        for filter in &self.filter {
            for (index, (name, _)) in &left {
                if filter.matches(name) {
                    take(*index);
                }
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(filter: &str, exclude: &str, types: &str, want: &[usize]) {
        let list = |text: &str| match text {
            "" => Vec::new(),
            text => NameFilter::parse_list(text).unwrap(),
        };
        let wanted = Wanted {
            filter: list(filter),
            exclude: list(exclude),
            exclude_types: types.split('|').map(Into::into).collect(),
            ..Wanted::default()
        };
        let nodes = [
            ("HK 1", "Shadowsocks"),
            ("JP 1", "Trojan"),
            ("HK 2", "Vmess"),
            ("JP expired", "Vmess"),
        ];
        assert_eq!(wanted.choose(&nodes), want);
    }

    #[test]
    fn filters_choose_order_and_leave_out() {
        check("", "", "", &[0, 1, 2, 3]);
        check("JP`HK", "", "", &[1, 3, 0, 2]);
        check("JP`1", "", "", &[1, 3, 0]);
        check("", "expired`2", "", &[0, 1]);
        check("", "", "vmess|shadowsocks", &[1]);
        check("HK", "1", "vmess", &[]);
    }
}
