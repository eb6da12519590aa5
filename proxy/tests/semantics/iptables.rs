//! Where the rules of the mode iptables lead, read from what `iptables -S` would print.

/// The lines `-A CHAIN …` of all tables, each with the table's header.
pub(crate) struct Rules(Vec<(String, String)>);

impl Rules {
    pub(crate) fn of(text: &str) -> Rules {
        let (mut header, mut rules) = (String::new(), Vec::new());
        for line in text.lines() {
            match line.strip_prefix("# ") {
                Some(table) => header = table.trim_end_matches(" -S").to_owned(),
                None if line.starts_with("-A ") => rules.push((header.clone(), line.to_owned())),
                None => {}
            }
        }
        Rules(rules)
    }

    /// The rules of a chain.
    fn chain<'a>(&'a self, table: &'a str, chain: &'a str) -> impl Iterator<Item = &'a str> {
        let start = format!("-A {chain} ");
        let of_chain = move |(of, line): &&(String, String)| of == table && line.starts_with(&start);
        self.0.iter().filter(of_chain).map(|(_, line)| line.as_str())
    }

    /// Where clients are led from `10.96.0.1 . tcp . 80`, or from a NodePort `tcp . 30080`: endpoints in
    /// order, or what else becomes of them. From outside of the cluster, or from this node.
    pub(crate) fn at(&self, key: &str, is_outside: bool) -> Vec<String> {
        let fields: Vec<&str> = key.split(" . ").collect();
        let (address, protocol, port) = match fields[..] {
            [protocol, port] => (None, protocol, port),
            [address, protocol, port] => (Some(address), protocol, port),
            _ => panic!("{key}"),
        };
        let is_v6 = address.is_some_and(|address| address.contains(':'));
        let (command, length) = if is_v6 { ("ip6tables", 128) } else { ("iptables", 32) };
        let destination = address.map_or_else(String::new, |address| format!(" -d {address}/{length} "));
        let is_for = |line: &&str| {
            line.contains(&destination)
                && line.contains(&format!("-p {protocol} "))
                && line.contains(&format!("--dport {port} -j "))
        };
        let nat = format!("{command} -t nat");
        let portal = if address.is_some() { "KUBE-SERVICES" } else { "KUBE-NODEPORTS" };
        let led =
            self.chain(&nat, portal).find(is_for).map(|rule| self.follow(&nat, target(rule), is_outside));
        if let Some(led) = led.filter(|led| !led.is_empty()) {
            return led;
        }
        let filter = format!("{command} -t filter");
        let refused = ["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES"];
        let refused = refused.into_iter().find_map(|chain| self.chain(&filter, chain).find(is_for));
        refused
            .map(|rule| if target(rule) == "DROP" { "drop" } else { "no-endpoints" }.to_owned())
            .into_iter()
            .collect()
    }

    /// The endpoints that a chain leads to, in order.
    fn follow(&self, nat: &str, chain: &str, is_outside: bool) -> Vec<String> {
        let mut rules = self.chain(nat, chain);
        if chain.starts_with("KUBE-FW-") {
            let allowed = rules.find(|rule| rule.contains(" -j KUBE-EXT-"));
            return allowed.map(|rule| self.follow(nat, target(rule), is_outside)).unwrap_or_default();
        }
        if chain.starts_with("KUBE-EXT-") {
            let last = format!("-A {chain} -j ");
            let rules: Vec<&str> = rules.collect();
            let of_node = rules.iter().find(|rule| !is_outside && rule.contains("\"route LOCAL traffic for"));
            let led = of_node.or_else(|| rules.iter().find(|rule| rule.starts_with(&last)));
            return led.map(|rule| self.follow(nat, target(rule), is_outside)).unwrap_or_default();
        }
        let endpoints = rules.map(target).filter(|chain| chain.starts_with("KUBE-SEP-"));
        let mut led: Vec<String> =
            endpoints.flat_map(|chain| self.chain(nat, chain).filter_map(endpoint)).collect();
        led.sort();
        led.dedup();
        led
    }
}

/// Where a rule leads.
fn target(rule: &str) -> &str {
    rule.split(" -j ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default()
}

/// `10.244.1.2 . 8080`
fn endpoint(rule: &str) -> Option<String> {
    let (address, port) = rule.split_once("--to-destination ")?.1.rsplit_once(':')?;
    Some(format!("{} . {port}", address.trim_start_matches('[').trim_end_matches(']')))
}
