//! Which key was probably meant by one that nobody knows.

/// The key that was probably meant: the only one, or the first, within two changes.
pub fn nearest(typed: &str, known: &[&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|&key| (distance(typed, key), key))
        .filter(|&(changes, key)| changes <= 2 && changes * 3 <= key.len())
        .min_by_key(|&(changes, _)| changes)
        .map(|(_, key)| key)
}

/// Changes of one byte, or swaps of neighbours, that lead from one text to the other (optimal
/// string alignment); more than two is as good as infinite.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let mut best = (cell(&above, j) + usize::from(x != y))
                .min(cell(&above, j + 1) + 1)
                .min(cell(&row, j) + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(&y) && b.get(j - 1) == Some(&x) {
                best = best.min(cell(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = above;
        above = row;
    }
    above.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_find_what_was_meant_and_strangers_nothing() {
        let known = ["mixed-port", "mode", "dns", "socks-port"];
        for (typed, meant) in [
            ("mixed_port", Some("mixed-port")),
            ("mxied-port", Some("mixed-port")),
            ("sock-port", Some("socks-port")),
            ("mod", Some("mode")),
            ("dsn", Some("dns")),
            ("d", None),
            ("tun", None),
            ("", None),
            ("completely-different", None),
        ] {
            assert_eq!(nearest(typed, &known), meant, "{typed}");
        }
    }
}
