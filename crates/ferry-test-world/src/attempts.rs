//! What a machine's offline commands have tried to reach.

use crate::Machine;

impl Machine {
    /// How often its offline commands have tried to reach anything over a network, as the kernel
    /// counts it for them: connections begun, packets sent (over the loopback, too), and addresses
    /// to which no way was known. Only that it grows means something.
    pub fn network_attempts(&self) -> u64 {
        let text = self.command("cat").args(["/proc/net/snmp", "/proc/net/snmp6"]).ok();
        // Version 4: a line of names, then one of numbers.
        let mut found: Vec<Option<u64>> = Vec::new();
        for (of, name) in [("Ip:", "OutRequests"), ("Ip:", "OutNoRoutes"), ("Tcp:", "ActiveOpens")]
        {
            let mut lines = text.lines().filter(|line| line.starts_with(of));
            let (names, numbers) = (lines.next(), lines.next());
            let place = names.and_then(|line| line.split_whitespace().position(|one| one == name));
            let number = numbers.zip(place).and_then(|(line, at)| line.split_whitespace().nth(at));
            found.push(number.and_then(|number| number.parse().ok()));
        }
        // Version 6: a name and a number a line.
        for name in ["Ip6OutRequests", "Ip6OutNoRoutes"] {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            found.push(line.map_or(Some(0), |number| number.trim().parse().ok()));
        }
        found
            .into_iter()
            .map(|number| number.unwrap_or_else(|| panic!("the kernel counts otherwise:\n{text}")))
            .sum()
    }
}
