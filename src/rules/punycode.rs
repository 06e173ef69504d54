//! Punycode, RFC 3492: the ASCII form of a label with other letters. Encoding only, since the
//! rules compare names as they stand on the wire.

/// Section 5, the parameters of names.
const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;
const SKEW: u32 = 38;
const DAMP: u32 = 700;
const INITIAL_BIAS: u32 = 72;
const INITIAL_N: u32 = 128;

/// A label is at most 63 bytes on the wire (RFC 1035 section 2.3.4), `xn--` among them; each
/// letter takes at least one.
const LETTERS_MAX: usize = 59;

/// The code of one label, without `xn--`. `None`: too long to be one.
pub(super) fn encode(label: &str) -> Option<String> {
    let letters: Vec<u32> = label.chars().map(u32::from).collect();
    if letters.len() > LETTERS_MAX {
        return None;
    }
    let mut code: String = label.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(code.len()).ok()?;
    if basic > 0 {
        code.push('-');
    }
    let (mut n, mut delta, mut bias, mut handled) = (INITIAL_N, 0u32, INITIAL_BIAS, basic);
    // Section 6.3; with at most 59 letters no sum here can pass 2^32 (section 6.4).
    while let Some(&next) = letters.iter().filter(|letter| **letter >= n).min() {
        delta += (next - n) * (handled + 1);
        n = next;
        for &letter in &letters {
            if letter < n {
                delta += 1;
            }
            if letter == n {
                push_integer(&mut code, delta, bias);
                bias = adapted(delta, handled + 1, handled == basic);
                delta = 0;
                handled += 1;
            }
        }
        delta += 1;
        n += 1;
    }
    (code.len() <= LETTERS_MAX).then_some(code)
}

/// Section 3.3: generalised variable-length integers.
fn push_integer(code: &mut String, value: u32, bias: u32) {
    let mut rest = value;
    let mut k = BASE;
    loop {
        let threshold = k.saturating_sub(bias).clamp(T_MIN, T_MAX);
        if rest < threshold {
            break;
        }
        code.push(digit(threshold + (rest - threshold) % (BASE - threshold)));
        rest = (rest - threshold) / (BASE - threshold);
        k += BASE;
    }
    code.push(digit(rest));
}

/// Section 5: `a` to `z`, then `0` to `9`.
fn digit(value: u32) -> char {
    const DIGITS: &[u8; BASE as usize] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    // Every value here is below the base: a remainder of it, or less than a threshold.
    let digit = usize::try_from(value).ok().and_then(|i| DIGITS.get(i));
    char::from(*digit.unwrap_or(&b'9'))
}

/// Section 6.1.
fn adapted(delta: u32, letters: u32, first: bool) -> u32 {
    let mut delta = delta / if first { DAMP } else { 2 };
    delta += delta / letters;
    let mut k = 0;
    while delta > (BASE - T_MIN) * T_MAX / 2 {
        delta /= BASE - T_MIN;
        k += BASE;
    }
    k + (BASE - T_MIN + 1) * delta / (delta + SKEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_rfc_3492_section_7_1() {
        for (label, code) in [
            ("bücher", "bcher-kva"),
            ("münchen", "mnchen-3ya"),
            ("他们为什么不说中文", "ihqwcrb4cv8a8dqg056pqjye"),
            (
                "почемужеонинеговорятпорусски",
                "b1abfaaepdrnnbgefbadotcwatmq2g4l",
            ),
            ("3年b組金八先生", "3b-ww4c5e180e575a65lsy2b"),
        ] {
            assert_eq!(encode(label).as_deref(), Some(code));
        }
    }

    #[test]
    fn what_does_not_fit_a_label_is_refused() {
        assert_eq!(encode(&"é".repeat(60)), None);
        assert_eq!(encode(&"\u{10ffff}\u{80}".repeat(29)), None);
    }
}
